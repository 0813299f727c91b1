"""Generated answers: batches against one prompt at a time, and against arg-max without a cache."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from forgetmenot.engine import Learner
from forgetmenot.engine.generate import BATCH

V = 97
NEW = 10


def words(eos: int, pad: int | None) -> Any:
    """A tokenizer whose token k is the word "k"."""
    model = WordLevel({str(k): k for k in range(V)}, unk_token="0")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=str(eos), pad_token=None if pad is None else str(pad)
    )


def greedy(model: Any, prompt: tuple[int, ...], eos: int) -> list[int]:
    """The likeliest next token, each time from the whole sequence anew."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + NEW:
        with torch.no_grad():
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == eos:
            tokens.pop()
            break
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    """More than a batch, of one to fourteen tokens, unsorted, one of them twice."""
    generator = torch.Generator().manual_seed(0)
    lengths = [1 + (5 * k) % 14 for k in range(BATCH + 5)]
    drawn = [tuple(torch.randint(3, V, (n,), generator=generator).tolist()) for n in lengths]
    return [*drawn, drawn[2]]


def as_text(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


@pytest.mark.parametrize("pad", [None, 2], ids=["padded with EOS", "padded with its own token"])
def test_batches_equal_the_argmax_of_each_prompt_alone(
    pad: int | None, llama: Any, prompts: list[tuple[int, ...]]
) -> None:
    unbounded = [greedy(llama, prompt, eos=-1) for prompt in prompts]
    eos = unbounded[0][4]  # a token that this model does write, so that some answers end early
    wanted = [greedy(llama, prompt, eos) for prompt in prompts]
    lengths = {len(answer) for answer in wanted}
    assert min(lengths) < NEW
    assert max(lengths) == NEW

    wanted = [
        [token for token in answer if token != pad] for answer in wanted
    ]  # no text, where it is written
    learner = Learner(llama, words(eos, pad), budget=512)
    done: list[int] = []
    assert learner.generate(prompts, NEW, done.append) == [as_text(answer) for answer in wanted]
    assert done == [BATCH, 6]
    assert [learner.generate([prompt], NEW)[0] for prompt in prompts] == [as_text(a) for a in wanted]


def test_the_models_own_taste_is_not_asked(llama: Any, prompts: list[tuple[int, ...]]) -> None:
    """Many checkpoints bring a generation config that samples and penalises repetition."""
    wanted = [as_text(greedy(llama, prompt, eos=1)) for prompt in prompts]
    llama.generation_config.update(do_sample=True, temperature=3.0, top_k=50, repetition_penalty=5.0)
    llama.generation_config.update(no_repeat_ngram_size=1, num_beams=2, max_length=3, eos_token_id=5)
    assert Learner(llama, words(1, None), budget=512).generate(prompts, NEW) == wanted


def test_generating_restores_the_mode(llama: Any) -> None:
    learner = Learner(llama, words(1, None), budget=512)
    llama.train()
    assert len(learner.generate([(5, 6)], 2)) == 1
    assert llama.training


def test_no_prompt_has_no_answer(llama: Any) -> None:
    assert Learner(llama, words(1, None), budget=512).generate([], 2) == []
