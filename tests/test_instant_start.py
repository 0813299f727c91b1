"""What trains nothing waits for no library that trains: lists, reports, comparisons and refusals."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forgetmenot.config import load_config
from tests.report.compared_runs import forgetful, write_answers
from tests.report.conftest import write_run

HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "scipy.stats", "pandas", "sklearn")
PROGRAM = """
import json, sys
from forgetmenot.cli import main
try:
    main()
finally:
    with open("imported.json", "w") as file:
        json.dump(sorted(sys.modules), file)
"""
DONE, MISTAKE = 0, 2


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a finished run, and two that can be compared."""
    write_run(tmp_path / "run", "sequential", ("sst2", "mrpc"), n=40)
    for seed, name in enumerate(("one", "other")):
        write_answers(tmp_path / name, forgetful(seed))
        config = load_config(None, {"model": "owner/alpha", "seed": seed})
        (tmp_path / name / "config.yaml").write_text(config.to_yaml())
    return tmp_path


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("list methods", DONE, "ewc"),
        ("list probes", DONE, "embeddings"),
        ("list tasks", DONE, "sst2"),
        ("list prompts", DONE, "default"),
        ("list suites", DONE, "glue4"),
        ("list models", DONE, "quickstart"),
        ("list methods ewc", DONE, "strength: a number from 0 on; default 1000"),
        ("list methods ewd", MISTAKE, "list methods: there is no 'ewd'. Did you mean 'ewc'?"),
        ("list probes drift", DONE, "limit: a whole number above 0"),
        ("list metrics", DONE, "accuracy: Accuracy"),
        ("list settings training", DONE, "training.epochs"),
        ("report run", DONE, "run/report.html"),
        ("compare one other --output compared", DONE, "compared/compare.html"),
        ("run --set adapter.rnk=4", MISTAKE, "adapter.rnk: there is no such key"),
        ("run --set adapter.rnk=4 --method ewc", MISTAKE, "adapter.rnk: there is no such key"),
        ("run --method ewc --set method.stength=1", MISTAKE, "method.stength: there is no such key"),
        ("run --method ewd", MISTAKE, "there is no method 'ewd'"),
        ("run --tasks sst3", MISTAKE, "There is no task or suite 'sst3'"),
        ("run --tasks mine.yaml", MISTAKE, "mine.yaml"),
        ("run --tasks arc_easy", MISTAKE, "tasks: 'arc_easy' is a task of lm-evaluation-harness"),
        ("run --watch sst3", MISTAKE, "There is no task or suite 'sst3'"),
        ("run --data-dir nowhere", MISTAKE, "there is no folder 'nowhere'"),
        ("run --prompt ornate", MISTAKE, "ornate"),
        ("run --method replay --set adapter.kind=prompt --set training.limit.nope=3", MISTAKE, "nope"),
        ("run --set evaluation.probes=embedings", MISTAKE, "there is no probe 'embedings'"),
        ("run --method o-lora --set adapter.kind=full", MISTAKE, "adapter.kind: this method works with lora"),
        ("report nowhere", MISTAKE, "nowhere holds no finished run"),
        ("watch sst2", MISTAKE, "sst2 is no directory of a run or a study. (A run watches tasks by `fmn run"),
        ("compare one nowhere", MISTAKE, "nowhere is neither a finished run nor a study"),
        ("study nowhere.yaml", MISTAKE, "nowhere.yaml"),
        ("run --preview --tasks sst3", MISTAKE, "There is no task or suite 'sst3'"),
        ("score nowhere", MISTAKE, "nowhere is not a run's directory"),
        ("score one --tasks sst3", MISTAKE, "There is no task or suite 'sst3'"),
        ("export nowhere --stage last out", MISTAKE, "nowhere is not a run's directory"),
        ("check ./nowhere quickstart --tasks sst2", MISTAKE, "there is no './nowhere'"),
        ("check quickstart one --tasks qs-sentiment --margin 0", MISTAKE, "above 0"),
        ("check quickstart quickstart-small --tasks sst3", MISTAKE, "There is no task or suite 'sst3'"),
        ("check quickstart quickstart-small --tasks mine.yaml", MISTAKE, "mine.yaml"),
        ("check quickstart quickstart-small --tasks qs-sentiment --prompt ornate", MISTAKE, "ornate"),
        ("check quickstart quickstart-small --tasks qs-sentiment --probes drfit", MISTAKE, "'drfit'"),
        ("prompts quickstart --tasks sst3", MISTAKE, "There is no task or suite 'sst3'"),
        ("receipts quickstart --tasks sst3", MISTAKE, "There is no task or suite 'sst3'"),
    ],
)
def test_it_is_there_without_torch(command: str, status: int, words: str, here: Path) -> None:
    ended = _fmn(here, command)
    assert ended.returncode == status, ended.stderr
    assert words in (ended.stdout if status == DONE else ended.stderr)
    assert _heavy(here) == []


def test_a_run_says_what_it_is_going_to_do_before_torch_is_imported(here: Path) -> None:
    ended = _fmn(here, "run --prompt ornate --tasks qs-sentiment")
    assert ended.stdout.startswith(
        "quickstart learns qs-sentiment by sequential (LoRA, rank 8)\nDirectory: runs/"
    )
    assert "ornate" in ended.stderr
    assert _heavy(here) == []


@pytest.mark.parametrize(
    "command",
    [
        "--method repaly",
        "--tasks sst3",
        "--tasks mine.yaml",
        "--tasks broken.yaml",
        "--method o-lora --set adapter.kind=full",
        "--set evaluation.probes=embedings",
        "--set trackers=[nobody]",
        "--output file",
        "--output file/below",
        "--output {nothing}",
        "--preview --output file",
        "--preview --output file/below",
    ],
)
def test_what_is_refused_is_not_announced_and_leaves_nothing(command: str, here: Path) -> None:
    (here / "file").write_text("in the way")
    (here / "broken.yaml").write_text("name: broken\nlabl: x\ndata: {train: a.jsonl}")
    before = sorted(here.rglob("*"))
    ended = _fmn(here, f"run {command}")
    assert ended.returncode == MISTAKE
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert sorted(set(here.rglob("*")) - {here / "imported.json"}) == before


def test_a_number_of_processes_that_is_not_the_launchers_is_refused_without_torch(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "the launcher started 2" in _fmn(here, "run --num-processes 3").stderr
    assert _heavy(here) == []


@pytest.mark.parametrize("command", ["run --prompt ornate", "run --data-dir nowhere --output new/folder"])
def test_what_fails_before_it_writes_leaves_no_folder(command: str, here: Path) -> None:
    before = sorted(here.rglob("*"))
    assert _fmn(here, command).returncode == MISTAKE
    assert sorted(set(here.rglob("*")) - {here / "imported.json"}) == before


def _fmn(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which leaves the names of what it imported."""
    program = [sys.executable, "-c", PROGRAM, *command.split()]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)


def _heavy(folder: Path) -> list[str]:
    imported = json.loads((folder / "imported.json").read_text())
    return [name for name in HEAVY if name in imported]
