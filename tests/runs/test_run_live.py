"""The live page of a run: what is there so far, where the run stands, and nothing but looking."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import forgetmenot
from forgetmenot.config import RunConfig
from forgetmenot.errors import UserError
from forgetmenot.metrics import MatrixRow
from forgetmenot.record.layout import log_in_training
from forgetmenot.record.predictions import read_predictions, write_predictions
from forgetmenot.record.so_far import NOT_YET, results_so_far
from forgetmenot.report.live import LivePage
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.live import RunPages
from forgetmenot.runs.standing import plan_of

STAGES = ["00-base", "01-animal", "02-colour", "03-size"]
REFRESH = '<meta http-equiv="refresh" content="5">'
Cut = Callable[[int], Path]


@pytest.fixture
def cut(finished: Run, tmp_path: Path) -> Cut:
    """A copy of the finished run as it stood when so many of its stages were done."""

    def cut(done: int) -> Path:
        run_dir = tmp_path / "going"
        shutil.copytree(finished.path, run_dir)
        for name in ("results.json", "report.html"):
            (run_dir / name).unlink()
        for name in STAGES[done:]:
            shutil.rmtree(run_dir / "stages" / name)
        return run_dir

    return cut


def get(page: LivePage, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
    """Ask for a page: its status, its headers and its text."""
    connection = HTTPConnection(urlsplit(page.address).netloc, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """As while a process works on the directory."""
    with (run_dir / ".lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("done", [1, 2, 4])
def test_what_is_there_so_far_has_the_numbers_of_the_whole(cut: Cut, finished: Run, done: int) -> None:
    run_dir = cut(done)
    config, rows = plan_of(run_dir)
    assert config is not None
    assert [row.name for row in rows] == STAGES
    found = results_so_far(run_dir, rows, {"model": "tiny"})
    assert found is not None
    whole = finished.results
    assert found.matrix[:done] == whole["matrix"][:done]
    assert found.matrix[done:] == [[None] * 3] * (4 - done)
    assert found.intervals[:done] == whole["intervals"]["matrix"][:done]
    assert found.majority == whole["majority"]
    assert (found.measured, found.complete, found.metrics) == (done, done == 4, whole["metrics"])
    assert found.summary["over"] == whole["tasks"][: done - 1]
    if done == 4:
        assert found.summary == whole["summary"]
        assert found.not_learned == tuple(whole["not_learned"])


def test_a_column_that_has_come_is_not_scored_yet(cut: Cut, finished: Run) -> None:
    """As when a list of tasks has grown, and only the base has been asked the new one."""
    run_dir = cut(2)
    stage = run_dir / "stages" / "01-animal"
    table = read_predictions(stage / "predictions.parquet")
    for name in ("predictions.parquet", "seal.json"):
        (stage / name).unlink()
    write_predictions(
        stage / "predictions.parquet", {name: one for name, one in table.items() if name != "size"}
    )
    found = results_so_far(run_dir, plan_of(run_dir)[1], {"model": "tiny"})
    assert found is not None
    assert found.missing == [("01-animal", "size", NOT_YET)]
    assert found.matrix[1][:2] == finished.results["matrix"][1][:2]


def test_before_the_base_is_scored_there_is_nothing(cut: Cut) -> None:
    run_dir = cut(0)
    assert results_so_far(run_dir, plan_of(run_dir)[1], {"model": "tiny"}) is None
    with held(run_dir):
        page = RunPages(run_dir).page()
    assert "The base model is to be scored first" in page
    assert REFRESH in page


def test_the_page_says_where_the_run_stands(cut: Cut) -> None:
    run_dir = cut(2)
    pages = RunPages(run_dir)
    with held(run_dir):
        assert "2 of 4 stages are done. 02-colour is next." in pages.page()
        log_in_training(run_dir, "02-colour").write_text(
            '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 0.53125}\n{"step": 3, "lo'
        )
        page = pages.page()
        # the stage that is in training, its number of steps by the event of the run that was copied
        steps = next(
            event["steps"]
            for line in (run_dir / "events.jsonl").read_text().splitlines()
            if (event := json.loads(line))["event"] == "training" and event["stage"] == "02-colour"
        )
        assert f"02-colour has learned for 2 of {steps} steps (loss 0.531)." in page
        assert "Training loss of colour: from 2.000 to 0.531" in page
        (RunDirectory(run_dir).writing("02-colour")).mkdir()
        (RunDirectory(run_dir).writing("02-colour") / "trained.json").write_text("{}")
        assert "02-colour is trained, and is to be scored." in pages.page()
        assert "fmn resume" not in pages.page()
    assert f"No process works on it now; go on with: fmn resume {run_dir}" in pages.page()


@pytest.mark.parametrize("moment", ["it begins", "it ends"])
def test_a_run_that_begins_or_ends_while_it_is_looked_at_is_not_left_alone(
    cut: Cut, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, work = cut(2), ExitStack()
    if moment == "it ends":
        work.enter_context(held(run_dir))

    def plan_meanwhile(path: Path) -> tuple[RunConfig | None, list[MatrixRow]]:
        plan = plan_of(path)
        if moment == "it ends":
            work.close()
        else:
            work.enter_context(held(run_dir))
        return plan

    monkeypatch.setattr("forgetmenot.runs.live.plan_of", plan_meanwhile)
    with work:
        page = RunPages(run_dir).page()
    assert "02-colour is next" in page
    assert "No process works on it" not in page


def test_the_page_is_the_runs_report_as_far_as_it_goes(cut: Cut, finished: Run) -> None:
    page = RunPages(cut(3)).page()
    assert REFRESH in page
    assert "what was lost is judged after the last" in page
    for score in (value for row in finished.results["matrix"][:3] for value in row if value is not None):
        assert f'<span class="score">{score:.3f}</span>' in page
    assert page.count('<span class="score">') == 9
    assert "All stages are done; the results are still to be written." not in page


def test_all_stages_without_results_are_said(cut: Cut) -> None:
    assert "All stages are done; the results are still to be written." in RunPages(cut(4)).page()


def test_a_finished_run_is_its_report_to_the_letter(finished: Run) -> None:
    with finished.watch() as page:
        status, headers, text = get(page)
    assert (status, text) == (200, (finished.path / "report.html").read_text(encoding="utf-8"))
    assert REFRESH not in text
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'content="{policy}"' in text
    assert headers["Content-Security-Policy"].startswith(policy)
    assert headers["Cache-Control"] == "no-store"


def test_a_finished_run_without_its_page_has_one(finished: Run, tmp_path: Path) -> None:
    run_dir = tmp_path / "whole"
    shutil.copytree(finished.path, run_dir)
    (run_dir / "report.html").unlink()
    assert "All stages are done" in RunPages(run_dir).page()


def test_a_reader_may_hold_it_still(cut: Cut) -> None:
    with forgetmenot.watch(cut(2)) as page:
        going, still = get(page)[2], get(page, "/?hold")[2]
    assert '<a href="?hold">' in going
    assert REFRESH not in still
    assert '<a href="?">' in still


def test_an_empty_directory_waits(tmp_path: Path) -> None:
    with forgetmenot.watch(tmp_path) as page:
        status, _, text = get(page)
    assert status == 200
    assert "There is nothing to see yet" in text
    assert REFRESH in text
    assert list(tmp_path.iterdir()) == []


def test_looking_changes_nothing(cut: Cut) -> None:
    run_dir = cut(2)
    log_in_training(run_dir, "02-colour").write_text('{"step": 1, "loss": 2.0}\n{"st')

    def state() -> dict[str, tuple[int, int]]:
        return {
            str(file.relative_to(run_dir)): (file.stat().st_size, file.stat().st_mtime_ns)
            for file in run_dir.rglob("*")
        }

    before = state()
    with forgetmenot.watch(run_dir) as page:
        get(page)
        get(page)
    assert state() == before


def test_a_damaged_file_is_said_and_asked_for_again(cut: Cut) -> None:
    run_dir = cut(2)
    scores = run_dir / "stages" / "00-base" / "scores.json"
    whole = scores.read_bytes()
    with forgetmenot.watch(run_dir) as page:
        scores.write_bytes(whole[:-9])
        status, _, text = get(page)
        assert status == 200
        assert "scores.json is damaged" in text
        assert REFRESH in text
        scores.write_bytes(whole)
        assert "2 of 4 stages are done" in get(page)[2]


def test_it_answers_this_machine_alone(cut: Cut) -> None:
    with forgetmenot.watch(cut(1)) as page:
        assert page.address.startswith("http://127.0.0.1:")
        assert get(page, Host="localhost:1")[0] == 200
        status, _, text = get(page, Host="evil.example")  # by DNS rebinding
        assert status == 421
        assert "stages are done" not in text
        for path in ("/config.yaml", "/../config.yaml", "/stages"):
            status, _, text = get(page, path)
            assert status == 404
            assert "model:" not in text


def test_a_name_in_the_path_is_text(cut: Cut) -> None:
    with forgetmenot.watch(cut(1)) as page:
        assert "<script>" not in get(page, "/<script>alert(1)</script>")[2]


def test_what_cannot_be_watched_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sst2 is no directory .* by `fmn run --watch sst2`"):
        forgetmenot.watch("sst2")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds neither a run nor a study"):
        forgetmenot.watch(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--port 0: ports are 1 to 65535"):
        forgetmenot.watch(tmp_path / "empty", port=0)
    with forgetmenot.watch(tmp_path / "empty") as page:
        taken = int(page.address.rstrip("/").rpartition(":")[2])
        with pytest.raises(UserError, match=rf"--port {taken}: it cannot be had"):
            forgetmenot.watch(tmp_path / "empty", port=taken)


def test_a_glance_at_the_lock_keeps_no_run_away(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("forgetmenot run\n")
    with (tmp_path / ".lock").open(encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        threading.Timer(0.05, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        with RunDirectory(tmp_path).locked():
            pass
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(UserError, match="in use by another process"), RunDirectory(tmp_path).locked():
            pass


def test_it_follows_a_run_from_an_empty_directory_to_the_report(
    tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    run_dir, seen, over = tmp_path / "run", list[str](), threading.Event()
    run_dir.mkdir()

    def look(page: LivePage) -> None:
        while not over.is_set():
            seen.append(get(page)[2])

    with forgetmenot.watch(run_dir) as page:
        reader = threading.Thread(target=look, args=(page,))
        reader.start()
        try:
            forgetmenot.run({**tiny, "output": str(run_dir), "evaluation.limit": 8})
        finally:
            over.set()
            reader.join()
        last = get(page)[2]
    assert "There is nothing to see yet" in seen[0]
    assert any("of 4 stages are done" in text for text in seen)
    assert not any("cannot be read" in text for text in seen)
    assert not any("No process works on it" in text for text in seen)
    assert last == (run_dir / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("number", "how"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_the_command_serves_until_it_is_interrupted(cut: Cut, number: int, how: str) -> None:
    run_dir = cut(2)
    command = [sys.executable, "-m", "forgetmenot", "watch", str(run_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said.startswith("Page: http://127.0.0.1:")
    assert said.endswith("/ (Ctrl-C ends it)\n")
    host, _, port = urlsplit(said.split()[1]).netloc.partition(":")
    connection = HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", "/")
    assert b"2 of 4 stages are done" in connection.getresponse().read()
    connection.close()
    time.sleep(0.1)
    os.kill(process.pid, number)
    rest, complaint = process.communicate(timeout=60)
    assert (process.returncode, rest) == (128 + number, "")
    assert complaint == (
        f"forgetmenot: {how}. The page is no longer served. Go on with: fmn watch {run_dir}\n"
    )
