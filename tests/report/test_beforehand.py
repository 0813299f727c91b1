"""Tests of what is said before a run: which drops its examples can rule out."""

import numpy as np
import pytest

from forgetmenot.metrics import Answers, judge, smallest_drop
from forgetmenot.report.beforehand import AtHand, can_be_shown


def at_hand(task: str = "mrpc", n: int = 408, metric: str = "accuracy", **given: float) -> AtHand:
    return AtHand(task, metric, n, int(given.get("independent", n)), given.get("margin", 0.03))


def test_too_few_examples_for_a_margin_are_named_with_how_many_it_takes() -> None:
    first, second = can_be_shown([at_hand("sst2", 2000), at_hand()])
    assert first == (
        "With these examples, and if 10 in 100 answers differ (assumed), a drop cannot be ruled out under "
        "4.4 points on mrpc (408 examples) and 2 points on sst2 (2,000 examples)."
    )
    assert second == (
        "Kept within the margin of 3 points can be shown from about 873 examples on: there are fewer of mrpc."
    )


def test_tasks_that_are_alike_share_a_figure() -> None:
    (told, _) = can_be_shown([at_hand("a", 120), at_hand("b", 120)])
    assert told.endswith("under 8.1 points on a and b (120 examples each).")


def test_enough_examples_need_no_second_sentence() -> None:
    assert len(can_be_shown([at_hand(n=873)])) == 1
    assert len(can_be_shown([at_hand(n=872)])) == 2


def test_examples_of_a_cluster_count_once() -> None:
    one = at_hand(n=900, independent=100)
    assert one.smallest_drop == smallest_drop(100)
    assert "on mrpc (900 examples, 100 independent)" in can_be_shown([one])[0]


def test_other_metrics_have_no_figure_and_that_is_said_once() -> None:
    sentences = can_be_shown(
        [at_hand("stsb", metric="spearman"), at_hand("corpus", metric="loss", margin=0.05)]
    )
    assert sentences == ["What can be shown on stsb (spearman) and corpus (loss) is not known beforehand."]
    assert at_hand(metric="loss").to_json()["needed"] is None


def test_many_tasks_are_few_sentences() -> None:
    tasks = [at_hand(f"t{i}", 100 + i) for i in range(20)]
    sentences = can_be_shown(tasks + [at_hand(f"l{i}", metric="loss") for i in range(20)])
    assert len(sentences) == 3
    assert "and less on 14 more tasks" in sentences[0]
    assert "and 14 more is" in sentences[2]
    assert can_be_shown([]) == []


@pytest.mark.parametrize("margin", [0.02, 0.03, 0.05])
def test_so_many_examples_show_kept_in_four_of_five_samples(margin: float) -> None:
    """What is said beforehand against verdicts on drawn answers of which one in ten differs."""
    n = at_hand(margin=margin).needed
    assert n is not None
    generator, kept, times = np.random.default_rng(3), 0, 200
    for _ in range(times):
        differ = generator.random(n) < 0.1
        before = (generator.random(n) < 0.5).astype(int)
        after = np.where(differ, 1 - before, before)
        judged = judge({"a": Answers("accuracy", np.ones(n, dtype=int), [before, after])}, {"a": margin})
        kept += judged["a"].decision in ("kept", "gained")
    assert 0.7 < kept / times < 0.9
