"""The rate at which `fmn compare` finds two equal methods different, by simulation, over seeds and examples.

    python -m scripts.false_positives [--trials 4000] [--write]

Two methods are equal in expectation; each training seed gives a model with true accuracies of its own. The
same examples are asked of all models. Each method finds some examples easier than the other does, with
whatever seed ("taste"), and these are others in each trial. A comparison is a false positive where p < .05.
Beside the test that is used (`metrics.contrast` with the seeds) stands the one over the examples alone, which
earlier versions used: it answers another question, whether these very checkpoints differ. With --write the
table goes into docs/statistics.md.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from forgetmenot.metrics import contrast
from scripts.coverage import simulate

MARKS = "<!-- false positives: begin -->", "<!-- false positives: end -->"
TASKS, SLOPE = 4, 0.3  # an accuracy moves by about .3 for one on the probit scale, near .8


def trial(
    seeds: int, n: int, deviation: float, taste: float, generator: np.random.Generator
) -> tuple[list[float], NDArray[np.float64]]:
    """Two equal methods: the difference with each seed, and that in each resample [seeds, resamples]."""
    tastes = taste * generator.normal(size=(2, TASKS, n))
    hardness = generator.normal(size=(TASKS, n))
    differences = np.zeros((seeds, TASKS, n))
    for seed in range(seeds):
        for k, sign in enumerate((1, -1)):
            skill = 0.8 + generator.normal(0, deviation / SLOPE, size=(TASKS, 1))
            moods = 0.3 * generator.normal(size=(TASKS, n))
            differences[seed] += sign * (skill + moods + tastes[k] > hardness)
    weights = generator.multinomial(n, np.full(n, 1 / n), size=(200, TASKS)) / n
    resampled = np.einsum("btn,stn->sb", weights, differences, optimize=True) / TASKS
    return differences.mean(axis=(1, 2)).tolist(), resampled


def rates(seeds: int, n: int, deviation: float, trials: int, taste: float = 0.0) -> tuple[float, float]:
    """The false positives of the test over seeds and examples, and of that over the examples alone."""
    generator = np.random.default_rng([seeds, n, int(1000 * deviation), int(1000 * taste)])
    hits = np.zeros(2)
    for _ in range(trials):
        by_seed, resampled = trial(seeds, n, deviation, taste, generator)
        mean = float(np.mean(by_seed))
        judged = contrast(mean, 0.0, resampled, by_seed), contrast(mean, 0.0, resampled.mean(axis=0))
        hits += [one.p is not None and one.p < 0.05 for one in judged]
    both, examples = (hits / trials).tolist()
    return both, examples


def table(trials: int) -> Iterator[str]:
    """The rows of the table, as Markdown."""
    yield "| seeds | sd of an accuracy over seeds | taste | examples a task | both | examples alone |"
    yield "|---|---|---|---|---|---|"
    for seeds in (3, 6, 20):
        for deviation in (0.0, 0.02, 0.05):
            for taste in (0.0, 0.4):
                for n in (100, 500):
                    both, alone = rates(seeds, n, deviation, trials, taste)
                    yield (
                        f"| {seeds} | {deviation:.2f} | {taste:g} | {n} | {100 * both:.1f} % | "
                        f"{100 * alone:.1f} % |"
                    )


if __name__ == "__main__":
    simulate(__doc__, {MARKS: table}, 4000)
