"""Training alone: one epoch over the row's examples, from tokens, against TRL's SFTTrainer.

    python -m benchmarks.training --data-dir DATA --rows small/0
    python -m benchmarks.training --data-dir DATA --models MODELS --rows smollm2/0 smollm2/0/top/bf16

The loss of the first step and the weights at the end are compared first, on the same batches in the same
order. No ratio is printed where they differ by more than the workload's tolerance. When timed, TRL draws its
batches as its flags say. Where only the upper layers learn, our side is timed with the states of the lower
layers computed and kept first, and with those that are there already.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from trl import SFTTrainer

from benchmarks.command import Bench, compare, run_command
from benchmarks.lower_layers import LowerLayers
from benchmarks.ours import order, same_training, train, with_adapter
from benchmarks.peers import SAME_ORDER, as_tokens, first_loss, keeps_order, quiet, sft_trainer
from benchmarks.table import Comparison
from benchmarks.timing import fastest
from benchmarks.workload import open_learner
from forgetmenot.engine.learner import copy_weights
from forgetmenot.engine.training import Step


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
    learner, peer = (
        with_adapter(workload, open_learner(workload, bench.model, bench.device, peer=peer))
        for peer in (False, True)
    )
    start, their_weights = learner.snapshot(), peer.trainable()
    longest = workload.training.max_length
    parts = [list(part.encode(part.train, learner.tokenizer, longest)) for part in bench.material]
    examples = [one for part in parts for one in part]
    data = as_tokens(examples)

    def train_ours() -> list[Step]:
        copy_weights(learner.trainable(), start)
        return train(workload, learner, examples)

    def theirs(flags: Mapping[str, Any]) -> SFTTrainer:
        copy_weights(their_weights, start)
        ordered = data.select(order(workload, len(data), workload.seed)) if keeps_order(flags) else data
        trainer = sft_trainer(workload, peer.model, peer.tokenizer, ordered, flags, bench.folder)
        trainer.train()
        return trainer

    choice = fastest(workload.peers.trl.choices, theirs, bench.clock, f"{bench.row}: TRL's flags")

    def agree(ours: list[list[Step]], _: SFTTrainer) -> str:
        their_loss = first_loss(theirs({**choice, **SAME_ORDER}))
        # our weights are those of the last way, whose steps are those of the others
        return same_training(
            ours[-1][0].loss, their_loss, start, learner.trainable(), their_weights, workload.tolerated
        )

    ours = [train_ours]
    if bench.row.layers == "top":
        asked = {
            part.task.name: [one.answer for one in some]
            for part, some in zip(bench.material, parts, strict=True)
        }
        lower = LowerLayers.of(learner, workload.adapter.layers, asked, bench.folder / "lower-layers")
        ours = [partial(_after, get, train_ours) for get in (lower.compute, lower.read)]
    models = learner.model, peer.model
    return compare(bench, ours, partial(theirs, choice), agree, models=models, flags=choice)


def _after(first: Callable[[], None], work: Callable[[], list[Step]]) -> list[Step]:
    first()
    return work()


if __name__ == "__main__":
    main()
