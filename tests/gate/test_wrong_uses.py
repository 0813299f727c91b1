"""Wrong uses of `fmn check`: each ends in one sentence that says what to do, with status 2."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from forgetmenot.cli import main

Prepare = Callable[[Path], object]
TASKS = "--tasks tasks/animal.yaml"


def nothing(_: Path) -> None:
    """All that it takes is there."""


def write(path: str, text: str) -> Prepare:
    def writing(here: Path) -> None:
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)

    return writing


def adapter(**changes: object) -> Prepare:
    """A folder that says it is an adapter, without weights."""
    config = {"peft_type": "LORA", "base_model_name_or_path": "model", **changes}
    return write("adapter/adapter_config.json", json.dumps(config))


def of_stage(edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Prepare:
    """A copy of the adapter of stage 1 with other tensors."""

    def editing(here: Path) -> None:
        shutil.copytree(here / "done/stages/01-animal/adapter", here / "adapter")
        config = json.loads((here / "adapter/adapter_config.json").read_text())
        (here / "adapter/adapter_config.json").write_text(
            json.dumps({**config, "base_model_name_or_path": "model"})
        )
        path = here / "adapter/adapter_model.safetensors"
        save_file(edit(load_file(path)), path)

    return editing


def without_weights(here: Path) -> None:
    shutil.rmtree(here / "done/stages/01-animal/adapter")


def not_reached(here: Path) -> None:
    shutil.rmtree(here / "done/stages/02-colour")


def not_finite(here: Path) -> None:
    path = here / "model/model.safetensors"
    weights = load_file(path)
    save_file(
        {**weights, "model.norm.weight": weights["model.norm.weight"] * float("nan")}, path, {"format": "pt"}
    )


def cut(path: str) -> Prepare:
    def cutting(here: Path) -> None:
        whole = (here / path).read_bytes()
        (here / path).write_bytes(whole[: len(whole) // 2])

    return cutting


def other_base(here: Path) -> None:
    shutil.copytree(here / "done/stages/01-animal/adapter", here / "adapter")
    config = json.loads((here / "adapter/adapter_config.json").read_text())
    changed = {**config, "base_model_name_or_path": "quickstart-small"}
    (here / "adapter/adapter_config.json").write_text(json.dumps(changed))


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("layers.0", "layers.7"): value for name, value in tensors.items()}


def fewer(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(tensors.items())[:-2])


def wider(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([value, value], dim=-1) for name, value in tensors.items()}


CASES: dict[str, tuple[Prepare, str, tuple[str, ...]]] = {
    "no base": (nothing, f"./gone model {TASKS}", ("no './gone'",)),
    "no such hub id": (nothing, f"model someone/gone {TASKS}", ("someone/gone", "hub id")),
    "a mistyped folder": (nothing, f"model modl {TASKS}", ("'modl'", "neither a folder here nor a hub id")),
    "empty name": (nothing, f"model '' {TASKS}", ("one of them is empty",)),
    "a run without a stage": (nothing, f"model done {TASKS}", ("done is a run", "done:last")),
    "no such stage": (nothing, f"model done:7 {TASKS}", ("no stage '7'", "01-animal")),
    "a misspelt stage": (nothing, f"model done:01-anmal {TASKS}", ("Did you mean '01-animal'",)),
    "no run": (nothing, f"model tasks:1 {TASKS}", ("tasks is not a run's directory",)),
    "a stage to come": (not_reached, f"model done:2 {TASKS}", ("not come to stage 02-colour",)),
    "a stage without weights": (
        without_weights,
        f"model done:1 {TASKS}",
        ("no longer on disk", "checkpoints"),
    ),
    "no model in a folder": (nothing, f"model tasks {TASKS}", ("'tasks' has no config.json",)),
    "a file that is no model": (nothing, f"model tasks/animal.yaml {TASKS}", ("is a file, and no .gguf",)),
    "no GGUF file": (nothing, f"model ./x.gguf {TASKS}", ("x.gguf",)),
    "a broken GGUF file": (write("x.gguf", "GGUF?"), f"model x.gguf {TASKS}", ("x.gguf",)),
    "an adapter's config that is no JSON": (
        write("adapter/adapter_config.json", "{"),
        f"model adapter {TASKS}",
        ("is no config of a PEFT adapter",),
    ),
    "an adapter without weights": (adapter(), f"model adapter {TASKS}", ("no adapter_model.safetensors",)),
    "an adapter of another kind": (
        adapter(peft_type="PROMPT_TUNING"),
        f"model adapter {TASKS}",
        ("PROMPT_TUNING", "only LoRA"),
    ),
    "an adapter whose base is not here": (
        adapter(base_model_name_or_path="/gone/base"),
        f"adapter model {TASKS}",
        ("'/gone/base'", "not here"),
    ),
    "an adapter of another base": (other_base, f"model adapter {TASKS}", ("does not fit its model",)),
    "an adapter with other names": (
        of_stage(renamed),
        f"model adapter {TASKS}",
        ("adapter/adapter_model.safetensors",),
    ),
    "an adapter that lacks weights": (of_stage(fewer), f"model adapter {TASKS}", ("lacks weights",)),
    "an adapter of other shapes": (of_stage(wider), f"model adapter {TASKS}", ("does not fit its model",)),
    "a damaged adapter": (
        lambda here: (
            of_stage(dict)(here),
            cut("adapter/adapter_model.safetensors")(here),
        ),
        f"model adapter {TASKS}",
        ("is damaged",),
    ),
    "damaged weights": (cut("model/model.safetensors"), f"model done:1 {TASKS}", ("damaged",)),
    "numbers that are not finite": (not_finite, f"model model {TASKS}", ("animal", "not finite")),
    "no such task": (nothing, "model done:1 --tasks sst3", ("sst3",)),
    "no such task file": (nothing, "model done:1 --tasks tasks/gone.yaml", ("tasks/gone.yaml",)),
    "a task twice": (nothing, f"model done:1 {TASKS},tasks/animal.yaml", ("named twice",)),
    "nothing to score": (
        write("t.yaml", "name: t\ndata: {train: tasks/animal-train.jsonl}\ntext: word\nmetric: loss\n"),
        "model done:1 --tasks t.yaml",
        ("t has no score split",),
    ),
    "no such prompt": (nothing, f"model done:1 {TASKS} --prompt tres", ("tres",)),
    "a prompt of no task": (
        write("p.yaml", "anmal: terse\n"),
        f"model done:1 {TASKS} --prompt p.yaml",
        ("no task 'anmal'", "Did you mean 'animal'"),
    ),
    "prompts that are no map": (
        write("p.yaml", "animal: [terse]\n"),
        f"model done:1 {TASKS} --prompt p.yaml",
        ("--prompt", "a map from tasks to variants"),
    ),
    "no data folder": (nothing, "model done:1 --tasks sst2 --data-dir gone", ("no folder 'gone'",)),
    "margin 0": (nothing, f"model done:1 {TASKS} --margin 0", ("--margin", "above 0")),
    "margin 1": (nothing, f"model done:1 {TASKS} --margin 1", ("--margin", "0.03 is three points")),
    "margin in percent": (nothing, f"model done:1 {TASKS} --margin 3%", ("--margin 3%",)),
    "a negative margin": (nothing, f"model done:1 {TASKS} --margin=-0.1", ("--margin",)),
    "no number": (nothing, f"model done:1 {TASKS} --margin nan", ("--margin",)),
    "infinite": (nothing, f"model done:1 {TASKS} --margin animal=inf", ("--margin",)),
    "two margins for all": (nothing, f"model done:1 {TASKS} --margin .1 --margin .2", ("not both",)),
    "a margin of no task": (nothing, f"model done:1 {TASKS} --margin colour=.1", ("'colour'",)),
    "a margin above 1": (nothing, f"model done:1 {TASKS} --margin animal=2", ("2.0 is no margin",)),
    "no baseline": (write("b.json", "[]"), f"model done:1 {TASKS} --baseline b.json", ("is no baseline",)),
    "a baseline in no folder": (
        write("file", ""),
        f"model done:1 {TASKS} --baseline file/b.json",
        ("--baseline", "file/b.json"),
    ),
    "output is a file": (write("out", ""), f"model done:1 {TASKS} --output out", ("out",)),
    "sequential with a chain": (nothing, f"model done:1 done:2 {TASKS} --sequential", ("one tuned model",)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_use_gives_one_sentence(name: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare, command, says = CASES[name]
    prepare(here)
    with pytest.raises(SystemExit) as ended:
        main(["check", *shlex.split(command)])
    said = capfd.readouterr().err
    assert ended.value.code == 2, said
    assert said.startswith("forgetmenot: ")
    assert said.endswith(".\n")
    assert said.count("\n") == 1, said
    for words in says:
        assert words in said
    assert not list(here.glob("checks/*/check.json"))


@pytest.mark.parametrize(
    "command", ["model", "", "model done:1 --limit 0", "model done:1 --margins 0.1", "model done:1 --limit x"]
)
def test_wrong_usage_is_one_sentence_too(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", *command.split()])
    assert ended.value.code == 2
    said = capfd.readouterr().err
    assert said.startswith("forgetmenot: check: ")
    assert said.endswith("`forgetmenot check --help` explains.\n")
    assert said.count("\n") == 1
    assert ("is no whole number above 0" in said) == ("--limit" in command)
