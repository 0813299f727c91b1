"""Generated answers by vLLM, on a GPU: a model from disk, many prompts, the same answers' form."""

import gc
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.next_token import Endings
from forgetmenot.errors import UserError

MEMORY = 0.45
"""The part of the GPU's memory that vLLM may take, beside the model that learns."""


def check_vllm() -> Any:
    """The vllm module.

    Raises:
        UserError: If there is no GPU, or vLLM is not installed.
    """
    where = "evaluation.generation.backend: vllm"
    if not torch.cuda.is_available():
        raise UserError(f"{where} needs a GPU, and there is no GPU here; use transformers.")
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise UserError(
            f"{where} needs vLLM: pip install 'forgetmenot[vllm]', or use transformers."
        ) from error


def write_by_vllm(
    folder: Path,
    tokenizer: Any,
    ends: frozenset[int],
    prompts: Sequence[tuple[int, ...]],
    decoding: Decoding,
    *,
    dtype: torch.dtype,
    seeds: Sequence[int] | None = None,
    margins: bool = False,
) -> list[Answer]:
    """The answer to each prompt, by the model in a folder; vLLM frees its memory afterwards.

    Answers equal the other backend's unless two tokens are almost equally likely, and samples come from
    vLLM's own generator: what a seed draws is repeatable here and differs from there.

    Args:
        folder: A model as `save_pretrained` writes it, with its tokenizer.
        tokenizer: The same tokenizer, which reads what was written.
        ends: The tokens that end an answer; see `next_token.ends_of`.
        prompts: Token ids, none empty.
        decoding: How answers are written.
        dtype: What the model computes in.
        seeds: One for each prompt, for answers that are drawn.
        margins: Whether to note how far each token's likeliest logit lies above the second.

    Raises:
        UserError: If there is no GPU, or vLLM is not installed.
    """
    vllm = check_vllm()
    if not prompts:
        return []
    llm = vllm.LLM(
        model=str(folder),
        dtype=str(dtype).removeprefix("torch."),
        gpu_memory_utilization=MEMORY,
        enable_prefix_caching=True,
        max_model_len=_longest(folder, prompts, decoding),
    )
    endings = Endings(tokenizer, ends, decoding.stop)
    own = [None] * len(prompts) if seeds is None or decoding.temperature == 0 else list(seeds)
    settings = [
        vllm.SamplingParams(
            temperature=decoding.temperature,
            top_k=decoding.top_k or -1,
            top_p=decoding.top_p,
            max_tokens=decoding.max_new_tokens,
            stop=list(decoding.stop) or None,
            stop_token_ids=sorted(ends),
            skip_special_tokens=endings.skips,
            seed=seed,
            logprobs=2 if margins else None,
        )
        for seed in own
    ]
    try:
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        found = llm.generate(asked, settings, use_tqdm=False)
    finally:
        del llm
        gc.collect()
        torch.cuda.empty_cache()
    return [_answer(one.outputs[0], endings, margins=margins) for one in found]


def _longest(folder: Path, prompts: Sequence[tuple[int, ...]], decoding: Decoding) -> int:
    """The positions that the longest prompt and its answer take, within what the model has."""
    from transformers import AutoConfig

    wanted = max(map(len, prompts)) + decoding.max_new_tokens
    positions = getattr(AutoConfig.from_pretrained(folder).get_text_config(), "max_position_embeddings", None)
    return min(wanted, positions or wanted)


def _answer(output: Any, endings: Endings, *, margins: bool) -> Answer:
    tokens = tuple(int(token) for token in output.token_ids)
    if not margins:
        return Answer(endings.text(tokens), tokens)
    sure = []
    for step in output.logprobs:  # the two likeliest, and the token itself where it is neither
        first, second = sorted((one.logprob for one in step.values() if one.rank <= 2), reverse=True)[:2]
        sure.append(first - second)  # of log-probabilities as of logits: their difference is the same
    return Answer(endings.text(tokens), tokens, tuple(sure))
