"""Runs whose prompts carry receipts, and what receipts are worth on saved stages."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from forgetmenot.config import load_config
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.metrics import MatrixRow
from forgetmenot.receipts.fit import issue_receipts
from forgetmenot.record.seal import write_sealed
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.rescore import rescore
from forgetmenot.trials.receipt_figures import correct_tests, figures_of_interpreter, recovery
from forgetmenot.trials.receipts import compare_with_receipts

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"training.limit": 16, "evaluation.limit": 8}
TFIDF = {**SMALL, "receipts.model": "tfidf"}
ALONE, WITH, WITHOUT = "alone", "with receipt", "without confidence"


@pytest.fixture(scope="session")
def tiny(tiny_llama: Path, tiny_tasks: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As elsewhere, but the model has positions enough for a receipt."""
    folder = tmp_path_factory.mktemp("roomy") / "tiny-llama"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    tasks = [str(path) for path in tiny_tasks.values()]
    return {"model": str(folder), "tasks": tasks, "training.batch_size": 8}


@pytest.fixture(scope="session")
def receipted(tiny: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of three tasks with receipts; for reading only."""
    import forgetmenot

    return forgetmenot.run({**tiny, **TFIDF, "output": str(tmp_path_factory.mktemp("runs") / "receipted")})


def shown(run: Run, stage: int = 0) -> list[dict[str, str]]:
    rows = run.predictions(stage)["prompt_text"]
    return [dict(line.split(": ", 1) for line in text.splitlines()) for text in rows]


def test_a_run_shows_receipts_and_says_how_good_they_are(receipted: Run) -> None:
    fields = shown(receipted)
    rows = receipted.predictions(0)
    right = np.array([one["receipt_label"] for one in fields]) == rows["gold"]
    assert right.mean() > 0.9  # the words tell
    assert all(0 < float(one["receipt_confidence"]) <= 1 for one in fields)
    about = receipted.results["receipts"]
    assert list(about) == receipted.results["tasks"] == ["animal", "colour", "size"]
    assert about["animal"]["accuracy"]["score"] > 0.9
    assert about["animal"]["source"] == "animal"
    assert "receipts" not in json.dumps(receipted.results["readings"])


def test_a_run_without_receipts_says_nothing_of_them(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("one", {**SMALL, "tasks": tiny["tasks"][:1]})
    assert "receipts" not in run.results
    assert not (run.path / "receipts").exists()


def test_the_same_command_gives_the_same_run(receipted: Run, go: Go, same: Same) -> None:
    same(receipted, go("again", TFIDF))


def _counting(patch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that small models are fitted for, from here on."""
    fitted: list[str] = []

    def counted(task: Any, *others: Any) -> Any:
        fitted.append(task.name)
        return issue_receipts(task, *others)

    patch.setattr("forgetmenot.runs.receipt_loader.issue_receipts", counted)
    return fitted


def test_a_run_goes_on_with_the_receipts_that_it_began_with(
    receipted: Run, go: Go, tiny: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    go("longer", {**TFIDF, "tasks": tiny["tasks"][:2]})
    fitted = _counting(monkeypatch)
    longer = go("longer", TFIDF)
    assert fitted == ["size"]
    assert longer.results["receipts"] == receipted.results["receipts"]


def test_receipts_that_have_changed_are_not_mixed_in(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("one", {**TFIDF, "tasks": tiny["tasks"][:1]})
    [file] = (path for path in (run.path / "receipts").iterdir() if path.name != "seal.json")
    content = json.loads(file.read_text())
    content["given"]["score"][0]["confidence"] = 0.123
    whole = file.read_text()
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{file.name} is damaged"):
        go("one", {**TFIDF, "tasks": tiny["tasks"][:2]})
    file.write_text(whole)
    write_sealed(file, json.dumps(content))
    with pytest.raises(UserError, match=r"created with tasks .* Resuming would mix two runs"):
        go("one", {**TFIDF, "tasks": tiny["tasks"][:2]})


def test_scored_anew_a_run_with_receipts_gives_what_it_gave(receipted: Run) -> None:
    reading: dict[str, Any] = {**rescore(receipted.path)[1]}
    own = receipted.results["readings"][0]
    assert {key: reading[key] for key in own} == own


def test_other_prompts_show_receipts_in_their_own_words(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("one", {**TFIDF, "tasks": tiny["tasks"][:1], "evaluation.prompts": ["terse"]})
    headline, terse = run.results["readings"]
    assert headline["prompt_hash"] != terse["prompt_hash"]
    table = parquet.read_table(run.path / "stages/00-base/predictions-terse.parquet")
    assert all("receipt_label" in text for text in table["prompt_text"].to_pylist())


def test_receipts_for_some_tasks_only(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("one", {**TFIDF, "receipts.tasks": ["colour"], "tasks": tiny["tasks"][:2]})
    assert list(run.results["receipts"]) == ["colour"]
    assert ["receipt_label" in one for one in shown(run)] == [False] * 8 + [True] * 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"receipts.tasks": ["colr"]},
            r"receipts\.tasks: this run has no task 'colr'\. Did you mean 'colour'",
        ),
        (
            {"receipts.sources": {"clour": "animal"}},
            r"receipts\.sources: there are no receipts for task 'clour'",
        ),
        (
            {"receipts.sources": {"colour": "animal"}},
            r"'colour' has the labels blue, red, but 'animal' has cat",
        ),
        ({"receipts.sources": {"colour": "nowhere"}}, "There is no task or suite 'nowhere'"),
    ],
)
def test_what_receipts_cannot_be_is_said(go: Go, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        go("one", {**TFIDF, **settings})


def test_demonstrations_from_train_would_carry_receipts(tiny: Mapping[str, Any], tmp_path: Path) -> None:
    config = load_config(None, {**tiny, "receipts.model": "tfidf"})
    tasks = ReceiptLoader(config, RunDirectory(tmp_path))(config.tasks, None)
    for task in tasks:
        for split in (task.train, task.select, task.score):
            assert split
            assert all({"receipt_label", "receipt_confidence"} <= e.fields.keys() for e in split)


def test_several_processes_get_the_receipts_that_one_fits(
    tiny: Mapping[str, Any], tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    config = load_config(None, {**tiny, "tasks": tiny["tasks"][:1], "receipts.model": "tfidf"})

    def load() -> Any:
        ranks.join()
        with pytest.MonkeyPatch.context() as patch:
            fitted = _counting(patch)
            [task] = ReceiptLoader(config, RunDirectory(tmp_path / "run"))(config.tasks, None)
        return fitted, [dict(example.fields) for example in task.score]

    (first, fields), (second, others) = in_processes(load)
    assert (first, second) == (["animal"], [])
    assert fields == others


# What receipts are worth


def test_a_models_answers_alone_and_with_receipts(
    tiny: Mapping[str, Any], receipted: Run, tmp_path: Path
) -> None:
    path, found = compare_with_receipts(
        tiny["model"], tiny["tasks"], {"evaluation.limit": 8}, output=tmp_path / "out"
    )
    assert json.loads(path.read_text()) == json.loads(json.dumps(found))
    assert [(row["stage"], row["task"]) for row in found["rows"]] == [
        ("00-base", name) for name in ("animal", "colour", "size")
    ]
    base = receipted.results["matrix"][0]  # the same questions, in a run
    assert [row["scores"]["accuracy"][WITH]["value"] for row in found["rows"]] == base
    predictions = receipted.predictions(0)
    for row in found["rows"]:
        rows = predictions[predictions["task"] == row["task"]]
        said = np.array([one["receipt_label"] for one in shown(receipted)])[
            predictions["task"] == row["task"]
        ]
        over = (rows["predicted"] != said).to_numpy()
        assert row["overrides"][WITH]["overridden"] == over.sum()
        assert (
            row["overrides"][WITH]["right"] == (over & (rows["predicted"] == rows["gold"]).to_numpy()).sum()
        )
        assert row["scores"]["accuracy"]["small model"]["value"] == (rows["gold"] == said).mean()
        assert sum(one["n"] for one in row["bins"]) == 8
        assert {(test["of"], test["against"]) for test in row["tests"]} >= {(WITH, ALONE), (WITH, WITHOUT)}
    about = found["tasks"]["animal"]
    assert about["tokens"][ALONE] < about["tokens"][WITHOUT] < about["tokens"][WITH]
    assert found["recovery"] == []
    text = (tmp_path / "out" / "receipts.md").read_text()
    assert "## Overrides" in text
    assert "Interpreter" not in text


def test_a_runs_stages_alone_and_with_receipts(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("one", {**SMALL, "evaluation.limit": 4, "tasks": tiny["tasks"][:2]})
    path, found = compare_with_receipts(str(run.path), settings={"receipts.folds": 2}, interpret=True)
    assert path == run.path / "receipts.json"
    alone = [row["scores"]["accuracy"][ALONE]["value"] for row in found["rows"]]
    assert alone == [value for row in run.results["matrix"] for value in row]
    [one] = found["recovery"]
    matrix = run.results["matrix"]
    assert (one["task"], one["learned"], one["at_the_end"]) == ("animal", matrix[1][0], matrix[2][0])
    for row in found["rows"]:
        assert row["interpreter"]["n"] == 4 == len(row["interpreter"]["answers"])
    assert "## Interpreter" in (run.path / "receipts.md").read_text()
    before = path.read_bytes()
    with pytest.raises(
        UserError, match=r"holds receipts.json of other tasks or settings, .* another --output"
    ):
        compare_with_receipts(str(run.path), settings={"receipts.folds": 3}, interpret=True)
    with pytest.raises(UserError, match="give another --output"):
        compare_with_receipts(str(run.path), settings={"receipts.folds": 2})
    assert path.read_bytes() == before
    again, _ = compare_with_receipts(str(run.path), settings={"receipts.folds": 2}, interpret=True)
    assert again.read_bytes() == before


def test_a_run_with_receipts_is_asked_without_them_too(receipted: Run, tmp_path: Path) -> None:
    _, found = compare_with_receipts(str(receipted.path), output=tmp_path / "out")
    with_them = [row["scores"]["accuracy"][WITH]["value"] for row in found["rows"]]
    assert with_them == [value for row in receipted.results["matrix"] for value in row]


def test_stages_without_weights_are_left_out(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("one", {**SMALL, "tasks": tiny["tasks"][:2], "checkpoints": "last"})
    _, found = compare_with_receipts(str(run.path))
    assert {row["stage"] for row in found["rows"]} == {"00-base", "02-colour"}
    assert found["recovery"] == []  # what was there once learned is not known


def test_what_cannot_be_compared_is_said(
    go: Go, tiny: Mapping[str, Any], make_word_task: Callable[..., Path]
) -> None:
    run = go("one", {**SMALL, "tasks": tiny["tasks"][:1]})
    with pytest.raises(
        UserError, match=r"training\.epochs: .* is a run, which keeps its own; set only receipts"
    ):
        compare_with_receipts(str(run.path), settings={"training.epochs": 2})
    with pytest.raises(UserError, match="none of these tasks chooses among labels and has a score split"):
        compare_with_receipts(str(run.path), [str(make_word_task("size", 24, 0))])


def _row(stage: str, task: str, alone: float | None, given: float | None) -> dict[str, Any]:
    values = {ALONE: alone, WITH: given, "small model": 0.8}
    return {
        "stage": stage,
        "task": task,
        "scores": {"accuracy": {how: {"value": value} for how, value in values.items()}},
    }


def test_recovery_by_hand() -> None:
    stages = [
        MatrixRow(name, tuple(name.split("-")[1:]), follows=True) for name in ("0", "1-a", "2-b", "3-c")
    ]
    rows = [_row(stage.name, task, 0.5, 0.5) for stage in stages for task in "abc"]
    rows[3] = _row("1-a", "a", 0.9, 0.9)
    rows[9] = _row("3-c", "a", 0.6, 0.75)
    rows[10] = _row("3-c", "b", 0.5, 0.7)
    first, second = recovery(stages, rows)
    assert first["lost"] == pytest.approx(0.3)
    assert first["recovered"] == pytest.approx(0.5)
    assert (second["lost"], second["recovered"]) == (0.0, None)


def test_p_values_are_corrected_for_all_tests_of_the_table() -> None:
    rows: list[dict[str, Any]] = [
        {"tests": [{"p": 0.01}, {"p": None}]},
        {"tests": [{"p": 0.04}, {"p": 0.03}]},
    ]
    correct_tests(rows)
    corrected = [test["p_holm"] for row in rows for test in row["tests"]]
    assert corrected == pytest.approx([0.03, None, 0.06, 0.06])


def test_an_interpreters_figures_by_hand() -> None:
    from forgetmenot.evaluation.scored_task import ScoredTask
    from forgetmenot.prompting import EncodedExamples, Prompt
    from forgetmenot.receipts.fit import Receipt
    from forgetmenot.tasks import Example, Task

    labels = {"no": "no", "yes": "yes"}
    rows = [
        Example(str(k), {"text": f"word {k}"}, label) for k, label in enumerate(("no", "yes", "yes", "no"))
    ]
    task = Task("t", "choice", "accuracy", [], [], rows, labels=tuple(labels))
    asked = ScoredTask(task, Prompt("p", "{{ text }}", labels), rows, EncodedExamples.of([]))
    receipts = [Receipt("yes", 0.9), Receipt("yes", 0.9), Receipt("no", 0.9), Receipt("no", 0.9)]
    form = "1. Influence Degree: {}\n2. Critical Features: {}\n3. Final Prediction: {}"
    texts = [form.format(0.2, "WORD", "no"), form.format(0.6, "other", "yes"), form.format("", "", "no"), "?"]
    found = figures_of_interpreter(asked, receipts, texts)
    assert (found["n"], found["could_not_parse"], found["accuracy"]) == (4, 1, 0.5)
    assert (found["overrides"]["overridden"], found["overrides"]["right"], found["overrides"]["n"]) == (
        1,
        1,
        3,
    )
    assert (found["influence"], found["influence_stated"]) == (pytest.approx(0.4), 2)
    assert (found["features_stated"], found["features_in_the_input"]) == (2, 1)
