"""Four-bit weights under LoRA: what may learn, what is computed, and what is exported."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from forgetmenot.engine.guard import choose_layout
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt
from forgetmenot.models.load import load_model
from forgetmenot.models.quantize import check_quantization, compute_in, merged
from forgetmenot.models.settings import AdapterSettings, ModelSettings
from forgetmenot.models.weights import load_weights, save_weights
from forgetmenot.prompting import TokenSequence

CPU = torch.device("cpu")
INSTALLED = importlib.util.find_spec("bitsandbytes") is not None
with_bitsandbytes = pytest.mark.skipif(
    not INSTALLED, reason="bitsandbytes is not installed ('.[quantization]')"
)
TOKENS = torch.tensor([[5, 80, 33, 120, 7, 200]])


@pytest.fixture
def nf4(tiny_llama: Path) -> Callable[[], Any]:
    """Loads the tiny model in four bits, as a run in fp32 does."""

    def load() -> Any:
        settings = ModelSettings(name=str(tiny_llama), quantization="nf4")
        model = load_model(settings, trainable=False, device=CPU).model
        compute_in(model, torch.float32)
        return model

    return load


def stirred(model: Any, settings: AdapterSettings, stage: int) -> Any:
    """With an adapter that changes the answers, as after training."""
    model = adapt(model, settings, stage, seed=0)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


@pytest.mark.parametrize(
    ("adapter", "wrong"),
    [(AdapterSettings(kind="full"), "kind: full"), (AdapterSettings(per_stage="merge"), "per_stage: merge")],
)
def test_rounded_weights_do_not_change(adapter: AdapterSettings, wrong: str) -> None:
    check_quantization(ModelSettings(), adapter)
    with pytest.raises(UserError, match=rf"adapter\.{wrong} changes weights"):
        check_quantization(ModelSettings(quantization="nf4"), adapter)


@pytest.mark.skipif(INSTALLED, reason="bitsandbytes is installed")
def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"pip install 'forgetmenot\[quantization\]'"):
        check_quantization(ModelSettings(quantization="nf4"), AdapterSettings())


@with_bitsandbytes
def test_only_adapters_learn_and_the_rest_is_fp32(nf4: Callable[[], Any]) -> None:
    model = adapt(nf4(), AdapterSettings(), 1, seed=0)
    quantized = [name for name, p in model.named_parameters() if p.dtype == torch.uint8]
    assert len(quantized) == 14, "every linear layer of two blocks, and not the head"
    others = {p.dtype for name, p in model.named_parameters() if name not in quantized}
    assert others == {torch.float32}
    assert all("lora" in name for name, p in model.named_parameters() if p.requires_grad)
    model(input_ids=TOKENS).logits.logsumexp(-1).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


@with_bitsandbytes
def test_the_trie_is_exact(nf4: Callable[[], Any]) -> None:
    model = stirred(nf4(), AdapterSettings(), 1)
    drawn = [TokenSequence((5, 80, 33, 120 + k, 7, 200 + k), 2 + k % 3) for k in range(6)]
    verdict = choose_layout(Learner(model, tokenizer=None, budget=512), drawn)
    assert verdict.layout == "trie"
    assert verdict.difference < 1e-5


@with_bitsandbytes
def test_training_and_scoring_decode_alike(nf4: Callable[[], Any]) -> None:
    model = stirred(nf4(), AdapterSettings(), 1)
    with torch.no_grad():
        scored = model(input_ids=TOKENS).logits
    assert torch.allclose(model(input_ids=TOKENS).logits, scored, atol=1e-5)


@with_bitsandbytes
@pytest.mark.parametrize("stages", [0, 1, 2])
def test_an_exported_model_answers_alike(nf4: Callable[[], Any], stages: int, tmp_path: Path) -> None:
    """The base, one adapter, and two of which the first stays active beside the second."""
    model = nf4()
    for stage in range(1, stages + 1):
        model = stirred(model, AdapterSettings(per_stage="new"), stage)
    with torch.no_grad():
        before = model(input_ids=TOKENS).logits
        merged(model).save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        after = loaded(input_ids=TOKENS).logits
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.allclose(after, before, atol=1e-5)


@with_bitsandbytes
def test_saved_adapters_go_back_onto_a_quantized_base(nf4: Callable[[], Any], tmp_path: Path) -> None:
    model = stirred(nf4(), AdapterSettings(), 1)
    with torch.no_grad():
        before = model(input_ids=TOKENS).logits
        save_weights(model, AdapterSettings(), tmp_path)
        again = load_weights(nf4(), tmp_path, trainable=True)
        assert torch.equal(again(input_ids=TOKENS).logits, before)
