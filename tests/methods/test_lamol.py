"""LAMOL: both of its losses one sequence at a time, and the examples that it writes and reads again."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from scipy.special import log_softmax

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.lamol import LAMOL
from forgetmenot.prompting import Encoded, TokenSequence
from tests.written import END, Letters, Writes, choice

ROWS = [choice([30, 31], 0), choice([32, 33, 34], 1), choice([35], 1), choice([36], 0)]


def begun(learner: Learner, stage: Stage, **options: Any) -> LAMOL:
    method = make_method("lamol", options, seed=0)
    assert isinstance(method, LAMOL)
    method.examples(learner, stage)
    method.begin(learner, stage)
    return method


def after_one(learner: Learner, **options: Any) -> LAMOL:
    """The method after a stage on ROWS, its state taken through JSON as between stages."""
    method = begun(learner, Stage(1, ("one",), data={"one": ROWS}), **options)
    again = make_method("lamol", options, seed=0)
    again.load_state_dict(json.loads(json.dumps(method.state_dict())))
    assert isinstance(again, LAMOL)
    return again


@pytest.mark.parametrize("average", ["token", "example"])
def test_the_loss_is_that_of_answers_and_of_whole_examples(
    average: str, learner: Learner, stage: Stage, examples: list[Encoded], plain: Callable[..., Any]
) -> None:
    """Each a mean over its own tokens, when the engine has divided by the answers' tokens, or examples."""
    learner.loss_average = average  # type: ignore[assignment]
    method = begun(learner, stage, strength=0.25)
    loss = method.loss(learner, examples)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in learner.trainable().values())

    def nll(tokens: Sequence[int], start: int) -> list[float]:
        rows = log_softmax(plain(TokenSequence(tuple(tokens), start)), -1)
        return [-row[token] for row, token in zip(rows, tokens[start:], strict=True)]

    name = learner.tokenizer.encode("__size__ ", add_special_tokens=False)
    answers = [nll(one.answer.tokens, one.answer.start) for one in examples]
    whole = [nll((*name, *one.answer.tokens), len(name)) for one in examples]
    if average == "token":
        divided = loss.item() / sum(map(len, answers))
        expected = [sum(map(sum, each)) / sum(map(len, each)) for each in (answers, whole)]
    else:
        divided = loss.item() / len(examples)
        expected = [sum(sum(one) / len(one) for one in each) / len(each) for each in (answers, whole)]
    assert divided == pytest.approx(expected[0] + 0.25 * expected[1], rel=1e-4)


def test_of_no_strength_it_is_the_answers_likelihood(
    learner: Learner, stage: Stage, examples: list[Encoded]
) -> None:
    plain = make_method("sequential", {}, 0).loss(learner, examples)
    assert begun(learner, stage, strength=0).loss(learner, examples).item() == plain.item()


def test_what_is_written_is_rehearsed_behind_its_own_tasks_name() -> None:
    """Of six written examples three are whole: each is drawn anew, first its prompt and then its answer."""
    bodies = [[40, 8, 9], [41, 42, 8, 9], [43], [8, 9], [44, 8, 9], [45, 8, 9]]
    answers = [[20, END], [21, 22, END], [23, END], [20, END]]
    learner = Writes(*bodies, *answers)
    method = after_one(learner, share=0.75)
    new = [choice([50], 0, head=[3]), choice([51], 1, head=[3])]
    mix = method.examples(learner, Stage(2, ("two",), data={"two": new}))
    method.begin(learner, Stage(2, ("two",), data={"two": new}))
    assert list(mix[:2]) == new
    assert [(one.prompt, one.gold) for one in mix[2:]] == [
        ((5, 6, 40, 8, 9), 0),
        ((5, 6, 41, 42, 8, 9), 1),
        ((5, 6, 45, 8, 9), 0),
    ]
    assert "6 examples written, 2 without the end of a prompt, 1 without an answer; 3 are" in method.notes[0]
    name = Letters().encode("__one__ ")
    assert learner.asked[0][0] == (*name, 5, 6)
    assert learner.asked[6][0] == (*name, 5, 6, 40, 8, 9)
    assert (learner.asked[0][1].top_k, learner.asked[0][1].temperature) == (20, 1.0)
    whole = method._whole(mix[2])
    assert whole == TokenSequence((*name, 5, 6, 40, 8, 9, 20, END), len(name))
    assert method._whole(new[0]).tokens[: len(name)] == tuple(Letters().encode("__two__ "))


def test_each_task_has_an_even_part() -> None:
    task = [*[[40, 8, 9]] * 2, *[[20, END]] * 2]
    learner = Writes(*task, *task)
    method = after_one(learner)
    method.forms["other"] = method.forms["one"]
    new = [choice([k], 0) for k in range(50, 70)]
    mix = method.examples(learner, Stage(3, ("new",), data={"new": new}))
    assert len(mix) == 24  # a sixth of them
    assert [one.id.split(":")[0] for one in mix[20:]] == ["one", "one", "other", "other"]
    assert len({one.id for one in mix}) == 24


def test_where_none_is_asked_for_none_is_missed() -> None:
    method = after_one(Writes(), share=0)
    new = [choice([50], 0), choice([51], 0)]
    assert list(method.examples(Writes(), Stage(2, ("new",), data={"new": new}))) == new
    assert (method.rehearsed, method.notes) == ({}, [])


def test_two_draws_are_never_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def note(self: Any, prompts: Any, decoding: Any, *, seeds: Sequence[int], advance: Any) -> list[Any]:
        seen.extend(seeds)
        return write(self, prompts, decoding)

    write = Writes.write
    monkeypatch.setattr(Writes, "write", note)
    learner = Writes(*[[40, 8, 9], [41, 8, 9], [20, END], [20, END]] * 4)
    method = after_one(learner, share=0.5)
    for number in (2, 3):
        new = [choice([50], 0), choice([51], 0)]
        method.examples(learner, Stage(number, ("new",), data={"new": new}))
    assert len(seen) == 8 == len(set(seen))


def test_what_does_not_fit_behind_the_name_is_refused(learner: Learner, stage: Stage) -> None:
    longest = max(len(one.answer.tokens) for one in stage.data["size"])
    learner.model.config.max_position_embeddings = longest
    with pytest.raises(UserError, match="behind the task's name"):
        begun(learner, stage)


def test_a_model_that_learns_it_writes_the_task(learner: Learner, stage: Stage) -> None:
    """The tiny Llama, trained on both losses, writes examples of its task; without λ it writes none."""
    counts = {}
    start = learner.snapshot()
    for strength in (0.0, 1.0):
        with torch.no_grad():
            for name, value in learner.trainable().items():
                value.copy_(start[name])
        method = begun(learner, stage, strength=strength, share=0.5, top_k=3)
        optimizer = torch.optim.Adam(learner.trainable().values(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            (method.loss(learner, stage.data["size"]) / 12).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        counts[strength] = len(method.examples(learner, stage)) - len(stage.data["size"])
    assert counts[0.0] == 0
    assert counts[1.0] > 6
