"""`fmn synthesize`: from a task to rows of the model, a task file that runs, and a page that says why."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.config import load_config
from forgetmenot.errors import UserError
from forgetmenot.prompting import Prompt, choose_prompt
from forgetmenot.runs.api import run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.synthesis.subject import guided_prompt
from forgetmenot.tasks import Example, load_tasks
from forgetmenot.trials import synthesize as synthesize_module
from forgetmenot.trials.synthesize import synthesize
from forgetmenot.trials.synthesize_general import synthesize_general
from tests.conftest import word_rows

QUICK = {
    "rounds": 3,
    "per_round": 4,
    "outputs": 3,
    "best_of": 4,
    "noise": [],
    "input_window": False,
    "output_window": False,
    "min_frequency": 0.0,
    "max_input_tokens": 8,
    "max_output_tokens": 4,
    "temperature": 2.0,
}


@pytest.fixture(scope="module")
def model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with room for the requests, which are some hundred bytes."""
    folder = tmp_path_factory.mktemp("models") / "roomy-llama"
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(tiny_llama, max_position_embeddings=4096).save_pretrained(folder)
    return folder


@pytest.fixture
def kinds(make_task: Callable[..., Path]) -> Path:
    """A task with a free answer, whose inputs have two fields."""
    rows = [{**row, "place": f"yard {k}"} for k, row in enumerate(word_rows("animal", 40))]
    return make_task(
        "kinds",
        rows[:30],
        rows[30:],
        target="kind",
        instruction="Name the kind.",
        prompts={"default": {"template": "Name the kind.\n\nWord: {{ word }}\nKind:"}},
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_written_is_a_task_that_runs(
    model: Path, kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = synthesize(str(model), str(kinds), "out", settings={**QUICK, "training.epochs": 1}, train=True)
    out = found.path
    [task] = load_tasks([str(out / "task.yaml")], None)
    assert task.name == "kinds-self-guide"
    assert [one.fields for one in task.train] == [{"word": row["word"]} for row in lines(out / "train.jsonl")]
    assert [one.target for one in task.score] == [
        row["kind"] for row in lines(kinds.parent / "kinds-score.jsonl")
    ]
    guided = choose_prompt(task, "default").template
    assert guided.startswith("Name the kind.\n\nWord: ")
    assert guided.count("Name the kind.") == 1
    assert guided.count("Kind:") == 4
    assert choose_prompt(task, "in-context").template.count("Kind:") == 4 + found.found["in_context"]
    content = json.loads((out / "synthesis.json").read_text())
    assert content["funnel"][0]["entered"] == 12 == len(lines(out / "candidates.jsonl"))
    assert content["rows"] == len(task.train) == content["funnel"][-1]["left"]
    assert found.run is not None
    assert [stage["name"] for stage in found.run.results["stages"]] == ["00-base", "01-kinds-self-guide"]
    config = load_config(out / "run.yaml")
    assert (config.training.epochs, config.training.learning_rate) == (1, 5e-5)
    assert (config.adapter.kind, config.training.schedule, config.seed) == ("full", "linear", 42)
    assert run(config).path == found.run.path  # done already
    page, card = ((out / name).read_text() for name in ("synthesis.html", "README.md"))
    assert "What each step kept" in page
    assert content["demonstrations"][0]["input"] in card
    assert "| inputs written | 12 |" in card


@pytest.mark.parametrize("name", ["colour"])
def test_where_nothing_is_left_the_page_says_why(
    name: str, model: Path, tiny_tasks: dict[str, Path], tmp_path: Path
) -> None:
    said = r"no row is left of 12 inputs, .*names no label \d+\. What helps, .*: .*name no label\. .*html"
    with pytest.raises(UserError, match=said):
        synthesize(str(model), str(tiny_tasks[name]), tmp_path / "out", settings=QUICK)
    content = json.loads((tmp_path / "out" / "synthesis.json").read_text())
    assert content["missing_labels"] == ["blue", "red"]
    assert content["funnel"][2]["dropped"]["names no label"] > 0
    assert (tmp_path / "out" / "synthesis.html").is_file()
    assert not {"task.yaml", "run.yaml", "README.md"} & {one.name for one in (tmp_path / "out").iterdir()}


def test_where_no_row_can_be_held_out_it_is_said(
    model: Path, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    prompts = {"default": {"template": "Word: {{ word }}\nKind:"}}
    few = make_task("few", word_rows("animal", 3), target="kind", prompts=prompts)
    screen = Console(file=StringIO(), width=400)
    found = synthesize(str(model), str(few), tmp_path / "out", settings=QUICK, console=screen)
    said = f"from 20 on, and there are {found.found['rows']}."
    assert 0 < found.found["rows"] < 20
    assert said in screen.file.getvalue()  # type: ignore[attr-defined]


def test_three_rows_are_enough(
    model: Path, make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = {"default": {"template": "Word: {{ word }}\nKind:"}}
    few = make_task("few", word_rows("animal", 3), target="kind", prompts=prompts)
    found = synthesize(str(model), str(few), "out", settings={**QUICK, "rounds": 8})
    assert found.found["rows"] > 20
    assert not (found.path / "score.jsonl").exists()
    config = load_config(found.path / "run.yaml", {"training.epochs": 1})
    assert config.evaluation.split == "select"  # a tenth of its own rows
    assert [stage["name"] for stage in run(config).results["stages"]] == ["00-base", "01-few-self-guide"]


def test_rows_in_the_prompt_leave_room_for_an_answer(
    model: Path, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    """A free answer may have 64 tokens: with a model of few positions the fine-tune would be refused."""
    few = tmp_path / "few-positions"
    AutoTokenizer.from_pretrained(model).save_pretrained(few)
    AutoModelForCausalLM.from_pretrained(model, max_position_embeddings=640).save_pretrained(few)
    prompts = {"default": {"template": "Word: {{ word }}\nKind:"}}
    task = make_task("short", word_rows("animal", 24), target="kind", prompts=prompts)
    found = synthesize(str(few), str(task), tmp_path / "out", settings={**QUICK, "rounds": 8})
    assert 0 < found.found["in_context"] < found.found["rows"]
    config = load_config(found.path / "run.yaml", {"training.epochs": 1})
    assert config.training.max_length == 640
    assert "in-context" in [p for one in run(config).results["readings"] for p in one["prompt"].values()]


def test_what_is_written_is_watched_beside_the_real_task(model: Path, kinds: Path, tmp_path: Path) -> None:
    """The rows' prompt is that of their task alone."""
    found = synthesize(str(model), str(kinds), tmp_path / "out", settings={**QUICK, "rounds": 8})
    assert found.found["in_context"] > 0
    changed = {"training.epochs": 1, "evaluation.also_score": [str(kinds)], "output": str(tmp_path / "run")}
    ran = run(load_config(found.path / "run.yaml", changed))
    own, in_context = (one["prompt"] for one in ran.results["readings"])
    assert own.keys() == {"kinds-self-guide", "kinds"}
    assert in_context == {"kinds-self-guide": "in-context"}


def test_the_written_run_is_of_the_same_model_and_data(
    model: Path, kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the current directory holds, and wherever the run is started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # as a bundled model
    monkeypatch.setattr(synthesize_module, "BUNDLED", {"quickstart": "", model.name: ""})
    (tmp_path / model.name).symlink_to(model)
    (tmp_path / "data").mkdir()
    for name, wanted in ((model.name, model.name), (f"./{model.name}", str(tmp_path / model.name))):
        found = synthesize(name, str(kinds), f"out-{wanted[0] == '/'}", data_dir="data", settings=QUICK)
        written = yaml.safe_load((found.path / "run.yaml").read_text())
        assert written["model"]["name"] == wanted
        assert written["data_dir"] == str(tmp_path / "data")
        assert written["output"] == str(tmp_path / found.path / "run")


def test_a_row_that_ends_a_raw_block_stands_in_the_prompt_as_it_is() -> None:
    prompt = Prompt("default", "{{ word }}")
    texts = ["a {% endraw %} b", '{%- endraw %} "quoted" \\n', "{{ x }} {# note #}", "plain é 😀\nline"]
    shown = [Example(str(k), {"word": text}, target="t") for k, text in enumerate(texts)]
    guided = guided_prompt(prompt, shown, ["t"] * len(texts))
    assert guided.render({"word": "last"}) == "\n\n".join([*(f"{text} t" for text in texts), "last"])


def test_mistakes_are_named(model: Path, kinds: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="round"):
        synthesize(str(model), str(kinds), tmp_path / "out", settings={"round": 3})
    with pytest.raises(UserError, match=r"training\.epoch"):
        synthesize(str(model), str(kinds), tmp_path / "out", settings={"training.epoch": 3})
    for key in ("model", "tasks", "prompt", "seed"):
        with pytest.raises(UserError, match=rf"--set {key}: .* argument of its own"):
            synthesize(str(model), str(kinds), tmp_path / "out", settings={key: "7"})
    with pytest.raises(UserError, match=r"quickstart is a suite of . tasks.*: name one of qs-"):
        synthesize(str(model), "quickstart", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no folder of `fmn synthesize`"):
        synthesize(str(model), str(kinds), tmp_path / "mine", settings=QUICK)


def of_folder(path: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in path.iterdir() if one.is_file()}


def test_a_folder_is_of_one_task_by_one_model(
    model: Path, kinds: Path, tiny_tasks: dict[str, Path], tmp_path: Path, tiny_llama: Path
) -> None:
    out = synthesize(str(model), str(kinds), tmp_path / "out", settings=QUICK).path
    before = of_folder(out)
    with pytest.raises(UserError, match="wrote for task 'kinds', and this is task 'colour'; give another"):
        synthesize(str(model), str(tiny_tasks["colour"]), out, settings=QUICK)
    other = tmp_path / "other-llama"
    AutoTokenizer.from_pretrained(model).save_pretrained(other)
    AutoModelForCausalLM.from_pretrained(model, max_position_embeddings=4095).save_pretrained(other)
    with pytest.raises(UserError, match=r"holds what .*roomy-llama wrote .* and this is .*other-llama"):
        synthesize(str(other), str(kinds), out, settings=QUICK)
    with pytest.raises(UserError, match="wrote for task 'kinds', and this is task 'general'"):
        synthesize_general(str(model), out, settings={"count": 1})
    assert of_folder(out) == before


def test_where_other_settings_leave_no_row_no_task_is_left(model: Path, kinds: Path, tmp_path: Path) -> None:
    out = synthesize(str(model), str(kinds), tmp_path / "out", settings=QUICK).path
    with pytest.raises(UserError, match="no row is left"):
        synthesize(str(model), str(kinds), out, settings={**QUICK, "noise": [""]})
    assert {one.name for one in out.iterdir()} == {
        ".lock", "candidates.jsonl", "drawn.jsonl", "synthesis.html", "synthesis.json"
    }  # fmt: skip


@pytest.mark.parametrize("last", ["train.jsonl", "score.jsonl", "README.md", "task.yaml"])
def test_a_task_is_whole_or_not_there(
    last: str, model: Path, kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = synthesize(str(model), str(kinds), tmp_path / "out", settings=QUICK).path
    write = RunDirectory.write_text

    def killed(self: RunDirectory, name: str, text: str) -> None:
        write(self, name, text)
        if name == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "write_text", killed)
    longer = {**QUICK, "rounds": 5}
    with pytest.raises(KeyboardInterrupt):
        synthesize(str(model), str(kinds), out, settings=longer)
    assert not (out / "run.yaml").exists()
    assert (out / "task.yaml").exists() == (last == "task.yaml")
    if last == "task.yaml":
        assert len(load_tasks([str(out / "task.yaml")], None)[0].train) == len(lines(out / "train.jsonl"))
    monkeypatch.undo()
    whole = synthesize(str(model), str(kinds), tmp_path / "whole", settings=longer).path
    again = synthesize(str(model), str(kinds), out, settings=longer).path
    differ = {name for name, text in of_folder(again).items() if text != of_folder(whole)[name]}
    assert differ <= {"run.yaml", "drawn.jsonl"}  # the folder's name; what was answered twelve at once


def test_requests_fit_the_models_positions(model: Path, kinds: Path, tmp_path: Path) -> None:
    small = tmp_path / "small-llama"
    AutoTokenizer.from_pretrained(model).save_pretrained(small)
    AutoModelForCausalLM.from_pretrained(model, max_position_embeddings=700).save_pretrained(small)
    settings = {**QUICK, "rounds": 8, "max_input_tokens": 40}
    found = synthesize(str(small), str(kinds), tmp_path / "out", settings=settings).found
    assert found["settings"]["context_tokens"] == 700
    assert found["funnel"][0]["entered"] == 32


def test_a_killed_synthesis_goes_on_without_drawing_anything_again(
    model: Path, kinds: Path, tmp_path: Path
) -> None:
    settings = {**QUICK, "rounds": 12}
    whole = synthesize(str(model), str(kinds), tmp_path / "whole", settings=settings)
    given = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    command = [sys.executable, "-m", "forgetmenot", "synthesize", str(model), str(kinds), "out", *given]
    log = tmp_path / "out" / "drawn.jsonl"
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = log.read_text().splitlines()[:3]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    after = log.read_text().splitlines()
    assert after[:3] == before
    assert len({line[:20] for line in after}) == len(after)
    for name in ("synthesis.json", "train.jsonl", "candidates.jsonl", "drawn.jsonl"):
        assert (tmp_path / "out" / name).read_text() == (whole.path / name).read_text(), name
