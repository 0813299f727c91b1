"""Which parameters learn: all of them, LoRA adapters through PEFT, or a soft prompt."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from transformers.pytorch_utils import Conv1D

from forgetmenot.errors import UserError, nearest
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.models.soft_prompt import drawn_rows, install

NOT_ADAPTED = {
    name: ["out_proj", "conv1d"] for name in ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
}
"""What `all-linear` leaves out, by type of model: PEFT refuses layers whose weights kernels read directly."""


FOLDED_BELOW = 1024
"""Up to which width LoRA is folded into a layer to score: beyond, its products cost a hundredth or two."""


def check_targets(model: Any, settings: AdapterSettings) -> None:
    """Hold the targets against the model's layers; PEFT passes over one of several that is unknown.

    Raises:
        UserError: If a target names no layer that can be adapted.
    """
    if settings.kind != "lora" or settings.targets == "all-linear":
        return
    adaptable = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    layers = [name for name, module in model.named_modules() if isinstance(module, adaptable)]
    for target in settings.targets:
        if target in NOT_ADAPTED.get(model.config.model_type, ()):
            raise UserError(f"adapter.targets: {target!r} of a {model.config.model_type} cannot be adapted.")
        if not any(f".{layer}".endswith(f".{target}") for layer in layers):
            raise UserError(
                f"adapter.targets: this model has no layer {target!r} that can be adapted. "
                f"{nearest(target, {layer.split('.')[-1] for layer in layers})}"
            )


def adapt(model: Any, settings: AdapterSettings, stage: int, seed: int) -> Any:
    """Make the right parameters learn for a stage; returns the model to train.

    Args:
        model: The plain model, or the PEFT model that the stage before left.
        settings: What learns.
        stage: The stage's number, from 1: the name of a `new` adapter.
        seed: For the initial values of an adapter or a prompt.

    Raises:
        UserError: If a target names no layer of the model.
    """
    if settings.kind == "full":
        return model.requires_grad_(True)
    if settings.kind == "prompt":
        prompt = install(model.requires_grad_(False))
        if not prompt.parts or settings.per_stage == "new":
            prompt.add(drawn_rows(model, settings.tokens, seed))
        prompt.parts[-1].requires_grad_(True)
        return model
    if isinstance(model, PeftModel) and settings.per_stage == "continue":
        return model
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
        exclude_modules=NOT_ADAPTED.get(model.config.model_type)
        if settings.targets == "all-linear"
        else None,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    if not isinstance(model, PeftModel):
        check_targets(model, settings)
        return _in_fp32(get_peft_model(model, config))
    name = f"stage-{stage:02d}"
    model.add_adapter(name, config)
    model.base_model.set_adapter([*model.active_adapters, name])
    for parameter, value in model.named_parameters():
        value.requires_grad_(f".{name}." in parameter)
    return _in_fp32(model)


@contextmanager
def answering_with(model: PeftModel, adapters: Sequence[str]) -> Iterator[None]:
    """Answer with these adapters alone, with none as the base model; then with those that were active.

    PEFT lets what it makes active learn; here what learned before does so again, and nothing else.
    """
    active = list(model.active_adapters)
    learning = [value for value in model.parameters() if value.requires_grad]
    model.base_model.set_adapter(list(adapters), inference_mode=True)
    try:
        yield
    finally:
        model.base_model.set_adapter(active, inference_mode=True)
        for value in learning:
            value.requires_grad_(True)


@contextmanager
def folded(model: Any) -> Iterator[None]:
    """Hold what LoRA adds in the layers' own weights, for passes without gradients, then put these back.

    A layer then is one product instead of three and two sums. Its numbers are the same up to the rounding of
    the sum; so only fp32 weights are folded, and narrow layers, where it is worth the copy. Left as they are:
    weights that something else uses as well, and adapters that a hook listens to or changes.
    """
    held = []
    with torch.no_grad():
        for layer in _foldable(model):
            active = [name for name in layer.active_adapters if name in layer.lora_A]
            if active:
                weight = layer.get_base_layer().weight
                held.append((layer, weight, weight.data))
                weight.data = weight.data + sum(layer.get_delta_weight(name) for name in active)
                layer.merged_adapters = active  # PEFT's word for weights that hold the adapter
    try:
        yield
    finally:
        for layer, weight, values in held:
            weight.data = values
            layer.merged_adapters = []


def _foldable(model: Any) -> Iterator[LoraLinear]:
    """The layers of a model whose adapters can be folded into their weights."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for layer in model.modules():
        if type(layer) is LoraLinear and not (layer.merged or layer.disable_adapters or layer.lora_variant):
            weight = layer.get_base_layer().weight
            adapters = [*layer.lora_A.values(), *layer.lora_B.values()]
            hooked = any(part._forward_hooks or part._forward_pre_hooks for part in adapters)
            narrow = min(weight.shape) < FOLDED_BELOW
            if weight.dtype == torch.float32 and narrow and uses[id(weight)] == 1 and not hooked:
                yield layer


def finish_stage(model: Any, settings: AdapterSettings) -> Any:
    """After a stage's training: with `merge`, the adapter becomes part of the weights."""
    if settings.kind == "lora" and settings.per_stage == "merge":
        return model.merge_and_unload()
    return model


def _in_fp32(model: Any) -> Any:
    """What learns, learns in fp32."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model
