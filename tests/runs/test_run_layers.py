"""The layers probe in runs: controls from another run, what a page shows of it, and a planted change."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from forgetmenot.config import load_config
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.metrics.alignment import alignment
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import ModelSettings
from forgetmenot.probes import RunTask, make_probe
from forgetmenot.probes.layers import NO_BASE
from forgetmenot.probes.shared.kept_states import KeptStates
from forgetmenot.prompting import Encoder, choose_prompt
from forgetmenot.record.layer_map import layer_maps
from forgetmenot.report.layer_table import numbered, print_layer_maps
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.reprobe import reprobe
from forgetmenot.tasks import load_tasks, sample

Go = Callable[..., Run]
SMALL = {"training.limit": 16, "training.learning_rate": 0.01}
WATCHED = {**SMALL, "evaluation.probes": [{"name": "layers", "limit": 12}]}


def controlled(single: Run) -> dict[str, Any]:
    return {**SMALL, "evaluation.probes": [{"name": "layers", "limit": 12, "controls": str(single.path)}]}


def loaded(name: str) -> tuple[Any, Any]:
    """A model and its tokenizer."""
    found = load_model(ModelSettings(name=name), trainable=False, device=torch.device("cpu"))
    return found.model, found.tokenizer


def states_of(folder: Path, path: Path, layers: int = 2) -> list[np.ndarray]:
    """The states of a checkpoint at the last prompt token of a task's scored examples, layer by layer."""
    model, tokenizer = loaded(str(folder))
    (task,) = load_tasks([str(path)], None)
    encoder = Encoder(task, choose_prompt(task, "default"), tokenizer, 128)
    rows = []
    for example in sample(task.name, task.score, 12):
        with torch.no_grad():
            out = model(input_ids=torch.tensor([encoder.encode(example).prompt]), output_hidden_states=True)
        rows.append([state[0, -1].numpy() for state in out.hidden_states])
    return [np.stack([row[layer] for row in rows]) for layer in range(layers + 1)]


def test_each_layer_is_held_against_the_base_the_stage_before_and_the_control(
    go: Go, tiny: Mapping[str, Any], tiny_tasks: Mapping[str, Path], tmp_path: Path
) -> None:
    single = go("single", {**WATCHED, "method": "single"})
    found = go("order", controlled(single))
    (one, *_) = layer_maps(found.results["probes"]["layers"])
    assert (one.task, one.layers, one.stages[0]) == ("animal", [1, 2], "00-base")
    assert one.base[0] == pytest.approx([1, 1])
    export(single.path, "1", tmp_path / "control")
    for stage in (1, 2):
        export(found.path, str(stage), tmp_path / str(stage))
    base, control, first, second = (
        states_of(Path(folder), tiny_tasks["animal"])
        for folder in (tiny["model"], tmp_path / "control", tmp_path / "1", tmp_path / "2")
    )
    assert one.n == len(base[0])
    for layer in (1, 2):
        k = layer - 1
        assert one.base[2][k] == pytest.approx(alignment(second[layer], base[layer], 1).debiased, abs=1e-4)
        to_control = alignment(second[layer], control[layer], 1).debiased
        assert one.more["control"][2][k] == pytest.approx(to_control, abs=1e-4)
        gain = to_control - alignment(base[layer], control[layer], 1).debiased
        assert one.more["gain"][2][k] == pytest.approx(gain, abs=2e-4)
        before = alignment(second[layer], first[layer], 1).debiased
        assert one.more["before"][2][k] == pytest.approx(before, abs=1e-4)
    entering = alignment(second[0], base[0], 1).debiased
    added = alignment(second[1] - second[0], base[1] - base[0], 1).debiased
    if np.isfinite(entering):
        assert one.more["own change"][2][0] == pytest.approx(entering - added, abs=2e-4)
    assert one.more["control"][1] == pytest.approx([1, 1], abs=1e-6)  # its first stage is the control's


