"""Whether greedy decoding would write what is scored, against the argmax of one sequence at a time."""

import pytest
import torch

import forgetmenot.engine.head as head_module
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Layout
from forgetmenot.prompting.encoded import TokenSequence
from tests.engine.conftest import VOCABULARY


def written(learner: Learner, sequence: TokenSequence, count: int) -> TokenSequence:
    """The sequence's given tokens and the `count` likeliest that follow."""
    tokens = sequence.tokens[: sequence.start]
    for _ in range(count):
        with torch.no_grad():
            tokens += (int(learner.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()),)
    return TokenSequence(tokens, sequence.start)


def is_greedy(learner: Learner, sequence: TokenSequence) -> bool:
    with torch.no_grad():
        likeliest = learner.model(input_ids=torch.tensor([sequence.tokens])).logits[0].argmax(-1).tolist()
    return bool(likeliest[sequence.start - 1 : -1] == list(sequence.tokens[sequence.start :]))


@pytest.mark.parametrize("rows_at_once", [5, 10_000])
@pytest.mark.parametrize("layout", ["trie", "padded", "single"])
def test_greedy_is_what_argmax_writes(
    learner: Learner,
    sequences: list[TokenSequence],
    layout: Layout,
    rows_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(head_module, "LOGITS_BYTES", 4 * VOCABULARY * rows_at_once)
    learner.layout = layout
    likely = [written(learner, sequence, count) for sequence in sequences[:6] for count in (1, 3)]
    wrong_at_the_end = [TokenSequence((*s.tokens, (s.tokens[-1] + 1) % VOCABULARY), s.start) for s in likely]
    asked = [*sequences, *likely, *wrong_at_the_end]
    values, greedy = learner.log_likelihoods_and_greedy(asked)
    assert values.tolist() == pytest.approx(learner.log_likelihoods(asked).tolist(), rel=1e-6)
    assert greedy.tolist() == [is_greedy(learner, sequence) for sequence in asked]
    assert greedy[len(sequences) : len(sequences) + len(likely)].all()
    assert not greedy.all()
