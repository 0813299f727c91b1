"""A bridge: cross-attention to a second frozen model is the one thing that learns (CALM).

`forgetmenot.models.composition` has the mathematics; `forgetmenot.engine.composed` runs both models. On disk
a bridge is like an adapter of PEFT: a config, and one file of weights in which neither model is.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from forgetmenot.errors import UserError
from forgetmenot.models.adapters.kind import AdapterKind
from forgetmenot.models.composition import Bridge, Connection, bridge_of, compose, decompose
from forgetmenot.models.load import Loaded, load_model
from forgetmenot.models.settings import KINDS, AdapterSettings

CONFIG = "bridge_config.json"
WEIGHTS = "bridge.safetensors"
AUGMENTING = "augmenting"
RATE = 3e-4
AUTO_EVERY = 4
"""Of so many layers of the augmenting model one is connected, as in the paper's experiments."""


class BridgeToModel(AdapterKind):
    """A bridge from the model, which stays as it is, to an augmenting one; `new` ones are kept in a row."""

    folder = "bridge"
    uses = KINDS["bridge"]
    not_one_model = "Two models with a bridge between them answer in this stage, which no single model does."

    def default_rate(self, width: int) -> float:
        """3e-4 at any width, as in the README of the paper's code."""
        return RATE

    def check(self, model: Any, settings: AdapterSettings) -> None:
        """Connections and heads must fit both models."""
        _sizes(_augmenting(settings).model, model, settings)

    def identity(self, model: Any, settings: AdapterSettings) -> dict[str, str]:
        """Which augmenting model it is, and whether it gets the anchor's own tokens."""
        loaded = _augmenting(settings)
        tokens = "the anchor's" if _same_tokens(model, loaded) else "its own, aligned by text"
        return {"augmenting_revision": loaded.revision, "augmenting_tokens": tokens}

    @contextmanager
    def examined(self, model: Any, settings: AdapterSettings) -> Iterator[None]:
        """With a bridge whose output is not zero, so that the guard sees what goes wrong behind it."""
        if bridge_of(model) is not None:  # of a stage that was read: its own will do
            yield
            return
        learned = {name for name, value in model.named_parameters() if value.requires_grad}
        bridge = _install(model, settings, seed=0)
        for connection in bridge.connections:
            assert isinstance(connection, Connection)
            nn.init.normal_(connection.output.weight, std=connection.query.weight.std().item())
        bridge.requires_grad_(False)
        try:
            yield
        finally:
            decompose(model)
            for name, value in model.named_parameters():
                value.requires_grad_(name in learned)

    def adapt(self, model: Any, settings: AdapterSettings, stage: int, seed: int) -> Any:
        """Build a bridge and use it, or let the present one learn on."""
        bridge = bridge_of(model)
        if bridge is None or settings.per_stage == "new":
            bridge = _install(model, settings, seed)
        model.requires_grad_(False)
        bridge.connections.requires_grad_(True)
        return model

    def is_in(self, model: Any) -> bool:
        """Whether it has a bridge in use."""
        return bridge_of(model) is not None

    def save(self, model: Any, stage: Path, weights: Mapping[str, Any] | None = None) -> None:
        """Write every bridge, and which model it leads to: the first into the folder, the others below it."""
        for number, bridge in enumerate(compose(model).bridges, start=1):
            assert isinstance(bridge, Bridge)
            write_bridge(bridge, stage / self.folder / (f"bridge-{number:02d}" if number > 1 else ""))

    def load(self, base: Any, stage: Path, *, trainable: bool) -> Any:
        """Build the bridges between the base and the models that their configs name, and use the last."""
        further = (stage / self.folder).glob("bridge-*")
        numbered = sorted(further, key=lambda folder: int(folder.name.removeprefix("bridge-")))
        for folder in (stage / self.folder, *numbered):
            read_bridge(base, folder)
        return base.requires_grad_(False).eval()


BRIDGE = BridgeToModel()


