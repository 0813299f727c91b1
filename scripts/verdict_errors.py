"""How often a verdict is wrong, and how often there is one, by simulation, with and without stopping early.

    python -m scripts.verdict_errors [--trials 2000] [--write]

A tune is simulated by how it changes the answers to examples that are another sample every time. Where it
changes nothing in truth, "forgotten" is an error; where it loses exactly ε, "kept" is. With four tasks they
are independent: an error is "forgotten" for any of four that did not change, or "kept" for all four where one
lost ε. Three tables go into docs/statistics.md with --write: the verdicts of all examples, the coverage of
Tango's interval (by exact enumeration), and stopping early.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, ndtri
from scipy.stats import binom

from forgetmenot.metrics import Answers, e_holm, judge, metric_named, tango_bounds
from forgetmenot.metrics.sequential import Bet
from scripts.coverage import simulate

VERDICTS = "<!-- verdicts: begin -->", "<!-- verdicts: end -->"
TANGO = "<!-- tango: begin -->", "<!-- tango: end -->"
SEQUENTIAL = "<!-- sequential: begin -->", "<!-- sequential: end -->"

ALPHA = 0.05
PEEK = 16  # examples between two looks
RIGHT = 0.8  # how many of the answers that do not change are right
WITHIN = 0.8  # the correlation of the changes of a cluster's answers, on the probit scale

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What is asked of a tune.

    Attributes:
        n: Examples of each task.
        share: How many of the answers change.
        tasks: How many are judged together.
        cluster: How many examples hang together.
        kind: The metric, and a word on its answers.
    """

    n: int
    share: float = 0.1
    tasks: int = 1
    cluster: int = 1
    kind: str = "accuracy"

    @property
    def metric(self) -> str:
        """Its name."""
        return self.kind.split()[0]

    @property
    def margin(self) -> float:
        """The metric's own ε."""
        return metric_named(self.metric).margin

    def drops(self, times: float) -> list[float]:
        """The true drop of each task: the first loses so many margins, the others nothing."""
        return [times * self.margin] + [0.0] * (self.tasks - 1)

    def possible(self, times: float) -> bool:
        """Whether enough answers change to lose so much."""
        return self.kind == "loss" or times * self.margin <= self.share


class Rates(NamedTuple):
    """Shares of tunes, and of examples.

    Attributes:
        kept: All tasks are called kept.
        forgotten: The task that dropped is called forgotten; or any, where none dropped.
        used: Of the examples.
    """

    kept: float
    forgotten: float
    used: float = 1.0