def test_a_task_that_came_later_has_no_base_to_be_held_against(go: Go, tiny: Mapping[str, Any]) -> None:
    go("grown", {**WATCHED, "tasks": tiny["tasks"][:2]})
    table: Any = go("grown", WATCHED).results["probes"]["layers"]
    last = dict(zip(table["parts"], table["values"][-1], strict=True))
    assert last["animal layer 1"] > 0
    assert last["size layer 1"] is None
    assert NO_BASE in {gap["reason"] for gap in table["missing"]}


def test_the_stage_before_is_no_other_where_one_between_was_not_measured(tmp_path: Path) -> None:
    kept = KeptStates(tmp_path, "a", [(1,)])
    for stage in ("00-base", "01-a", "03-c"):
        kept.keep(stage, torch.zeros(4, 2, 3))
    assert [kept.before(stage) for stage in kept.stages()] == [None, "00-base", None]
    plain = KeptStates(tmp_path, "b", [(1,)])
    for stage in ("base", "tuned"):
        plain.keep(stage, torch.zeros(4, 2, 3))
    assert plain.before("tuned") == "base"


def test_a_saved_run_is_measured_as_it_would_have_been(go: Go) -> None:
    found = go("order", WATCHED)
    _, again = reprobe(found.path, [{"name": "layers", "limit": 12}])
    assert json.loads(json.dumps(again["layers"])) == found.results["probes"]["layers"]


def test_what_does_not_fit_is_refused_in_a_sentence(go: Go, tmp_path: Path) -> None:
    """Before the base is scored, all but what only the tokens tell."""
    plain = go("plain", SMALL)
    with pytest.raises(UserError, match=r"plain was not measured by the probe `layers`; begin it anew"):
        go("order", controlled(plain))
    assert not list((tmp_path / "order").glob("stages/*"))
    fewer = go("fewer", {**SMALL, "evaluation.probes": [{"name": "layers", "limit": 8}]})
    with pytest.raises(UserError, match=r"fewer was measured with limit: 8, and this run has 12"):
        go("order", controlled(fewer))
    rewritten = go("rewritten", {**WATCHED, "prompt": "terse"})
    with pytest.raises(UserError, match="has not measured these inputs of animal"):
        go("order", controlled(rewritten))
    with pytest.raises(UserError, match="not the directory of a finished run"):
        make_probe("layers", {"controls": str(tmp_path)}, None)
    with pytest.raises(UserError, match="prompts takes the place of the tasks"):
        make_probe("layers", {"prompts": "lima", "tasks": ["a"]}, None)
    with pytest.raises(UserError, match=r"this run scores no task 'anymal'.*animal"):
        go("misspelt", {"evaluation.probes": [{"name": "layers", "tasks": ["anymal"]}]})


