"""The whole job: score every task, train on one after another, score all of them after each.

    python -m benchmarks.whole_run --data-dir DATA --rows small/0
    python -m benchmarks.whole_run --data-dir DATA --models MODELS --rows smollm2/0/top --repeats 0 --write

Ours is `forgetmenot.run`, files and report included, and begins with an empty cache. The peer is the loop
that a user would write around TRL's SFTTrainer and lm-eval's Hugging Face model, which writes nothing. Both
begin with reading data and weights. The base model's log-likelihoods and, on the workload's `trial` examples
with TRL's batches in our order, the score matrix are compared first. No ratio is printed where they differ by
more than the workload's tolerance.

Where only the upper layers learn, a second run of ours with another seed is timed too: it finds in the cache
what the first has computed below them, as all later runs of a study do.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

import forgetmenot
from benchmarks.around import watched
from benchmarks.command import Bench, compare, own_sizes, run_command
from benchmarks.ours import order, same_likelihoods, with_adapter
from benchmarks.peers import SAME_ORDER, LmEval, as_texts, keeps_order, quiet, sft_trainer
from benchmarks.table import COLUMNS, Cells, Comparison
from benchmarks.timing import fastest
from benchmarks.workload import Material, Row, Sizes, Workload, open_learner, read_material
from forgetmenot.errors import UserError
from forgetmenot.metrics import measure as measure_metric
from forgetmenot.models.adapt import adapt
from forgetmenot.runs.stage_training import stage_seed

SHOTS = (0,)
"""A run's prompts have no demonstrations."""
AROUND = "around the model"


@dataclass(frozen=True)
class Found:
    """What a run found.

    Attributes:
        base: Log-likelihood of each candidate of each example before training, in nats.
        matrix: The score of each task after each stage; None where it has none.
    """

    base: list[list[float]]
    matrix: list[list[float | None]]


@dataclass(frozen=True)
class WholeRun:
    """A row of the table.

    Attributes:
        around: The share of our first run that goes to packing, masks, examples and files.
    """

    comparison: Comparison
    around: float

    def cells(self) -> Cells:
        """The row as text."""
        return (*self.comparison.cells(), f"{self.around:.1%}")


def main() -> None:
    """Measure the rows and print the table."""
    quiet()
    description = "The whole continual run, against TRL and lm-eval."
    run_command("whole_run", description, measure, shots=SHOTS, sizes=sizes, columns=(*COLUMNS, AROUND))


def sizes(workload: Workload, row: Row) -> Sizes:
    """How many examples of each task a run takes."""
    return workload.models[row.model].whole_run or own_sizes(workload, row)


def measure(bench: Bench) -> WholeRun:
    """Compare what the two sides find, count their work, and time them in turn.

    Raises:
        UserError: If they do not agree.
    """
    workload, trial = bench.workload, bench.trial
    batch, flags = _fastest_flags(trial)
    matrix = matrix_agreement(
        run_ours(trial), run_peers(trial, batch, {**flags, **SAME_ORDER}), workload.tolerated.score
    )
    examples = f"{trial.sizes.train} + {trial.sizes.score} examples a task"
    shapes = with_adapter(workload, open_learner(workload, bench.model, bench.device)).model

    def agree(ours: list[Found], theirs: Found) -> str:
        for one in ours:
            same_likelihoods(one.base, theirs.base, workload.tolerated.log_likelihood)
        return f"{matrix} ({examples})"

    shares: list[float] = []

    def first() -> Found:
        began = time.perf_counter()
        with watched() as seconds:
            found = run_ours(bench)
        shares.append(sum(seconds.values()) / (time.perf_counter() - began))
        return found

    ours: list[Callable[[], Found]] = [first]
    if bench.row.layers == "top":
        ours.append(partial(run_ours, bench, later=True))
    theirs = partial(run_peers, bench, batch, flags)
    both = {**batch, **flags}
    compared = compare(bench, ours, theirs, agree, models=(shapes, shapes), flags=both)
    return WholeRun(compared, shares[-1])


def run_ours(bench: Bench, *, later: bool = False) -> Found:
    """Our side: one run, anew.

    Args:
        bench: The row.
        later: Run with another seed and with what the run before it left in the cache, which else is emptied.
    """
    workload, cache = bench.workload, bench.folder / "cache"
    if not later:
        shutil.rmtree(cache, ignore_errors=True)
    with patch.dict(os.environ, {"FORGETMENOT_CACHE": str(cache)}):
        done = forgetmenot.run(
            {
                "model": {"name": str(bench.model)},
                "tasks": workload.tasks,
                "prompt": workload.prompt,
                "adapter": workload.adapter.model_dump(exclude_defaults=True),
                "training": workload.training.model_dump()
                | {"limit": bench.sizes.train, "precision": workload.dtype},
                "evaluation": {"limit": bench.sizes.score},
                "data_dir": None if bench.data_dir is None else str(bench.data_dir),
                "seed": workload.seed + later,
                "output": str(bench.folder / "run"),
            },
            fresh=True,
        )
    base = [list(values) for values in done.predictions(0)["log_likelihoods"]]
    return Found(base, done.results["matrix"])


def run_peers(bench: Bench, batch: Mapping[str, int], flags: Mapping[str, Any]) -> Found:
    """The peers' side: the loop around SFTTrainer and lm-eval.

    The adapter has the same first values, which in bf16 PEFT rounds as it makes them.
    """
    workload, seed = bench.workload, bench.workload.seed
    material = read_material(workload, bench.row.shots, bench.sizes, bench.data_dir)
    learner = open_learner(workload, bench.model, bench.device, peer=True)
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


def matrix_agreement(ours: Found, theirs: Found, most: float) -> str:
    """Say how nearly two runs' score matrices agree.

    Raises:
        UserError: If a cell differs by more than `most`.
    """
    one, other = (np.array(found.matrix, dtype=np.float64) for found in (ours, theirs))
    difference = float(np.abs(one - other).max())
    if not difference <= most:  # a cell without a score is no agreement either
        raise UserError(
            f"the two sides' score matrices differ by up to {difference:.3f}, which is more than "
            f"{most}: no ratio is given."
        )
    return f"score matrix Δ ≤ {difference:.3f}"


def _fastest_flags(bench: Bench) -> tuple[dict[str, int], dict[str, Any]]:
    """The peers' fastest choices on some of this row's own examples."""
    workload = bench.workload
    learner = open_learner(workload, bench.model, bench.device, peer=True)
    questions = [question for part in bench.material for question in part.questions()]
    lessons = as_texts([lesson for part in bench.material for lesson in part.lessons()])

    def score(flags: dict[str, int]) -> None:
        LmEval(learner.model, learner.tokenizer, dtype=learner.precision, **flags).score(questions)

    batch = fastest(workload.peers.lm_eval, score, bench.clock, f"{bench.row}: lm-eval's batch")
    learner = with_adapter(workload, learner)

    def train(flags: dict[str, Any]) -> None:
        sft_trainer(workload, learner.model, learner.tokenizer, lessons, flags, bench.folder).train()

    return batch, fastest(workload.peers.trl.choices, train, bench.clock, f"{bench.row}: TRL's flags")


if __name__ == "__main__":
    main()
