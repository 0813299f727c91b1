"""What a preview counts against what the run that follows counts, and its estimate against its time."""

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

import forgetmenot
from forgetmenot.cli import main
from forgetmenot.errors import UserError
from forgetmenot.methods import METHODS
from forgetmenot.record.seal import write_sealed
from forgetmenot.runs.api import Run

EPOCHS = {"training.epochs": {"animal": 2}, "training.limit": {"colour": 21}, "evaluation.prompts": ["terse"]}


@pytest.mark.parametrize(
    "more",
    [
        EPOCHS,
        {"adapter.kind": "full", "training.micro_batch": 3},
        {"adapter.dropout": 0.1},  # training then shares nothing
        {"method": "joint", "training.epochs": {"size": 2}},
        {"adapter.per_stage": "merge"},  # what holds the merged model against the adapter is not counted
        {"method": "osf"},
    ],
    ids=["prompts", "full", "dropout", "joint", "merge", "osf"],
)
def test_it_counts_what_the_run_computes(
    more: Mapping[str, Any], tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    config = {**tiny, **more, "output": str(tmp_path / "run")}
    before = forgetmenot.preview(config)
    assert not (tmp_path / "run").exists(), "nothing is written"
    run = forgetmenot.run(config)
    positions = run.results["cost"]["positions"]
    assert [stage.name for stage in before.stages] == list(positions)[1:]
    for stage in before.stages:
        assert {"computed": stage.computed, "without_sharing": stage.without_sharing} == positions[
            stage.name
        ]["training"]
        lines = (run.path / "stages" / stage.name / "training.jsonl").read_text().splitlines()
        assert stage.steps == len(lines)
    for cost in positions.values():
        for name in ("computed", "without_sharing"):
            assert cost["scoring"][name] == sum(getattr(one, name) for one in before.scoring)
    assert [one.examples for one in before.scoring[:3]] == [24, 24, 24]
    judged = run.results["verdicts"]["base_end"]
    assert {one.task: (one.examples, one.independent, one.margin) for one in before.at_hand} == {
        task: (one["n"], one["units"], one["margin"]) for task, one in judged.items()
    }
    assert before.parameters["all"] == run.results["cost"]["parameters"]
    assert before.memory["peak"] > before.memory["weights"] > 0


def test_a_stage_without_examples_takes_no_time(tiny: Mapping[str, Any]) -> None:
    before = forgetmenot.preview({**tiny, "training.limit": 0})
    assert [stage.seconds for stage in before.stages] == [0, 0, 0]


def test_the_small_models_that_calm_tunes_are_counted(
    tiny: Mapping[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = {"kind": "bridge", "per_stage": "new", "augmenting": str(tiny_llama), "connections": 1}
    config = {**tiny, "tasks": tiny["tasks"][:1], "adapter": adapter, "output": str(tmp_path / "run")}
    tuned, fixed = (
        forgetmenot.preview({**config, "method": {"name": "calm", "tune": tune}}) for tune in (True, False)
    )
    beside = tuned.parameters["trainable"] - fixed.parameters["trainable"]
    assert tuned.memory["optimizer"] - fixed.memory["optimizer"] == 8 * beside
    run = forgetmenot.run({**config, "method": "calm"})
    cost = json.loads((run.path / "stages/01-animal/cost.json").read_text())
    assert cost["kept"]["parameters_added"] == tuned.parameters["trainable"]


def test_a_soft_prompt_is_counted_before_every_sequence(tiny: Mapping[str, Any], tmp_path: Path) -> None:
    config = {**tiny, "adapter.kind": "prompt", "output": str(tmp_path / "run")}
    before, positions = forgetmenot.preview(config), forgetmenot.run(config).results["cost"]["positions"]
    for stage in before.stages:
        counted = {"computed": stage.computed, "without_sharing": stage.without_sharing}
        assert counted == positions[stage.name]["training"]


def test_it_estimates_every_stage_and_says_what_it_leaves_out(
    tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    found = forgetmenot.preview({**tiny, "method": "replay", "output": str(tmp_path / "run")})
    assert len(found.train_s) == len(found.eval_s) == 4
    assert found.train_s[0] == 0
    assert min(*found.train_s[1:], *found.eval_s) > 0
    assert found.seconds == pytest.approx(sum(found.train_s) + sum(found.eval_s))
    assert any("replay adds" in sentence and "the examples" in sentence for sentence in found.not_counted)
    text = io.StringIO()
    found.print(Console(file=text, width=100))
    for word in ("01-animal", "scoring, 4 times", "memory: about", "not counted:", "replay"):
        assert word in text.getvalue()


def test_probes_and_realigning_are_said_to_be_left_out(tiny: Mapping[str, Any], tmp_path: Path) -> None:
    more = {"evaluation.probes": ["drift"], "evaluation.readings": [{"realign": 4}]}
    found = forgetmenot.preview({**tiny, **more, "output": str(tmp_path / "run")})
    assert "What the probes measure at each moment: drift." in found.not_counted
    assert "The training on 12 examples before tasks are asked realigned, each time." in found.not_counted


def test_every_method_can_be_looked_at_before_it_runs() -> None:
    """What is beside plain training is told by the hooks that a class overrides: these have other names."""
    from forgetmenot.methods import Method
    from forgetmenot.runs.preview import BESIDE

    assert all(hasattr(Method, hook) for hook in BESIDE)
    assert {"replay", "joint"} <= METHODS.keys()


def test_generated_answers_have_a_time_and_no_count(
    tiny: Mapping[str, Any], make_task: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"word": f"word {k}", "other": f"other {k}"} for k in range(6)]
    task = make_task(
        "echo", rows, rows, target="other", metric="exact_match",
        prompts={"default": {"template": "Word: {{ word }}\nOther:"}},
    )  # fmt: skip
    found = forgetmenot.preview({**tiny, "tasks": [str(task)], "output": str(tmp_path / "run")})
    assert found.scoring[0].computed == 0
    assert found.scoring[0].seconds > 0
    assert any("echo become shorter or longer" in sentence for sentence in found.not_counted)


@pytest.mark.parametrize("beside", [["--fresh"], ["--num-processes", "2"]])
def test_what_it_would_pass_over_is_refused(beside: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--preview", *beside])
    assert ended.value.code == 2
    assert beside[0] in capsys.readouterr().err


@pytest.mark.slow
def test_the_estimate_is_within_a_factor_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", time.process_time)  # others may use the machine
    config = {
        "model": "quickstart-small",
        "tasks": "qs-sentiment,qs-inference",
        "training.limit": 400,
        "evaluation.limit": 200,
        "output": str(tmp_path / "run"),
    }
    before = forgetmenot.preview(config)
    run: Run = forgetmenot.run(config)
    spent = json.loads((run.path / "timing.json").read_text())
    total = sum(spent["train_s"]) + sum(spent["eval_s"])
    assert total / 2 < before.seconds < 2 * total


def test_it_knows_which_stages_are_done(tiny: Mapping[str, Any], tmp_path: Path) -> None:
    config = {**tiny, "training.limit": 16, "evaluation.limit": 8, "output": str(tmp_path / "run")}
    begun = forgetmenot.run({**config, "tasks": config["tasks"][:2]})
    found = forgetmenot.preview(config)
    assert found.base_done
    assert [stage.done for stage in found.stages] == [True, True, False]
    assert [seconds > 0 for seconds in found.train_s] == [False, False, False, True]
    assert [seconds > 0 for seconds in found.eval_s] == [False, False, False, True]
    assert forgetmenot.runs.api.Run(begun.path).results["tasks"] == ["animal", "colour"], "it is as it was"
    with pytest.raises(UserError, match="holds a run of another config"):
        forgetmenot.preview({**config, "training.limit": 17})


def test_it_computes_as_the_run_began(tiny: Mapping[str, Any], tmp_path: Path) -> None:
    """With as many threads: states of frozen layers are kept by their number."""
    config = {**tiny, "output": str(tmp_path / "run"), "training.limit": 0}
    forgetmenot.run(config)
    environment = tmp_path / "run" / "environment.json"
    told = json.loads(environment.read_text())
    told["identity"]["threads"] = 2
    write_sealed(environment, json.dumps(told))
    before = torch.get_num_threads()
    try:
        assert "2 threads" in forgetmenot.preview(config).machine
    finally:
        torch.set_num_threads(before)
    with pytest.raises(UserError, match="another config: seed differ"):
        forgetmenot.preview({**config, "seed": 3})


def test_it_knows_what_the_cache_holds(
    tiny: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    config = {**tiny, "adapter.layers": {"top": 1}, "training.limit": 16, "evaluation.limit": 8}
    assert forgetmenot.preview(tiny).frozen is None
    before = forgetmenot.preview(config).frozen
    assert before is not None
    assert before.states == before.missing > 100
    assert before.seconds > 0
    forgetmenot.run({**config, "output": str(tmp_path / "run")})
    sizes = [path.stat().st_size - 4096 for path in (tmp_path / "cache").glob("*/*.states")]
    assert before.bytes == sum(sizes)
    after = forgetmenot.preview({**config, "seed": 1}).frozen
    assert after is not None
    assert (after.states, after.missing, after.seconds) == (before.states, 0, 0)
    refused = forgetmenot.preview({**config, "adapter.frozen_cache_gb": 0.0}).frozen
    assert refused is not None
    assert refused.why_not == "adapter.frozen_cache_gb is 0"


def test_it_is_data_on_request(
    tiny: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model": tiny["model"], "tasks": tiny["tasks"]}))
    with pytest.raises(SystemExit) as ended:
        main(["run", str(path), "--preview", "--json"])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in found["stages"]] == ["01-animal", "02-colour", "03-size"]
    assert found["seconds"] == pytest.approx(sum(found["train_s"]) + sum(found["eval_s"]))
    assert [(one["task"], one["examples"]) for one in found["at_hand"]] == [
        ("animal", 24),
        ("colour", 24),
        ("size", 24),
    ]
    assert "a drop cannot be ruled out under" in found["can_be_shown"][0]
    with pytest.raises(SystemExit) as ended:
        main(["run", str(path), "--json"])
    assert ended.value.code == 2
    assert "--json is for --preview" in capsys.readouterr().err


def test_it_refuses_what_the_run_would_refuse_of_a_probe(tiny: Mapping[str, Any], tmp_path: Path) -> None:
    probe = {"name": "layers", "controls": str(tmp_path / "nothing")}
    with pytest.raises(UserError, match="is not the directory of a finished run"):
        forgetmenot.preview({**tiny, "evaluation.probes": [probe], "output": str(tmp_path / "run")})
