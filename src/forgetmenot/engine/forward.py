"""One pack through the model: the log-probability of every edge."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetmenot.engine.mask import attention_mask
from forgetmenot.engine.pack import Pack


def log_likelihoods(model: Any, pack: Pack, cache: Any = None) -> Tensor:
    """The log-likelihood of each sequence's predicted tokens, in nats and fp32 [sequences].

    Args:
        model: A Transformers causal LM.
        pack: What goes through it.
        cache: The keys and values of the pack's prefix, as Transformers caches them; the pass appends to it.
    """
    edges = edge_log_probs(model, pack, cache)
    device = edges.device
    per_token = edges[torch.from_numpy(pack.edges).to(device)]
    owners = torch.from_numpy(pack.owners).to(device)
    return torch.zeros(pack.sequences, device=device).index_add(0, owners, per_token)


def edge_log_probs(model: Any, pack: Pack, cache: Any = None) -> Tensor:
    """The log-probability of each edge's token after its position, in nats and fp32 [edges]."""
    logits, rows = _edge_logits(model, pack, cache)
    targets = torch.from_numpy(pack.targets).to(logits.device)
    log_probs: Tensor = logits[rows, targets] - logits.logsumexp(-1)[rows]
    return log_probs


def next_token_log_probs(model: Any, pack: Pack) -> Tensor:
    """The whole distribution that predicts each predicted token, sequence after sequence.

    Returns:
        Log-probabilities in nats and fp32 [predicted tokens, vocabulary].
    """
    logits, rows = _edge_logits(model, pack)
    return logits.log_softmax(-1)[rows[torch.from_numpy(pack.edges).to(logits.device)]]


def hidden_states(model: Any, pack: Pack, layer: int) -> Tensor:
    """The hidden states that predict each predicted token, sequence after sequence, in fp32.

    Layers count as in Transformers: 0 is the embeddings, −1 what goes into the LM head.
    """
    device = next(model.parameters()).device
    states = _run(model, pack, output_hidden_states=True, **_one_logit(pack)).hidden_states[layer]
    sources = torch.from_numpy(pack.sources[pack.edges]).to(device)
    found: Tensor = states.flatten(0, 1)[sources].float()
    return found


def _edge_logits(model: Any, pack: Pack, cache: Any = None) -> tuple[Tensor, Tensor]:
    """Logits in fp32 [rows, vocabulary], and the row that predicts each edge [edges].

    Only positions that predict something go through the LM head, and those in fp32.
    """
    sources = torch.from_numpy(pack.sources).to(next(model.parameters()).device)
    with fp32_head(model):
        if pack.end is None:
            return _run(model, pack).logits.flatten(0, 1).float(), sources
        kept, rows = torch.unique(sources, return_inverse=True)
        return _run(model, pack, cache, logits_to_keep=kept).logits[0].float(), rows


def _run(model: Any, pack: Pack, cache: Any = None, **how: Any) -> Any:
    """What the model gives for a pack: a trie with its mask, or padded rows."""
    device = next(model.parameters()).device
    tokens = torch.from_numpy(pack.tokens).to(device)
    if pack.end is None:
        assert pack.lengths is not None
        lengths = torch.from_numpy(pack.lengths).to(device)
        mask = (torch.arange(tokens.shape[1], device=device)[None] < lengths[:, None]).long()
        return model(input_ids=tokens, attention_mask=mask, use_cache=False, **how)
    positions = torch.from_numpy(pack.positions).to(device)
    trie_mask = attention_mask(
        model.config.get_text_config(),
        torch.from_numpy(pack.end).to(device),
        positions[0],
        activation_dtype(model),
        pack.prefix,
    )
    return model(
        input_ids=tokens,
        attention_mask=trie_mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        **how,
    )


def _one_logit(pack: Pack) -> dict[str, int]:
    """Spare the LM head where only hidden states are asked; padded models may not know the option."""
    return {"logits_to_keep": 1} if pack.end is not None else {}


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


def activation_dtype(model: Any) -> torch.dtype:
    """The dtype that the model computes in here: autocast's within its context, else its weights'."""
    device = next(model.parameters()).device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    dtype: torch.dtype = model.dtype
    return dtype
