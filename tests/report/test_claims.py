"""Claims that are stated before the runs: what they ask, their tests, and where they are told."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import permutation_test

from forgetmenot.errors import UserError
from forgetmenot.metrics import sign_flip
from forgetmenot.report.comparison.claims import Claim, Condition, check_claims, judge
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.conclusions import EXPLORATORY, conclusions
from forgetmenot.report.comparison.page import comparison_page
from forgetmenot.report.comparison.runs import ComparedRun, majority, read_run
from forgetmenot.report.comparison.weighted import END, LOST, weighted
from tests.report.compared_runs import forgetful, write_answers

Make = Callable[..., Comparison]
KEPT = {"sequential": 0.6, "replay": 0.85, "joint": 0.9}
SEEDS = (0, 1, 2, 3)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Methods × seeds; each keeps its share of the first task."""

    def make(
        kept: Mapping[str, float] = KEPT, seeds: Sequence[int] = SEEDS, also: Sequence[Any] = ()
    ) -> Comparison:
        runs = []
        for m, (method, share) in enumerate(kept.items()):
            for seed in seeds:
                folder = tmp_path / f"{method}-{seed}"
                write_answers(folder, forgetful(seed=100 * m + seed, kept=share))
                runs.append(read_run(folder, {"method": method, "seed": seed}))
        return Comparison("mine", [*runs, *also])

    return make


def _claim(weights: Mapping[str, float], above: float = 0.0, figure: Any = END) -> Claim:
    condition = Condition(figure=figure, weights=dict(weights), above=above)
    return Claim(says="Replay helps.", conditions=[condition])


def test_a_claim_of_two_methods_is_their_paired_test(make: Make) -> None:
    comparison = make()
    [judged] = judge(comparison, [_claim({"replay": 1, "sequential": -1})])
    pair = comparison.test("replay", "sequential", END)
    assert pair.contrast is not None
    assert judged.conditions[0].beyond == pair.contrast
    assert judged.p_holm == pair.contrast.p
    assert judged.borne_out


def test_a_share_of_a_gap_is_a_weighted_sum(make: Make) -> None:
    comparison = make()
    weights = {"replay": 1.0, "sequential": -0.5, "joint": -0.5}
    [judged] = judge(comparison, [_claim(weights)])
    ends = {
        name: [run.results.summary["average_performance"] for run in group.finished if run.results]
        for group in comparison.groups
        for name in [group.name]
    }
    by_seed = [sum(w * ends[name][k] for name, w in weights.items()) for k in range(len(SEEDS))]
    [condition] = judged.conditions
    assert condition.total == pytest.approx(np.mean(by_seed))
    found = weighted([(w, g.finished) for g in comparison.groups for w in [weights[g.name]]], END)
    assert found.by_seed == pytest.approx(by_seed)
    assert condition.beyond is not None
    assert condition.beyond.seeds == len(SEEDS)
    assert condition.by_sign == pytest.approx(sign_flip(by_seed))


def test_a_bound_shifts_the_sum_and_not_its_interval(make: Make) -> None:
    comparison = make()
    plain, shifted = (
        judge(comparison, [_claim({"replay": 1, "joint": -1}, above)])[0].conditions[0]
        for above in (0.0, -0.1)
    )
    assert plain.total == shifted.total
    assert plain.interval == pytest.approx(shifted.interval)
    assert plain.beyond is not None
    assert shifted.beyond is not None
    assert shifted.beyond.difference == pytest.approx(plain.beyond.difference + 0.1)
    assert shifted.p < plain.p


def test_the_commonest_answer_is_that_of_the_tasks_that_averages_are_over(make: Make) -> None:
    [run, *_] = make({"sequential": 0.6}, seeds=(0,)).runs
    assert run.results is not None
    run.results.majority = {"a": 0.5, "b": 0.7, "watched": 0.99}
    assert majority(run) == pytest.approx(0.6)
    run.results.majority = {"a": 0.5, "b": None}
    assert majority(run) is None


def test_more_seeds_than_can_be_flipped_leave_the_exact_test_out(make: Make) -> None:
    comparison = make({"sequential": 0.6, "replay": 0.8}, seeds=range(21))
    [judged] = judge(comparison, [_claim({"replay": 1, "sequential": -1})])
    assert judged.borne_out
    assert judged.conditions[0].by_sign is None


def test_the_wrong_sign_bears_nothing_out(make: Make) -> None:
    [judged] = judge(make(), [_claim({"sequential": 1, "replay": -1})])
    assert judged.conditions[0].p == 1.0
    assert not judged.borne_out


