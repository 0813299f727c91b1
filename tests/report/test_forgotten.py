import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as parquet
import pytest

from forgetmenot.metrics import MatrixRow
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.results import load_results
from forgetmenot.report.forgotten import Losses, lost_examples
from tests.record.written_runs import asked, write_results

MakeRun = Callable[..., Path]


def test_counts_agree_with_the_paired_test(make_run: MakeRun) -> None:
    run_dir = make_run()
    tests = json.loads((run_dir / "results.json").read_text())["significance"]
    losses = lost_examples(run_dir, load_results(run_dir))
    assert [(loss.task, loss.named) for loss in losses] == [("mrpc", True), ("sst2", True), ("cola", True)]
    for loss in losses:
        test = tests[loss.task]
        assert (loss.forgotten, loss.gained, loss.n) == (test["forgotten"], test["gained"], test["n"])


def lost_of(run_dir: Path, task: str) -> Losses:
    return next(one for one in lost_examples(run_dir, load_results(run_dir)) if one.task == task)


def rows(run_dir: Path, stage: str, task: str) -> dict[str, dict[str, Any]]:
    table = parquet.read_table(run_dir / "stages" / stage / "predictions.parquet")
    return {row["example"]: row for row in table.to_pylist() if row["task"] == task}


def share(row: dict[str, Any]) -> float:
    shares = [math.exp(value) for value in row["log_likelihoods"]]
    return max(shares) / sum(shares)


def test_those_shown_were_right_then_and_are_wrong_now(make_run: MakeRun) -> None:
    run_dir = make_run()
    then, now = rows(run_dir, "01-sst2", "sst2"), rows(run_dir, "04-mnli", "sst2")
    for lost in lost_of(run_dir, "sst2").shown:
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
    assert [one.example for one in lost_of(run_dir, "sst2").shown] == surest[:3]


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


def two_stages(run_dir: Path, metric: str, before: Predictions, after: Predictions, **settings: Any) -> None:
    """A run that watches `old` while it learns `news`."""
    news = [Predictions(["0", "1"], ["a", "b"], ["a", "b"], labels=("a", "b"))] * 2
    write_results(
        run_dir,
        [MatrixRow("00-base"), MatrixRow("01-news", ("news",))],
        [asked("news", ["accuracy"], news), asked("old", [metric], [before, after], **settings)],
    )


def test_a_watched_task_is_compared_with_the_base_in_the_words_of_its_prompt(tmp_path: Path) -> None:
    ids, gold = [str(k) for k in range(40)], ["0", "1"] * 20
    turned = [str(1 - int(one)) for one in gold]
    before, after = (Predictions(ids, gold, list(said), labels=("0", "1")) for said in (gold, turned))
    two_stages(tmp_path, "accuracy", before, after, choices={"0": "no", "1": "yes"})
    (lost, *_) = lost_examples(tmp_path, load_results(tmp_path))
    assert (lost.task, lost.named, lost.from_base, lost.forgotten) == ("old", True, True, 40)
    assert [(one.gold, one.said_then, one.said_now) for one in lost.shown[:2]] == [
        ("no", "no", "yes"),
        ("yes", "yes", "no"),
    ]


def test_a_word_that_says_something_else_than_the_label_has_both(tmp_path: Path) -> None:
    ids, gold = [str(k) for k in range(40)], ["equivalent"] * 40
    before, after = (
        Predictions(ids, gold, [said] * 40, labels=("different", "equivalent"))
        for said in ("equivalent", "different")
    )
    two_stages(tmp_path, "accuracy", before, after, choices={"different": "Different", "equivalent": "yes"})
    (lost, *_) = lost_examples(tmp_path, load_results(tmp_path))
    assert (lost.shown[0].said_then, lost.shown[0].said_now) == ("yes (equivalent)", "Different")


def test_texts_that_lost_most_are_shown(tmp_path: Path) -> None:
    ids = [str(k) for k in range(40)]
    before, after = (
        Predictions(ids, [""] * 40, [None] * 40, [[-10 * one] for one in losses], [10] * 40)
        for losses in ([3.0] * 40, [3.0 + k / 20 for k in range(39)] + [2.5])
    )
    two_stages(tmp_path, "loss", before, after)
    (lost, *_) = lost_examples(tmp_path, load_results(tmp_path))
    assert (lost.by_loss, lost.named, lost.forgotten, lost.gained, lost.n) == (True, True, 38, 1, 40)
    assert [one.example for one in lost.shown] == ["38", "37", "36"]
    assert (lost.shown[0].said_then, lost.shown[0].said_now) == (
        "3.000 nats per token",
        "4.900 nats per token",
    )
    assert lost.shown[0].gold is None
