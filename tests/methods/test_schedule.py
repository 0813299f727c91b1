"""When past examples come in a stage: the same ones under every schedule, at the paper's times."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from forgetmenot.engine.batches import Shuffled
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import Step, fit
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.replay import Replay
from forgetmenot.methods.shared.schedule import Spaced, days, spaced
from forgetmenot.prompting import Encoded, Mix

Adapted = Callable[..., Learner]
NEW, PAST = 200, 36


def order(day: int, *, epochs: int = 1, moved: list[float] | None = None, past: int = PAST) -> Spaced:
    """200 new examples in batches of 4, and past ones behind them."""
    found = spaced(
        Shuffled(NEW + past, 4, epochs, seed=1),
        range(NEW, NEW + past),
        day,
        np.random.default_rng(0),
        model_time=moved is not None,
    )
    return replace(found, moved=moved)


def replays_in(batches: list[list[int]]) -> list[int]:
    """The number of steps before each replay."""
    past = [batch[0] >= NEW for batch in batches]
    return [k for k, one in enumerate(past) if one and (k == 0 or not past[k - 1])]


def test_the_days_are_those_of_spaced_repetition() -> None:
    assert list(islice(days(), 9)) == [1, 2, 4, 7, 15, 30, 60, 120, 240]


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("day", [1, 3, 24, 500])
@pytest.mark.parametrize("moved", [None, np.linspace(1, 0.001, 900).tolist()])
def test_every_schedule_gives_every_example_as_often(
    epochs: int, day: int, moved: list[float] | None
) -> None:
    found = order(day, epochs=epochs, moved=moved)
    batches = list(found)
    assert len(batches) == len(found)
    assert Counter(k for batch in batches for k in batch) == dict.fromkeys(range(NEW + PAST), epochs)
    assert all(1 <= len(batch) <= 4 for batch in batches)
    assert all(len({k >= NEW for k in batch}) == 1 for batch in batches), "replays have their own batches"
    new = [batch for batch in batches if batch[0] < NEW]
    assert new == list(Shuffled(NEW, 4, epochs, seed=1)), "new examples come as without replays"


def test_replays_come_on_the_days_and_share_the_past_evenly() -> None:
    found = order(day=3)
    assert replays_in(list(found)) == [3, 6, 12, 21, 45]  # days 1, 2, 4, 7 and 15 of three steps; 30 is over
    assert [sum(map(len, replay)) for replay in found.replays] == [8, 7, 7, 7, 7]


def test_steps_of_one_length_are_the_clock_of_steps() -> None:
    for size in (1.0, 0.125):
        assert list(order(3, moved=[size] * 200)) == list(order(3))


def test_where_the_model_slows_down_replays_come_later_and_the_rest_last() -> None:
    plain = list(order(3))
    slow = list(order(3, moved=(1 / np.arange(1, 201)).tolist()))
    assert replays_in(slow)[0] == replays_in(plain)[0] == 3
    assert replays_in(slow)[1] > replays_in(plain)[1]
    assert slow[-1][0] >= NEW
    fast = list(order(3, moved=np.arange(1.0, 201).tolist()))
    assert replays_in(fast)[-1] < replays_in(plain)[-1]


@pytest.mark.parametrize("stop", [0, 2, 3, 4, 30, 55])
def test_an_order_taken_up_goes_on_as_it_would_have(stop: int) -> None:
    """What has moved so far is all that it needs, and only that: later steps are not there yet."""
    sizes = np.random.default_rng(4).uniform(0.1, 2, 200).tolist()
    whole = list(order(3, moved=list(sizes)))
    known = sizes[:stop]
    found = []
    for step, batch in enumerate(islice(order(3, moved=known), stop, None), stop):
        found.append(batch)
        known.append(sizes[step])
    assert found == whole[stop:]


def by_the_paper(sizes: list[float], day: int, lengths: list[int], new: int) -> list[int]:
    """After how many steps replays of so many batches come: the paper's formulas over what was measured.

    One begins once the one before is over; those that are never reached, when the new batches are.
    """
    tau = np.cumsum(sizes)
    found: list[int] = []
    for j, mark in enumerate(np.array([1, 2, 4, 7, 15, 30, 60][: len(lengths)]) * tau[day - 1]):
        reached = np.flatnonzero(tau >= mark)
        steps = int(reached[0]) + 1 if len(reached) else len(tau)
        free = found[-1] + lengths[j - 1] if found else 0
        found.append(min(max(steps, free), new + sum(lengths[:j])))
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("adapter", [{}, {"kind": "full"}])
def test_in_training_time_is_how_far_the_weights_have_moved(
    adapted: Adapted, few_examples: Mapping[str, list[Encoded]], adapter: dict[str, str], precision: str
) -> None:
    learner = adapted(**adapter)
    learner.precision = precision  # type: ignore[assignment]
    method = make_method("replay", {"share": 0.25, "memory": 1.0, "schedule": "model-time", "day": 2}, seed=0)
    method.end(learner, Stage(1, ("near",), data={"near": few_examples["near"]}))
    stage = Stage(2, ("far",), data={"far": few_examples["far"]})
    examples = method.examples(learner, stage)
    assert isinstance(examples, Mix)
    batches = method.batches(stage, examples, Shuffled(len(examples), 2, 3, seed=5))
    positions = [weights_of(learner)]
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        positions.append(weights_of(learner))

    fit(
        learner,
        examples,
        method,
        TrainingSettings(batch_size=2),
        accelerator=Accelerator(cpu=True),
        epochs=3,
        learning_rate=0.02,
        seed=5,
        on_step=on_step,
        batches=batches,
    )
    sizes = [float(np.linalg.norm(b - a)) for a, b in pairwise(positions)]
    assert method.training_state() == {"moved": pytest.approx(sizes, rel=1e-6)}
    assert isinstance(batches, Spaced)
    rehearsing = [k for k, step in enumerate(steps) if step.rehearsed]
    lengths = [len(replay) for replay in batches.replays]
    before = [sum(lengths[:j]) for j in range(len(lengths))]
    assert [rehearsing[n] for n in before] == by_the_paper(sizes, 2, lengths, len(batches.new))
    rehearsed, tokens = sum(one.rehearsed for one in steps), sum(one.tokens for one in steps)
    past = [len(examples[k].answer.tokens) - examples[k].answer.start for k in examples.past]
    assert (rehearsed, tokens - rehearsed) == (
        3 * sum(past),
        3 * sum(len(one.answer.tokens) - one.answer.start for one in few_examples["far"]),
    )


def weights_of(learner: Learner) -> Any:
    return np.concatenate([value.detach().double().numpy().ravel() for value in learner.trainable().values()])


def test_even_is_the_order_of_every_other_method_and_so_is_a_stage_without_past() -> None:
    for options in ({}, {"schedule": "increasing"}, {"schedule": "model-time"}):
        method = make_method("replay", {"memory": 1.0, **options}, seed=0)
        assert isinstance(method, Replay)
        past = [Encoded("a", (), few(3), (1,), None, 0)] if not options else []
        examples = Mix([Encoded(f"{k}", (), few(3), (1,), None, 0) for k in range(9)], past)
        shuffled = Shuffled(len(examples), 4, 2, seed=0)
        assert method.batches(Stage(2, ("t",)), examples, shuffled) is shuffled
        assert method.training_state() == {}


def few(length: int) -> Any:
    from forgetmenot.prompting import TokenSequence

    return TokenSequence((1,) * length, 1)


def test_a_day_longer_than_the_stage_is_said() -> None:
    method = make_method("replay", {"schedule": "increasing"}, seed=0)
    examples = Mix(
        [Encoded(f"{k}", (), few(3), (1,), None, 0) for k in range(40)],
        [Encoded("p", (), few(3), (1,), None, 0)],
    )
    batches = list(method.batches(Stage(2, ("t",)), examples, Shuffled(41, 4, 1, seed=0)))
    assert [len(batch) for batch in batches] == [4] * 10 + [1]
    assert batches[-1] == [40]
    assert method.notes == [
        "method.day 24: 10 batches of new examples are not two days, so all past examples come in one "
        "replay. Set method.day to 1 for more."
    ]


def test_chats_of_new_examples_stay_together_and_those_of_past_ones_are_spaced() -> None:
    shuffled = Shuffled(20, 4, 1, seed=1, chats=((2, 3), (8, 9, 10, 11), (16, 17, 18)))
    found = spaced(shuffled, range(10, 14), 2, np.random.default_rng(0), model_time=False)
    assert found.new.chats == ((2, 3), (8, 9), (12, 13, 14))
    drawn = [k for batch in found for k in batch]
    assert sorted(drawn) == list(range(20))
    new = [k for k in drawn if k not in range(10, 14)]
    for chat in ((2, 3), (8, 9), (16, 17, 18)):
        assert tuple(new[new.index(chat[0]) :][: len(chat)]) == chat


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "forever"}, r"^method\.schedule: .*'model-time'"),
        ({"day": 3}, "day means nothing with schedule: even"),
        ({"schedule": "increasing", "day": 0}, r"^method\.day: "),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_method("replay", options, 0)
