"""One pack through the model: the log-probability of every edge."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetmenot.engine.mask import attention_mask
from forgetmenot.engine.pack import Pack


def log_likelihoods(model: Any, pack: Pack) -> Tensor:
    """The log-likelihood of each sequence's predicted tokens, in nats and fp32 [sequences]."""
    edges = edge_log_probs(model, pack)
    device = edges.device
    per_token = edges[torch.from_numpy(pack.edges).to(device)]
    owners = torch.from_numpy(pack.owners).to(device)
    return torch.zeros(pack.sequences, device=device).index_add(0, owners, per_token)


def edge_log_probs(model: Any, pack: Pack) -> Tensor:
    """The log-probability of each edge's token after its position, in nats and fp32 [edges].

    Only positions that predict something go through the LM head, and those in fp32.
    """
    device = next(model.parameters()).device
    tokens = torch.from_numpy(pack.tokens).to(device)
    sources = torch.from_numpy(pack.sources).to(device)
    targets = torch.from_numpy(pack.targets).to(device)
    with fp32_head(model):
        if pack.end is not None:
            kept, rows = torch.unique(sources, return_inverse=True)
            positions = torch.from_numpy(pack.positions).to(device)
            mask = attention_mask(
                model.config.get_text_config(),
                torch.from_numpy(pack.end).to(device),
                positions[0],
                _activation_dtype(model),
            )
            logits = model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                logits_to_keep=kept,
                use_cache=False,
            ).logits[0]
        else:
            assert pack.lengths is not None
            lengths = torch.from_numpy(pack.lengths).to(device)
            mask = (torch.arange(tokens.shape[1], device=device)[None] < lengths[:, None]).long()
            rows = sources
            logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits.flatten(0, 1)
    logits = logits.float()
    log_probs: Tensor = logits[rows, targets] - logits.logsumexp(-1)[rows]
    return log_probs


@contextmanager
def fp32_head(model: Any) -> Iterator[None]:
    """Run the LM head in fp32, whatever the precision of the rest.

    An adapter on the head adds to its base layer's result, so it is the base layer that runs in fp32.
    """
    head = model.get_output_embeddings()
    head = head.get_base_layer() if hasattr(head, "get_base_layer") else head
    original = head.forward

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = head.bias.float() if getattr(head, "bias", None) is not None else None
            return F.linear(hidden.float(), head.weight.float(), bias)

    head.forward = forward
    try:
        yield
    finally:
        head.forward = original


def _activation_dtype(model: Any) -> torch.dtype:
    device = next(model.parameters()).device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    dtype: torch.dtype = model.dtype
    return dtype
