"""Composition of two frozen models: cross-attention from an anchor's layers to an augmenting model's (CALM).

Bansal et al., ICLR 2024, "LLM Augmented LLMs: Expanding Capabilities through Composition", arXiv 2401.02412.
With H the states that layer j of the anchor gives, and A those of a layer of the augmenting model, layer
j + 1 of the anchor gets

    H + f_cross(f_proj(A), H),

where f_proj is linear, and f_cross multi-head attention with queries from H, and keys and values from
f_proj(A). Both models see the same text, neither of them changes, and only f_proj and f_cross learn.

What the paper leaves open is our choice. f_cross begins with an output of zero, so that the composed model
begins as the anchor to the last bit. A position attends to what the augmenting model gives at its own and at
earlier positions. The last of the connected layers is the last layer of each model. The paper's code differs:
it attends to later positions as well, and has a norm on what f_cross gives.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from forgetmenot.models.layers import decoder_layers

NAME = "composition"


def connected_layers(layers: int, connections: int) -> tuple[int, ...]:
    """The numbers of the connected layers, from 0: evenly spaced, the last one among them."""
    return tuple((k + 1) * layers // connections - 1 for k in range(connections))


def added_parameters(augmenting_width: int, width: int, connections: int) -> int:
    """How many parameters learn: f_proj, and the four maps of f_cross, each with its bias."""
    return connections * (augmenting_width * width + width + 4 * width**2 + 4 * width)


@dataclass(frozen=True)
class Seen:
    """What an anchor sees of the augmenting model in one pass of n positions.

    Attributes:
        states: What each connected layer gives [1 or rows, m, augmenting width].
        allowed: Which states, those in the caches first, a position attends to [1 or rows, 1, n, past + m].
        blind: Where a position attends to none [1 or rows, n, 1]; None where each has some.
        caches: The layer of the anchor's cache for each connection's keys and values; or none.
    """

    states: tuple[Tensor, ...]
    allowed: Tensor
    blind: Tensor | None = None
    caches: tuple[Any, ...] = ()


class Connection(nn.Module):
    """f_proj and f_cross between one layer of each model.

    Args:
        augmenting_width: The augmenting model's hidden size.
        width: The anchor's.
        heads: Of f_cross.
    """

    def __init__(self, augmenting_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projection = nn.Linear(augmenting_width, width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, hidden: Tensor, seen: Seen, number: int) -> Tensor:
        """The anchor's states with what they find in the augmenting model's [rows, n, width].

        Args:
            hidden: What the anchor's layer gives [rows, n, width].
            seen: What is there to be found.
            number: Which of the connections this is.
        """
        dtype = self.query.weight.dtype
        projected = self.projection(seen.states[number].to(dtype))
        query, key, value = (
            states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for states in (self.query(hidden.to(dtype)), self.key(projected), self.value(projected))
        )
        if seen.caches:
            key, value = seen.caches[number].update(key, value)
        rows = len(hidden)
        key, value = (states.expand(rows, -1, -1, -1) for states in (key, value))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=seen.allowed)
        crossed = self.output(found.transpose(1, 2).flatten(2)).to(hidden.dtype)
        if seen.blind is not None:
            crossed = crossed.masked_fill(seen.blind, 0)
        added: Tensor = hidden + crossed
        return added


class Bridge(nn.Module):
    """An augmenting model, and what connects an anchor to it.

    Args:
        augmenting: A causal LM.
        anchor: The anchor.
        connections: How many layers of each are connected.
        heads: Of each connection's attention.

    Attributes:
        tuned: Whether the augmenting model is another than the one that was loaded, and has to be kept.
        tokenizers: The anchor's and the augmenting model's, where their tokens differ; else None.
        about: What is written of it beside its weights: plain data.
    """

    def __init__(self, augmenting: Any, anchor: Any, connections: int, heads: int) -> None:
        super().__init__()
        own, others = (model.config.get_text_config() for model in (augmenting, anchor))
        self.augmenting = augmenting.requires_grad_(False)
        self.tuned = False
        self.tokenizers: tuple[Any, Any] | None = None
        self.about: dict[str, Any] = {}
        self.connections = nn.ModuleList(
            Connection(own.hidden_size, others.hidden_size, heads) for _ in range(connections)
        )
        self.read = connected_layers(own.num_hidden_layers, connections)
        self.written = connected_layers(others.num_hidden_layers, connections)


class Composition(nn.Module):
    """The bridges of an anchor, of which at most one is in use.

    Attributes:
        bridges: In the order in which they were added.
        active: Which of them is in use; None for the anchor alone.
        seen: What the present pass sees of the augmenting model in use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bridges = nn.ModuleList()
        self.active: int | None = None
        self.seen: Seen | None = None

    def add(self, bridge: Bridge) -> None:
        """Add a bridge, and use it."""
        self.bridges.append(bridge)
        self.active = len(self.bridges) - 1

    @property
    def bridge(self) -> Bridge | None:
        """The bridge in use, or None."""
        if self.active is None:
            return None
        bridge = self.bridges[self.active]
        assert isinstance(bridge, Bridge)
        return bridge

    @contextmanager
    def seeing(self, seen: Seen) -> Iterator[None]:
        """Let the anchor's next pass see this."""
        before, self.seen = self.seen, seen
        try:
            yield
        finally:
            self.seen = before

    @contextmanager
    def using(self, active: int | None) -> Iterator[None]:
        """Answer with one bridge; with None as the anchor."""
        before, self.active = self.active, active
        try:
            yield
        finally:
            self.active = before

    def after(self, layer: int, given: Any) -> Any:
        """What goes on from a layer of the anchor, from what the layer gives."""
        bridge = self.bridge
        if bridge is None or layer not in bridge.written:
            return given
        assert self.seen is not None, "a composed model is run by the engine, which runs both models"
        number = bridge.written.index(layer)
        hidden = given[0] if isinstance(given, tuple) else given
        hidden = bridge.connections[number](hidden, self.seen, number)
        return (hidden, *given[1:]) if isinstance(given, tuple) else hidden


