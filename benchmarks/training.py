"""Training alone: one epoch over the row's examples, from tokens, against TRL's SFTTrainer.

    python -m benchmarks.training --data-dir DATA --rows small/0

The loss of the first step and the weights at the end are compared first, on the same batches in the same
order. No ratio is printed where they differ by more than the workload's tolerance. When timed, TRL draws its
batches as its flags say.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from trl import SFTTrainer

from benchmarks.command import Bench, compare, run_command
from benchmarks.peers import SAME_ORDER, as_tokens, first_loss, keeps_order, quiet, sft_trainer
from benchmarks.table import Comparison
from benchmarks.timing import fastest
from benchmarks.workload import Tolerance, Workload, open_learner, tolerance
from forgetmenot.engine.learner import Learner, copy_weights
from forgetmenot.engine.training import Step, draw_batches, fit
from forgetmenot.errors import UserError
from forgetmenot.methods import make_method
from forgetmenot.models.adapt import adapt
from forgetmenot.prompting import Encoded

Weights = Mapping[str, Tensor]


def main() -> None:
    """Measure the rows and print the table."""
    quiet()
    run_command("training", "Training alone, against TRL.", measure)


def measure(bench: Bench) -> Comparison:
    """Compare the two sides' losses and weights, count their work, and time them in turn.

    Raises:
        UserError: If they do not agree.
    """
    workload = bench.workload
    learner = open_learner(workload, bench.model, bench.device)
    learner.model = adapt(learner.model, workload.adapter, 1, workload.seed)
    start, copied = learner.snapshot(), copy.deepcopy(learner.model)
    copied_weights = {name: p for name, p in copied.named_parameters() if p.requires_grad}
    longest = workload.training.max_length
    examples = [one for part in bench.material for one in part.encode(part.train, learner.tokenizer, longest)]
    data = as_tokens(examples)

    def ours() -> list[Step]:
        copy_weights(learner.trainable(), start)
        return train(workload, learner, examples)

    def theirs(flags: Mapping[str, Any]) -> SFTTrainer:
        copy_weights(copied_weights, start)
        ordered = data.select(order(workload, len(data), workload.seed)) if keeps_order(flags) else data
        trainer = sft_trainer(workload, copied, learner.tokenizer, ordered, flags, bench.folder)
        trainer.train()
        return trainer

    choice = fastest(workload.peers.trl.choices, theirs, bench.clock, f"{bench.row}: TRL's flags")

    def agree(steps: list[Step], _: SFTTrainer) -> str:
        their_loss = first_loss(theirs({**choice, **SAME_ORDER}))
        most = tolerance(workload, bench.device)
        return agreement(steps[0].loss, their_loss, start, learner.trainable(), copied_weights, most)

    models = learner.model, copied
    return compare(bench, ours, partial(theirs, choice), agree, models=models, flags=choice)


def train(workload: Workload, learner: Learner, examples: Sequence[Encoded]) -> list[Step]:
    """Our side: one epoch; returns what each step was."""
    rate = workload.training.learning_rate
    if rate == "auto":
        raise UserError("training.learning_rate: both sides need the same one; give a number.")
    steps: list[Step] = []
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
    batches = draw_batches(count, workload.training.batch_size, 1, seed)
    return [index for batch in batches for index in batch]


def agreement(
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


def _norm(parts: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))


if __name__ == "__main__":
    main()
