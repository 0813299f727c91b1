import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from forgetmenot.report.findings import load
from forgetmenot.report.forgotten import lost_examples

MakeRun = Callable[..., Path]


def test_counts_agree_with_the_paired_test(make_run: MakeRun) -> None:
    run_dir = make_run()
    tests = json.loads((run_dir / "results.json").read_text())["significance"]
    losses = lost_examples(run_dir, load(run_dir))
    assert [loss.task for loss in losses] == ["sst2", "mrpc", "cola"]
    for loss in losses:
        test = tests[loss.task]
        assert (loss.forgotten, loss.gained, loss.n) == (test["forgotten"], test["gained"], test["n"])


def test_those_shown_were_right_then_and_are_wrong_now(make_run: MakeRun) -> None:
    run_dir = make_run()
    then = pd.read_parquet(run_dir / "stages" / "01-sst2" / "predictions.parquet")
    now = pd.read_parquet(run_dir / "stages" / "04-mnli" / "predictions.parquet")
    for lost in lost_examples(run_dir, load(run_dir))[0].shown:
        (before,) = then[(then.task == "sst2") & (then.example == lost.example)].itertuples()
        (after,) = now[(now.task == "sst2") & (now.example == lost.example)].itertuples()
        assert before.gold == before.predicted == lost.gold == lost.said_then
        assert after.predicted == lost.said_now != lost.gold
        assert lost.text == before.prompt_text
        shares = [math.exp(value) for value in after.log_likelihoods]
        assert lost.sure_now == pytest.approx(max(shares) / sum(shares))


def test_the_surest_come_first(make_run: MakeRun) -> None:
    run_dir = make_run()
    for loss in lost_examples(run_dir, load(run_dir)):
        sureness = [min(lost.sure_then or 0, lost.sure_now or 0) for lost in loss.shown]
        assert len(sureness) == 3
        assert sureness == sorted(sureness, reverse=True)


@pytest.mark.parametrize("method", ["joint", "single"])
def test_nothing_is_forgotten_where_nothing_follows(make_run: MakeRun, method: str) -> None:
    run_dir = make_run(method)
    assert lost_examples(run_dir, load(run_dir)) == []


def test_a_metric_without_right_and_wrong_is_left_out(make_run: MakeRun) -> None:
    metrics = {"sst2": "spearman", "mrpc": "accuracy", "cola": "rouge_l", "mnli": "accuracy"}
    run_dir = make_run(results_only={"metrics": metrics})
    assert [loss.task for loss in lost_examples(run_dir, load(run_dir))] == ["mrpc"]


def test_generated_answers_have_no_probability(make_run: MakeRun) -> None:
    run_dir = make_run()
    for path in run_dir.glob("stages/*/predictions.parquet"):
        rows = pd.read_parquet(path)
        rows["log_likelihoods"] = None
        rows.to_parquet(path)
    (lost, *_) = lost_examples(run_dir, load(run_dir))[0].shown
    assert lost.sure_then is None
    assert lost.sure_now is None


def test_predictions_that_were_not_kept_show_nothing(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "stages" / "04-mnli" / "predictions.parquet").unlink()
    assert lost_examples(run_dir, load(run_dir)) == []
