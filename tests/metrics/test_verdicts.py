"""Verdicts: each decision by hand, margins, what it takes to decide, and which stages are compared."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from forgetmenot.metrics import (
    PAIRS,
    Answers,
    MatrixRow,
    Verdict,
    judge,
    margin_of,
    smallest_drop,
    tango,
    verdicts,
)


def answers(gained: int, lost: int, n: int, right: int | None = None) -> Answers:
    """Two models' answers of which so many turned; of the rest, half are right both times unless told."""
    right = (n - gained - lost) // 2 if right is None else right
    gold = np.ones(n, dtype=int)
    before = np.r_[np.zeros(gained), np.ones(lost), np.ones(right), np.zeros(n - gained - lost - right)]
    after = np.r_[np.ones(gained), np.zeros(lost), np.ones(right), np.zeros(n - gained - lost - right)]
    return Answers("accuracy", gold, [before.astype(int), after.astype(int)])


def verdict_of(one: Answers, margin: float = 0.03) -> Verdict:
    return judge({"task": one}, {"task": margin})["task"]


def test_a_small_drop_of_many_examples_is_kept_and_said_to_be_lower() -> None:
    found = verdict_of(answers(gained=10, lost=60, n=10_000))
    assert found.decision == "kept"
    assert found.difference == pytest.approx(-0.005)
    assert found.interval == pytest.approx(tango(10, 60, 10_000))
    assert found.lower_within


def test_a_drop_that_few_examples_show_is_neither_kept_nor_forgotten() -> None:
    # .600 to .483 of 60 examples: 10 lost, 3 gained.
    found = verdict_of(answers(gained=3, lost=10, n=60, right=26))
    assert found.before == pytest.approx(0.6)
    assert found.after == pytest.approx(0.4833, abs=1e-4)
    assert found.decision == "cannot tell"
    assert found.needed is not None
    assert found.needed > 60


def test_forgotten_gained_and_nothing_turned() -> None:
    assert verdict_of(answers(gained=1, lost=30, n=200)).decision == "forgotten"
    gained = verdict_of(answers(gained=30, lost=1, n=200))
    assert (gained.decision, gained.lower_within) == ("gained", False)
    assert verdict_of(answers(0, 0, 1000)).decision == "kept"
    # With the same answers to 20 examples a drop of .16 is still possible.
    assert verdict_of(answers(0, 0, 20)).decision == "cannot tell"


def test_a_whole_loss_of_four_examples_is_not_called_forgotten() -> None:
    """The interval's upper end is below 0, and McNemar's exact p is .125."""
    found = verdict_of(answers(gained=0, lost=4, n=4))
    assert found.interval is not None
    assert found.interval[1] < 0
    assert found.decision == "cannot tell"


def test_more_tasks_take_a_smaller_p() -> None:
    alone = judge({"a": answers(0, 6, 40)}, {"a": 0.03})["a"]
    assert alone.decision == "forgotten"
    assert alone.paired.p == pytest.approx(2 / 64)
    tasks = {"a": answers(0, 6, 40), "b": answers(3, 3, 40), "c": answers(3, 3, 40)}
    among = judge(tasks, dict.fromkeys(tasks, 0.03))["a"]
    assert among.paired.p_holm == pytest.approx(6 / 64)
    assert among.decision == "cannot tell"
    assert among.needed is not None
    assert among.needed > 40


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400), st.floats(0.005, 0.3))
def test_a_decision_follows_from_interval_and_p(gained: int, lost: int, rest: int, margin: float) -> None:
    n = gained + lost + rest
    if n == 0:
        return
    found = verdict_of(answers(gained, lost, n), margin)
    low, high = tango(gained, lost, n)
    p = found.paired.p_holm
    assert p is not None
    expected = "cannot tell"
    if low > -margin:
        expected = "gained" if low > 0 and p <= 0.05 else "kept"
    elif high < 0 and p <= 0.05:
        expected = "forgotten"
    assert found.decision == expected
    assert (found.needed is None) or expected == "cannot tell"


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 30), st.integers(40, 200))
def test_so_many_examples_do_decide(gained: int, lost: int, rest: int) -> None:
    """What is said to be needed decides, or a fifth more: counts are whole, and McNemar's test is exact."""
    n = gained + lost + rest
    found = verdict_of(answers(gained, lost, n))
    if found.needed is None:
        return
    times = 1.2 * found.needed / n
    more, fewer = round(gained * times), round(lost * times)
    assert verdict_of(answers(more, fewer, round(n * times))).decision != "cannot tell"


