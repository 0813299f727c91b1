"""The whole job: score every task, train on one after another, score all of them after each.

    python -m benchmarks.whole_run --data-dir DATA --rows small/0

Ours is `forgetmenot.run`, files and report included. The peer is the loop that a user would write around
TRL's SFTTrainer and lm-eval's Hugging Face model, which writes nothing. Both begin with reading data and
weights. The base model's log-likelihoods and the score matrix are compared first, with TRL's batches in our
order. No ratio is printed where they differ by more than the workload's tolerance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import forgetmenot
from benchmarks.command import Bench, compare, run_command
from benchmarks.peers import SAME_ORDER, LmEval, as_texts, keeps_order, quiet, sft_trainer
from benchmarks.scoring import agreement as scoring_agreement
from benchmarks.table import Comparison
from benchmarks.timing import fastest
from benchmarks.training import order
from benchmarks.workload import Material, kind_of, open_learner, read_material, tolerance
from forgetmenot.errors import UserError
from forgetmenot.metrics import measure as measure_metric
from forgetmenot.models.adapt import adapt
from forgetmenot.runs.loop import stage_seed

SHOTS = (0,)
"""A run's prompts have no demonstrations."""


@dataclass(frozen=True)
class Found:
    """What a run found.

    Attributes:
        base: Log-likelihood of each candidate of each example before training, in nats.
        matrix: The score of each task after each stage; None where it has none.
    """

    base: list[list[float]]
    matrix: list[list[float | None]]


def main() -> None:
    """Measure the rows and print the table."""
    quiet()
    run_command("whole_run", "The whole continual run, against TRL and lm-eval.", measure, SHOTS)


def measure(bench: Bench) -> Comparison:
    """Compare what the two sides find, count their work, and time them in turn.

    Raises:
        UserError: If they do not agree.
    """
    workload = bench.workload
    batch, flags = _fastest_flags(bench)
    ours, theirs = partial(run_ours, bench), partial(run_peers, bench, batch)
    shapes = open_learner(workload, bench.model, bench.device).model
    shapes = adapt(shapes, workload.adapter, 1, workload.seed)

    def agree(found: Found, _: Found) -> str:
        return agreement(bench, found, theirs({**flags, **SAME_ORDER}))

    both = {**batch, **flags}
    return compare(bench, ours, partial(theirs, flags), agree, models=(shapes, shapes), flags=both)


def run_ours(bench: Bench) -> Found:
    """Our side: one run, anew."""
    workload = bench.workload
    sizes = workload.models[bench.row.model].sizes[bench.row.shots]
    done = forgetmenot.run(
        {
            "model": {"name": str(bench.model), "dtype": workload.dtype[kind_of(bench.device)]},
            "tasks": workload.tasks,
            "prompt": workload.prompt,
            "adapter": workload.adapter.model_dump(),
            "training": workload.training.model_dump() | {"limit": sizes.train},
            "evaluation": {"limit": sizes.score},
            "data_dir": None if bench.data_dir is None else str(bench.data_dir),
            "seed": workload.seed,
            "output": str(bench.folder / "run"),
        },
        fresh=True,
    )
    base = [list(values) for values in done.predictions(0)["log_likelihoods"]]
    return Found(base, done.results["matrix"])


def run_peers(bench: Bench, batch: Mapping[str, int], flags: Mapping[str, Any]) -> Found:
    """The peers' side: the loop around SFTTrainer and lm-eval, with the same first values of the adapter."""
    workload, seed = bench.workload, bench.workload.seed
    material = read_material(workload, bench.row, bench.data_dir)
    learner = open_learner(workload, bench.model, bench.device)
    questions = [question for part in material for question in part.questions()]

    def score() -> list[list[float]]:
        return LmEval(model, learner.tokenizer, dtype=learner.precision, **batch).score(questions)

    model = learner.model
    base = score()
    matrix = [scores(material, base)]
    model = adapt(model, workload.adapter, 1, stage_seed(seed, 1))
    for number, part in enumerate(material, start=1):
        data = as_texts(part.lessons())
        if keeps_order(flags):
            data = data.select(order(workload, len(data), stage_seed(seed, number)))
        sft_trainer(workload, model, learner.tokenizer, data, flags, bench.folder).train()
        matrix.append(scores(material, score()))
    return Found(base, matrix)


def scores(material: list[Material], answers: list[list[float]]) -> list[float | None]:
    """Each task's score from the log-likelihoods of all tasks' candidates, task after task."""
    rows = iter(answers)
    return [
        measure_metric(
            part.task.metric, np.array(part.gold()), np.array([np.argmax(next(rows)) for _ in part.score])
        ).value
        for part in material
    ]


def agreement(bench: Bench, ours: Found, theirs: Found) -> str:
    """Say how nearly two runs agree.

    Raises:
        UserError: If they differ by more than the workload tolerates.
    """
    most = tolerance(bench.workload, bench.device)
    scoring_agreement(ours.base, theirs.base, most.log_likelihood)
    one, other = (np.array(found.matrix, dtype=np.float64) for found in (ours, theirs))
    difference = float(np.abs(one - other).max())
    if not difference <= most.score:  # a cell without a score is no agreement either
        raise UserError(
            f"the two sides' score matrices differ by up to {difference:.3f}, which is more than "
            f"{most.score}: no ratio is given."
        )
    return f"score matrix Δ ≤ {difference:.3f}"


def _fastest_flags(bench: Bench) -> tuple[dict[str, int], dict[str, Any]]:
    """The peers' fastest choices on this row's own examples."""
    workload = bench.workload
    learner = open_learner(workload, bench.model, bench.device)
    questions = [question for part in bench.material for question in part.questions()]
    lessons = as_texts([lesson for part in bench.material for lesson in part.lessons()])

    def score(flags: dict[str, int]) -> None:
        LmEval(learner.model, learner.tokenizer, dtype=learner.precision, **flags).score(questions)

    batch = fastest(workload.peers.lm_eval, score, bench.clock, f"{bench.row}: lm-eval's batch")
    learner.model = adapt(learner.model, workload.adapter, 1, workload.seed)

    def train(flags: dict[str, Any]) -> None:
        sft_trainer(workload, learner.model, learner.tokenizer, lessons, flags, bench.folder).train()

    return batch, fastest(workload.peers.trl.choices, train, bench.clock, f"{bench.row}: TRL's flags")


if __name__ == "__main__":
    main()
