"""How long a position takes on this machine, from a few packs of a run's own: what previews multiply by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import Method
from forgetmenot.prompting.encoded import Encoded

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.runs.frozen_layers import FrozenPlan
    from forgetmenot.runs.session import Session

WRITTEN = 8
"""Examples whose answers are written to time it."""


@dataclass(frozen=True)
class Rates:
    """What was measured, in seconds.

    Attributes:
        trained: A position of each stage, forward and back.
        step: A step of the optimizer.
        scored: A position of each task, or an example where answers are written.
        below: A state of the layers that never learn.
    """

    trained: tuple[float, ...]
    step: float
    scored: tuple[float, ...]
    below: float


def calibrate(
    session: Session,
    stages: Sequence[Sequence[Encoded]],
    scored: Sequence[ScoredTask],
    frozen: FrozenPlan | None,
) -> Rates:
    """Train on a pack of some stages and score a pack of some tasks, with a model that is then of no use.

    Args:
        session: With the plain base model, which the guard has examined.
        stages: Each stage's examples.
        scored: What is scored.
        frozen: What the layers below give, if that is kept.
    """
    from forgetmenot.engine.precision import rounded_once
    from forgetmenot.models.adapt import adapt

    learner, config = session.learner, session.config
    learned = {k: _first_pack(session, stages[k]) for k in _timed(stages)}
    asked = {k: _part(learner, scored[k]) for k in _timed(scored)}
    with rounded_once(learner.model, learner.precision):
        below = 0.0 if frozen is None else _keep(learner, frozen, learned.values(), asked.values())
    learner.model = adapt(learner.model, config.adapter, 1, config.seed)
    with rounded_once(learner.model, learner.precision):
        step = _optimizer_step(session)
        trained = _rates(learned, len(stages), lambda examples: _train(session, examples, step))
        answered = _rates(asked, len(scored), lambda one: _answer(learner, one))
    return Rates(trained, step, answered, below)


def _timed(parts: Sequence[Any]) -> list[int]:
    """Which of them are timed: the first and the last; for those between their mean rate is taken."""
    return sorted({0, len(parts) - 1}) if parts else []


def _first_pack(session: Session, examples: Sequence[Encoded]) -> list[Encoded]:
    """What goes through the model at once in the first step of a stage."""
    from forgetmenot.engine.training import micro_batches

    settings = session.config.training
    session.learner.model.train()
    batch = list(examples[: settings.batch_size])
    found = next(iter(micro_batches(session.learner, batch, settings.micro_batch)), [])
    session.learner.model.eval()
    return found


def _part(learner: Learner, one: ScoredTask) -> ScoredTask:
    """Some of a task's examples, from all over: about a pack of them."""
    count = WRITTEN
    if not one.generated and (computed := one.arranged(learner).computed):
        count = max(1, round(len(one.examples) * learner.budget / computed))
    return one.only(range(0, len(one.examples), max(1, len(one.examples) // count))[:count])


def _keep(
    learner: Learner, frozen: FrozenPlan, learned: Iterable[Sequence[Encoded]], asked: Iterable[ScoredTask]
) -> float:
    """Let the parts begin above the layers that never learn; the seconds of a state below."""
    from forgetmenot.engine.frozen_states import FrozenSet, keep_states
    from forgetmenot.engine.laid_out import unseen

    sequences = [s for part in learned for one in part for s in (*one.candidates, one.answer)]
    sequences += [s for one in asked for s in one.sequences]
    sets = [FrozenSet.of("calibration", sequences, learner.budget)]
    with learner.below(frozen.states.first) as compute:
        compute(sets[0].packs[-1])
        began = time.perf_counter()
        keep_states(frozen.states, sets, "", compute, None, unseen)
    learner.frozen = frozen.states
    return (time.perf_counter() - began) / sets[0].states


def _rates(
    parts: Mapping[int, Any], count: int, seconds_of: Callable[[Any], tuple[int, float]]
) -> tuple[float, ...]:
    """The seconds of a position of each of `count`, from those of some parts."""
    found: dict[int, float] = {}
    for number, part in parts.items():
        if not found:
            seconds_of(part)  # the first makes room
        positions, seconds = seconds_of(part)
        if positions:
            found[number] = seconds / positions
    mean = sum(found.values()) / max(1, len(found))
    return tuple(found.get(number, mean) for number in range(count))


def _train(session: Session, examples: Sequence[Encoded], step: float) -> tuple[int, float]:
    """The positions of one step on some examples, and the seconds that they take beside the optimizer's."""
    import torch
    from accelerate import Accelerator

    from forgetmenot.engine.training import fit

    learner = session.learner
    learner.reset_counts()
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    began = time.perf_counter()
    fit(
        learner,
        examples,
        Method(),
        session.config.training.model_copy(update={"batch_size": max(1, len(examples))}),
        accelerator=accelerator,
        epochs=1,
        learning_rate=session.learning_rate,
        seed=0,
        on_step=lambda step: None,
    )
    return learner.counts["computed"], max(0.0, time.perf_counter() - began - step)


def _optimizer_step(session: Session) -> float:
    """The seconds of a step with gradients of 0."""
    import torch

    from forgetmenot.engine.training import optimizer_of

    optimizer = optimizer_of(session.learner, 0.0, 0.0)
    for value in session.learner.trainable().values():
        value.grad = torch.zeros_like(value)
    optimizer.step()  # the first makes room for the moments
    began = time.perf_counter()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began


def _answer(learner: Learner, one: ScoredTask) -> tuple[int, float]:
    """The positions of a question, or its examples where answers are written, and the seconds it takes."""
    learner.reset_counts()
    began = time.perf_counter()
    evaluate(learner, Method(), one)
    return learner.counts["computed"] or len(one.examples), time.perf_counter() - began