def losses(by: float, n: int = 300, spread: float = 0.2) -> Answers:
    """Log-likelihoods of n texts of 10 tokens that fall by so many nats a token."""
    generator = np.random.default_rng(0)
    first = generator.normal(-3.5, 0.5, n)
    second = first - by + generator.normal(0, spread, n)
    tokens = np.full(n, 10.0)
    sums = [np.stack([10 * one, tokens], axis=1) for one in (first, second)]
    return Answers("loss", None, sums)


def test_a_loss_is_judged_by_a_margin_in_nats() -> None:
    # 100 texts lose 1 nat a token (perplexity 41 to 112).
    assert verdict_of(losses(by=1.0), 0.05).decision == "forgotten"
    # A drop of .029 nats that a test calls significant is within a margin of .1.
    small = verdict_of(losses(by=0.029, spread=0.02), 0.1)
    assert (small.decision, small.lower_within) == ("kept", True)


def test_a_few_texts_may_show_a_loss_and_never_that_it_was_kept() -> None:
    assert verdict_of(losses(by=1.0, n=20), 0.05).decision == "forgotten"
    assert verdict_of(losses(by=-1.0, n=20), 0.05).decision == "gained"
    few = verdict_of(losses(by=0.002, n=29, spread=0.001), 0.05)
    assert (few.decision, few.needed) == ("cannot tell", 30)
    assert verdict_of(losses(by=0.002, n=30, spread=0.001), 0.05).decision == "kept"


def test_margins_by_task_metric_or_all() -> None:
    assert margin_of("sst2", "accuracy", None) == 0.03
    assert margin_of("cola", "matthews", None) == 0.05
    assert margin_of("news", "loss", None) == 0.05
    assert margin_of("sst2", "accuracy", 0.01) == 0.01
    assert margin_of("news", "loss", 0.01) == 0.05  # nats keep a margin of their own
    named = {"sst2": 0.02, "loss": 0.2}
    assert margin_of("sst2", "accuracy", named) == 0.02
    assert margin_of("mrpc", "accuracy", named) == 0.03
    assert margin_of("news", "loss", named) == 0.2


def test_the_smallest_drop_by_its_formula() -> None:
    assert smallest_drop(408) == pytest.approx((1.95996 + 0.84162) * np.sqrt(0.1 / 408), abs=1e-6)
    # A margin of that size is kept in about 80 of 100 samples where nothing changed.
    n, discordance = 500, 0.1
    margin, generator = smallest_drop(n, discordance), np.random.default_rng(0)
    turned = generator.multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=400)
    kept = [tango(int(g), int(b), n)[0] > -margin for g, b, _ in turned]
    assert 0.74 <= np.mean(kept) <= 0.88
    assert smallest_drop(500) == pytest.approx(float(ndtri(0.975) + ndtri(0.8)) * np.sqrt(0.1 / 500))


