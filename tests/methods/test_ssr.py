"""SSR: what the base model writes, which of it is kept, and who answers it."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from forgetmenot.engine.decoding import Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.ssr import SSR, nearest_to_centres
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from tests.written import END, Letters, Writes, choice, target

ROWS = [choice([30 + k], k % 2) for k in range(10)]


class Knows(Writes):
    """Writes what it is told to; takes the label that it is told to for the likeliest."""

    def __init__(self, *written: Sequence[int], gold: int = 1) -> None:
        super().__init__(*written)
        self.gold = gold

    def snapshot(self) -> dict[str, torch.Tensor]:
        return {}

    def score(self, examples: Sequence[Encoded], advance: Any = None) -> list[np.ndarray]:
        return [np.eye(len(one.candidates))[self.gold] for one in examples]

    def hidden(self, prompts: Sequence[tuple[int, ...]], layer: int = -1) -> torch.Tensor:
        return torch.tensor([[float(prompt[2]), 1.0] for prompt in prompts])


def after_one(learner: Learner, rows: Sequence[Encoded] = ROWS, **options: Any) -> SSR:
    """The method after a stage, its state taken through JSON as between stages."""
    method = make_method("ssr", options, seed=0)
    stage = Stage(1, ("one",), data={"one": rows})
    assert isinstance(method, SSR)
    assert list(method.examples(learner, stage)) == list(rows)
    method.begin(learner, stage)
    method.end(learner, stage)
    again = make_method("ssr", options, seed=0)
    again.load_state_dict(json.loads(json.dumps(method.state_dict())))
    assert isinstance(again, SSR)
    again.notes = method.notes
    return again


def test_two_solved_examples_are_shown_and_what_is_new_is_kept() -> None:
    learner = Knows([40, 8, 9], [41, 8, 9], [40, 8, 9], [42])
    method = after_one(learner, memory=2, candidates=2)
    assert [one.prompt for one in method.memory["one"]] == [(5, 6, 40, 8, 9), (5, 6, 41, 8, 9)]
    assert "4 examples written, 1 without the end of a prompt, 1 repeat another" in method.notes[0]
    between = tuple(Letters().encode("\n\n"))
    solved = {one.answer.tokens[:-1]: one for one in ROWS}  # without what ends an answer
    for prompt, decoding in learner.asked:
        assert prompt[-2:] == (5, 6)
        first, second = _split(prompt[:-2], between)
        assert first in solved
        assert second in solved
        assert first != second
        assert (decoding.temperature, decoding.top_p) == (0.9, 0.6)


def test_a_request_has_room_in_the_model() -> None:
    """Fewer solved examples are shown where all do not fit, and it is said."""
    learner = Knows([40, 8, 9], [41, 8, 9])
    learner.max_positions = 24  # type: ignore[assignment]
    method = after_one(learner, memory=1, candidates=2, shots=6)
    assert all(len(prompt) < 24 for prompt, _ in learner.asked)
    assert "2 of 2 requests show fewer than 6 examples, since the model has 24 positions" in method.notes[0]


def _split(tokens: tuple[int, ...], between: tuple[int, ...]) -> list[tuple[int, ...]]:
    parts, begun = [], 0
    for at in range(len(tokens) - len(between) + 1):
        if tokens[at : at + len(between)] == between:
            parts.append(tokens[begun:at])
            begun = at + len(between)
    return parts


def test_the_newest_model_answers_before_each_stage() -> None:
    learner = Knows([40, 8, 9], [41, 8, 9], gold=1)
    method = after_one(learner, memory=2, candidates=1)
    new = [choice([k], 0) for k in range(60, 64)]
    for gold in (1, 0):
        learner.gold = gold
        mix = method.examples(learner, Stage(2, ("new",), data={"new": new}))
        assert [(one.gold, one.answer.tokens[5:]) for one in mix[4:]] == [
            (gold, (*((20,), (21, 22))[gold], END))
        ] * 2
    assert len(mix) == 6  # all that is kept


def test_free_text_is_written_again_greedily() -> None:
    rows = [target([30 + k], [40, END]) for k in range(5)]
    learner = Knows([60, 8], [61, 8], [44, 45, END], [46, 47])
    method = after_one(learner, rows, memory=2, candidates=1)
    assert method.forms["one"].reply == 2
    method.forms["one"] = method.forms["one"].__class__(**{**method.forms["one"].plain(), "reply": 3})
    mix = method.examples(learner, Stage(2, ("new",), data={"new": [choice([k], 0) for k in range(60, 64)]}))
    assert learner.asked[-1][1] == Decoding(3)
    assert [one.answer.tokens for one in mix[4:]] == [(60, 8, 44, 45, END)]  # the other has never ended


def test_a_share_replays_a_part_of_it() -> None:
    learner = Knows(*[[40 + k, 8, 9] for k in range(8)])
    method = after_one(learner, memory=8, candidates=1, share=0.25)
    mix = method.examples(learner, Stage(2, ("new",), data={"new": [choice([k], 0) for k in range(60, 66)]}))
    assert len(mix) == 8
    assert method.random(Stage(2, ("new",)), "draw").permutation(8)[0] + 40 == mix[6].prompt[2]


@pytest.mark.parametrize("options", [{"memory": 0}, {"share": 0.0}])
def test_without_memory_nothing_is_written(options: dict[str, Any]) -> None:
    learner = Knows()
    method = after_one(learner, **options)
    assert (method.memory, learner.asked) == ({}, [])


def test_it_is_written_by_the_base_model(
    learner: Learner, stage: Stage, shaken: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights with which the first stage began, also in later ones; the learner's stay as they are."""
    method = make_method("ssr", {"memory": 2}, seed=0)
    base = learner.snapshot()
    seen = []

    def note(self: Learner, prompts: Any, decoding: Any, **_: Any) -> list[Any]:
        seen.append(self.snapshot())
        return Writes(*[[3]] * len(prompts)).write(prompts, decoding)

    monkeypatch.setattr(Learner, "write", note)
    for _ in range(2):
        method.begin(learner, stage)
        shaken()
        tuned = learner.snapshot()
        method.end(learner, stage)
        assert all(torch.equal(value, tuned[name]) for name, value in learner.snapshot().items())
    assert len(seen) == 2
    assert all(torch.equal(value, base[name]) for one in seen for name, value in one.items())


