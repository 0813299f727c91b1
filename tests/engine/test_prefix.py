"""Continuing from a prefix's keys and values is exact, wherever packs are cut."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetmenot.engine.guard import why_no_prefix
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Arrangement, arrange, shared_prefix
from forgetmenot.prompting.encoded import TokenSequence

Build = Callable[[Any], Any]
HEAD, WINDOW = 20, 5
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


def behind_a_head(count: int, seed: int = 0) -> list[TokenSequence]:
    """Sequences with a common head, which predict after it."""
    rng = np.random.default_rng(seed)
    head = tuple(rng.integers(3, 97, HEAD).tolist())
    made = []
    for _ in range(count):
        tail = tuple(rng.integers(3, 6, rng.integers(2, 9)).tolist())
        made.append(TokenSequence(head + tail, int(rng.integers(HEAD + 1, HEAD + len(tail) + 1))))
    return made


def plain(model: Any, sequence: TokenSequence) -> float:
    """The oracle: the whole sequence through the model."""
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([sequence.tokens])).logits[0].double().log_softmax(-1)
    predicted = range(sequence.start, len(sequence.tokens))
    return sum(float(log_probs[p - 1, sequence.tokens[p]]) for p in predicted)


def assert_exact(learner: Learner, sequences: list[TokenSequence]) -> None:
    truth = [plain(learner.model, sequence) for sequence in sequences]
    assert learner.log_likelihoods(sequences).tolist() == pytest.approx(truth, rel=1e-5, abs=1e-5)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_whatever_is_shared_and_wherever_it_is_cut(data: st.DataObject, small_models: list[Any]) -> None:
    head = tuple(data.draw(st.lists(st.integers(3, 6), min_size=1, max_size=16)))
    tails = st.lists(st.integers(3, 5), min_size=1, max_size=6)
    sequences = []
    for tail in data.draw(st.lists(tails, min_size=1, max_size=8)):
        tokens = head + tuple(tail)
        sequences.append(TokenSequence(tokens, data.draw(st.integers(1, len(tokens)))))
    budget = data.draw(st.integers(1, 40))
    model = data.draw(st.sampled_from(small_models))
    learner = Learner(model, tokenizer=None, budget=budget)
    assert_exact(learner, sequences)
    learner.continues = False
    assert_exact(learner, sequences)


@pytest.fixture(scope="module")
def small_models(build: Build) -> list[Any]:
    """Full attention, a sliding window in all layers, and one in some."""
    kinds = (transformers.LlamaConfig, transformers.MistralConfig, transformers.Gemma3TextConfig)
    window = {"sliding_window": WINDOW}
    return [build(kind(**SIZES, **(window if k else {}))) for k, kind in enumerate(kinds)]


def test_a_prefix_may_be_asked_again(learner: Learner) -> None:
    learner.budget = 24
    arranged = learner.arrange(behind_a_head(12))
    assert len(arranged.prefix) == HEAD
    values = learner.log_likelihoods(arranged)
    assert torch.equal(learner.log_likelihoods(arranged), values)


def test_a_prefix_is_computed_once(learner: Learner) -> None:
    sequences = behind_a_head(40)
    learner.budget = 24
    learner.log_likelihoods(sequences)
    once = len({s.tokens[:n] for s in sequences for n in range(1, len(s.tokens))})
    packs = len(learner.arrange(sequences).packs)
    assert packs > 2
    assert HEAD < learner.counts["computed"] < once + 8 * packs, "what is shared beyond it is paid again"
    assert learner.counts["without_sharing"] == sum(len(s.tokens) - 1 for s in sequences)
    learner.reset_counts()
    learner.continues = False
    learner.log_likelihoods(sequences)
    assert learner.counts["computed"] > once + HEAD


@settings(derandomize=True, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=5), st.data())
def test_a_prefix_is_what_all_share_and_none_predicts(rows: list[list[int]], data: st.DataObject) -> None:
    sequences = [TokenSequence(tuple(row), data.draw(st.integers(1, len(row)))) for row in rows]
    length = shared_prefix(sequences)
    fits = [
        n
        for n in range(max(map(len, rows)) + 1)
        if all(s.tokens[:n] == sequences[0].tokens[:n] and len(s.tokens) >= n < s.start for s in sequences)
    ]
    assert length == max(fits)


@pytest.mark.parametrize(
    ("layout", "continues", "head", "count"),
    [
        ("padded", True, HEAD, 30),  # not on a trie
        ("blocks", True, HEAD, 30),
        ("trie", False, HEAD, 30),  # the guard's verdict
        ("trie", True, 1, 30),  # too short to matter
        ("trie", True, HEAD, 2),  # one pack shares it anyway
    ],
)
def test_where_no_prefix_is_kept(layout: Any, continues: bool, head: int, count: int) -> None:
    sequences = [TokenSequence(s.tokens[HEAD - head :], head + 1) for s in behind_a_head(count)]
    arranged = arrange(sequences, layout, 48, continues=continues)
    assert arranged.prefix == ()
    assert {packed.prefix for _, packed in arranged.packs} == {0}


def test_a_model_that_forgets_its_prefix_does_not_continue(
    learner: Learner, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why_no_prefix(learner, sequences) is None
    forward = learner.model.forward
    monkeypatch.setattr(
        learner.model, "forward", lambda **given: forward(**{**given, "past_key_values": None})
    )
    assert str(why_no_prefix(learner, sequences)).startswith(("RuntimeError: ", "log-likelihoods differ"))
    assert learner.counts == {"computed": 0, "without_sharing": 0}
    assert why_no_prefix(learner, [TokenSequence((5, 6), 1)]) is not None


def test_nothing_is_arranged_into_nothing() -> None:
    assert arrange([], "trie", 48, continues=True) == Arrangement((), (), 0, 0)
