"""One pack through the model: the log-probability of every edge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forgetmenot.engine.composed import Positions, augmented
from forgetmenot.engine.head import (
    GatheredHead,
    Read,
    chunks,
    decoder_states,
    edge_log_probs_in_chunks,
    fp32_head,
    head_alone,
    head_inputs,
    on_device,
    picked,
    picked_and_greedy,
    without_logits,
)
from forgetmenot.engine.lower import LowerStates, beginning_at, ending_below
from forgetmenot.engine.mask import attention_mask
from forgetmenot.engine.pack import Pack
from forgetmenot.engine.precision import activation_dtype
from forgetmenot.engine.shards import is_sharded
from forgetmenot.engine.trie import Ints
from forgetmenot.errors import UserError
from forgetmenot.models.layers import decoder_layers


def log_likelihoods(model: Any, pack: Pack, cache: Any = None, *, greedy: bool = False) -> Tensor:
    """The log-likelihood of each sequence's predicted tokens, in nats and fp32 [sequences].

    With `greedy`, beside it how many of them are the likeliest token of all [sequences, 2].

    Args:
        model: A Transformers causal LM.
        pack: What goes through it.
        cache: The keys and values of the pack's prefix, as Transformers caches them; the pass appends to it.
        greedy: Whether that is counted.
    """
    read = picked_and_greedy if greedy else picked
    return sequence_sums(pack, predicted_tokens(model, pack, read, cache))


def sequence_sums(pack: Pack, per_token: Tensor) -> Tensor:
    """The sum over each sequence's predicted tokens [sequences, …] of what each has [predicted, …]."""
    nothing = torch.zeros(pack.sequences, *per_token.shape[1:], device=per_token.device)
    return nothing.index_add(0, on_device(pack.owners, per_token.device), per_token)


def predicted_tokens(model: Any, pack: Pack, read: Read = picked, cache: Any = None) -> Tensor:
    """What is read of each predicted token, sequence after sequence, in fp32 [predicted, …].

    By default its log-probability in nats [predicted]; see `forgetmenot.engine.head.Read`.
    """
    edges = edge_log_probs(model, pack, read, cache)
    return edges[on_device(pack.edges, edges.device)]


def edge_log_probs(model: Any, pack: Pack, read: Read = picked, cache: Any = None) -> Tensor:
    """What is read at each edge, by default its token's log-probability after its position [edges, …]."""
    kept, rows = np.unique(pack.sources, return_inverse=True)
    many = len(chunks(len(kept), model.config.get_text_config().vocab_size)) > 1
    if pack.end is not None and (head_alone(model) if is_sharded(model) else many):
        hidden, kind, head = _head_states(model, pack, kept, cache)
        return edge_log_probs_in_chunks(model, kind, hidden, rows, pack.targets, read, head)
    logits, edge_rows = _edge_logits(model, pack, cache)
    return read(logits, edge_rows, on_device(pack.targets, logits.device))


def predicting_states(model: Any, pack: Pack) -> tuple[Tensor, type[Any] | None, GatheredHead | None]:
    """What goes into the LM head where each predicted token is predicted, sequence after sequence.

    Returns:
        Hidden states [predicted tokens, width], the type of what the decoder gave, and the head of a sharded
        model. Of padded rows, whose model may have no such decoder, and of a sharded model with more behind
        its decoder than the head, the logits in fp32 [predicted tokens, vocabulary], and None.
    """
    if pack.end is None or (is_sharded(model) and not head_alone(model)):
        logits, rows = _edge_logits(model, pack)
        return logits[rows[on_device(pack.edges, logits.device)]], None, None
    kept, row_of_edge = np.unique(pack.sources, return_inverse=True)
    hidden, kind, head = _head_states(model, pack, kept)
    return hidden[on_device(row_of_edge[pack.edges], hidden.device)], kind, head


def hidden_states(model: Any, pack: Pack, layer: int) -> Tensor:
    """The hidden states that predict each predicted token, sequence after sequence, in fp32.

    Layers count as in Transformers: 0 is the embeddings, −1 what goes into the LM head. What lies above
    a layer in the middle is not computed.
    """
    if pack.end is not None and not is_sharded(model) and 0 < layer < len(decoder_layers(model)):
        states = lower_states(model, pack, layer).read()
        return states[on_device(pack.sources[pack.edges], states.device)].float()
    return _all_states(model, pack, lambda states: [states[layer]])[:, 0]


def layer_states(model: Any, pack: Pack) -> Tensor:
    """The same of the embeddings and every layer, from one pass: fp32 [predicted tokens, layers + 2, width].

    The last two are what the uppermost layer gives, and the same after the final norm.
    """
    top = []
    hook = decoder_layers(model)[-1].register_forward_hook(
        lambda module, inputs, output: top.append(output if isinstance(output, Tensor) else output[0])
    )
    try:
        return _all_states(model, pack, lambda states: [*states[:-1], top[0], states[-1]])
    finally:
        hook.remove()