def test_merged_adapters_leave_no_base() -> None:
    with pytest.raises(UserError, match="per_stage: merge"):
        make_method("ssr", {}, 0).check(AdapterSettings(per_stage="merge"))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 5), st.data())
def test_those_nearest_to_the_centres_are_chosen(count: int, clusters: int, seed: int, data: Any) -> None:
    """Exactly so many, and in every cluster none that is farther than one that is left out."""
    wanted = data.draw(st.integers(1, count))
    features = torch.tensor(np.random.default_rng(seed).normal(size=(count, 3)))
    chosen = nearest_to_centres(features, wanted, clusters, seed)
    assert len(chosen) == len(set(chosen)) == wanted
    assert chosen == sorted(chosen)
    assert chosen == nearest_to_centres(features * 8, wanted, clusters, seed)


def test_far_groups_are_clusters_in_proportion() -> None:
    """Thirty rows about three directions, 15, 9 and 6 of them: of ten, 5, 3 and 2, the most central."""
    random = np.random.default_rng(3)
    sizes = (15, 9, 6)
    rows = np.concatenate([np.eye(3)[k] + 0.05 * random.normal(size=(n, 3)) for k, n in enumerate(sizes)])
    chosen = nearest_to_centres(torch.tensor(rows), 10, 3, seed=0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    bounds = np.cumsum([0, *sizes])
    for k, (low, high) in enumerate(pairwise(bounds)):
        far = cdist(unit[low:high], unit[low:high].mean(0, keepdims=True))[:, 0]
        nearest = set((np.argsort(far)[: sizes[k] // 3] + low).tolist())
        assert {one for one in chosen if low <= one < high} == nearest
