"""Whether the similarity of two tasks, seen before any training, tells how much one makes forget the other.

    python -m scripts.task_similarity OUT.json RUN_DIR... [--prompts 64]

For each stage t and each task j that was learned before it, over all runs: the drop R[t−1][j] − R[t][j], held
against the similarity of the two tasks under the untouched base model, the cosine of the mean PromptEOL
vectors of their training texts. Drops of the same ordered pair are averaged over the runs. Spearman's
correlation has a bootstrap interval over ordered pairs; they share tasks, so it is too narrow rather than too
wide.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgetmenot.config import read_resolved
from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.vectors import embed
from forgetmenot.errors import UserError
from forgetmenot.metrics.correlation import spearman
from forgetmenot.record.files import write_json
from forgetmenot.record.layout import CONFIG
from forgetmenot.report.screen import Screen
from forgetmenot.report.wording import number, span
from forgetmenot.runs.plan import data_folder
from forgetmenot.runs.session import open_session
from forgetmenot.tasks import load_tasks
from scripts.neutral_routing import spaced, texts_of

RESAMPLES, SEED = 2000, 0
FEWEST = 5  # pairs


def main() -> None:
    """Correlate, and print each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--prompts", type=int, default=64, help="training texts of each task")
    given = parser.parse_args()
    drops = dict(
        sorted(drops_of([json.loads((run / "results.json").read_text()) for run in given.runs]).items())
    )
    if len(drops) < FEWEST:
        raise UserError(f"the runs have {len(drops)} pairs of tasks; {FEWEST} or more are needed.")
    means = mean_vectors(given.runs, sorted({task for pair in drops for task in pair}), given.prompts)
    similarities = {(j, t): float(means[j] @ means[t]) for j, t in drops}
    x, y = (np.array([one[pair] for pair in drops]) for one in (similarities, drops))
    rho, interval = spearman(x, y), bootstrap(x, y)
    pairs = [
        {"forgotten": j, "learned": t, "similarity": similarities[j, t], "drop": drops[j, t]}
        for j, t in drops
    ]
    write_json(given.out, {"rho": rho, "interval": interval, "n": len(pairs), "pairs": pairs})
    screen = Screen()
    for j, t in drops:
        said = f"similarity {number(similarities[j, t])}, drop {number(drops[j, t])}"
        screen.print(f"{t} after {j}: {said}", highlight=False)
    screen.print(f"Spearman's ρ {number(rho)} ({span(interval)}), {len(pairs)} pairs", highlight=False)


def drops_of(results: Sequence[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """By (task learned before, task of the stage) the mean drop of the first one's score in that stage."""
    found = defaultdict(list)
    for one in results:
        learned: list[str] = []
        for stage, before, after in zip(one["stages"][1:], one["matrix"], one["matrix"][1:], strict=False):
            new = [task for task in stage["trains_on"] if task not in learned]
            for j in learned:
                then, now = (row[one["tasks"].index(j)] for row in (before, after))
                if len(new) == 1 and then is not None and now is not None:
                    found[j, new[0]].append(then - now)
            learned += new
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def mean_vectors(runs: Sequence[Path], names: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """The direction of each task's mean vector under the base model that all runs began with."""
    configs = [read_resolved(run / CONFIG) for run in runs]
    if others := {one.model.name for one in configs} - {configs[0].model.name}:
        raise UserError(
            f"the runs began with several models ({', '.join(sorted(others))}); give those of one."
        )
    learner = open_session(configs[0]).learner
    found: dict[str, np.ndarray] = {}
    for config in configs:
        for task in load_tasks(config.tasks, data_folder(config)):
            if task.name in names and task.name not in found:
                texts = texts_of(spaced(task.train, count))
                mean = embed(learner, texts, EmbeddingSettings()).double().mean(0)
                found[task.name] = (mean / mean.norm()).numpy()
    return found


def bootstrap(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """The middle 95 % of the correlation over draws of pairs; None where no draw has one."""
    draw = np.random.default_rng(SEED)
    rows = draw.integers(len(x), size=(RESAMPLES, len(x)))
    values = [value for k in rows if (value := spearman(x[k], y[k])) is not None]
    if not values:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