def test_controls_of_another_model_are_refused(go: Go, tiny: Mapping[str, Any], tmp_path: Path) -> None:
    """With the same tokens and layers, so that its states alone tell it."""
    other = tmp_path / "other"
    shutil.copytree(tiny["model"], other)
    weights = load_file(other / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    save_file(
        {name: one + 0.5 * torch.randn(one.shape, generator=generator) for name, one in weights.items()},
        other / "model.safetensors",
        {"format": "pt"},
    )
    single = go("single", {**WATCHED, "method": "single", "model": str(other)})
    with pytest.raises(UserError, match=r"single was tuned from another model: its base has other states"):
        go("order", controlled(single))


def test_a_task_of_too_few_inputs_is_left_out_and_said(tiny_tasks: Mapping[str, Path]) -> None:
    tasks = load_tasks([str(tiny_tasks["animal"]), str(tiny_tasks["size"])], None)
    few = [
        RunTask(task, choose_prompt(task, "default"), task.score[:count], 128)
        for task, count in zip(tasks, (3, 4), strict=True)
    ]
    probe = make_probe("layers", {}, None)
    probe.take_tasks(few)
    assert probe.notes == ["Probe layers: no map of animal (3 scored examples; it takes 4)."]
    with pytest.raises(UserError, match=r"layers: animal \(3 scored examples; it takes 4\)"):
        make_probe("layers", {"tasks": ["animal"]}, None).take_tasks(few)


def test_the_page_and_the_terminal_show_the_map(go: Go) -> None:
    single = go("single", {**WATCHED, "method": "single"})
    found = go("order", controlled(single))
    page = (found.path / "report.html").read_text()
    assert "Where it happened" in page
    assert page.count("Like its control ") == page.count("Rewritten by the stage ") >= 2
    assert page.count("By layer, after its stage") == page.count("Like its control ")
    assert "animal: likeness to its control less the base’s, by layer" in page
    assert 'aria-label="animal: Changed from the base' in page
    assert "What else changed" not in page  # there is no other probe
    console = Console(width=160, record=True)
    print_layer_maps(found.results["probes"]["layers"], console)
    shown = console.export_text()
    assert "layers: animal" in shown
    assert "least alike" in shown


def test_layers_are_named_by_stretches() -> None:
    assert numbered([3]) == "layer 3"
    assert numbered([3, 4, 5, 9]) == "layers 3–5, 9"
    assert numbered([]) == ""


def test_two_layers_that_were_made_anew_are_found_in_19_of_20_seeds(tmp_path: Path) -> None:
    """The upper two of the bundled model's four layers, as the prompts of a bundled task go through them."""
    (task,) = load_tasks(["qs-sentiment"], None)
    found = 0
    for seed in range(20):
        model, tokenizer = loaded("quickstart")
        learner = Learner(model, tokenizer, budget=2048)
        probe = make_probe("layers", {}, None)
        probe.take_tasks([RunTask(task, choose_prompt(task, "default"), task.score, 128)])
        probe.measure(learner, "00-base", "00-base", tmp_path / str(seed))
        torch.manual_seed(seed)
        with torch.no_grad():
            for layer in model.model.layers[2:]:
                for name, weight in layer.named_parameters():
                    if weight.dim() == 2:
                        weight.normal_(std=float(weight.std()))
                        assert "norm" not in name
        parts = probe.measure(learner, "01-x", "00-base", tmp_path / str(seed))
        table = {"parts": [part.name for part in parts], "stages": ["00-base", "01-x"]}
        nothing: list[None] = [None] * len(parts)
        grids = {
            "values": [nothing, [part.value for part in parts]],
            "intervals": [nothing, [part.interval for part in parts]],
            "more": [nothing, [part.more for part in parts]],
            "n": [nothing, [part.n for part in parts]],
        }
        (one,) = layer_maps({**table, **json.loads(json.dumps(grids))})
        found += one.rewritten(1) == [3, 4]
    assert found >= 19


def test_the_map_of_a_pilot_says_from_which_layer_on_to_learn(go: Go, tmp_path: Path) -> None:
    probes = [{"name": "layers", "limit": 12}]
    settings = {**SMALL, "evaluation.split": "select", "evaluation.probes": probes}
    pilot = go("pilot", {**settings, "method": "single"})
    maps = layer_maps(pilot.results["probes"]["layers"], in_sequence=False)
    shares = []
    for number, one in enumerate(maps, start=1):
        change = np.array(one.more["own change"][number], dtype=float).clip(min=0)
        shares.append(change / change.sum())
    wanted = 1 if np.mean(shares, axis=0)[1] >= 0.9 else 0
    config = load_config(None, {"tasks": "sst2", "adapter.layers": {"auto": str(pilot.path)}})
    assert config.adapter.layers == {"from": wanted}
    for given, said in (
        ("auto", "auto takes the map of a pilot run"),
        ({"auto": str(tmp_path / "none")}, "has no results.json"),
        ({"auto": str(go("plain", SMALL).path)}, "has no map: run it with"),
        ({"auto": str(go("scored", WATCHED).path)}, "drawn on the split score"),
    ):
        with pytest.raises(UserError, match=said):
            load_config(None, {"tasks": "sst2", "adapter.layers": given})
