"""What can be done with the saved stages of a run."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import forgetmenot
from forgetmenot.config import load_config, read_resolved
from forgetmenot.errors import UserError
from forgetmenot.report.html import write_report
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.reprobe import reprobe
from forgetmenot.runs.rescore import rescore
from forgetmenot.runs.session import open_session
from forgetmenot.trials.receipts import compare_with_receipts

Go = Callable[..., Run]
STAGES = ["00-base", "01-animal", "02-colour", "03-size"]
SMALL = {"evaluation.limit": 8, "training.limit": 16}


@pytest.mark.parametrize(("keep", "kept"), [("all", STAGES[1:]), ("last", STAGES[3:]), ("none", [])])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpoints_are_kept_as_asked(go: Go, keep: str, kept: list[str], kind: str) -> None:
    run = go("one", {**SMALL, "checkpoints": keep, "adapter.kind": kind})
    weights = sorted(path.parent.parent.name for path in (run.path / "stages").rglob("*model.safetensors"))
    assert weights == kept
    assert np.array(run.results["matrix"]).shape == (4, 3)
    left = {path.name for path in (run.path / "stages").rglob(".*")}
    assert left == set()


@pytest.mark.parametrize("adapter", ["continue", "new", "merge", "full"])
def test_scored_anew_a_run_gives_what_it_gave(go: Go, adapter: str) -> None:
    settings = {"adapter.kind": "full"} if adapter == "full" else {"adapter.per_stage": adapter}
    run = go("one", {**SMALL, **settings})
    path, found = rescore(run.path)
    reading: dict[str, Any] = {**found}
    own = run.results["readings"][0]
    assert {key: reading[key] for key in own} == own
    assert reading["tasks"] == run.results["tasks"]
    assert reading["stages"] == STAGES
    assert path.parent == run.path / "readings"


def test_scored_by_another_prompt(go: Go) -> None:
    run = go("one", {**SMALL, "evaluation.prompts": ["terse"]})
    _, reading = rescore(run.path, prompt="terse")
    assert reading["matrix"] == run.results["readings"][1]["matrix"]
    assert reading["prompt"] == dict.fromkeys(run.results["tasks"], "terse")
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert page.count("<caption>accuracy") == 1, "the run asked by this prompt itself: it is there once"


def test_what_is_asked_later_stands_in_the_report(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("later", {**SMALL, "tasks": tiny["tasks"][:2]})
    _, again = rescore(run.path, prompt="terse")
    _, other = rescore(run.path, [tiny["tasks"][2]])
    page = unescape((run.path / "report.html").read_text(encoding="utf-8"))
    further = page.partition('id="readings"')[2]
    assert "prompt terse" in further
    for row in again["matrix"]:
        assert all(f"<td>{cell:.3f}</td>" in further for cell in row if cell is not None)
    beside = page.partition('id="others"')[2].partition("</section>")[0]
    assert f">{other['tasks'][0]}</th>" in beside
    for row in other["matrix"]:
        assert f"<td>{row[0]:.3f}</td>" in beside
    assert run.path.joinpath("report.html").read_text() == write_report(run.path).read_text()


def test_scored_on_another_task(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("two", {**SMALL, "tasks": tiny["tasks"][:2]})
    _, reading = rescore(run.path, [tiny["tasks"][2]])
    beside = go("besides", {**SMALL, "tasks": tiny["tasks"][:2], "evaluation.also_score": [tiny["tasks"][2]]})
    assert reading["matrix"] == [row[2:] for row in beside.results["matrix"]]


def test_stages_without_weights_are_null_with_a_reason(go: Go) -> None:
    run = go("one", {**SMALL, "checkpoints": "last"})
    _, reading = rescore(run.path)
    assert [reading["matrix"][k] for k in (0, 3)] == [run.results["matrix"][k] for k in (0, 3)]
    assert reading["matrix"][1:3] == [[None] * 3] * 2
    assert {(one["stage"], one["task"]) for one in reading["missing"]} == {
        (stage, task) for stage in STAGES[1:3] for task in run.results["tasks"]
    }
    assert all("no longer on disk" in one["reason"] for one in reading["missing"])


def test_tasks_without_the_prompt_are_left_out_and_it_is_said(
    go: Go, tiny: dict[str, Any], make_task: Callable[..., Path]
) -> None:
    rows = [{"n": f"n{k}", "kind": "ab"[k % 2]} for k in range(12)]
    prompts = {"default": {"template": "{{ n }}", "choices": {"a": "a", "b": "b"}}}
    plain = make_task("plain", rows, rows, label="kind", prompts=prompts)
    run = go("two", {**SMALL, "tasks": [tiny["tasks"][0], str(plain)]})
    screen = StringIO()
    _, reading = rescore(run.path, prompt="terse", console=Console(file=screen, width=200))
    assert reading["tasks"] == ["animal"]
    assert "plain: it has no such prompt, so the reading terse leaves it out." in screen.getvalue()


def test_what_cannot_be_scored_is_said(go: Go, make_word_task: Callable[..., Path], tmp_path: Path) -> None:
    run = go("one", SMALL)
    with pytest.raises(UserError, match="has no prompt 'short'"):
        rescore(run.path, prompt="short")
    with pytest.raises(UserError, match=r"none of .*size.yaml has a score split"):
        rescore(run.path, [str(make_word_task("size", 24, 0))])
    with pytest.raises(UserError, match=r"is not a run's directory: it has no config\.yaml"):
        rescore(tmp_path)


@pytest.mark.parametrize("adapter", ["continue", "new", "merge", "full"])
@pytest.mark.parametrize("stage", [0, 2])
def test_an_exported_stage_answers_by_itself(
    go: Go, tmp_path: Path, adapter: str, stage: int, answers_alone: Callable[[Path, Run, int], None]
) -> None:
    settings = {"adapter.kind": "full"} if adapter == "full" else {"adapter.per_stage": adapter}
    run = go("one", {**SMALL, **settings})
    said = export(run.path, str(stage), tmp_path / "out")
    assert float(re.search(r"at most (\S+) nats", said)[1]) < 1e-4  # type: ignore[index]
    answers_alone(tmp_path / "out", run, stage)


def test_a_model_that_answers_otherwise_is_not_exported(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = go("one", SMALL)
    monkeypatch.setattr("forgetmenot.models.quantize.merged", lambda model: model.unload())
    with pytest.raises(UserError, match=r"another one than was trained: its log-likelihoods differ"):
        export(run.path, "3", tmp_path / "out")
    assert [one for one in tmp_path.iterdir() if "out" in one.name] == []


def test_full_weights_are_exported_to_the_bit(go: Go, tmp_path: Path) -> None:
    run = go("one", {**SMALL, "adapter.kind": "full"})
    export(run.path, "02-colour", tmp_path / "out")
    saved = load_file(run.path / "stages/02-colour/model/model.safetensors")
    exported = load_file(tmp_path / "out/model.safetensors")
    assert saved.keys() == exported.keys()
    assert all(torch.equal(saved[name], exported[name]) for name in saved)


def test_what_cannot_be_exported_is_said(go: Go, tmp_path: Path) -> None:
    run = go("one", {**SMALL, "checkpoints": "last"})
    with pytest.raises(
        UserError, match=r"no stage '7'\. Known: 00-base, 01-animal, 02-colour, 03-size, last\."
    ):
        export(run.path, "7", tmp_path / "out")
    with pytest.raises(UserError, match="holds no weights"):
        export(run.path, "1", tmp_path / "out")
    assert [one for one in tmp_path.iterdir() if "out" in one.name] == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(UserError, match=r"full is not empty; give a new directory\."):
        export(run.path, "3", tmp_path / "full")
    with pytest.raises(UserError, match="is not a run's directory"):
        export(tmp_path, "3", tmp_path / "out")


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_stage_taken_up_again_trades_time_for_memory_as_before(go: Go, kind: str) -> None:
    run = go("one", {**SMALL, "training.activation_checkpointing": True, "adapter.kind": kind})
    session = open_session(read_resolved(run.path / "config.yaml"))
    session.to_stage(run.path / "stages" / STAGES[1], trainable=True)
    checkpointed = [getattr(m, "gradient_checkpointing", False) for m in session.learner.model.modules()]
    assert any(checkpointed)


def test_readings_of_like_names_lie_side_by_side(go: Go, tiny: Mapping[str, Any], tmp_path: Path) -> None:
    run = go("one", {**SMALL, "tasks": tiny["tasks"][:1]})
    own = Path(tiny["tasks"][0])
    (tmp_path / "other").mkdir()
    for file in own.parent.glob(f"{own.stem}*"):
        text = file.read_text()
        (tmp_path / "other" / file.name).write_text(text.replace("tabby", "siamese"))
    first, _ = rescore(run.path, [str(own)])
    second, _ = rescore(run.path, [str(tmp_path / "other" / own.name)])
    assert {first, second} == set((run.path / "readings").iterdir())
    assert rescore(run.path, [str(own)])[0] == first


def test_a_reading_of_many_tasks_has_a_name_that_a_disk_takes(go: Go, tiny: Mapping[str, Any]) -> None:
    run = go("one", {**SMALL, "tasks": tiny["tasks"][:1]})
    own = Path(tiny["tasks"][0])
    names = [f"{'support-tickets-of-a-kind-' * 3}{k}" for k in range(4)]
    for name in names:
        (own.parent / f"{name}.yaml").write_text(
            own.read_text().replace(f"name: {own.stem}", f"name: {name}")
        )
    path, found = rescore(run.path, [str(own.parent / f"{name}.yaml") for name in names])
    assert found["tasks"] == names
    assert len(path.name) < 143


def test_a_saved_stage_stands_on_its_own_base_alone(
    go: Go, tiny: Mapping[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_llama, tmp_path / "base")
    settings = {**SMALL, "model": str(tmp_path / "base"), "tasks": tiny["tasks"][:1]}
    run = go("one", settings)
    weights = load_file(tmp_path / "base" / "model.safetensors")
    changed = {name: weight + 0.01 for name, weight in weights.items()}
    save_file(changed, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"prompt": f"Word: {word}"} for word in ("rose", "sea", "hound", "sky")]))
    for use in (
        lambda: rescore(run.path),
        lambda: reprobe(run.path, [{"name": "layers", "prompts": str(prompts)}]),
        lambda: compare_with_receipts(str(run.path)),
        lambda: export(run.path, "1", tmp_path / "exported"),
    ):
        with pytest.raises(UserError, match="another than the run began with"):
            use()
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    assert rescore(run.path)[1]["matrix"] == run.results["matrix"]


def test_data_and_prompts_of_now_are_not_taken_for_those_of_the_run(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(Path(tiny["tasks"][0]).parent, tmp_path / "tasks")
    task = tmp_path / "tasks" / Path(tiny["tasks"][0]).name
    run = go("one", {**SMALL, "tasks": [str(task)]})
    rows = task.with_name("animal-score.jsonl")
    whole = rows.read_text(), task.read_text()
    rows.write_text("".join(whole[0].splitlines(keepends=True)[:5]))
    with pytest.raises(UserError, match=r"the data of animal is other than the run began with.*--tasks"):
        rescore(run.path)
    said = export(run.path, "1", tmp_path / "exported")
    assert "not held against" in said
    assert "the data of animal is other than the run began with" in said
    console = Console(width=10_000)
    _, found = rescore(run.path, [str(task)], console=console)
    assert "the data of animal is other than the run began with; these scores" in capsys.readouterr().out
    assert found["n"] == {"animal": 5}
    rows.write_text(whole[0])
    task.write_text(whole[1].replace("Word:", "The word:"))
    with pytest.raises(UserError, match="the prompt of animal is other than the run began with"):
        rescore(run.path)
    rescore(run.path, prompt="terse")
    task.write_text(whole[1])
    assert rescore(run.path)[1]["matrix"] == run.results["matrix"]


def test_an_export_needs_no_training_data(go: Go, tiny: Mapping[str, Any], tmp_path: Path) -> None:
    shutil.copytree(Path(tiny["tasks"][0]).parent, tmp_path / "tasks")
    run = go("one", {**SMALL, "tasks": [str(tmp_path / "tasks" / Path(tiny["tasks"][0]).name)]})
    shutil.rmtree(tmp_path / "tasks")
    export(run.path, "1", tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").is_file()


def test_a_configs_paths_are_relative_to_it_and_written_out_in_full(
    tiny: Mapping[str, Any], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    shutil.copytree(Path(tiny["tasks"][0]).parent, here / "tasks")
    shutil.copytree(tiny_llama, here / "model")
    elsewhere.mkdir()
    task = Path(tiny["tasks"][0]).name
    values = {
        "model": "model",
        "tasks": [f"tasks/{task}"],
        "training": {"limit": 16},
        "evaluation": {"limit": 8},
    }
    (here / "run.yaml").write_text(yaml.safe_dump({**values, "output": str(tmp_path / "out")}))
    monkeypatch.chdir(elsewhere)
    run = forgetmenot.run("../here/run.yaml")
    written = read_resolved(run.path / "config.yaml")
    assert (written.model.name, *written.tasks) == (str(here / "model"), str(here / "tasks" / task))
    monkeypatch.chdir(here)
    assert forgetmenot.run("run.yaml").results == run.results
    assert load_config(Path("run.yaml")).hash == load_config(None, values_of(values)).hash
    monkeypatch.chdir(tmp_path)
    assert rescore(run.path)[1]["matrix"] == run.results["matrix"]
    assert forgetmenot.run(run.path / "config.yaml").results == run.results


def values_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """As the command line gives them, from the folder itself."""
    return {"model": values["model"], "tasks": values["tasks"], "training.limit": 16, "evaluation.limit": 8}


def test_an_export_is_whole_or_nothing(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed one left beside the directory is in no way of the next."""
    run = go("one", SMALL)
    left = tmp_path / ".out.writing"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(AutoTokenizer.from_pretrained(_base(run))), "save_pretrained", full)
        with pytest.raises(OSError, match="No space left"):
            export(run.path, "3", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not left.exists()
    (tmp_path / "out").mkdir()
    export(run.path, "3", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def _base(run: Run) -> str:
    name: str = run.results["model"]
    return read_resolved(run.path / "config.yaml").model.name or name


def test_a_run_whose_data_has_moved_is_scored_where_it_is_now(go: Go, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run = go("one", {**SMALL, "data_dir": str(tmp_path / "data")})
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="data_dir: there is no folder"):
        rescore(run.path)
    _, reading = rescore(run.path, data_dir=tmp_path / "moved")
    assert reading["matrix"] == run.results["matrix"]
