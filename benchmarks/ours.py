"""Our side's part of a benchmark, and how nearly a peer's answers agree with what it finds."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from accelerate import Accelerator
from torch import Tensor

from benchmarks.workload import Tolerance, Workload
from forgetmenot.engine.batches import Shuffled
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.precision import rounded_once
from forgetmenot.engine.training import Step, fit
from forgetmenot.errors import UserError
from forgetmenot.methods import make_method
from forgetmenot.models.adapt import adapt
from forgetmenot.prompting import Encoded, TokenSequence

Answers = list[list[float]]
"""The log-likelihood of each example's candidates."""
Weights = Mapping[str, Tensor]


def with_adapter(workload: Workload, learner: Learner) -> Learner:
    """The learner as it is in the first stage of a run."""
    learner.model = adapt(learner.model, workload.adapter, 1, workload.seed)
    return learner


def train(workload: Workload, learner: Learner, examples: Sequence[Encoded]) -> list[Step]:
    """Our side: one epoch; returns what each step was."""
    rate = workload.training.learning_rate
    if rate == "auto":
        raise UserError("training.learning_rate: both sides need the same one; give a number.")
    steps: list[Step] = []
    with rounded_once(learner.model, learner.precision):
        fit(
            learner,
            examples,
            make_method("sequential", {}, workload.seed),
            workload.training,
            accelerator=Accelerator(cpu=learner.device.type == "cpu"),
            epochs=1,
            learning_rate=rate,
            seed=workload.seed,
            on_step=steps.append,
        )
    return steps


def order(workload: Workload, count: int, seed: int) -> list[int]:
    """The order in which our side takes `count` examples in an epoch."""
    batches = Shuffled(count, workload.training.batch_size, 1, seed)
    return [index for batch in batches for index in batch]


def same_training(
    our_loss: float, their_loss: float, start: Weights, ours: Weights, theirs: Weights, most: Tolerance
) -> str:
    """Say how nearly two trainings agree.

    Args:
        our_loss: Of the first step, in nats per token.
        their_loss: Likewise.
        start: The weights that both began with.
        ours: The weights that our side ended with.
        theirs: Likewise.
        most: What is tolerated.

    Raises:
        UserError: If they differ by more.
    """
    loss = abs(our_loss - their_loss)
    apart = _norm([ours[name].detach() - theirs[name].detach() for name in start])
    update = _norm([ours[name].detach() - start[name] for name in start])
    weights = apart / update
    if loss > most.first_loss or weights > most.weights:
        raise UserError(
            f"the two sides' first losses differ by {loss:.1e} nats, and their weights by {weights:.1%} of "
            f"the update; tolerated are {most.first_loss:.0e} and {most.weights:.0%}: no ratio is given."
        )
    return f"first loss Δ {loss:.0e} nats; weights Δ {weights:.1%} of the update"


def candidates(examples: list[Encoded]) -> list[TokenSequence]:
    """All that is scored, example after example."""
    return [one for example in examples for one in example.candidates]


def same_likelihoods(ours: Answers, theirs: Answers, most: float) -> str:
    """Say how nearly two sides' log-likelihoods agree.

    Raises:
        UserError: If one differs by more than `most` nats.
    """
    difference = max(
        float(np.abs(np.subtract(one, other)).max()) for one, other in zip(ours, theirs, strict=True)
    )
    if difference > most:
        raise UserError(
            f"the two sides' log-likelihoods differ by up to {difference:.1e} nats, which is more than "
            f"{most:.0e}: no ratio is given."
        )
    same = sum(np.argmax(one) == np.argmax(other) for one, other in zip(ours, theirs, strict=True))
    return f"Δ ≤ {difference:.0e} nats; {same} of {len(ours)} labels equal"


def _norm(parts: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))
