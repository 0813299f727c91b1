"""Replay: the share of the final mix, drawn evenly, and what was forgotten most."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Arrangement
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.replay import Replay, loss_per_token
from forgetmenot.prompting import Encoded, TokenSequence

Adapted = Callable[..., Learner]


def examples(task: str, count: int) -> list[Encoded]:
    """Examples of one task, with answers of one to three tokens."""
    made = []
    for k in range(count):
        prompt = (len(task), k + 3)
        made.append(
            Encoded(f"{task}-{k}", (), TokenSequence((*prompt, *(9,) * (1 + k % 3)), 2), prompt, None, 0)
        )
    return made


def stage(number: int, **sizes: int) -> Stage:
    return Stage(number, tuple(sizes), data={task: examples(task, size) for task, size in sizes.items()})


def after(sizes: Mapping[str, int], **options: Any) -> Replay:
    """The method after a stage for each task, its state taken through JSON as between stages."""
    method = make_method("replay", options, seed=5)
    assert isinstance(method, Replay)
    for number, (task, size) in enumerate(sizes.items(), start=1):
        method.end(Known(), stage(number, **{task: size}))
        state = json.loads(json.dumps(method.state_dict()))
        method = make_method("replay", options, seed=5)
        assert isinstance(method, Replay)
        method.load_state_dict(state)
    return method


class Known(Learner):
    """Knows each answer token as well as it is told to, by the example's number."""

    def __init__(self, loss: Mapping[int, float] | None = None) -> None:
        super().__init__(torch.nn.Linear(1, 1), None, 512)
        self.loss = loss or {}

    def log_likelihoods(
        self, sequences: Sequence[TokenSequence] | Arrangement, advance: Any = None
    ) -> Tensor:
        assert not isinstance(sequences, Arrangement)
        values = [-self.loss.get(s.tokens[1] - 3, 1.0) * (len(s.tokens) - s.start) for s in sequences]
        return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_a_share_in_tokens_is_of_the_mixs_answer_tokens(share: float) -> None:
    """To within half an answer for each past task; the past has answers of 1 to 3 tokens, the new of 40."""
    method = after({"one": 900, "other": 900}, share=share, share_in="tokens", memory=1.0)
    long = [replace(e, answer=TokenSequence((1, 2, *(9,) * 40), 2)) for e in examples("new", 30)]
    mix = method.examples(Known(), Stage(3, ("new",), data={"new": long}))
    past = mix[30:]
    tokens = sum(len(e.answer.tokens) - e.answer.start for e in past)
    assert tokens == pytest.approx(1200 * share / (1 - share), abs=3)
    by_task = Counter(e.id.split("-")[0] for e in past)
    assert by_task["one"] == pytest.approx(by_task["other"], rel=0.3)
    assert not method.notes
    few = after({"one": 6}, share=share, share_in="tokens", memory=1.0)
    assert len(few.examples(Known(), Stage(2, ("new",), data={"new": long}))) == 36
    assert "answer tokens of past examples and the memory holds 12" in few.notes[0]
    with pytest.raises(UserError, match="share_in means nothing with share: all"):
        make_method("replay", {"share": "all", "share_in": "tokens"}, 0)


@pytest.mark.parametrize(("share", "past"), [(0.05, 5), (0.5, 95), (0.01, 1), (0.001, 0)])
def test_the_share_is_of_the_mix_as_trained_on(share: float, past: int) -> None:
    method = after({"one": 100, "other": 100}, share=share, memory=1.0)
    mix = method.examples(Known(), stage(3, new=95))
    assert [e.id for e in mix[:95]] == [f"new-{k}" for k in range(95)]
    assert len(mix) == 95 + past
    assert len({e.id for e in mix}) == len(mix)
    assert bool(method.notes) == (past == 0)


def test_past_tasks_have_equal_parts_and_the_examples_are_theirs() -> None:
    sizes = {"one": 100, "three": 30, "seventh": 20}
    method = after(sizes, share=0.25, memory=1.0)
    past = method.examples(Known(), stage(4, new=90))[90:]
    assert Counter(e.id.split("-")[0] for e in past) == {"one": 10, "three": 10, "seventh": 10}
    known = {e.id: e for task, size in sizes.items() for e in examples(task, size)}
    assert all(known[e.id] == e for e in past)


def test_draws_differ_between_stages_and_repeat_with_the_seed() -> None:
    def drawn(number: int) -> list[str]:
        method = after({"one": 100}, share=0.1, memory=1.0)
        return [e.id for e in method.examples(Known(), stage(number, new=90))[90:]]

    assert drawn(2) == drawn(2) != drawn(3)


@pytest.mark.parametrize(
    ("memory", "kept"), [(7, 7), (0, 0), (1, 1), (1.0, 40), (0.5, 20), (0.1, 4), (500, 40)]
)
def test_memory_is_a_number_of_examples_or_a_fraction(memory: float, kept: int) -> None:
    method = after({"one": 40}, memory=memory)
    assert sum(map(len, method.memory.values())) == kept


