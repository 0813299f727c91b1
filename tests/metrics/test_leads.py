"""Leads, the early warning: by hand, against SciPy's t interval, clusters against single examples."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from forgetmenot.metrics import Answers, judge
from forgetmenot.metrics.leads import lead
from forgetmenot.record.predictions import Predictions, column


def answers(before: np.ndarray, after: np.ndarray, clusters: np.ndarray | None = None) -> Answers:
    """Two models that answer all right, with these leads."""
    right = np.ones(len(before), dtype=int)
    return Answers("accuracy", right, [right, right], clusters, 2, [before, after])


def test_a_lead_is_the_right_labels_log_likelihood_less_the_best_others() -> None:
    said = Predictions(
        ["1", "2"], ["yes", "no"], ["yes", "maybe"], [[-3.0, -1.0, -2.0], [-5.0, -4.0, -0.5]],
        labels=("no", "yes", "maybe"),
    )  # fmt: skip
    assert said.leads == pytest.approx([1.0, -4.5])
    written = Predictions(["1"], ["yes"], ["yes"], labels=("no", "yes"))
    assert written.leads is None
    graded = Predictions(["1"], ["2.5"], ["2.0"], [[-1.0, -2.0]], labels=("0", "5"))
    assert graded.leads is None


def test_the_interval_is_students_t() -> None:
    generator = np.random.default_rng(0)
    before = generator.normal(1, 2, 200)
    after = before - 0.5 + generator.normal(0, 1, 200)
    found = lead(answers(before, after))
    assert found is not None
    assert found.interval is not None
    wanted = ttest_1samp(after - before, 0).confidence_interval()
    assert found.interval == pytest.approx((wanted.low, wanted.high))
    assert found.difference == pytest.approx(found.after - found.before)
    assert found.warns


def test_examples_of_a_cluster_count_together() -> None:
    generator = np.random.default_rng(1)
    each = generator.normal(-0.1, 1, 40)
    clusters = np.repeat(np.arange(40), 5)
    plain = lead(answers(np.zeros(200), np.repeat(each, 5)))
    clustered = lead(answers(np.zeros(200), np.repeat(each, 5), clusters))
    once = lead(answers(np.zeros(40), each))
    assert plain is not None
    assert clustered is not None
    assert once is not None
    assert clustered.interval == pytest.approx(once.interval)  # five copies say no more than one
    assert plain.interval is not None
    assert clustered.interval is not None
    assert np.ptp(plain.interval) < 0.5 * np.ptp(clustered.interval)


def test_a_trifle_does_not_warn() -> None:
    before = np.linspace(-2, 2, 10_001)
    assert not lead(answers(before, before - 0.01)).warns  # type: ignore[union-attr]
    assert lead(answers(before, before - 0.2)).warns  # type: ignore[union-attr]
    assert not lead(answers(before, before + 0.2)).warns  # type: ignore[union-attr]


def test_it_stands_beside_a_verdict_and_changes_none() -> None:
    before = np.linspace(0.5, 4, 2000)
    with_leads = answers(before, before - 0.4)
    plain = Answers(with_leads.metric, with_leads.gold, with_leads.predicted)
    found, without = (judge({"a": one}, {"a": 0.03})["a"] for one in (with_leads, plain))
    assert (found.decision, without.decision) == ("kept", "kept")
    assert found.interval == without.interval
    assert without.lead is None
    assert found.lead is not None
    assert found.lead.warns
    assert found.to_json()["lead"]["difference"] == pytest.approx(-0.4)


def test_missing_or_broken_leads_are_none() -> None:
    assert lead(Answers("accuracy", [1], [[1], [1]], None, 2, [None, np.ones(1)])) is None
    assert lead(answers(np.array([1.0]), np.array([-np.inf]))) is None
    one = lead(answers(np.array([1.0]), np.array([0.0])))
    assert one is not None
    assert one.interval is None


def test_a_column_has_the_leads_of_each_stage() -> None:
    stage = Predictions(["1", "2"], ["a", "b"], ["a", "a"], [[-1.0, -2.0], [-1.0, -3.0]], labels=("a", "b"))
    broken = Predictions(
        ["1", "2"], ["a", "b"], ["a", "a"], [[float("nan"), -2.0], [-1.0, -3.0]], labels=("a", "b")
    )
    found = column("accuracy", [stage, None, broken])
    assert found.leads[0] == pytest.approx([1.0, -2.0])
    assert found.leads[1:] == [None, None]
