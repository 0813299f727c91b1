"""LoRA adapters through PEFT (Hu et al. 2021, arXiv 2106.09685)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.pytorch_utils import Conv1D

from forgetmenot.errors import UserError, nearest
from forgetmenot.models.adapters.full import FULL, REFERENCE_WIDTH
from forgetmenot.models.adapters.kind import AdapterKind
from forgetmenot.models.adapters.peft_folder import CONFIG, check_plain, read_adapter
from forgetmenot.models.layers import decoder_layers, first_learning, layer_stack
from forgetmenot.models.settings import KINDS, AdapterSettings

NOT_ADAPTED = {
    name: ["out_proj", "conv1d"] for name in ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
}
"""What `all-linear` leaves out, by type of model: PEFT refuses layers whose weights kernels read directly."""


class Lora(AdapterKind):
    """Adapters beside the linear layers, kept in PEFT's layout; once merged, they are part of all weights."""

    folder = "adapter"
    uses = KINDS["lora"]

    def default_rate(self, width: int) -> float:
        """2e-4 from width 2048 on; narrower models take larger steps, by 1/width, our heuristic."""
        return 2e-4 * max(1.0, REFERENCE_WIDTH / width)

    def check(self, model: Any, settings: AdapterSettings) -> None:
        """Check the targets against the model's layers; PEFT passes over one of several that is unknown.

        Raises:
            UserError: If a target names no layer that can be adapted, or one that shares its weights.
        """
        first = first_learning(model, settings.layers)
        if settings.targets == "all-linear":
            return
        adaptable = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
        upper = {id(module) for layer in decoder_layers(model)[first:] for module in layer.modules()}
        layers = [name for name, module in model.named_modules() if isinstance(module, adaptable)]
        sharing = _sharing(model)
        for target in settings.targets:
            if target in NOT_ADAPTED.get(model.config.model_type, ()):
                raise UserError(
                    f"adapter.targets: {target!r} of a {model.config.model_type} cannot be adapted."
                )
            if not any(f".{layer}".endswith(f".{target}") for layer in layers):
                raise UserError(
                    f"adapter.targets: this model has no layer {target!r} that can be adapted. "
                    f"{nearest(target, {layer.split('.')[-1] for layer in layers})}"
                )
            named = [layer for layer in layers if f".{layer}".endswith(f".{target}")]
            if first and not any(id(model.get_submodule(layer)) in upper for layer in named):
                raise UserError(
                    f"adapter.targets: {target!r} lies in none of the layers that learn, from {first} on "
                    "(adapter.layers)."
                )
            for layer in layers:
                if f".{layer}".endswith(f".{target}") and layer in sharing:
                    raise UserError(
                        f"adapter.targets: {target!r} shares its weights with {sharing[layer]!r} in this "
                        "model (tied embeddings). An adapter on one of them cannot be merged without "
                        "changing the other; leave it out, or take kind: full."
                    )

    def adapt(self, model: Any, settings: AdapterSettings, stage: int, seed: int) -> Any:
        """Add an adapter, or continue with the present one; `new` ones are named by their stage.

        Raises:
            UserError: If a target names no layer of the model.
        """
        if isinstance(model, PeftModel) and settings.per_stage == "continue":
            model.base_model.set_adapter(model.active_adapters)  # a method may have frozen some of it
            return _learning(model, model.active_adapters[-1])
        left_out = NOT_ADAPTED.get(model.config.model_type) if settings.targets == "all-linear" else None
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            exclude_modules=left_out,
            task_type="CAUSAL_LM",
            **{"target_modules": settings.targets, **_in_layers(model, settings)},
        )
        torch.manual_seed(seed)
        if not isinstance(model, PeftModel):
            self.check(model, settings)
            return _in_fp32(get_peft_model(model, config))
        name = f"stage-{stage:02d}"
        model.add_adapter(name, config)
        model.base_model.set_adapter([*model.active_adapters, name])
        return _in_fp32(_learning(model, name))

    def is_in(self, model: Any) -> bool:
        """Whether it has adapters; once merged, it has none."""
        return isinstance(model, PeftModel)

    def finish(self, model: Any, settings: AdapterSettings) -> Any:
        """With `merge`, the adapter becomes part of the weights."""
        return model.merge_and_unload() if settings.per_stage == "merge" else model

    def save(self, model: Any, stage: Path, weights: Mapping[str, Any] | None = None) -> None:
        """Write every adapter; all weights, where the adapters have become part of these."""
        if isinstance(model, PeftModel):
            model.save_pretrained(stage / self.folder, save_embedding_layers=False)
            for config in (stage / self.folder).rglob(CONFIG):
                _put_in_order(config)
        else:
            FULL.save(model, stage, weights)

    def load(self, base: Any, stage: Path, *, trainable: bool) -> Any:
        """Put the adapters into the base; where training continues, only the last one learns.

        The first is in the folder itself, those of later stages in folders of their own.

        Raises:
            UserError: If one of them is none that a run wrote, or does not fit.
        """
        folder = stage / self.folder
        later = sorted(path for path in folder.iterdir() if path.is_dir())
        for path in (folder, *later):
            if path != folder and not re.fullmatch(r"stage-\d\d+", path.name):
                raise UserError(f"{path} is no adapter of a stage; take it away.")
            check_plain(path)
        model = read_adapter(base, folder, trainable=trainable)
        for path in later:
            model = read_adapter(model, path, path.name, trainable=trainable)
        if later:
            names = ["default", *(path.name for path in later)]
            model.base_model.set_adapter(names)
            _learning(model, names[-1] if trainable else None)
        return model.eval()


LORA = Lora()


def _learning(model: Any, adapter: str | None) -> Any:
    """Let one adapter learn and nothing else; an embedding's parameters end in its name."""
    for parameter, value in model.named_parameters():
        value.requires_grad_(adapter in parameter.split("."))
    return model


def _put_in_order(config: Path) -> None:
    """Sort the names in an adapter's config: PEFT keeps them in sets, in another order in each process."""
    content = json.loads(config.read_text(encoding="utf-8"))
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(content.get(key), list):
            content[key].sort()
    config.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def _in_layers(model: Any, settings: AdapterSettings) -> dict[str, Any]:
    """PEFT's own options for the layers that learn; it takes them beside names, not beside `all-linear`."""
    first = first_learning(model, settings.layers)
    if first == 0:
        return {}
    pattern, stack = layer_stack(model)
    options: dict[str, Any] = {
        "layers_to_transform": list(range(first, len(stack))),
        "layers_pattern": [pattern],
    }
    if settings.targets == "all-linear":
        # what is adapted already lies under its name, as `base_layer` beside A and B
        names = {
            name.removesuffix(".base_layer").rpartition(".")[2]
            for layer in stack[first:]
            for name, module in layer.named_modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and ".lora_" not in name
        }
        options["target_modules"] = sorted(names)
    return options


def _sharing(model: Any) -> dict[str, str]:
    """The layers whose weight another layer uses too, each with that other's name."""
    users: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        users.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {
        layer: next(one for one in layers if one != layer)
        for layers in users.values()
        if len(layers) > 1
        for layer in layers
    }


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


def _in_fp32(model: Any) -> Any:
    """What learns, learns in fp32."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model
