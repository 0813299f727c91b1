"""Intervals cover and tests keep their level: the simulations whose tables docs/statistics.md shows."""

import numpy as np
import pytest

from forgetmenot.metrics import Answers, SequentialTest, decide, judge, tango
from forgetmenot.metrics.verdicts import Decision
from scripts import verdict_errors
from scripts.coverage import MAXIMA, SCENES, SHOWN, covered
from scripts.false_positives import rates
from scripts.verdict_errors import (
    EARLY,
    PEEK,
    PLAIN,
    Scene,
    by_counts,
    changes,
    coverage,
    early,
    sequential_rates,
    verdict_rates,
)


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_every_printed_interval_covers(scene: dict[str, int]) -> None:
    """Nominal 95 %; 400 trials have a standard error of 1.1 points, so that 90 % is four below 94.5 %."""
    found = covered(scene["tasks"], scene["n"], change=bool(scene["change"]), trials=400)
    assert {*SHOWN, *MAXIMA} <= set(found)
    assert all(share >= 0.90 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("deviation", [0.0, 0.03, 0.05])
@pytest.mark.parametrize("taste", [0.0, 0.4])
@pytest.mark.parametrize("seeds", [3, 6, 20])
def test_equal_methods_are_seldom_told_apart(seeds: int, taste: float, deviation: float) -> None:
    """At most 7 %: 1,500 trials of 5 % have a standard error of .6 points."""
    both, alone = rates(seeds, 200, deviation, 1500, taste)
    assert both <= 0.07
    if deviation == 0.05:
        assert alone > 0.25, "over the examples alone the seed passes for a difference of the methods"


def test_the_simulations_run() -> None:
    found = covered(4, 60, change=True, trials=5)
    assert {*SHOWN, *MAXIMA} <= set(found)
    both, alone = rates(3, 50, 0.05, trials=20)
    assert 0 <= both <= 1
    assert 0 <= alone <= 1


MOST = 0.065  # of 2,000 tunes: 5 % and three standard errors


@pytest.mark.parametrize("scene", PLAIN, ids=str)
def test_verdicts_on_right_and_wrong_answers_keep_their_promise(scene: Scene) -> None:
    assert verdict_rates(scene, 0, 2000).forgotten <= MOST
    assert verdict_rates(scene, 1, 2000).kept <= MOST


def test_more_examples_decide_more() -> None:
    few, many = (verdict_rates(Scene(n, 0.1), 0, 2000).kept for n in (100, 1043))
    assert few < 0.3 < 0.75 < many
    assert verdict_rates(Scene(408, 0.1), 2, 2000).forgotten > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("scene", [one for one in verdict_errors.SCENES if one not in PLAIN], ids=str)
def test_verdicts_by_the_bootstrap_keep_their_promise(scene: Scene) -> None:
    """At most 8.3 % of 400 tunes: 5 % and three standard errors."""
    assert verdict_rates(scene, 0, 400).forgotten <= 0.083
    assert verdict_rates(scene, 1, 400).kept <= 0.083


def test_verdicts_in_clusters_and_of_figures_are_simulated_too() -> None:
    """The slow test counts errors; here only that a collapse is seen and "kept" is not said of it."""
    collapse = 8.0
    for scene in (Scene(200, 0.4, cluster=5), Scene(200, 0.4, kind="f1"), Scene(40, kind="loss")):
        found = verdict_rates(scene, collapse, 5)
        assert (found.kept, found.forgotten) == (0, 1), scene


@pytest.mark.parametrize("scene", [Scene(408, 0.1), Scene(408, 0.05, 4), Scene(1040, 0.1, 4, 5)], ids=str)
def test_stopping_early_keeps_the_promise(scene: Scene) -> None:
    """In 400 tunes; the slow test asks 2,000 of each row."""
    assert sequential_rates(scene, 0, 400).forgotten <= 0.083
    assert sequential_rates(scene, 1, 400).kept <= 0.083


@pytest.mark.slow
@pytest.mark.parametrize("scene", EARLY, ids=str)
def test_stopping_early_keeps_the_promise_in_every_row(scene: Scene) -> None:
    none, lost = (sequential_rates(scene, times, 2000) for times in (0, 1))
    assert none.forgotten <= MOST
    assert lost.kept <= MOST
    assert none.used <= 1


@pytest.mark.parametrize("difference", [0.0, -0.03])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("n", [20, 100, 408])
def test_tangos_interval_covers(n: int, share: float, difference: float) -> None:
    """Within 93 and 97 %; of 20 pairs one or two change where few do, and the interval covers more."""
    found = coverage(n, share, difference)
    assert found >= 0.93
    assert found <= (0.97 if n > 20 else 1)


def test_what_is_decided_early_is_what_the_interval_says() -> None:
    """Wealth of 20 asks for more than the interval of the examples so far."""
    scene, decided = Scene(700, 0.1), 0
    for times in (0, 1, 2):
        turned = changes(scene, scene.drops(times), 100, np.random.default_rng(times))
        for one, kept, forgotten, used in zip(turned[:, 0], *early(turned, scene), strict=True):
            asked = one[: round(used[0] * scene.n)]
            low, high = tango(int((asked > 0).sum()), int((asked < 0).sum()), len(asked))
            assert low > -scene.margin or not kept
            assert high < 0 or not forgotten
            decided += int(kept[0] | forgotten[0])
    assert decided > 150


def right_and_wrong(turned: verdict_errors.Floats) -> Answers:
    before = (turned < 0).astype(int)
    return Answers("accuracy", np.ones(len(turned), dtype=int), [before, (before + turned).astype(int)])


@pytest.mark.parametrize(("n", "share", "drop"), [(20, 0.3, 0.1), (60, 0.2, 0.1), (300, 0.1, 0.05)])
def test_the_rule_for_many_tunes_is_that_of_judge(n: int, share: float, drop: float) -> None:
    generator = np.random.default_rng(n)
    turned = changes(Scene(n, share, 3), [drop, 0.0, -drop], 60, generator)
    kept, forgotten = by_counts((turned > 0).sum(axis=2), (turned < 0).sum(axis=2), n, 0.03)
    seen = set()
    for trial, tasks in enumerate(turned):
        found = judge(
            {str(i): right_and_wrong(one) for i, one in enumerate(tasks)}, dict.fromkeys("012", 0.03)
        )
        decisions = [one.decision for one in found.values()]
        assert [one in ("kept", "gained") for one in decisions] == kept[trial].tolist()
        assert [one == "forgotten" for one in decisions] == forgotten[trial].tolist()
        seen |= set(decisions)
    assert "cannot tell" in seen
    assert seen & {"forgotten", "gained"}


@pytest.mark.parametrize("scene", [Scene(300, 0.13, 3), Scene(400, 0.2, 2, 5)], ids=str)
def test_stopping_many_tunes_early_is_what_the_tests_decide(scene: Scene) -> None:
    generator = np.random.default_rng(1)
    turned = changes(scene, [0.12] + [0.0] * (scene.tasks - 1), 12, generator)
    kept, forgotten, used = early(turned, scene)
    for trial, tasks in enumerate(turned):
        tests = {str(i): SequentialTest(scene.margin, scene.cluster) for i in range(scene.tasks)}
        decided: dict[str, Decision] = {}
        size = -(-PEEK // scene.cluster) * scene.cluster
        for start in range(0, scene.n, size):
            here = slice(start, start + size)
            for task, test in tests.items():
                if decided.get(task, "cannot tell") == "cannot tell":
                    clusters = np.arange(scene.n)[here] // scene.cluster if scene.cluster > 1 else None
                    test.update(tasks[int(task), here], clusters)
            decided = decide(tests, decided)
        assert [one == "kept" for one in decided.values()] == kept[trial].tolist()
        assert [one == "forgotten" for one in decided.values()] == forgotten[trial].tolist()
        assert [test.n / scene.n for test in tests.values()] == pytest.approx(used[trial].tolist())
    assert (kept | forgotten).any()
    assert not (kept | forgotten).all()
