"""A directory that holds a run: the same one, a longer one, another one."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import forgetmenot
from forgetmenot.cli import main
from forgetmenot.errors import UserError
from forgetmenot.runs import execution
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"evaluation.limit": 8, "training.limit": 16}


def _events(run: Run) -> list[str]:
    lines = (run.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [f"{event['event']} {event.get('stage', '')}".strip() for event in map(json.loads, lines)]


def test_a_finished_run_is_only_reported(
    go: Go, same: Same, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = go("one", SMALL)
    told, written = _events(first), (first.path / "results.json").stat().st_mtime_ns
    monkeypatch.setattr(execution, "open_session", None)  # no model is loaded
    again = go("one", SMALL)
    same(first, again)
    assert _events(again) == told
    assert (again.path / "results.json").stat().st_mtime_ns == written


def test_a_lost_report_is_written_anew_and_nothing_is_trained(go: Go) -> None:
    first = go("one", SMALL)
    results = (first.path / "results.json").read_bytes()
    (first.path / "report.html").unlink()
    again = go("one", SMALL)
    assert (again.path / "report.html").is_file()
    assert (again.path / "results.json").read_bytes() == results
    assert _events(again).count("began 01-animal") == 1


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("before", [1, 2])
def test_a_grown_list_ends_in_the_results_of_the_longer(
    go: Go, same: Same, tiny: Mapping[str, Any], kind: str, before: int
) -> None:
    settings = {**SMALL, "adapter.kind": kind}
    go("grown", {**settings, "tasks": tiny["tasks"][:before]})
    grown = go("grown", settings)
    same(go("direct", settings), grown)
    told = _events(grown)
    assert all(told.count(f"began {stage['name']}") == 1 for stage in grown.results["stages"][1:])
    assert told.count("scored further tasks 00-base") == 1


def test_what_is_no_longer_there_to_ask_is_null_with_a_reason(go: Go, tiny: Mapping[str, Any]) -> None:
    settings = {**SMALL, "checkpoints": "last"}
    go("grown", {**settings, "tasks": tiny["tasks"][:2]})
    grown = go("grown", settings).results
    direct = go("direct", settings).results
    assert grown["matrix"][1] == [*direct["matrix"][1][:2], None]
    assert [grown["matrix"][k] for k in (0, 2, 3)] == [direct["matrix"][k] for k in (0, 2, 3)]
    assert direct["readings"][0]["missing"] == []
    ((missing),) = grown["readings"][0]["missing"]
    assert (missing["stage"], missing["task"]) == ("01-animal", "size")
    assert "no longer on disk" in missing["reason"]


def test_nothing_goes_on_from_weights_that_are_gone(go: Go, tiny: Mapping[str, Any]) -> None:
    settings = {**SMALL, "checkpoints": "none"}
    go("grown", {**settings, "tasks": tiny["tasks"][:2]})
    with pytest.raises(UserError, match=r"02-colour holds no weights"):
        go("grown", settings)


def test_a_shorter_list_is_another_run(go: Go, tiny: Mapping[str, Any]) -> None:
    go("one", {**SMALL, "tasks": tiny["tasks"][:2]})
    with pytest.raises(UserError, match=r"holds a run of another config: tasks differ"):
        go("one", {**SMALL, "tasks": tiny["tasks"][:1]})


def test_joint_on_more_tasks_is_another_run(go: Go, tiny: Mapping[str, Any]) -> None:
    go("joint", {**SMALL, "method": "joint", "tasks": tiny["tasks"][:2]})
    with pytest.raises(UserError, match=r"created with stages .*Resuming would mix two runs"):
        go("joint", {**SMALL, "method": "joint"})


def test_another_config_is_refused_and_the_keys_are_named(go: Go) -> None:
    first = go("one", SMALL)
    results = (first.path / "results.json").read_bytes()
    with pytest.raises(UserError, match=r"another config: adapter\.rank, seed differ.*--fresh") as caught:
        go("one", {**SMALL, "adapter.rank": 4, "seed": 3})
    assert str(first.path) in str(caught.value)
    assert (first.path / "results.json").read_bytes() == results


def test_fresh_starts_anew(go: Go, same: Same) -> None:
    go("one", SMALL)
    (go("one", SMALL).path / "readings").mkdir()
    other = {**SMALL, "seed": 3}
    anew = go("one", other, fresh=True)
    same(go("direct", other), anew)
    assert _events(anew).count("committed 00-base") == 1
    assert not (anew.path / "readings").exists()


def test_one_process_at_a_time(go: Go, tmp_path: Path) -> None:
    held = RunDirectory(tmp_path / "one")
    with held.locked(), pytest.raises(UserError, match="one is in use by another process"):
        go("one", SMALL)
    go("one", SMALL)


def test_a_second_process_is_refused_at_once(
    tiny: Mapping[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--model", tiny["model"], "--tasks", ",".join(tiny["tasks"])]
    arguments += ["--output", str(tmp_path / "one")]
    with RunDirectory(tmp_path / "one").locked():
        second = multiprocessing.get_context("fork").Process(target=main, args=(arguments,))
        second.start()
        second.join(60)
    assert second.exitcode == 2
    assert "one is in use by another process" in capfd.readouterr().err


def test_changed_data_is_not_gone_on_with(
    go: Go, make_word_task: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(make_word_task("animal"))
    with monkeypatch.context() as patched:
        patched.setattr(execution, "read_results", None)  # all stages are there, the results are not
        with pytest.raises(TypeError):
            go("one", {"tasks": path})
    rows = path.replace(".yaml", "-score.jsonl")
    Path(rows).write_text(Path(rows).read_text().replace("24", "25").replace("41", "99"))
    with pytest.raises(UserError, match=r"created with tasks \{'animal': .*--fresh"):
        go("one", {"tasks": path})


def test_another_model_in_the_same_place_is_not_gone_on_with(
    go: Go, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama, model)
    settings = {**SMALL, "model": str(model)}
    (go("one", settings).path / "results.json").unlink()
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="created with model_revision"):
        go("one", settings)


def test_a_run_keeps_the_threads_that_it_began_with(tiny: Mapping[str, Any], tmp_path: Path) -> None:
    """Sums over two threads round otherwise than over one: resuming takes the number that is recorded."""
    config = {**tiny, **SMALL, "output": str(tmp_path / "one")}
    first = forgetmenot.run(config)
    results = (first.path / "results.json").read_bytes()
    (first.path / "results.json").unlink()
    torch.set_num_threads(2)
    try:
        again = forgetmenot.run(config)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    assert (again.path / "results.json").read_bytes() == results


def test_an_unwritable_output_is_named(go: Go, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output: .*file/one cannot be written"):
        go(os.path.join("file", "one"), SMALL)  # noqa: PTH118