def test_clusters_are_the_units() -> None:
    plain = answers(gained=2, lost=22, n=120)
    assert verdict_of(plain).decision == "forgotten"
    few = Answers("accuracy", plain.gold, plain.predicted, clusters=np.arange(120) // 15)
    found = verdict_of(few)
    assert (found.decision, found.units) == ("cannot tell", 8)
    assert found.reason is not None
    assert "clusters" in found.reason
    many = Answers("accuracy", plain.gold, plain.predicted, clusters=np.arange(120) // 2)
    assert verdict_of(many).paired.test == "clustered bootstrap"
    assert verdict_of(many).units == 60


def test_the_bootstrap_of_equal_answers_is_no_point() -> None:
    """F1 of 40 examples, the same answers twice: 3.5 of 20 positives may turn, as Tango's interval allows."""
    gold = np.arange(40) % 2
    same = verdict_of(Answers("f1", gold, [gold, gold]))
    turning = 40 * tango(0, 0, 40)[1]
    least = 1 - 2 * (20 - turning) / (40 - turning)
    assert same.interval == pytest.approx((-least, least))
    assert same.decision == "cannot tell"


def share(right: int) -> Any:
    return (np.arange(400) < right).astype(int)


def columns_of(**predicted: list[Any]) -> dict[str, Answers]:
    return {task: Answers("accuracy", np.ones(400, dtype=int), found) for task, found in predicted.items()}


STAGES = [MatrixRow("00-base"), MatrixRow("01-a", ("a",)), MatrixRow("02-b", ("b",))]


def test_which_stages_are_compared() -> None:
    columns = columns_of(
        a=[share(200), share(360), share(240)],
        b=[share(200), share(200), share(390)],
        watched=[share(360), share(300), share(240)],
    )
    found = verdicts(STAGES, columns, dict.fromkeys(columns, 0.03))
    assert list(found) == list(PAIRS)
    assert {task: one.decision for task, one in found["base_end"].items()} == {
        "a": "gained",
        "b": "gained",
        "watched": "forgotten",
    }
    assert {task: one.decision for task, one in found["own_end"].items()} == {"a": "forgotten"}
    assert {task: one.decision for task, one in found["base_own"].items()} == {"a": "gained", "b": "gained"}
    assert found["own_end"]["a"].paired.forgotten == 120
    json.dumps(found["base_end"]["a"].to_json(), allow_nan=False)
    assert found == verdicts(STAGES, columns, dict.fromkeys(columns, 0.03))


def test_stages_that_start_from_the_base_are_judged_to_their_own_only() -> None:
    columns = columns_of(a=[share(200), share(360), share(240)], b=[share(200), share(200), share(390)])
    apart = [MatrixRow(one.name, one.trains_on, follows=False) for one in STAGES]
    found = verdicts(apart, columns, dict.fromkeys(columns, 0.03))
    assert (found["base_end"], found["own_end"]) == ({}, {})
    assert set(found["base_own"]) == {"a", "b"}


def test_the_base_alone_is_not_judged() -> None:
    assert verdicts(STAGES[:1], columns_of(a=[share(3)]), {"a": 0.03}) == {pair: {} for pair in PAIRS}


def test_missing_answers_are_no_verdict() -> None:
    columns = columns_of(a=[share(200), None, share(240)], b=[None, None, share(390)])
    found = verdicts(STAGES, columns, dict.fromkeys(columns, 0.03))
    a = found["own_end"]["a"]
    assert (a.decision, a.difference, a.needed) == ("cannot tell", None, None)
    assert a.reason == "The first model has no score on it."
    assert found["base_end"]["a"].decision == "gained"
    assert found["base_end"]["b"].reason == "The first model has no score on it."
    json.dumps(a.to_json(), allow_nan=False)


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_equal_answers_to_few_examples_of_a_label_show_nothing_kept(metric: str) -> None:
    def same(positives: int, n: int) -> Verdict:
        gold = (np.arange(n) < positives).astype(int)
        return verdict_of(Answers(metric, gold, [gold, gold]))

    # Where none of 400 turned, Tango's interval still allows 3.8 of them; of 16 positives that is a quarter.
    few = same(16, 400)
    assert few.decision == "cannot tell"
    assert few.interval is not None
    assert few.interval[0] < -0.1
    assert same(16, 4000).decision == "cannot tell"
    assert same(200, 1000).decision == "kept"


def test_equal_constant_answers_have_a_correlation_that_may_fall() -> None:
    gold = (np.arange(1043) >= 322).astype(int)
    constant = Answers("matthews", gold, [np.ones(1043, dtype=int)] * 2)
    found = verdict_of(constant, 0.05)
    assert found.interval is not None
    assert -0.05 < found.interval[0] < -0.004  # 3.8 wrong answers of the rarer kind: by hand, −.034
    assert found.decision == "kept"


def test_a_collapse_is_forgotten_also_among_hundreds_of_tasks() -> None:
    """The smallest share of 4,000 draws, 1/4001, times 210 tasks is above 5 %: more are drawn."""
    gold = ["a text of words"] * 50
    columns = {f"task-{k}": Answers("rouge_l", gold, [gold, ["none"] * 50]) for k in range(210)}
    found = judge(columns, dict.fromkeys(columns, 0.03))
    assert {one.decision for one in found.values()} == {"forgotten"}
