"""Models that cannot take the trie run all the same, and the run says so."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, BloomConfig, LlamaForCausalLM, MambaConfig

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


REPLIES = [{"word": "w " * (1 + k % 5), "reply": "yes"} for k in range(8)]
WRITTEN: dict[str, Any] = {
    "target": "reply",
    "metric": "exact_match",
    "prompts": {"default": {"template": "Word: {{ word }}\nReply:"}},
    "generation": {"max_new_tokens": 6},
}


def test_a_state_space_model_writes_answers(
    tiny_tokenizer: Any, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    """As Transformers does, one prompt at a time."""
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=len(tiny_tokenizer), hidden_size=32, num_hidden_layers=2, state_size=8)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    task = make_task("reply", REPLIES, REPLIES, **WRITTEN)
    run = forgetmenot.run(
        {
            "model": str(tmp_path / "model"),
            "tasks": str(task),
            "training.limit": 4,
            "output": str(tmp_path / "run"),
        }
    )
    for row in run.predictions(0).itertuples():
        prompt = f"Word: {str(row.prompt_text).split('word: ')[1].splitlines()[0]}\nReply:"
        tokens = tiny_tokenizer(prompt, return_tensors="pt").input_ids
        ends = model.generation_config.eos_token_id
        written = model.generate(tokens, do_sample=False, max_new_tokens=6, eos_token_id=ends)
        text = tiny_tokenizer.decode(written[0, tokens.shape[1] :], skip_special_tokens=True)
        assert str(row.generated) == text


def test_where_a_batch_writes_something_else_each_is_written_alone_and_that_is_said(
    tiny: Mapping[str, Any],
    make_task: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here by a model that takes padding for tokens."""
    task = make_task("reply", REPLIES, REPLIES, **WRITTEN)
    settings = {**tiny, "tasks": str(task), "training.limit": 4}
    well = forgetmenot.run({**settings, "output": str(tmp_path / "well")})
    plain = LlamaForCausalLM.forward

    def blind(self: Any, *args: Any, attention_mask: Any = None, **named: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() == 2:
            attention_mask = None
            named.pop("position_ids", None)
        return plain(self, *args, attention_mask=attention_mask, **named)

    monkeypatch.setattr(LlamaForCausalLM, "forward", blind)
    said = io.StringIO()
    run = forgetmenot.run(
        {**settings, "output": str(tmp_path / "blind")}, console=Console(file=said, width=500)
    )
    assert "This model writes answers one at a time, not in batches (the logits of a batch" in said.getvalue()
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["identity"]["writes_together"] is False
    assert list(run.predictions(0)["generated"]) == list(well.predictions(0)["generated"])
