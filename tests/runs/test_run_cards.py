"""What leaves a run says what it is: its card, its dtype, the name of its directory."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from forgetmenot.config import load_config
from forgetmenot.report.model_card import model_card
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.tasks.yaml_file import parse_yaml
from tests.running import Go

SMALL = {"training.limit": 8, "evaluation.limit": 4}


@pytest.fixture
def run(go: Go, tiny: Mapping[str, Any], tmp_path: Path) -> Run:
    """A run on a copy of the model that was published in bf16."""
    model = AutoModelForCausalLM.from_pretrained(tiny["model"], dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "owner" / "base")
    AutoTokenizer.from_pretrained(tiny["model"]).save_pretrained(tmp_path / "owner" / "base")
    return go("one", {**SMALL, "model": str(tmp_path / "owner" / "base")})


def test_an_exported_model_has_a_card_and_the_dtype_of_its_base(run: Run, tmp_path: Path) -> None:
    said = export(run.path, "last", tmp_path / "out")
    assert re.search(r"written in bfloat16, .* by at most \S+ nats", said)
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    _, front, card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert parse_yaml(front)["library_name"] == "transformers"
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    for task in run.results["tasks"]:
        before, after = (run.results["matrix"][k][run.results["tasks"].index(task)] for k in (0, -1))
        [row] = [row for row in rows if row.startswith(f"| {task} | ") and "`" not in row]
        assert f"| yes | {before:.3f} | {after:.3f} | " in row
        assert any(re.fullmatch(rf"\| {task} \| `[0-9a-f]{{16}}` \|", row) for row in rows)
    assert load_config(None, parse_yaml(card.split("```yaml\n")[1].split("```")[0])).seed == 0


def test_nothing_that_is_exported_names_a_folder_of_this_machine(
    run: Run, tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    config = load_config(run.path / "config.yaml")
    assert all(str(path).startswith("/") for path in (config.model.name, *config.tasks))
    export(run.path, "last", tmp_path / "out")
    for file in (tmp_path / "out").iterdir():
        content = file.read_bytes()
        assert str(tmp_path).encode() not in content, file
        assert str(Path(tiny["tasks"][0]).parent).encode() not in content, file
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "`base` (revision " in card
    shown = parse_yaml(card.split("```yaml\n")[1].split("```")[0])
    assert shown["model"]["name"] == "base"
    assert shown["tasks"] == [Path(path).name for path in tiny["tasks"]]
    assert not {"output", "data_dir"} & shown.keys()
    assert shown["training"]["batch_size"] == config.training.batch_size


def test_a_card_shows_hub_ids_whole_and_secrets_not() -> None:
    config = {
        "model": {"name": "owner/base"},
        "evaluation": {"also_score": ["$DATA/x.yaml", "~/y.yaml", "./z.yaml", "sst2"]},
        "method": {"endpoint": "https://me:pass@host/v1?key=1"},
        "output": "/home/me/out",
        "data_dir": "$DATA",
    }
    card = model_card("owner/base", "01-sst2", config, {}, None, on_hub=True)
    shown = parse_yaml(card.split("```yaml\n")[1].split("```")[0])
    assert shown["model"] == {"name": "owner/base"}
    assert shown["evaluation"]["also_score"] == ["x.yaml", "y.yaml", "z.yaml", "sst2"]
    assert "base_model: owner/base" in card
    assert not any(secret in card for secret in ("pass", "key=1", "/home", "$DATA"))


def test_a_card_of_an_earlier_stage_says_what_it_has_learned(run: Run, tmp_path: Path) -> None:
    export(run.path, "1", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    first, second, *_ = run.results["tasks"]
    assert re.search(rf"\| {first} \| \S+ \| yes \|", card)
    assert re.search(rf"\| {second} \| \S+ \| no \|", card)
    assert "against the base" not in card


def test_an_adapter_says_what_it_stands_on(run: Run) -> None:
    first, second, *_ = run.results["tasks"]
    cards = sorted(run.path.glob("stages/*/adapter/README.md"))
    assert len(cards) == len(run.results["tasks"])
    said = cards[1].read_text(encoding="utf-8")
    assert f"{first}, {second}, in this order" in said
    assert "PeftModel.from_pretrained(base" in said


@pytest.mark.parametrize("name", ["owner/base", "/a/deep/folder/base", "base/", "base"])
def test_a_run_is_named_by_the_last_part_of_its_models_name(name: str) -> None:
    config = load_config(None, {"model": name, "tasks": ["sst2"]})
    assert config.directory.name.startswith("base-sequential-")
