"""Generated answers: greedy or drawn, in batches of like length."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from forgetmenot.engine import ranks, shards

BATCH = 16


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """The text that the model writes after each prompt, greedily, up to EOS or `max_new_tokens`.

    It ends as well where the model has no further position. Prompts are batched by length and padded on the
    left; padding is masked and has no position. The batches are dealt to the processes; of a sharded model
    every process writes all of them, since its processes must make the same number of forward passes.
    """
    answers: dict[int, str] = {}
    batches = list(_batches(model, prompts, max_new_tokens))
    for number, dealt in _own([batch for batch, _ in batches], everything=shards.is_sharded(model)):
        batch, room = batches[number]
        written = _write(model, tokenizer, [prompts[k] for k in batch], room)
        for row, k in enumerate(batch):
            answers[k] = tokenizer.decode(written[row], skip_special_tokens=True)
        if advance is not None:
            advance(sum(len(batches[k][0]) for k in dealt))
    answers = ranks.gathered(answers)
    return [answers[k] for k in range(len(prompts))]


def _own(batches: Sequence[Sequence[int]], *, everything: bool) -> Iterator[tuple[int, Sequence[int]]]:
    """The batches that this process writes, each with those that all processes write meanwhile."""
    if everything:
        return ((k, (k,)) for k in range(len(batches)))
    return ((turn.pack, turn.dealt) for turn in ranks.turns([len(batch) for batch in batches]))


def sample(
    model: Any, tokenizer: Any, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, seeds: Sequence[int]
) -> list[tuple[int, ...]]:
    """An answer to each prompt, drawn token by token from the model's own distribution.

    Args:
        model: A Transformers causal LM.
        tokenizer: Its tokenizer: EOS ends an answer and is part of it.
        prompts: Token ids, none empty.
        max_new_tokens: Where an answer that has not ended is cut.
        seeds: One for each prompt: its draw does not depend on what else is in the batch, or on which process
            draws it.
    """
    answers: list[tuple[int, ...]] = [()] * len(prompts)
    for batch, room in _batches(model, prompts, max_new_tokens):
        noise = GumbelNoise([seeds[k] for k in batch])
        for k, row in zip(
            batch, _write(model, tokenizer, [prompts[k] for k in batch], room, noise), strict=True
        ):
            tokens = row.tolist()
            end = (
                tokens.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in tokens else len(tokens)
            )
            answers[k] = tuple(tokens[:end])
    return answers


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Makes greedy search a draw: logits + Gumbel noise have their maximum at token k with p = softmax_k.

    Each row has a generator of its own, which `generate(do_sample=True)` cannot give it.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add −log E with E ~ Exp(1) to each logit [rows, vocabulary]."""
        drawn = [torch.empty(scores.shape[1]).exponential_(generator=g) for g in self.generators]
        return scores - torch.stack(drawn).log().to(scores.device)


def _write(
    model: Any, tokenizer: Any, prompts: Sequence[tuple[int, ...]], room: int, *processors: LogitsProcessor
) -> Tensor:
    """The tokens that follow each prompt [prompts, at most room], the likeliest after the processors."""
    device = next(model.parameters()).device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    width = max(map(len, prompts))
    tokens = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    written: Tensor = model.generate(
        input_ids=tokens.to(device),
        attention_mask=mask.to(device),
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,  # some checkpoints bring their own, which greedy search obeys too
        no_repeat_ngram_size=0,
        max_new_tokens=room,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        logits_processor=list(processors),
    )
    return written[:, width:]


def _batches(
    model: Any, prompts: Sequence[tuple[int, ...]], max_new_tokens: int
) -> Iterator[tuple[list[int], int]]:
    """Batches of prompts that have the same room, so that none ends sooner for its neighbours' sake."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or float("inf")
    room = [int(min(max_new_tokens, positions - len(prompt))) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda k: (len(prompts[k]), prompts[k]))
    for each, alike in groupby(order, key=room.__getitem__):
        group = list(alike)
        for begin in range(0, len(group), BATCH):
            yield group[begin : begin + BATCH], each
