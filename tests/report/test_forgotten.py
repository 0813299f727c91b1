import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as parquet
import pytest

from forgetmenot.record.results import load_results
from forgetmenot.report.forgotten import lost_examples

MakeRun = Callable[..., Path]


def test_counts_agree_with_the_paired_test(make_run: MakeRun) -> None:
    run_dir = make_run()
    tests = json.loads((run_dir / "results.json").read_text())["significance"]
    losses = lost_examples(run_dir, load_results(run_dir))
    assert [loss.task for loss in losses] == ["sst2", "mrpc", "cola"]
    for loss in losses:
        test = tests[loss.task]
        assert (loss.forgotten, loss.gained, loss.n) == (test["forgotten"], test["gained"], test["n"])


def rows(run_dir: Path, stage: str, task: str) -> dict[str, dict[str, Any]]:
    table = parquet.read_table(run_dir / "stages" / stage / "predictions.parquet")
    return {row["example"]: row for row in table.to_pylist() if row["task"] == task}


def share(row: dict[str, Any]) -> float:
    shares = [math.exp(value) for value in row["log_likelihoods"]]
    return max(shares) / sum(shares)


def test_those_shown_were_right_then_and_are_wrong_now(make_run: MakeRun) -> None:
    run_dir = make_run()
    then, now = rows(run_dir, "01-sst2", "sst2"), rows(run_dir, "04-mnli", "sst2")
    for lost in lost_examples(run_dir, load_results(run_dir))[0].shown:
        before, after = then[lost.example], now[lost.example]
        assert before["gold"] == before["predicted"] == lost.gold == lost.said_then
        assert after["predicted"] == lost.said_now != lost.gold
        assert lost.text == before["prompt_text"]
        assert lost.sure_then == pytest.approx(share(before))
        assert lost.sure_now == pytest.approx(share(after))


def test_the_surest_are_shown(make_run: MakeRun) -> None:
    run_dir = make_run()
    then, now = rows(run_dir, "01-sst2", "sst2"), rows(run_dir, "04-mnli", "sst2")
    lost = [
        key
        for key in then
        if then[key]["predicted"] == then[key]["gold"] and now[key]["predicted"] != now[key]["gold"]
    ]
    surest = sorted(lost, key=lambda key: -min(share(then[key]), share(now[key])))
    assert [one.example for one in lost_examples(run_dir, load_results(run_dir))[0].shown] == surest[:3]


@pytest.mark.parametrize("method", ["joint", "single"])
def test_nothing_is_forgotten_where_nothing_follows(make_run: MakeRun, method: str) -> None:
    run_dir = make_run(method)
    assert lost_examples(run_dir, load_results(run_dir)) == []


def test_a_metric_without_right_and_wrong_is_left_out(make_run: MakeRun) -> None:
    metrics = {"sst2": "spearman", "mrpc": "accuracy", "cola": "rouge_l", "mnli": "accuracy"}
    run_dir = make_run(results_only={"metrics": metrics})
    assert [loss.task for loss in lost_examples(run_dir, load_results(run_dir))] == ["mrpc"]


def test_white_space_makes_no_answer_wrong(make_run: MakeRun) -> None:
    texts = {"metrics": dict.fromkeys(("sst2", "mrpc", "cola", "mnli"), "exact_match")}
    run_dir = make_run(results_only=texts)
    before = lost_examples(run_dir, load_results(run_dir))
    for path in run_dir.glob("stages/*/predictions.parquet"):
        answers = pd.read_parquet(path)
        answers["predicted"] = " " + answers["predicted"] + "\n"
        answers.to_parquet(path)
    after = lost_examples(run_dir, load_results(run_dir))
    assert sum(loss.forgotten for loss in before) > 0
    assert [loss.forgotten for loss in after] == [loss.forgotten for loss in before]


def test_generated_answers_have_no_probability(make_run: MakeRun) -> None:
    run_dir = make_run()
    for path in run_dir.glob("stages/*/predictions.parquet"):
        answers = pd.read_parquet(path)
        answers["log_likelihoods"] = None
        answers.to_parquet(path)
    (lost, *_) = lost_examples(run_dir, load_results(run_dir))[0].shown
    assert lost.sure_then is None
    assert lost.sure_now is None


def test_predictions_that_were_not_kept_show_nothing(make_run: MakeRun) -> None:
    run_dir = make_run()
    (run_dir / "stages" / "04-mnli" / "predictions.parquet").unlink()
    assert lost_examples(run_dir, load_results(run_dir)) == []
