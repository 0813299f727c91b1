"""The drift probe in runs: of every stage, resumed, routed, with a head that learns, and in two processes."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import forgetmenot
from forgetmenot.errors import UserError
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import ModelSettings
from forgetmenot.probes.drift import Drift
from forgetmenot.probes.shared.base_predictions import NO_BASE
from forgetmenot.prompting import Encoder, choose_prompt
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.reprobe import reprobe
from forgetmenot.tasks import load_tasks, sample

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SMALL = {"evaluation.probes": "drift", "training.limit": 16, "training.learning_rate": 0.01}


def divergences(found: Any) -> list[list[float | None]]:
    """The parts of a table that are divergences [stages][tasks]."""
    columns = [k for k, part in enumerate(found["parts"]) if part.endswith("divergence")]
    return [[row[k] for k in columns] for row in found["values"]]


def by_torch(base: Any, model: Any, tokenizer: Any, path: Path) -> float:
    """KL(base ‖ model) of two models that Transformers has loaded, on a task's answers."""
    (task,) = load_tasks([str(path)], None)
    encoder = Encoder(task, choose_prompt(task, "default"), tokenizer, 128)
    total, count = 0.0, 0
    for example in sample(task.name, task.score, 64):
        tokens, start = (one := encoder.encode(example).answer).tokens, one.start
        with torch.no_grad():
            p, q = (
                m(input_ids=torch.tensor([tokens])).logits[0, start - 1 : -1].log_softmax(-1)
                for m in (base, model)
            )
        total += float(F.kl_div(q, p, log_target=True, reduction="sum"))
        count += len(tokens) - start
    return total / count


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_each_stage_diverges_as_the_exported_checkpoint_does(
    kind: str, go: Go, tiny: Mapping[str, Any], tiny_tasks: Mapping[str, Path], tmp_path: Path
) -> None:
    found = go(kind, {**SMALL, "adapter.kind": kind})
    table: Any = found.results["probes"]["drift"]
    assert table["stages"] == ["00-base", "01-animal", "02-colour", "03-size"]
    base, *later = divergences(table)
    assert base == pytest.approx([0, 0, 0], abs=1e-7)
    plain = load_model(ModelSettings(name=tiny["model"]), trainable=False, device=torch.device("cpu"))
    for number, row in enumerate(later, start=1):
        exported = tmp_path / f"stage-{number}"
        export(found.path, str(number), exported)
        tuned = load_model(
            ModelSettings(name=str(exported)), trainable=False, device=torch.device("cpu")
        ).model
        truth = [
            by_torch(plain.model, tuned, plain.tokenizer, tiny_tasks[name])
            for name in ("animal", "colour", "size")
        ]
        assert row == pytest.approx(truth, abs=1e-4)
        assert min(truth) > 1e-3
    heads = list((found.path / "probes" / "drift").glob("head-*"))
    assert len(heads) == (kind == "full"), "the base's head is kept where it learns"
    page = (found.path / "report.html").read_text()
    assert "animal divergence" in page
    assert "KL(base ‖ model), nats per answer token" in page
    assert "none of the 20 prompts" in page


def test_a_run_that_broke_off_goes_on_with_what_is_kept(
    go: Go, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = go("undisturbed", SMALL)
    plain = Drift.measure

    def breaking(self: Drift, learner: Any, stage: str, base: str, folder: Path) -> Sequence[Any]:
        if stage == "02-colour":
            raise UserError("it was killed.")
        return plain(self, learner, stage, base, folder)

    monkeypatch.setattr(Drift, "measure", breaking)
    with pytest.raises(UserError, match="it was killed"):
        go("broken", SMALL)
    monkeypatch.setattr(Drift, "measure", plain)
    same(go("broken", SMALL), undisturbed)


def test_saved_stages_are_measured_anew_and_by_other_options(go: Go) -> None:
    found = go("saved", SMALL)
    _, tables = reprobe(found.path, ["drift"])
    assert json.loads(json.dumps(tables["drift"])) == found.results["probes"]["drift"]
    _, tables = reprobe(found.path, [{"name": "drift", "tasks": "size", "limit": 5}])
    assert tables["drift"]["n"][0][0] == 5
    assert tables["drift"]["parts"][0] == "size divergence"
    with pytest.raises(UserError, match="this run scores no task 'taste'"):
        reprobe(found.path, [{"name": "drift", "tasks": "taste"}])


def test_a_task_that_came_later_has_no_base_to_be_held_against(go: Go, tiny: Mapping[str, Any]) -> None:
    go("grown", {**SMALL, "tasks": tiny["tasks"][:2]})
    table: Any = go("grown", SMALL).results["probes"]["drift"]
    assert table["stages"][-1] == "03-size"
    last = dict(zip(table["parts"], table["values"][-1], strict=True))
    assert last["animal divergence"] > 0
    assert last["size divergence"] is None
    reasons = {(gap["stage"], gap["part"]): gap["reason"] for gap in table["missing"]}
    assert reasons["03-size", "size divergence"] == NO_BASE


def test_an_unknown_task_is_said_before_anything_is_loaded(go: Go, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation.probes.drift.tasks: this run scores no task 'sise'"):
        go("wrong", {**SMALL, "evaluation.probes": [{"name": "drift", "tasks": ["sise"]}]})
    assert not (tmp_path / "wrong").exists()


def test_two_processes_find_what_one_finds(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    one: Any = go("one", SMALL).results["probes"]["drift"]
    config = {**tiny, **SMALL, "output": str(tmp_path / "two")}
    first, second = in_processes(lambda: forgetmenot.run(config).results["probes"]["drift"])
    assert first == second
    assert divergences(first)[0] == pytest.approx([0, 0, 0], abs=1e-7)
    for row, wanted in zip(divergences(first), divergences(one), strict=True):
        assert row == pytest.approx(wanted, abs=1e-3)


@pytest.mark.slow
def test_the_bundled_model_drifts_over_two_stages(tmp_path: Path) -> None:
    config = {
        "tasks": ["qs-sentiment", "qs-paraphrase"],
        "training.limit": 64,
        "evaluation.limit": 24,
        "evaluation.probes": [{"name": "drift", "limit": 16}],
        "output": str(tmp_path / "quickstart"),
    }
    table: Any = forgetmenot.run(config).results["probes"]["drift"]
    assert divergences(table)[0] == pytest.approx([0, 0], abs=1e-7)
    assert all(value is not None and value > 0 for value in divergences(table)[-1])
    cells = dict(zip(table["parts"], zip(*table["n"], strict=True), strict=True))
    assert cells["json"] == (20, 20, 20)
    assert cells["tool calls"][0] > 0
    assert cells["out of format"] == (32, 32, 32)
    missing = [gap["part"] for gap in table["missing"]]
    assert missing == []
