"""Many runs: each as it is alone, failures reported and the rest finished, and going on after a kill."""

import html
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pandas as pd
import pytest
import transformers
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from rich.console import Console

import forgetmenot
from forgetmenot.cli import main
from forgetmenot.errors import UserError
from forgetmenot.process import Job
from forgetmenot.report.comparison.study_tables import FIGURES
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.studies import study as study_module
from forgetmenot.studies.config import expand_study, load_study
from forgetmenot.studies.launch import Place, status_and_sentence
from forgetmenot.studies.study import Study
from forgetmenot.tasks import Task, load_tasks
from tests.report.compared_runs import identity_gap
from tests.studies.in_process import place_runs

Go = Callable[..., Run]
MakeStudy = Callable[..., dict[str, Any]]
SMALL = {"evaluation.limit": 8, "training.limit": 16}


@pytest.fixture
def make_study(tiny: Mapping[str, Any], tmp_path: Path) -> MakeStudy:
    """A study of the tiny model: make_study({"dotted.key": [values]}, {"dotted.key": value of the base})."""

    def make(grid: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {
            "base": {**tiny, "tasks": tiny["tasks"][:2], **SMALL, **(base or {})},
            "grid": dict(grid),
            "resources": {"cpus": 1},
            "output": str(tmp_path / "study"),
        }

    return make


def _results(path: Path) -> bytes:
    return (path / "results.json").read_bytes()


# In turn


def test_a_failed_run_is_reported_and_the_rest_is_finished(
    make_study: MakeStudy, started: list[str], tiny: Mapping[str, Any], go: Go
) -> None:
    screen = io.StringIO()
    grid = {"model": ["no-such-model", tiny["model"]]}
    study = forgetmenot.study(make_study(grid), console=Console(file=screen, width=200))
    assert len(started) == 2
    assert study.status == 2
    ((name, sentence),) = study.failed.items()
    assert name.startswith("no-such-model-sequential-")
    assert "no-such-model" in sentence
    (run,) = study.runs
    assert _results(run.path) == _results(go("alone", {**SMALL, "tasks": tiny["tasks"][:2]}).path)
    said = " ".join(screen.getvalue().split())
    assert "2 runs, 2 to do" in said
    assert f": {sentence} (0 of 2 done, 1 failed" in said
    assert "1 of 2 done, 1 failed" in said


@pytest.mark.parametrize(
    ("batch_size", "sentence"),
    [
        (8, "Stage 01-animal: training stopped at step 2 of 2, where the loss is "),
        (16, "animal has no score after 01-animal. The model's numbers are not finite"),
    ],
    ids=["in its course", "with its last step"],
)
def test_a_run_that_diverges_is_left_out_and_named(
    batch_size: int, sentence: str, make_study: MakeStudy, started: list[str], tiny: Mapping[str, Any]
) -> None:
    base = {"tasks": tiny["tasks"][:1], "training.batch_size": batch_size, "training.warmup_ratio": 0}
    grid = {"training.learning_rate": [1e30, 1e-3]}
    study = forgetmenot.study(make_study(grid, base), console=Console(file=io.StringIO()))
    assert [said.startswith(sentence) for said in study.failed.values()] == [True]
    assert len(study.runs) == 1
    wrong, right = study.results["cells"]
    assert (wrong["failed"], wrong["runs"]) == (1, [])
    assert all(figure is None for figure in wrong["figures"].values())
    assert right["figures"]["average_performance"]
    said = " ".join(study.results["conclusions"])
    assert "ends highest" not in said
    assert "1 of 2 runs failed" in said


def test_the_report_compares_what_finished_and_says_why_the_rest_did_not(
    make_study: MakeStudy,
    started: list[str],
    tiny: Mapping[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that is absent, one that is gated and one without weights; the tiny one among them."""

    def download(repository: str, *_: Any, **__: Any) -> None:
        answer: Any = SimpleNamespace(headers={}, request=None)
        raise (GatedRepoError if "gated" in repository else RepositoryNotFoundError)("No.", response=answer)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", download)
    monkeypatch.setattr(transformers.utils.hub, "hf_hub_download", download)
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(Path(tiny["model"]) / "config.json", empty)
    models = ["no-such/model", "gated/model", str(empty), tiny["model"]]
    study = forgetmenot.study(
        {**make_study({"model": models, "prompt": ["default", "terse"]}), "published": "haque-2025"}
    )
    assert len(study.failed) == 6
    assert len(study.runs) == 2
    page = html.unescape((study.path / "report.html").read_text(encoding="utf-8"))
    assert study.results["conclusions"][0] in page
    for sentence in (
        "Model 'no-such/model' could not be loaded: it is neither a bundled model",
        "Model 'gated/model' is gated: accept its licence at https://huggingface.co/gated/model",
        f"Model {str(empty)!r} has no ",
    ):
        assert page.count(sentence) == 1  # once for all the runs that it stopped
    assert "Published: Haque 2025" in page
    assert "GlueOrca" in page
    markdown = (study.path / "study.md").read_text(encoding="utf-8")
    assert "The prompt moves the final mean by 0." in markdown
    groups = pd.read_csv(study.path / "report.csv")
    assert list(groups["runs"]) == [0, 0, 0, 2]
    assert list(groups["failed"]) == [2, 2, 2, 0]
    for run in study.runs:
        assert identity_gap(run.summary()) == pytest.approx(0.0, abs=1e-12)


def test_a_run_that_another_program_wrote_elsewhere_is_named(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade amid a study: the runs that follow are of the new program."""

    class Elsewhere:
        def poll(self) -> int:
            return 0

        def terminate(self) -> None: ...

        farewell = terminate

    place_runs(monkeypatch, Place(1, 1, lambda job: Elsewhere()))
    found = forgetmenot.study(make_study({"seed": [0]}))
    [sentence] = found.failed.values()
    assert sentence.startswith(
        "it ended without an error, but this study cannot read its results: the program"
    )
    assert found.status == 2


def test_a_finished_run_is_only_read_and_a_failed_one_is_tried_again(
    make_study: MakeStudy, started: list[str], tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    model = tmp_path / "later"
    config = make_study({"model": [tiny["model"], str(model)]})
    assert forgetmenot.study(config).status == 2
    model.symlink_to(tiny["model"])
    started.clear()
    study = forgetmenot.study(config)
    assert (study.status, study.failed) == (0, {})
    assert [name.rpartition("-sequential-")[0] for name in started] == [model.name]
    written = (study.path / "study.json").read_bytes()
    started.clear()
    assert forgetmenot.study(config).runs[0].results == study.runs[0].results
    assert started == []
    assert (study.path / "study.json").read_bytes() == written


def test_a_run_that_was_damaged_since_is_reported_and_the_others_stand(make_study: MakeStudy) -> None:
    config = make_study({"seed": [0, 1]})
    first, second = forgetmenot.study(config).runs
    (first.path / "results.json").write_text("{")
    study = forgetmenot.study(config)
    assert study.status == 2
    assert list(study.failed) == [first.path.name]
    assert "results.json" in study.failed[first.path.name]
    assert [run.path for run in study.runs] == [second.path]


def test_a_grid_that_grows_goes_on(make_study: MakeStudy, started: list[str]) -> None:
    config = make_study({"seed": [0]})
    del config["output"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(make_study({})["output"]).parent)
        before = forgetmenot.study(config)
        after = forgetmenot.study({**config, "grid": {"seed": [0, 1]}})
        assert after.path == before.path
        assert [name[-2:] for name in started] == ["-0", "-1"]
        assert len(after.runs) == 2


def test_the_table_has_every_run_and_the_cells_average_the_seeds(
    make_study: MakeStudy, started: list[str]
) -> None:
    study = forgetmenot.study(make_study({"method": ["sequential", "joint"], "seed": [0, 1, 2]}))
    table, cells = study.table, study.cells
    assert list(table["method"]) == ["sequential"] * 3 + ["joint"] * 3
    assert list(table["seed"]) == [0, 1, 2] * 2
    for row, run in zip(table.to_dict("records"), study.runs, strict=True):
        for name in FIGURES:
            expected = run.summary()[name]
            assert pd.isna(row[name]) if expected is None else row[name] == expected
    assert list(cells["method"]) == ["sequential", "joint"]
    scores = list(table["average_performance"][:3])
    assert cells["average_performance"][0] == pytest.approx(statistics.fmean(scores))
    assert cells["average_performance_std"][0] == pytest.approx(statistics.stdev(scores))
    assert list(cells["seeds"]) == [3, 3]
    assert pd.isna(cells["backward_transfer"][1])
    assert "stage" in study.results["runs"][3]["reasons"]["backward_transfer"]
    read = pd.read_csv(study.path / "study.csv")
    pd.testing.assert_frame_equal(read[list(FIGURES)], table[list(FIGURES)])
    assert Study(study.path).results == study.results == json.loads((study.path / "study.json").read_text())


# Before anything runs


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({"method": ["sequential", "jont"]}, ["run of method=jont", "'joint'"]),
        ({"method": [{"name": "joint", "strength": 1}]}, ["method=joint (strength 1)", "strength"]),
        ({"prompt": ["terse", "tersse"]}, ["run of prompt=tersse", "terse"]),
        ({"tasks": ["missing.yaml"]}, ["run of tasks=missing.yaml", "missing.yaml"]),
        ({"trackers": [["nosuch"]]}, ["run of trackers=nosuch", "'nosuch'"]),
        ({"data_dir": ["nowhere"]}, ["run of data_dir=nowhere", "data_dir"]),
    ],
)
def test_what_would_fail_is_said_before_anything_runs(
    make_study: MakeStudy, started: list[str], grid: dict[str, Any], says: list[str]
) -> None:
    config = make_study({**grid})
    with pytest.raises(UserError) as caught:
        forgetmenot.study(config)
    assert [words for words in says if words not in str(caught.value)] == []
    assert started == []
    assert not (Path(config["output"]) / "study.yaml").exists()


def test_tasks_are_loaded_once_for_all_runs(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(names: Sequence[str], folder: Path | None) -> list[Task]:
        loaded.extend(names)
        return load_tasks(names, folder)

    monkeypatch.setattr(study_module, "load_tasks", load)
    config = make_study({"order": "permutations", "seed": [0, 1]})
    study_module._check(expand_study(load_study(config)))
    assert loaded == config["base"]["tasks"]


@pytest.mark.parametrize(
    ("options", "resources", "says"),
    [
        ({"workers": 0}, {}, "--workers: give a number of at least 1"),
        ({}, {"gpus": 1}, "resources.gpus: only Ray assigns GPUs"),
        ({"ray": True}, {}, "--ray: Ray is not installed"),
    ],
)
def test_what_cannot_be_started_is_said(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, options: Any, resources: Any, says: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=says):
        forgetmenot.study({**make_study({"seed": [0]}), "resources": resources}, **options)


def test_one_study_at_a_time(make_study: MakeStudy, started: list[str]) -> None:
    config = make_study({"seed": [0]})
    with (
        RunDirectory(Path(config["output"])).locked("study"),
        pytest.raises(UserError, match="another process"),
    ):
        forgetmenot.study(config)
    assert started == []


@pytest.mark.parametrize(
    ("returned", "said", "status", "sentence"),
    [
        (0, "forgetmenot: not read\n", 0, None),
        (2, "a line\nforgetmenot: seed: wrong.\n", 2, "seed: wrong."),
        (70, "forgetmenot: a bug\na trace", 70, "a bug"),
        (2, "", 70, "It ended with status 2. What it said: {log}"),
        (1, "forgetmenot: x", 70, "It ended with status 1. What it said: {log}"),
        (-11, "", 70, "It was killed by SIGSEGV. What it said: {log}"),
        (
            -9,
            "",
            2,
            "It was ended by SIGKILL; the machine's memory may be full. Start the study again to go on with "
            "it. What it said: {log}",
        ),
        (143, "", 2, "It was ended by SIGTERM. Start the study again to go on with it. What it said: {log}"),
    ],
)
def test_a_failure_is_the_run_s_own_sentence_or_where_to_look(
    returned: int, said: str, status: int, sentence: str | None, tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    log.write_text(said, encoding="utf-8")
    expected = sentence and sentence.format(log=log)
    assert status_and_sentence(returned, log) == (status, expected)


def test_what_runs_is_stopped_when_the_study_is(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are told before one is waited for, and each once: a second signal would cut its save off."""
    stopped: list[str] = []

    class Interrupted:
        def __init__(self, job: Job) -> None:
            self.seed = job.config.stem[-1]

        def poll(self) -> int | None:
            raise KeyboardInterrupt

        def terminate(self) -> None:
            stopped.append(f"told {self.seed}")

        def farewell(self) -> None:
            stopped.append(f"gone {self.seed}")

    place_runs(monkeypatch, Place(2, 1, Interrupted))
    with pytest.raises(KeyboardInterrupt):
        forgetmenot.study(make_study({"seed": [0, 1, 2]}))
    assert stopped == ["told 0", "told 1", "gone 0", "gone 1"]


# In processes of their own


@pytest.mark.slow
def test_the_command_runs_each_in_a_process(
    make_study: MakeStudy, tiny: Mapping[str, Any], tmp_path: Path, go: Go, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two at a time, one of which fails: the other is, byte for byte, what it is alone."""
    study = load_study(make_study({"model": [tiny["model"], "no-such-model"]}))
    file = tmp_path / "study.yaml"
    file.write_text(study.to_yaml(), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["study", str(file), "--workers", "2", "--set", "base.evaluation.limit=4"])
    assert ended.value.code == 2
    said, complaint = capfd.readouterr()
    assert "1 of 2 done, 1 failed" in said
    assert complaint == ""
    found = Study(study.directory)
    (run,) = found.runs
    alone = go("alone", {**SMALL, "tasks": tiny["tasks"][:2], "evaluation.limit": 4})
    assert _results(run.path) == _results(alone.path)
    assert "after stage" in (found.path / "runs" / f"{run.path.name}.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_two_workers_find_what_one_finds(make_study: MakeStudy, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        output = str(tmp_path / f"study-{workers}")
        config = {**make_study({"method": ["sequential", "single"]}), "output": output}
        found.append(forgetmenot.study(config, workers=workers))
    assert found[0].status == found[1].status == 0
    for name in ("study.json", "study.csv", "study.md"):
        assert (found[0].path / name).read_bytes() == (found[1].path / name).read_bytes()
    for one, other in zip(found[0].runs, found[1].runs, strict=True):
        assert _results(one.path) == _results(other.path)


@pytest.mark.slow
def test_killed_it_takes_its_runs_with_it_and_goes_on(
    make_study: MakeStudy, tiny: Mapping[str, Any], tmp_path: Path, started: list[str], go: Go
) -> None:
    long = {"training.epochs": {"colour": 40}}
    config = make_study({"seed": [0, 1]}, long)
    first = forgetmenot.study({**config, "grid": {"seed": [0]}}).runs[0]
    written = (first.path / "results.json").stat().st_mtime_ns
    file = tmp_path / "study.yaml"
    file.write_text(load_study(config).to_yaml(), encoding="utf-8")
    second = expand_study(load_study(config))[1].config.directory
    process = subprocess.Popen([sys.executable, "-m", "forgetmenot", "study", str(file)])
    try:
        _wait(lambda: _began(second, "02-colour"))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _wait(lambda: _free(second))
    assert not (second / "results.json").exists()
    assert (second / "stages" / "01-animal" / "scores.json").exists()

    started.clear()
    study = forgetmenot.study(config)
    assert [name[-2:] for name in started] == ["-1"]
    assert (first.path / "results.json").stat().st_mtime_ns == written
    alone = go("alone", {**SMALL, **long, "tasks": tiny["tasks"][:2], "seed": 1})
    assert _results(study.runs[1].path) == _results(alone.path)
    assert not _began(second, "01-animal", times=2)


@pytest.mark.slow
@pytest.mark.parametrize("ray", [False, True], ids=["here", "ray"])
def test_told_to_end_its_runs_save(make_study: MakeStudy, tmp_path: Path, ray: bool) -> None:
    if ray:
        pytest.importorskip("ray", reason="Ray, the extra 'ray', is not installed")
    study = load_study(make_study({"seed": [0, 1]}, {"training.epochs": 9000}))
    file = tmp_path / "study.yaml"
    file.write_text(study.to_yaml(), encoding="utf-8")
    runs = [one.config.directory for one in expand_study(study)]
    command = [sys.executable, "-m", "forgetmenot", "study", str(file), "--workers", "2"]
    process = subprocess.Popen([*command, "--ray"] if ray else command)
    try:
        _wait(lambda: all((run / "stages/.01-animal.training.jsonl").exists() for run in runs))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()
    for run in runs:
        assert "Stage 01-animal is saved at step" in run.with_name(f"{run.name}.log").read_text()


@pytest.mark.slow
def test_ray_finds_what_a_run_alone_finds(make_study: MakeStudy, tiny: Mapping[str, Any], go: Go) -> None:
    pytest.importorskip("ray", reason="Ray, the extra 'ray', is not installed")
    grid = {"model": [tiny["model"], "no-such-model"]}
    study = forgetmenot.study(make_study(grid), ray=True, workers=2)
    assert study.status == 2
    assert "no-such-model" in next(iter(study.failed.values()))
    (run,) = study.runs
    assert _results(run.path) == _results(go("alone", {**SMALL, "tasks": tiny["tasks"][:2]}).path)


def _began(run: Path, stage: str, times: int = 1) -> bool:
    path = run / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [(event["event"], event.get("stage")) for event in events].count(("began", stage)) >= times


def _free(run: Path) -> bool:
    """No process holds the run's directory any more."""
    try:
        with RunDirectory(run).locked():
            return True
    except UserError:
        return False


def _wait(until: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)