class _After:
    """The hook behind a layer: an object, so that a copy of a model has hooks of its own."""

    def __init__(self, composition: Composition, layer: int) -> None:
        self.composition, self.layer = composition, layer

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], given: Any) -> Any:
        return self.composition.after(self.layer, given)


def composition(model: Any) -> Composition | None:
    """The composition of a model, if it is an anchor."""
    holder = _holder(model) if hasattr(model, "get_decoder") else None
    found: Composition | None = getattr(holder, NAME, None)
    return found


def bridge_of(model: Any) -> Bridge | None:
    """The bridge that a model uses, if it does."""
    found = composition(model)
    return None if found is None else found.bridge


def compose(model: Any) -> Composition:
    """Make a model an anchor without bridges, unless it is one."""
    if (found := composition(model)) is not None:
        return found
    found = Composition()
    for number, layer in enumerate(decoder_layers(model)):
        layer.register_forward_hook(_After(found, number))
    _holder(model).add_module(NAME, found)
    return found


def decompose(model: Any) -> None:
    """Take all bridges away."""
    for layer in decoder_layers(model):
        for key, hook in list(layer._forward_hooks.items()):
            if isinstance(hook, _After):
                del layer._forward_hooks[key]
    delattr(_holder(model), NAME)


def _holder(model: Any) -> Any:
    """The decoder: what lies outside it counts as a part of the way to the logits."""
    return model.get_decoder()


def cached_layers(cache: Any, anchor_layers: int, counts: tuple[int, ...]) -> tuple[list[Any], ...]:
    """The layers of an anchor's cache that are not its own, in parts of these sizes.

    They lie behind the anchor's own: what copies, repeats or drops rows of a cache so does it to them too.
    """
    kind = cache.layer_class_to_replicate
    while len(cache.layers) < anchor_layers + sum(counts):
        cache.layers.append(kind())
    parts, begin = [], anchor_layers
    for count in counts:
        parts.append(cache.layers[begin : begin + count])
        begin += count
    return tuple(parts)


def allowed_or_blind(allowed: Tensor) -> tuple[Tensor, Tensor | None]:
    """A mask in which each position attends to something, and where in truth it attends to nothing."""
    blind = ~allowed.any(-1, keepdim=True)
    if not bool(blind.any()):
        return allowed, None
    return allowed | blind, blind[:, 0]
