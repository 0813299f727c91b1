"""The LM head over the positions that predict something: in fp32, and a bounded number of them at a time."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from forgetmenot.engine import shards
from forgetmenot.engine.trie import Ints

LOGITS_BYTES = 2**29
"""The most bytes of fp32 logits at a time; a training step holds about four times as many at its peak."""

Read = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What is read from logits: given logits [rows, vocabulary], and the row and the target of each edge [edges],
the target's log-probability [edges], or this as the first of several columns [edges, columns]."""


def chunks(rows: int, vocabulary: int) -> list[slice]:
    """Divide rows of logits evenly into as few chunks as stay within `LOGITS_BYTES`."""
    count = max(1, -(-rows // max(1, LOGITS_BYTES // (4 * vocabulary))))
    bounds = np.linspace(0, rows, count + 1).astype(int).tolist()
    return [slice(a, b) for a, b in pairwise(bounds)]


class KeptHead(nn.Module):
    """An LM head's weight and bias, which stand in for a model's own head in `logits_of`."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias


class GatheredHead(KeptHead):
    """A sharded model's LM head, whole on every process, and outside FSDP's hooks.

    Those would gather and put away the head with each chunk of rows, and processes have different numbers of
    chunks: they would wait for one another for ever. This one is gathered once a pass, and the gradient of
    all chunks is summed over the processes once.
    """

    def __init__(self, model: Any) -> None:
        head = model.get_output_embeddings()
        shards.put_away_part(model, head)
        bias = shards.whole_to_learn(head.bias) if getattr(head, "bias", None) is not None else None
        super().__init__(shards.whole_to_learn(head.weight), bias)


def edge_log_probs_in_chunks(
    model: Any,
    kind: type[Any],
    hidden: Tensor,
    rows: Ints,
    targets: Ints,
    read: Read,
    head: GatheredHead | None = None,
) -> Tensor:
    """What is read at each edge, without ever holding the logits of all rows.

    The backward pass computes each chunk's logits again (Chen et al. 2016, arXiv 1604.06174).

    Args:
        model: A Transformers causal LM, perhaps with PEFT adapters inside.
        kind: The type of what its decoder gives.
        hidden: Hidden states where something is predicted [rows, width].
        rows: The row that predicts each edge, ascending [edges].
        targets: The token predicted [edges].
        read: What is read, such as `picked`.
        head: The head of a sharded model.

    Returns:
        That of each edge, in fp32 [edges, …].
    """
    parts = []
    for chunk in chunks(len(hidden), model.config.get_text_config().vocab_size):
        edges = slice(*np.searchsorted(rows, [chunk.start, chunk.stop]))
        parts.append(
            checkpoint(
                _read_chunk,
                model,
                kind,
                hidden[chunk],
                head,
                on_device(rows[edges] - chunk.start, hidden.device),
                on_device(targets[edges], hidden.device),
                read,
                use_reentrant=False,
            )
        )
    return torch.cat(parts)


def picked(logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each target [edges] in its row of the logits [rows, vocabulary]."""
    log_probs: Tensor = logits[rows, targets] - logits.logsumexp(-1)[rows]
    return log_probs


def picked_and_greedy(logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """What `picked` gives, and 1 where the target is the likeliest token, else 0 [edges, 2]."""
    likeliest = logits[rows, targets] >= logits.amax(-1)[rows]
    return torch.stack([picked(logits, rows, targets), likeliest.float()], dim=-1)


def picked_and_entropy(logits: Tensor, rows: Tensor, targets: Tensor, top: int) -> Tensor:
    """What `picked` gives, and the entropy of the likeliest tokens as a share of its maximum [edges, 2].

    Args:
        logits: As for `picked`.
        rows: Likewise.
        targets: Likewise.
        top: How many tokens are the likeliest; their probabilities sum to 1 in the entropy, whose maximum is
            ln(top). It has no gradient.
    """
    with torch.no_grad():
        likeliest = logits.topk(min(top, logits.shape[-1])).values.log_softmax(-1)
        entropy = -(likeliest.exp() * likeliest).sum(-1) / math.log(likeliest.shape[-1])
    return torch.stack([picked(logits, rows, targets), entropy.clamp(min=0)[rows]], dim=-1)


@contextmanager
def decoder_states(model: Any) -> Iterator[list[Any]]:
    """A list to which each pass through the model appends what its decoder gave to the head."""
    found: list[Any] = []
    hook = decoder(model).register_forward_hook(lambda _, __, output: found.append(output))
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def head_inputs(model: Any) -> Iterator[list[Tensor]]:
    """A list to which each pass appends what goes into the LM head [1, rows, width], which gives no logits.

    What is appended the head gives back as it is: at its gradient FSDP begins the head's part of the backward
    pass, to which the decoder's last layer may belong.
    """
    found: list[Tensor] = []

    def forward(hidden: Tensor) -> Tensor:
        found.append(hidden)
        return hidden

    with replaced_forward(model.get_output_embeddings(), forward):
        yield found


@contextmanager
def fp32_head(model: Any) -> Iterator[None]:
    """Run the LM head in fp32, whatever the precision of the rest.

    An adapter on the head adds to its base layer's result, so it is the base layer that runs in fp32.
    """
    head = model.get_output_embeddings()
    head = head.get_base_layer() if hasattr(head, "get_base_layer") else head

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = head.bias.float() if getattr(head, "bias", None) is not None else None
            return F.linear(hidden.float(), head.weight.float(), bias)

    with replaced_forward(head, forward):
        yield


@contextmanager
def without_logits(model: Any) -> Iterator[None]:
    """Let the LM head take all positions and compute nothing: one 0 for each of them."""
    head = model.get_output_embeddings()
    head = head.get_base_layer() if hasattr(head, "get_base_layer") else head
    with replaced_forward(head, lambda hidden: hidden.new_zeros(*hidden.shape[:-1], 1)):
        yield


def on_device(values: Ints, device: torch.device) -> Tensor:
    """Copy to the device, without waiting for what it computes."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def logits_of(
    model: Any,
    kind: type[Any],
    hidden: Tensor,
    values: Mapping[str, Tensor] | None = None,
    head: KeptHead | None = None,
) -> Tensor:
    """Logits in fp32 [rows, vocabulary], by the model's own way from its decoder to its logits.

    That way may scale or cap the logits; so its `forward` runs, with hidden states that are there already.

    Args:
        model: A Transformers causal LM, perhaps with PEFT adapters inside.
        kind: The type of what its decoder gives.
        hidden: Hidden states [rows, width].
        values: What `head_values` gave, to take in place of the head's own parameters.
        head: What stands in for the model's own head, and for the adapters on it: that of a sharded model
            gathered, or another model's.
    """
    given = kind(last_hidden_state=hidden[None])
    stand_in = _as_head(model, head) if head is not None else nullcontext()
    with stand_in, fp32_head(model), replaced_forward(decoder(model), lambda *_, **__: given):
        asked = {
            "input_ids": torch.zeros(1, 1, dtype=torch.long, device=hidden.device),
            "use_cache": False,
        }
        if values:
            output = functional_call(_plain(model), dict(values), args=(), kwargs=asked)
        else:
            output = _plain(model).forward(**asked)
        logits: Tensor = output.logits[0].float()
        return logits


def head_alone(model: Any) -> bool:
    """Whether the LM head holds all parameters that lie behind the decoder."""
    head = {id(p) for p in model.get_output_embeddings().parameters()}
    return _behind_decoder(model) <= head


def plain_head(model: Any) -> KeptHead:
    """The LM head as it is now, without what adapters add to it; a sharded model's is gathered."""
    if shards.is_sharded(model):
        return GatheredHead(model)
    head = model.get_output_embeddings()
    head = head.get_base_layer() if hasattr(head, "get_base_layer") else head
    bias = getattr(head, "bias", None)
    return KeptHead(head.weight.detach(), None if bias is None else bias.detach())


def head_values(model: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a model's weights that lie behind its decoder, as `logits_of` takes them."""
    plain, names = _plain(model), {id(p): name for name, p in model.named_parameters()}
    own = _behind_decoder(model)
    own |= {id(p) for p in model.get_output_embeddings().parameters()}  # which may be the embeddings
    parameters = {name: names[id(p)] for name, p in plain.named_parameters() if id(p) in own}
    return {name: weights[known] for name, known in parameters.items() if known in weights}


def _read_chunk(
    model: Any,
    kind: type[Any],
    hidden: Tensor,
    head: GatheredHead | None,
    rows: Tensor,
    targets: Tensor,
    read: Read,
) -> Tensor:
    return read(logits_of(model, kind, hidden, head=head), rows, targets)


def _plain(model: Any) -> Any:
    """The model inside PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: Any) -> Any:
    """All of the model but its head."""
    return _plain(model).get_decoder()


def _behind_decoder(model: Any) -> set[int]:
    """The ids of the parameters that are not the decoder's."""
    within = {id(p) for p in decoder(model).parameters()}
    return {id(p) for p in _plain(model).parameters()} - within


@contextmanager
def _as_head(model: Any, head: KeptHead) -> Iterator[None]:
    own = model.get_output_embeddings()
    model.set_output_embeddings(head)
    try:
        yield
    finally:
        model.set_output_embeddings(own)


@contextmanager
def replaced_forward(module: Any, forward: Any) -> Iterator[None]:
    """Let a module compute something else for a while."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if (
            before is None
        ):  # its class's: set on the module it would hold the module, and its weights, for long
            del module.forward
        else:
            module.forward = before
