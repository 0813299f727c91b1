"""bf16 activations with fp32 logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from forgetmenot.engine.guard import TOLERANCE, choose_layout
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.precision import Precision, autocast, choose_precision, rounded_once
from forgetmenot.models.rounded_lora import rounded_lora
from forgetmenot.prompting.encoded import TokenSequence

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "gemma2": lambda: transformers.Gemma2Config(
        **SIZES, head_dim=8, sliding_window=5
    ),  # eager, additive mask
    "phi": lambda: transformers.PhiConfig(**SIZES),  # a head with bias
}


@pytest.mark.parametrize("name", CONFIGS)
def test_scored_rows_stay_in_fp32(
    name: str, build: Callable[[Any], Any], sequences: list[TokenSequence]
) -> None:
    learner = Learner(build(CONFIGS[name]()), tokenizer=None, budget=512)
    exact = learner.log_likelihoods(sequences)
    learner.precision = "bf16"
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    head = learner.model.get_output_embeddings()
    with head.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0].dtype, logits.dtype))):
        rounded = learner.log_likelihoods(sequences)
    assert {logits for _, logits in seen} == {torch.float32}
    difference = ((rounded - exact).abs() / exact.abs().clamp(min=1)).max()
    assert 1e-5 < difference < TOLERANCE["bf16"], "bf16 was used, and is near"
    assert choose_layout(learner, sequences).layout == "trie"


def test_the_head_itself_rounds_nothing(llama: Any, sequences: list[TokenSequence]) -> None:
    """With the hidden states of bf16, logits equal those of an fp64 head to fp32 rounding."""
    learner = Learner(llama, tokenizer=None, budget=512, precision="bf16")
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    head = llama.get_output_embeddings()
    with head.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0], logits))):
        learner.log_likelihoods(sequences)
    for hidden, logits in seen:
        exact = hidden.double() @ head.weight.double().T
        assert (logits - exact).abs().max() < 1e-5 * exact.abs().max()


def test_gradients_in_bf16_point_where_they_do_in_fp32(llama: Any, sequences: list[TokenSequence]) -> None:
    def gradient(precision: Precision) -> torch.Tensor:
        llama.zero_grad()
        learner = Learner(llama, tokenizer=None, budget=512, precision=precision)
        learner.forward(sequences).sum().backward()  # type: ignore[no-untyped-call]
        assert all(p.grad.dtype == torch.float32 for p in llama.parameters())
        return torch.cat([p.grad.flatten() for p in llama.parameters()])

    exact, rounded = gradient("fp32"), gradient("bf16")
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_a_model_loaded_in_bf16_is_scored_in_fp32(llama: Any, sequences: list[TokenSequence]) -> None:
    learner = Learner(llama.to(torch.bfloat16), tokenizer=None, budget=512)
    seen: list[torch.dtype] = []
    head = llama.get_output_embeddings()
    with head.register_forward_hook(lambda _, __, logits: seen.append(logits.dtype)):
        assert torch.isfinite(learner.log_likelihoods(sequences)).all()
    assert set(seen) == {torch.float32}
    assert head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("adapted", [True, False])
def test_rounding_once_changes_no_number(adapted: bool, llama: Any, sequences: list[TokenSequence]) -> None:
    torch.manual_seed(0)
    lora = LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    model = get_peft_model(llama, lora) if adapted else llama
    learner = Learner(model, tokenizer=None, budget=40, precision="bf16")
    packs = learner.cut(sequences)
    assert len(packs) > 1

    def gradient() -> torch.Tensor:
        """Packs under one autocast, as in a step."""
        model.zero_grad()
        with autocast(CPU, "bf16"):
            for indices in packs:
                loss = learner.forward([sequences[k] for k in indices]).sum()
                with torch.autocast("cpu", enabled=False):
                    loss.backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    def gradient_by_passes() -> torch.Tensor:
        """Each pack rounds all weights anew."""
        model.zero_grad()
        for indices in packs:
            learner.forward([sequences[k] for k in indices]).sum().backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    slow = gradient_by_passes()
    with torch.no_grad():
        by_peft = torch.cat([learner.forward([sequences[k] for k in indices]) for indices in packs])
    with rounded_once(model, "bf16"):
        dtypes = {name: p.dtype for name, p in model.named_parameters()}
        assert torch.equal(gradient(), slow)
    assert dtypes[head_of(model)] == torch.float32, "scored rows stay in fp32"
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and p.dim() == 2}
    rounded = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
    assert rounded == {name for name in frozen if "proj" in name}
    assert bool(rounded) == adapted
    order = [k for indices in packs for k in indices]
    with rounded_once(model, "bf16"), rounded_lora(model), torch.no_grad():
        scored = torch.cat([learner.forward([sequences[k] for k in indices]) for indices in packs])
    assert torch.equal(learner.log_likelihoods(sequences)[order].float(), scored)
    assert torch.allclose(scored, by_peft, rtol=0.01) if adapted else torch.equal(scored, by_peft)
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items()), "all is as it was"


def head_of(model: Any) -> str:
    head = model.get_output_embeddings().weight
    name: str = next(name for name, p in model.named_parameters(remove_duplicate=False) if p is head)
    return name


@pytest.mark.parametrize(
    ("avx512", "amx", "width", "chosen"),
    [
        (True, False, 512, "bf16"),
        (False, True, 512, "bf16"),
        (True, True, 511, "fp32"),
        (False, False, 4096, "fp32"),
    ],
)
def test_auto_takes_bf16_where_it_is_native_and_the_model_wide(
    avx512: bool, amx: bool, width: int, chosen: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose_precision("auto", CPU, width) == chosen


def test_a_wish_is_granted() -> None:
    assert choose_precision("bf16", CPU, 8) == "bf16"
    assert choose_precision("fp32", CPU, 8192) == "fp32"


def test_where_rounding_fails_half_way_the_weights_are_put_back(
    build: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(CONFIGS["llama"]()).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    round_it, rounded = torch.Tensor.bfloat16, []

    def fail(weight: torch.Tensor) -> torch.Tensor:
        rounded.append(weight)
        if len(rounded) > 3:
            raise torch.OutOfMemoryError("no room")
        return round_it(weight)

    monkeypatch.setattr(torch.Tensor, "bfloat16", fail)
    with pytest.raises(torch.OutOfMemoryError), rounded_once(model, "bf16"):
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