def _all_states(model: Any, pack: Pack, choose: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> Tensor:
    """Chosen hidden states where something is predicted: fp32 [predicted tokens, chosen, width]."""
    device = next(model.parameters()).device
    pack = replace(pack, lower=None)  # a layer below may be asked for
    states = _run(model, pack, output_hidden_states=True, **_one_logit(pack)).hidden_states
    sources = on_device(pack.sources[pack.edges], device)
    return torch.stack([one.flatten(0, 1)[sources].float() for one in choose(states)], dim=1)


def lower_states(model: Any, pack: Pack, first: int) -> LowerStates:
    """What enters layer `first` at each position of a trie; what lies above is not computed."""
    with torch.no_grad(), ending_below(model, first) as found:
        _run(model, replace(pack, lower=None), **_one_logit(pack))
    return found[0]


def layer_inputs(
    model: Any, pack: Pack, layers: Mapping[str, nn.Module], take: Callable[[str, Tensor, Tensor], None]
) -> None:
    """Show what layers get in one pass, in any layout the same: each sequence's positions, once for each.

    Args:
        model: A Transformers causal LM.
        pack: What goes through it.
        layers: Those that are watched, by name.
        take: Given a layer's name, its inputs [positions, width], and for how many sequences each position
            counts, fp64 [positions]: those that go through it; for the LM head those that predict there.

    Raises:
        UserError: If a layer gets some of the positions only, as an expert does to which tokens are sent.
    """
    head = model.get_output_embeddings()
    within_head = set(head.modules())
    device = next(model.parameters()).device
    passing, predicting = (
        on_device(counts.ravel(), device).double() for counts in (pack.passing, pack.predicting)
    )

    def watch(name: str, module: nn.Module) -> Any:
        weight = predicting if module in within_head else passing

        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            if len(rows) != len(weight):
                raise UserError(
                    f"The layer {name} of this model gets only some of the tokens, as an expert does, and "
                    "its inputs cannot be held against those of all; choose another method."
                )
            take(name, rows, weight)

        return module.register_forward_pre_hook(see)

    hooks = [watch(name, module) for name, module in layers.items()]
    try:
        with without_logits(model):
            _run(model, replace(pack, lower=None))
    finally:
        for hook in hooks:
            hook.remove()


def _head_states(
    model: Any, pack: Pack, kept: Ints, cache: Any = None
) -> tuple[Tensor, type[Any], GatheredHead | None]:
    """What goes into the head at kept positions [kept, width], its type, and a sharded model's head."""
    device = next(model.parameters()).device
    with decoder_states(model) as states:
        if not is_sharded(model):
            _run(model, pack, cache, **_one_logit(pack))
            return states[0].last_hidden_state[0][on_device(kept, device)], type(states[0]), None
        with head_inputs(model) as inputs:
            _run(model, pack, cache, logits_to_keep=on_device(kept, device))
    return inputs[0][0], type(states[0]), GatheredHead(model)


def _edge_logits(model: Any, pack: Pack, cache: Any = None) -> tuple[Tensor, Tensor]:
    """Logits in fp32 [rows, vocabulary], and the row that predicts each edge [edges].

    Only positions that predict something go through the LM head, and those in fp32.
    """
    device = next(model.parameters()).device
    with fp32_head(model):
        if pack.end is None:
            return _run(model, pack).logits.flatten(0, 1).float(), on_device(pack.sources, device)
        kept, rows = np.unique(pack.sources, return_inverse=True)
        logits = _run(model, pack, cache, logits_to_keep=on_device(kept, device)).logits[0].float()
        return logits, on_device(rows, device)


def _run(model: Any, pack: Pack, cache: Any = None, **how: Any) -> Any:
    """What the model gives for a pack: a trie with its mask, or padded rows."""
    device = next(model.parameters()).device
    tokens = on_device(pack.tokens, device)
    if pack.end is None:
        assert pack.lengths is not None
        lengths = on_device(pack.lengths, device)
        mask = (torch.arange(tokens.shape[1], device=device)[None] < lengths[:, None]).long()
        with augmented(model, Positions(tokens, mask=mask)):
            return model(input_ids=tokens, attention_mask=mask, use_cache=False, **how)
    positions, end, dtype = (
        on_device(pack.positions, device),
        on_device(pack.end, device),
        activation_dtype(model),
    )
    trie_mask = attention_mask(model.config.get_text_config(), end, positions[0], dtype, pack.prefix)
    trie = Positions(tokens, positions, end, pack.prefix)
    with augmented(model, trie, cache), beginning_at(model, pack.lower):
        return model(
            input_ids=tokens,
            attention_mask=trie_mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **how,
        )


def _one_logit(pack: Pack) -> dict[str, int]:
    """Spare the LM head where only hidden states are needed; padded models may not know the option."""
    return {"logits_to_keep": 1} if pack.end is not None else {}