def changes(scene: Scene, drops: list[float], trials: int, generator: np.random.Generator) -> Floats:
    """After − before of each answer: −1, 0 or 1, [trials, tasks, n]."""
    shape = trials, scene.tasks, scene.n
    mood = generator.normal(size=shape)
    if scene.cluster > 1:
        common = generator.normal(size=(*shape[:2], -(-scene.n // scene.cluster)))
        common = np.repeat(common, scene.cluster, axis=-1)[..., : scene.n]
        mood = np.sqrt(WITHIN) * common + np.sqrt(1 - WITHIN) * mood
    drop = np.array(drops)[:, None]
    lost, gained = mood < ndtri((scene.share + drop) / 2), -mood < ndtri((scene.share - drop) / 2)
    turned: Floats = gained.astype(np.float64) - lost
    return turned


def by_counts(
    gained: Floats, lost: Floats, n: int, margin: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The rule of `judge` for right and wrong answers to n examples, for many tunes at once.

    Args:
        gained: How many turned from wrong to right, [trials, tasks].
        lost: How many turned from right to wrong, [trials, tasks].
        n: Examples of each task.
        margin: ε.

    Returns:
        Whether each task is kept, and whether it is forgotten, [trials, tasks].
    """
    low, high = tango_bounds(gained, lost, np.array(float(n)))
    fewer, more = np.minimum(gained, lost), np.maximum(gained, lost)
    p = np.where(more == 0, 1.0, np.minimum(1.0, 2 * betainc(np.maximum(more, 1), fewer + 1, 0.5)))
    order = np.argsort(p, axis=1)
    raised = np.take_along_axis(p, order, axis=1) * np.arange(p.shape[1], 0, -1)
    holm = np.empty_like(p)
    np.put_along_axis(holm, order, np.maximum.accumulate(raised, axis=1), axis=1)
    kept = low > -margin
    return kept, ~kept & (high < 0) & (holm <= ALPHA)


def answers(scene: Scene, drop: float, generator: np.random.Generator) -> Answers:
    """One tune's answers before and after to the examples of one task."""
    clusters = np.arange(scene.n) // scene.cluster if scene.cluster > 1 else None
    if scene.metric == "loss":
        tokens = np.ceil(np.exp(generator.normal(4, 0.8, size=scene.n)))
        before = generator.normal(-3.5, 0.5, size=scene.n)
        if "skewed" in scene.kind:  # a few texts become much worse
            change = 0.2 * (1 - generator.exponential(size=scene.n))
        else:
            change = generator.normal(0, 0.2, size=scene.n)
        texts = [np.stack([tokens * one, tokens], axis=1) for one in (before, before + change - drop)]
        return Answers("loss", None, texts, clusters)
    positive = 0.1 if "rare" in scene.kind else 0.5
    if scene.metric == "f1":
        drop = accuracy_drop(drop, positive, scene.share)
    turned = changes(scene, [drop], 1, generator)[0, 0]
    gold = (generator.random(scene.n) < positive).astype(int)
    right = np.where(turned == 0, generator.random(scene.n) < RIGHT, turned < 0)
    after = np.where(turned == 0, right, turned > 0)
    return Answers(scene.metric, gold, [np.where(one, gold, 1 - gold) for one in (right, after)], clusters)


def accuracy_drop(drop: float, positive: float, share: float) -> float:
    """The drop of the accuracy with which F1 drops by so much, where errors do not depend on the label."""

    def f1(accuracy: float) -> float:
        hits = positive * accuracy
        return 2 * hits / (hits + (1 - positive) * (1 - accuracy) + positive)

    def missing(by: float) -> float:
        same = (1 - share) * RIGHT
        return f1(same + (share + by) / 2) - f1(same + (share - by) / 2) - drop

    return float(brentq(missing, 0.0, share)) if drop else 0.0


def verdict_rates(scene: Scene, times: float, trials: int) -> Rates:
    """The verdicts of all examples, where the first task lost so many margins."""
    generator = np.random.default_rng(
        [scene.n, int(100 * scene.share), scene.tasks, scene.cluster, int(times)]
    )
    drops = scene.drops(times)
    if scene.metric == "accuracy" and scene.cluster == 1:
        shares = [[(scene.share - drop) / 2, (scene.share + drop) / 2, 1 - scene.share] for drop in drops]
        gained, lost = np.moveaxis(
            np.stack([generator.multinomial(scene.n, one, size=trials)[:, :2] for one in shares], axis=1),
            -1,
            0,
        ).astype(np.float64)
        kept, forgotten = by_counts(gained, lost, scene.n, scene.margin)
    else:
        margins = {str(task): scene.margin for task in range(scene.tasks)}
        found = [
            [
                one.decision
                for one in judge(
                    {
                        task: answers(scene, drop, generator)
                        for task, drop in zip(margins, drops, strict=True)
                    },
                    margins,
                    seed=trial,
                ).values()
            ]
            for trial in range(trials)
        ]
        decisions = np.array(found)
        kept, forgotten = np.isin(decisions, ("kept", "gained")), decisions == "forgotten"
    return rates(kept, forgotten, times)


def rates(kept: NDArray[np.bool_], forgotten: NDArray[np.bool_], times: float, used: float = 1.0) -> Rates:
    """Count the tunes of decisions [trials, tasks]."""
    lost = forgotten[:, 0] if times else forgotten.any(axis=1)
    return Rates(float(kept.all(axis=1).mean()), float(lost.mean()), used)


def sequential_rates(scene: Scene, times: float, trials: int) -> Rates:
    """The same with a look after every 16 examples, at all tasks, each asked until it is decided."""
    generator = np.random.default_rng(
        [scene.n, int(100 * scene.share), scene.tasks, scene.cluster, int(times)]
    )
    found = [
        early(changes(scene, scene.drops(times), min(200, trials - start), generator), scene)
        for start in range(0, trials, 200)
    ]
    kept, forgotten, used = (np.concatenate(one) for one in zip(*found, strict=True))
    return rates(kept, forgotten, times, float(used.mean()))


def early(turned: Floats, scene: Scene) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """`SequentialTest` and `decide` for many tunes at once.

    Args:
        turned: After − before, [trials, tasks, n].
        scene: Its clusters are whole.

    Returns:
        Whether each task is kept, whether it is forgotten, the share of examples used, [trials, tasks].
    """
    size, margin = scene.cluster, scene.margin
    units = turned.reshape(*turned.shape[:2], -1, size).mean(axis=-1)
    ones = np.ones(units.shape[-1])
    to_keep = np.exp(Bet(margin, 1 - margin).take(units + margin, ones))
    to_lose = np.exp(Bet(margin, 1.0).take(-units, ones))
    shape = turned.shape[:2]
    kept, forgotten = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    lose, used = np.ones(shape), np.zeros(shape)
    step = -(-PEEK // size)
    for end in [*range(step, len(ones), step), len(ones)]:
        going = ~kept & ~forgotten
        lose = np.where(going, to_lose[..., end - 1], lose)
        used = np.where(going, end / len(ones), used)
        now = going & (to_keep[..., end - 1] >= 1 / ALPHA)
        kept |= now
        forgotten |= going & ~now & (e_holm(lose) >= 1 / ALPHA)
    return kept, forgotten, used


def coverage(n: int, share: float, difference: float) -> float:
    """The probability that Tango's interval of n pairs holds the true difference, from all their outcomes."""
    turned = np.arange(n + 1)
    some = turned[binom.pmf(turned, n, share) > 1e-9]
    total = np.repeat(some, some + 1)
    gained = np.concatenate([np.arange(one + 1) for one in some])
    chance = binom.pmf(total, n, share) * binom.pmf(gained, total, (share + difference) / 2 / share)
    low, high = tango_bounds(gained, total - gained, np.array(float(n)))
    return float(chance[(low <= difference) & (difference <= high)].sum())


SIZES, SHARES = (20, 100, 408, 1043), (0.05, 0.1, 0.2)
PLAIN = [Scene(n, share, tasks) for tasks in (1, 4) for n in SIZES for share in SHARES]
SCENES = [
    *PLAIN,
    *(Scene(n, 0.1, cluster=5) for n in (50, 100, 408, 1043)),
    Scene(100, 0.2, cluster=5),
    Scene(100, 0.1, tasks=4, cluster=5),
    *(Scene(n, kind=kind) for kind in ("f1", "f1 rare") for n in (100, 408)),
    *(Scene(n, kind="loss") for n in (20, 100, 408)),
    *(Scene(n, kind="loss skewed") for n in (20, 50, 100, 200)),
]
EARLY = [
    *(scene for scene in PLAIN if scene.n > 20),
    Scene(3000, 0.1),
    *(Scene(n, 0.1, tasks, 5) for tasks in (1, 4) for n in (1040, 3000)),
]
TIMES = (0, 1, 2)


def table(
    scenes: list[Scene], simulated: Callable[[Scene, float, int], Rates], trials: int, *, used: bool
) -> Iterator[str]:
    """The rows of a table of verdicts, as Markdown, in percent of tunes."""
    titles = ["no change: forgotten", "kept", "lost ε: kept", "forgotten", "lost 2ε: kept", "forgotten"]
    if used:
        titles += [f"examples used: {one}" for one in ("no change", "lost ε", "lost 2ε")]
    yield f"| answers | examples | change | tasks | {' | '.join(titles)} |"
    yield "|---" * (4 + len(titles)) + "|"
    for scene in scenes:
        found = [simulated(scene, times, trials) if scene.possible(times) else None for times in TIMES]
        cells = []
        for times, one in zip(TIMES, found, strict=True):
            pair = ["–", "–"] if one is None else [f"{100 * one.kept:.1f}", f"{100 * one.forgotten:.1f}"]
            cells += pair if times else pair[::-1]
        if used:
            cells += ["–" if one is None else f"{100 * one.used:.0f}" for one in found]
        kind = scene.kind if scene.cluster == 1 else f"{scene.kind}, clusters of {scene.cluster}"
        share = "all" if scene.metric == "loss" else f"{scene.share:.2f}"
        yield f"| {kind} | {scene.n:,} | {share} | {scene.tasks} | {' | '.join(cells)} |"


def verdict_table(trials: int) -> Iterator[str]:
    """The verdicts of all examples."""
    return table(SCENES, verdict_rates, trials, used=False)


def sequential_table(trials: int) -> Iterator[str]:
    """The verdicts of those who stop as soon as they know."""
    return table(EARLY, sequential_rates, trials, used=True)


def tango_table(_trials: int) -> Iterator[str]:
    """The coverage of Tango's interval, in percent."""
    yield "| examples | true difference | " + " | ".join(f"{share:.2f} change" for share in SHARES) + " |"
    yield "|---" * (2 + len(SHARES)) + "|"
    for n in SIZES:
        for difference in (0.0, -0.03):
            cells = [f"{100 * coverage(n, share, difference):.1f}" for share in SHARES]
            yield f"| {n:,} | {difference:.2f} | {' | '.join(cells)} |"


if __name__ == "__main__":
    simulate(__doc__, {VERDICTS: verdict_table, TANGO: tango_table, SEQUENTIAL: sequential_table}, 2000)
