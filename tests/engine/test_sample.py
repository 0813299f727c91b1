"""Answers of the model's own: drawn from its distribution, each from a seed of its own."""

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.next_token import GumbelNoise
from forgetmenot.prompting.encoded import Encoded, TokenSequence

EOS = 7


@pytest.fixture
def writing(llama: Any) -> Learner:
    """A learner whose EOS is a token that its model often writes."""
    words = Tokenizer(WordLevel({str(k): k for k in range(97)}, unk_token="0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=str(EOS))
    with torch.no_grad():
        llama.get_output_embeddings().weight.mul_(4)
    llama.generation_config.eos_token_id = EOS
    return Learner(llama, tokenizer, budget=512)


def example(prompt: tuple[int, ...], length: int) -> Encoded:
    answer = TokenSequence(prompt + (3,) * length, len(prompt))
    return Encoded(str(prompt), (), answer, prompt, None, 0)


def test_the_noise_draws_from_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.5])
    rows = 5000
    noisy = GumbelNoise(range(rows))(torch.empty(0), logits.expand(rows, 4))
    counts = torch.bincount(noisy.argmax(-1), minlength=4)
    assert chisquare(counts, rows * logits.double().softmax(-1)).pvalue > 0.01


def test_answers_have_the_models_own_frequencies(writing: Learner) -> None:
    """Two tokens, the second given the first: p(y) = p(y₁) p(y₂ | y₁)."""
    prompt, n = (5, 6, 9), 600
    drawn = writing.sample([example(prompt, 2)] * n, range(n))
    counts = Counter(answer.tokens for answer in drawn)
    likely = [answer for answer, count in counts.most_common(6) if count >= 10]
    p = writing.log_likelihoods([TokenSequence(tokens, 3) for tokens in likely]).exp().tolist()
    assert len(likely) >= 3
    for tokens, one in zip(likely, p, strict=True):
        assert abs(counts[tokens] / n - one) < 4 * (one * (1 - one) / n) ** 0.5


def test_an_answer_ends_with_eos_or_where_the_examples_own_does(writing: Learner) -> None:
    examples = [example((5, 6 + k % 3, 9), 1 + k % 8) for k in range(40)]
    drawn = writing.sample(examples, range(40))
    ended = 0
    for one, answer in zip(examples, drawn, strict=True):
        written = answer.tokens[answer.start :]
        assert answer.tokens[: answer.start] == one.prompt
        assert EOS not in written[:-1]
        assert len(written) == len(one.answer.tokens) - 3 or written[-1] == EOS
        ended += written[-1] == EOS
    assert 0 < ended < 40


def test_a_draw_follows_from_its_seed_alone(writing: Learner) -> None:
    """Not from its neighbours, their order, the global generator or the model's mode, which stays."""
    examples = [example(tuple(range(10, 12 + k)), 5) for k in range(20)]
    first = writing.sample(examples, range(20))
    state = torch.random.get_rng_state()
    writing.model.train()
    assert writing.sample(examples[::-1], range(19, -1, -1)) == first[::-1]
    assert writing.sample(examples[4:6], [4, 5]) == first[4:6]
    assert writing.sample(examples, range(100, 120)) != first
    assert writing.model.training
    assert torch.equal(torch.random.get_rng_state(), state)
