"""The coverage of the intervals that a run prints, by simulation, over examples.

    python -m scripts.coverage [--trials 2000] [--write]

Answers are drawn for models whose true accuracies are known; the examples are another sample in every trial.
In the rows "no change" no stage differs from another in truth; in "change" each task is learned in its own
stage and drops after it. One example keeps its difficulty over the stages, so that answers are correlated.
Every kind of interval of `metrics.bootstrap` is counted: cells, figures, and the cross-fitted maxima. With
--write the table goes into docs/statistics.md.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from forgetmenot.metrics import FIGURES, Answers, MatrixRow, ScoreMatrix, bootstrap

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
MARKS = "<!-- coverage: begin -->", "<!-- coverage: end -->"
STEADY = 0.8  # the correlation of an example's answers over the stages, on the probit scale
DROP, BASE, LEARNED = 0.10, 0.55, 0.85
SHOWN = ("cells", "average_performance", "backward_transfer", "forward_transfer", "learning_accuracy")
MAXIMA = ("forgetting", "haque_forgetting_mean", "haque_learning_mean")

Floats = NDArray[np.float64]


def truth(tasks: int, *, change: bool) -> tuple[list[MatrixRow], ScoreMatrix]:
    """The stages and the true scores: each task .85 from its own stage on, then less; or .7 throughout."""
    names = [f"t{j}" for j in range(tasks)]
    stages = [
        MatrixRow("00-base"),
        *(MatrixRow(f"{j + 1:02d}-{name}", (name,)) for j, name in enumerate(names)),
    ]
    values = np.full((tasks + 1, tasks), 0.7)
    if change:
        for j in range(tasks):
            values[: j + 1, j], values[j + 1, j], values[j + 2 :, j] = BASE, LEARNED, LEARNED - DROP
    return stages, ScoreMatrix(tuple(names), tuple(stages), values)


def draw(matrix: ScoreMatrix, n: int, generator: np.random.Generator) -> dict[str, Answers]:
    """Answers to n examples of each task, right with the true probabilities."""
    columns = {}
    for j, name in enumerate(matrix.tasks):
        easy = generator.normal(size=n)
        moods = generator.normal(size=(len(matrix.stages), n))
        skill = np.sqrt(STEADY) * easy + np.sqrt(1 - STEADY) * moods
        right = skill < ndtri(matrix.values[:, j])[:, None]
        columns[name] = Answers("accuracy", np.ones(n, dtype=int), [row.astype(int) for row in right])
    return columns


def covered(tasks: int, n: int, *, change: bool, trials: int, seed: int = 0) -> dict[str, float]:
    """The share of trials in which each kind of interval holds the true value."""
    stages, matrix = truth(tasks, change=change)
    generator = np.random.default_rng([seed, tasks, n, change])
    hits: dict[str, list[float]] = defaultdict(list)
    for _ in range(trials):
        found = bootstrap(stages, draw(matrix, n, generator), resamples=500)
        within = [
            span[0] <= true <= span[1]
            for row, values in zip(found.matrix, matrix.values, strict=True)
            for span, true in zip(row, values, strict=True)
            if span is not None
        ]
        hits["cells"].append(float(np.mean(within)))
        for name, figure in FIGURES.items():
            true = float(figure(matrix))
            if (interval := found.summary[name]) is not None:
                hits[name].append(float(interval[0] <= true <= interval[1]))
            if (fitted := found.cross_fitted.get(name)) is not None:
                hits[name].append(float(fitted[1][0] <= true <= fitted[1][1]))
    return {name: float(np.mean(one)) for name, one in hits.items()}


SCENES: Sequence[Mapping[str, int]] = [
    {"tasks": tasks, "n": n, "change": change} for change in (0, 1) for tasks in (4, 8) for n in (100, 500)
]


def table(trials: int) -> Iterator[str]:
    """The rows of the table, as Markdown."""
    yield "| truth | tasks | examples | " + " | ".join(n.replace("_", " ") for n in (*SHOWN, *MAXIMA)) + " |"
    yield "|---" * (3 + len(SHOWN) + len(MAXIMA)) + "|"
    for scene in SCENES:
        found = covered(scene["tasks"], scene["n"], change=bool(scene["change"]), trials=trials)
        cells = [f"{100 * found[name]:.1f}" for name in (*SHOWN, *MAXIMA)]
        told = "change" if scene["change"] else "no change"
        yield f"| {told} | {scene['tasks']} | {scene['n']} | {' | '.join(cells)} |"


def simulate(
    description: str | None,
    tables: Mapping[tuple[str, str], Callable[[int], Iterable[str]]],
    trials: int,
) -> None:
    """Print tables line by line as the command line asks, and with --write put them on the page.

    Args:
        description: For --help.
        tables: What stands before and after a table on the page, to what makes its lines from a number of
            trials.
        trials: How many by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=trials)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    for (begin, end), table in tables.items():
        lines = []
        for line in table(given.trials):
            print(line, flush=True)
            lines.append(line)
        if given.write:
            page = PAGE.read_text(encoding="utf-8")
            before, after = re.split(f"{begin}.*{end}", page, maxsplit=1, flags=re.DOTALL)
            PAGE.write_text("\n".join([before + begin, *lines, end + after]), encoding="utf-8")


if __name__ == "__main__":
    simulate(__doc__, {MARKS: table}, 2000)
