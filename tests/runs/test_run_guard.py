"""Models that cannot take the trie run all the same, and the run says so."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig

import forgetmenot
from forgetmenot.runs.api import Run

Same = Callable[[Run, Run], None]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            lambda size: BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=4), id="bloom"
        ),
        pytest.param(
            lambda size: MambaConfig(vocab_size=size, hidden_size=32, num_hidden_layers=2), id="mamba"
        ),
    ],
)
def test_a_model_without_a_mask_takes_padded_batches(
    config: Callable[[int], Any],
    tiny: Mapping[str, Any],
    tiny_tokenizer: Any,
    tmp_path: Path,
    same: Same,
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(len(tiny_tokenizer)))
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    settings = {
        **tiny,
        "evaluation.limit": 6,
        "training.limit": 8,
        "model": str(tmp_path / "model"),
        "tasks": tiny["tasks"][:2],
    }
    said = io.StringIO()
    run = forgetmenot.run(
        {**settings, "output": str(tmp_path / "one")}, console=Console(file=said, width=500)
    )
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["identity"]["layout"] == environment["identity"]["training_layout"] == "padded"
    assert environment["guard"]["not_taken"]["trie"]
    assert environment["guard"]["difference"] < 1e-4
    assert "takes padded batches, not the trie (trie: " in said.getvalue()
    assert run.predictions(1)["log_likelihoods"].notna().all()
    same(run, forgetmenot.run({**settings, "output": str(tmp_path / "other")}))