def test_a_shortfall_is_said_and_nothing_comes_twice() -> None:
    method = after({"one": 100, "other": 4}, share=0.5, memory=0.05)
    mix = method.examples(Known(), stage(3, new=20))
    assert len(mix) == 20 + 5
    assert method.notes == [
        "method.share 0.5 asks for 20 past examples and the memory holds 5: their share is 0.200. "
        "Raise method.memory, or lower the share."
    ]


def test_a_share_or_a_memory_of_less_than_one_example_is_said() -> None:
    method = after({"one": 40}, share=0.01, memory=0.1)
    assert len(method.examples(Known(), stage(2, new=16))) == 16
    assert method.notes == [
        "method.share 0.01 beside 16 new examples rounds to none: no past example is rehearsed. "
        "Raise method.share."
    ]
    few = make_method("replay", {"memory": 0.1}, seed=0)
    few.end(Known(), stage(1, one=4))
    assert few.notes == [
        "method.memory 0.1 of 4 examples rounds to none: none is kept to be rehearsed. "
        "Raise method.memory, or give a whole number."
    ]
    nothing_asked = make_method("replay", {"memory": 0}, seed=0)
    nothing_asked.end(Known(), stage(1, one=4))
    assert not nothing_asked.notes
    wanted_none = after({"one": 40}, share=0, memory=0.1)
    wanted_none.examples(Known(), stage(2, new=16))
    assert not wanted_none.notes


def test_most_forgotten_is_the_highest_rise_per_token_since_it_was_learned() -> None:
    method = make_method("replay", {"share": 0.25, "memory": 1.0, "draw": "most-forgotten"}, seed=0)
    first = stage(1, one=12)
    method.end(Known({0: 5.0, 1: 0.1, 2: 0.5}), first)
    method.load_state_dict(json.loads(json.dumps(method.state_dict())))
    now = Known({0: 5.1, 1: 2.0, 2: 2.0, 3: 2.0})  # 0 was never learned; 3 rose by less than 1 and 2
    past = method.examples(now, stage(2, new=9))[9:]
    assert [e.id for e in past] == ["one-1", "one-2", "one-3"]


def test_the_loss_is_the_mean_over_an_answers_tokens(
    adapted: Adapted, few_examples: Mapping[str, list[Encoded]]
) -> None:
    learner = adapted()
    for example, loss in zip(
        few_examples["near"], loss_per_token(learner, few_examples["near"]), strict=True
    ):
        tokens, start = example.answer.tokens, example.answer.start
        with torch.no_grad():
            logits = learner.model(input_ids=torch.tensor([tokens])).logits[0, start - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[start:]))
        assert loss == pytest.approx(float(expected), rel=1e-5)


def test_a_share_of_nothing_keeps_nothing() -> None:
    method = after({"one": 40}, share=0, memory=1.0)
    assert method.memory == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 1}, r"^method\.share: .*less than 1"),
        ({"share": -0.1}, r"^method\.share: .*greater than or equal to 0"),
        ({"memory": 1.5}, r"^method\.memory: .*less than or equal to 1.*1\.5"),
        ({"memory": -3}, r"^method\.memory: .*greater than or equal to 0.*-3"),
        ({"memory": "some"}, r"^method\.memory: .*'some'"),
        ({"keep": "herd"}, r"^method\.keep: .*'herding'"),
        ({"draw": "hardest"}, r"^method\.draw: .*'most-forgotten'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_method("replay", options, 0)


def test_equal_examples_of_two_tasks_are_kept_apart() -> None:
    method = make_method("replay", {"share": 0.5, "memory": 1.0}, seed=0)
    one = examples("one", 3)
    method.end(Known(), Stage(1, ("one",), data={"one": one}))
    method.end(Known(), Stage(2, ("two",), data={"two": [replace(e) for e in one]}))
    assert len(method.examples(Known(), stage(3, new=6))) == 12


def test_all_replays_the_whole_memory_and_sources_come_whole_into_every_stage() -> None:
    """TRACE's Replay: a tenth of each past task, and LIMA."""
    options = {"share": "all", "memory": 0.1, "sources": ["lima"]}
    method = after({"a": 40, "b": 60}, **options)
    first, second = method.stages(["a", "lima", "b"])
    assert [one.tasks for one in (first, second)] == [("a",), ("b",)]
    assert first.sources == second.sources == ("lima",)
    own, lima = examples("c", 30), examples("lima", 7)
    third = Stage(3, ("c",), data={"c": own}, sources=("lima",), further={"lima": lima})
    trained = method.examples(Known(), third)
    assert trained[:30] == own
    assert Counter(one.id.split("-")[0] for one in trained) == {"c": 30, "a": 4, "b": 6, "lima": 7}
    method.end(Known(), third)
    assert set(method.memory) == {"a", "b", "c"}  # a source is no past task


def test_a_source_must_be_a_task_of_the_run_and_not_all_of_them() -> None:
    with pytest.raises(UserError, match=r"'lima' is no task of this run .* Did you mean 'limas'"):
        make_method("replay", {"sources": ["lima"]}, seed=0).stages(["a", "limas"])
    with pytest.raises(UserError, match="none is trained on"):
        make_method("replay", {"sources": ["a"]}, seed=0).stages(["a"])