def write_bridge(bridge: Bridge, folder: Path) -> None:
    """Write a bridge's config and weights into a new folder, and the augmenting model if it was tuned."""
    folder.mkdir(parents=True)
    values = bridge.connections.state_dict()
    save_file({name: value.cpu().contiguous() for name, value in values.items()}, folder / WEIGHTS)
    text = json.dumps({**bridge.about, "tuned": bridge.tuned}, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    if bridge.tuned:
        bridge.augmenting.save_pretrained(folder / AUGMENTING)
        bridge.augmenting.tokenizer.save_pretrained(folder / AUGMENTING)


def read_bridge(anchor: Any, folder: Path) -> Bridge:
    """Build the bridge of a folder beside those that an anchor has, and use it.

    Raises:
        UserError: If the config is no bridge's, its augmenting model is not there or is another than the
            bridge was trained with, or the weights are not those of such a bridge.
    """
    path = folder / CONFIG
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        sizes = {key: about[key] for key in ("augmenting", "connections", "heads")}
        trained_with = about["augmenting_revision"]
        tuned = bool(about["tuned"])
        settings = AdapterSettings(kind="bridge", **sizes)
    except (OSError, ValueError, RecursionError, LookupError, TypeError, ValidationError) as error:
        raise UserError(f"{path} is no config of a bridge ({str(error).splitlines()[0]}).") from error
    if tuned:
        where = {"name": str(folder / AUGMENTING), "gguf_file": None}
        own = settings.augmenting.model_copy(update={**where, "dtype": "fp32"})  # as it was tuned and written
        loaded = _augmenting(settings.model_copy(update={"augmenting": own}))
        bridge = _install(anchor, settings, seed=0, loaded=loaded)
        bridge.about |= {"augmenting_revision": trained_with}
    else:
        bridge = _install(anchor, settings, seed=0)
    bridge.tuned = tuned
    now = bridge.about["augmenting_revision"]
    if now != trained_with:
        raise UserError(
            f"{path}: the bridge was trained with another model than {settings.augmenting.title!r} is now "
            f"(its revision was {trained_with}, and is {now}); name the right one there under `augmenting`."
        )
    values, wanted = load_file(folder / WEIGHTS), bridge.connections.state_dict()
    for name in sorted(values.keys() | wanted.keys()):
        if name not in values or name not in wanted or values[name].shape != wanted[name].shape:
            raise UserError(f"{folder / WEIGHTS}: {name} is missing, not known, or of another shape.")
    bridge.connections.load_state_dict(values)
    return bridge


def _install(anchor: Any, settings: AdapterSettings, seed: int, loaded: Loaded | None = None) -> Bridge:
    """Build a bridge to the augmenting model, which is loaded if it is not yet, and use that."""
    device = next(anchor.parameters()).device
    loaded = loaded or _augmenting(settings, device)
    connections, heads = _sizes(loaded.model, anchor, settings)
    for value in loaded.model.parameters():  # a product's last bits depend on where in memory its factors lie
        value.data = value.data.clone()  # aligned, whichever file they are a view of
    torch.manual_seed(seed)
    bridge = Bridge(loaded.model, anchor, connections, heads).to(device)
    if not _same_tokens(anchor, loaded):
        bridge.tokenizers = (anchor.tokenizer, loaded.tokenizer)
    bridge.about = {
        "kind": "bridge",
        "augmenting": {
            "name": settings.augmenting.name,
            **settings.augmenting.model_dump(mode="json", exclude_defaults=True),
        },
        "augmenting_revision": loaded.revision,
        "connections": connections,
        "heads": heads,
    }
    compose(anchor).add(bridge)
    return bridge


def _augmenting(settings: AdapterSettings, device: Any = "cpu") -> Loaded:
    try:
        return load_model(settings.augmenting, trainable=False, device=torch.device(device))
    except UserError as error:
        raise UserError(f"adapter.augmenting: {error}") from error


def _same_tokens(anchor: Any, augmenting: Loaded) -> bool:
    """Whether a token id is the same token to both models."""
    same: bool = anchor.tokenizer.get_vocab() == augmenting.tokenizer.get_vocab()
    return same


def _sizes(augmenting: Any, anchor: Any, settings: AdapterSettings) -> tuple[int, int]:
    """How many connections and heads there are.

    Raises:
        UserError: If a model has fewer layers, or the heads do not divide the anchor's width.
    """
    own, others = (model.config.get_text_config() for model in (augmenting, anchor))
    layers = min(own.num_hidden_layers, others.num_hidden_layers)
    auto = min(max(1, own.num_hidden_layers // AUTO_EVERY), layers)
    connections = auto if settings.connections == "auto" else settings.connections
    if connections > layers:
        raise UserError(
            f"adapter.connections: {connections} layers of each model cannot be connected: the augmenting "
            f"model has {own.num_hidden_layers}, the run's model {others.num_hidden_layers}."
        )
    heads: int = others.num_attention_heads if settings.heads == "auto" else settings.heads
    if others.hidden_size % heads:
        raise UserError(
            f"adapter.heads: the width of the run's model, {others.hidden_size}, is no multiple of {heads}; "
            "set another number."
        )
    return connections, heads