def test_all_conditions_must_hold_and_all_claims_are_corrected_together(make: Make) -> None:
    comparison = make()
    true = Condition(figure=END, weights={"replay": 1, "sequential": -1})
    false = Condition(figure=END, weights={"replay": 1}, above=0.99)
    alone, both = judge(
        comparison,
        [Claim(says="One.", conditions=[true]), Claim(says="Two.", conditions=[true, false])],
    )
    assert not both.borne_out
    assert alone.p_holm == pytest.approx(2 * alone.conditions[0].p)


def test_what_cannot_be_tested_says_why_and_makes_no_other_claim_easier(make: Make) -> None:
    failed = ComparedRun("gone", {"method": "lwf", "seed": 0}, failed="It broke.")
    comparison = make(also=[failed])
    good, untested = judge(
        comparison, [_claim({"replay": 1, "sequential": -1}), _claim({"lwf": 1, "sequential": -1}, 0.0, LOST)]
    )
    assert untested.conditions[0].reason is not None
    assert not untested.tested
    assert good.p_holm == pytest.approx(2 * good.conditions[0].p)


def test_names_of_rows_are_checked_before_anything_runs() -> None:
    def rows(*methods: Any) -> Comparison:
        runs = [ComparedRun(f"r{k}", {"method": m, "seed": 0}) for k, m in enumerate(methods)]
        return Comparison("mine", runs)

    several = rows("sequential", {"name": "replay", "share": 0.05}, {"name": "replay", "share": 0.5})
    with pytest.raises(UserError, match="'lwf' is none of the rows"):
        check_claims(several, [_claim({"lwf": 1})])
    with pytest.raises(UserError, match="'replay' stands for several rows"):
        check_claims(several, [_claim({"replay": 1})])
    check_claims(several, [_claim({several.groups[1].name: 1, "sequential": -1})])
    check_claims(rows("sequential", {"name": "replay", "share": 0.05}), [_claim({"replay": 1})])


def test_claims_are_told_first_and_the_rest_as_exploration(make: Make) -> None:
    comparison = make()
    claims = judge(
        comparison, [_claim({"sequential": 1, "joint": -1}), _claim({"replay": 1, "sequential": -1})]
    )
    first, second, third, *_ = conclusions(comparison, claims)
    assert first.startswith("Stated before and borne out: Replay helps (final mean: replay − sequential > 0")
    assert second.startswith("Stated before and not borne out: ")
    assert third == EXPLORATORY
    page = comparison_page(comparison, None, claims)
    assert "Stated before the runs" in page
    assert "borne out" in page
    assert EXPLORATORY not in conclusions(comparison)
    assert "Stated before the runs" not in comparison_page(comparison)


def test_without_a_difference_claims_are_seldom_borne_out() -> None:
    """Seed-to-seed noise alone: Student's t with the claim's own shift keeps its level."""
    from forgetmenot.metrics import contrast, holm

    draw, hits = np.random.default_rng(5), np.zeros(2)
    trials = 2000
    for _ in range(trials):
        ps = []
        for _claim_number in range(5):
            by_seed = draw.normal(0.02, 0.03, 6)
            found = contrast(
                float(by_seed.mean()), 0.02, draw.normal(0, 0.001, (6, 50)), list(by_seed - 0.02)
            )
            ps.append(1.0 if found.p is None or found.difference <= 0 else found.p)
        hits += [min(ps) < 0.05, min(holm(ps)) < 0.05]
    one_sided, corrected = hits / trials
    assert corrected < 0.04, "five true nulls, each against one side only"
    assert one_sided > 0.08, "without the correction the family is often wrong: the test can fail"


def test_sign_flips_are_those_of_scipy() -> None:
    draw = np.random.default_rng(3)
    for n in (1, 2, 5, 8):
        values = draw.normal(0.3, 1, n)
        if n > 1:
            theirs = permutation_test(
                (values,), np.sum, permutation_type="samples", alternative="two-sided", n_resamples=np.inf
            )
            assert sign_flip(values.tolist()) == pytest.approx(theirs.pvalue)
    assert sign_flip([0.1] * 6) == pytest.approx(2 / 64)
    assert sign_flip([0.0, 0.0]) == 1.0
    for wrong in ([], [0.1] * 21):
        with pytest.raises(ValueError, match="1 to 20"):
            sign_flip(wrong)
