"""Whole next-token distributions, a bounded number of them at a time: what divergences are sums over.

A distribution has as many numbers as the vocabulary, many times those of the hidden state that it follows
from. So the states are held, and distributions formed from them a chunk of rows at a time, and once more in
the backward pass (Chen et al. 2016, arXiv 1604.06174), as `forgetmenot.engine.head` does for the loss.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from forgetmenot.engine.forward import predicting_states
from forgetmenot.engine.head import KeptHead, chunks, head_values, logits_of
from forgetmenot.engine.pack import Pack
from forgetmenot.engine.precision import Precision, autocast


@dataclass(frozen=True)
class Predictions:
    """What predicts each predicted token, sequence after sequence.

    Attributes:
        states: What goes into the LM head [predicted, width]; of padded rows logits.
        logits: From some states to their logits, in fp32 [rows, vocabulary]; also by another model's head,
            where it is given one beside them and the states are no logits.
        vocabulary: How many tokens there are.
    """

    states: Tensor
    logits: Callable[..., Tensor]
    vocabulary: int

    def only(self, rows: Tensor) -> "Predictions":
        """Some of them."""
        return replace(self, states=self.states[rows])

    def log_probs(self, rows: slice = slice(None)) -> Tensor:
        """The distributions of some rows, of all by default: nats, fp32 [rows, vocabulary]."""
        return self.logits(self.states[rows]).log_softmax(-1)

    def chunks(self, others: int = 0) -> list[slice]:
        """Rows whose distributions may be there at once, beside as many of others."""
        return chunks(len(self.states), self.vocabulary * (1 + others))


def predictions(
    model: Any, packed: Pack, precision: Precision, weights: Mapping[str, Tensor] | None = None
) -> Predictions:
    """Run a pack through the model.

    Args:
        model: A Transformers causal LM.
        packed: What goes through it.
        precision: The dtype of activations.
        weights: Values that the model's parameters have in this pass, by name, and will not have later; what
            follows from them has no gradient.
    """
    device, vocabulary = next(model.parameters()).device, model.config.get_text_config().vocab_size
    with autocast(device, precision):
        states, kind, head = predicting_states(model, packed)
    if kind is None:
        return Predictions(states, lambda rows: rows, vocabulary)
    values = head_values(model, weights) if weights else {}

    def logits(rows: Tensor, another: KeptHead | None = None) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and weights is None), autocast(device, precision):
            if another is not None:
                return logits_of(model, kind, rows, head=another)
            return logits_of(model, kind, rows, values, head)

    return Predictions(states, logits, vocabulary)


def summed(function: Callable[..., Tensor], asked: Sequence[Predictions], *others: Tensor) -> Tensor:
    """The sum over all rows of a function of their distributions.

    Args:
        function: Given the log-probabilities [rows, vocabulary] of each of `asked`, and the same rows of each
            of the others, its sum over these rows.
        asked: Of as many predicted tokens each.
        others: What else there is for each predicted token [predicted, …].
    """
    rows = asked[0].chunks(others=len(asked) - 1)
    parts = []
    for chunk in rows:

        def part(*states: Tensor, chunk: slice = chunk) -> Tensor:
            found = [one.logits(s).log_softmax(-1) for one, s in zip(asked, states, strict=True)]
            return function(*found, *(other[chunk] for other in others))

        states = [one.states[chunk] for one in asked]
        parts.append(part(*states) if len(rows) == 1 else checkpoint(part, *states, use_reentrant=False))
    return torch.stack(parts).sum(0)


def divergences(states: Tensor, head: KeptHead, found: Predictions) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q) over the vocabulary, at each predicted token: nats, fp64 [predicted].

    Args:
        states: What goes into the head of the model that predicts p [predicted, width].
        head: That head.
        found: What predicts q.
    """
    parts = []
    for chunk in found.chunks(others=1):
        p = found.logits(states[chunk], head).log_softmax(-1)
        parts.append((p.exp() * (p - found.log_probs(chunk))).sum(-1, dtype=torch.float64))
    return torch.cat(parts)
