"""On-policy replay: past prompts, the model's answers to them, and the reward by which they are taken."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import _score_lcs

from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.on_policy_replay import OnPolicyReplay, overlap
from forgetmenot.prompting import Encoded, TokenSequence
from tests.written import END, Writes, target

ROWS = [target([30 + k], [40, 41, 42, END]) for k in range(4)]
ANSWERS = [[40, 43, END], [40, 41, 42, END], [43, 44, END], [40, 41, 42, 45]]


class Sure(Writes):
    """As sure of an answer as the number of its first token."""

    def log_likelihoods(self, sequences: Any, advance: Any = None) -> torch.Tensor:
        return torch.tensor([s.tokens[s.start] * float(len(s.tokens) - s.start) for s in sequences])


def mixed(learner: Writes, **options: Any) -> tuple[OnPolicyReplay, Sequence[Encoded]]:
    method = make_method("on-policy-replay", {"memory": 1.0, **options}, seed=0)
    assert isinstance(method, OnPolicyReplay)
    method.end(learner, Stage(1, ("one",), data={"one": ROWS}))
    new = [target([60 + k], [70, END]) for k in range(4)]
    mix = method.examples(learner, Stage(2, ("two",), data={"two": new}))
    assert list(mix[:4]) == new
    return method, mix[4:]


def test_the_best_answers_are_replayed() -> None:
    learner = Sure(*ANSWERS)
    method, past = mixed(learner, share=1 / 3)
    asked = [prompt for prompt, _ in learner.asked]
    assert asked == [one.prompt for one in method.memory["one"]]
    assert [one.answer.tokens for one in past] == [(*asked[1], *ANSWERS[1]), (*asked[0], *ANSWERS[0])]
    decoding = learner.asked[0][1]
    assert (decoding.temperature, decoding.max_new_tokens, decoding.top_k) == (0.1, 4, 0)
    assert method.notes == ["one: 1 answers have no end and are left out."]


def test_by_confidence_the_right_answer_is_not_looked_at() -> None:
    learner = Sure(*ANSWERS)
    _, past = mixed(learner, share=0.2, reward="confidence")
    assert [one.answer.tokens for one in past] == [(*learner.asked[2][0], *ANSWERS[2])]


def test_its_budget_is_the_codes() -> None:
    assert make_method("on-policy-replay", {}, 0).options.share == 0.01
    assert not mixed(Sure(*ANSWERS))[1]  # of four new examples none


WORDS = st.lists(st.integers(0, 4), min_size=1, max_size=8)


@given(WORDS, WORDS)
def test_the_reward_is_rouge_l(right: list[int], written: list[int]) -> None:
    ours = overlap(TokenSequence((9, *right), 1), TokenSequence((9, 9, *written), 2))
    assert ours == pytest.approx(_score_lcs(list(map(str, right)), list(map(str, written))).fmeasure)
