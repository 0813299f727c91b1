"""What linear layers get as inputs: their second moments, and the directions that these need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forgetmenot.prompting.encoded import Encoded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetmenot.engine.learner import Learner

ROUNDING = 1e-12
"""An eigenvalue below this part of all is no direction."""
MOST = 2**31
"""The bytes of Gram matrices that are held at once: those of an 8B model's layers together take 78 GB. Each
group of layers costs another pass of the examples."""


def in_groups(layers: Mapping[str, nn.Module], tasks: int = 1) -> Iterator[dict[str, nn.Module]]:
    """The layers in their order, in groups of at most `MOST` bytes, or of one layer.

    The bytes are those of a Gram matrix for each layer and task.
    """
    group: dict[str, nn.Module] = {}
    held = 0
    for name, layer in layers.items():
        weight: Any = layer.weight
        size = 8 * tasks * int(getattr(layer, "in_features", 0) or max(weight.shape)) ** 2
        if group and held + size > MOST:
            yield group
            group, held = {}, 0
        group[name] = layer
        held += size
    if group:
        yield group


def input_grams(
    learner: Learner, examples: Sequence[Encoded], layers: Mapping[str, nn.Module]
) -> dict[str, Tensor]:
    """For each layer R Rᵀ of its inputs on what is learned and what is scored, in fp64 [width, width].

    R has a column for each token of each sequence, however sequences are packed, and none for padding; those
    of the LM head are where a token is predicted. All are held at once: ask for a group (`in_groups`).
    """
    grams: dict[str, Tensor] = {}

    def add(layer: str, inputs: Tensor, counts: Tensor) -> None:
        rows = inputs.double()
        grams[layer] = grams.get(layer, 0) + (rows.T * counts) @ rows

    sequences = [one for e in examples for one in (e.answer, *e.candidates)]
    learner.layer_inputs(sequences, layers, add)
    return grams


def square_root(gram: Tensor) -> Tensor:
    """S with S Sᵀ = gram, in fp32 [width, directions that have inputs]; as exact as the inputs were.

    A Gram matrix itself in fp32 would lose the directions that have less than a thousandth of the largest.
    """
    import torch

    values, vectors = torch.linalg.eigh(gram)
    there = values > ROUNDING * values.sum()
    root: Tensor = (vectors[:, there] * values[there].sqrt()).float()
    return root


def extend(basis: Tensor | None, gram: Tensor, threshold: float) -> Tensor:
    """The basis with the fewest directions added that hold `threshold` of the inputs' squared norm.

    Args:
        basis: M, orthonormal columns [width, directions], or None.
        gram: R Rᵀ, summed over inputs, in fp64 [width, width].
        threshold: ε, from 0 to 1.

    Returns:
        fp32 [width, directions], the given ones first.
    """
    import torch

    width = gram.shape[0]
    before = gram.new_empty(width, 0) if basis is None else basis.double().cpu()
    outside = torch.eye(width, dtype=gram.dtype) - before @ before.T
    residual = outside @ gram @ outside
    total = gram.trace()
    values, vectors = torch.linalg.eigh(residual)
    values, vectors = values.flip(0), vectors.flip(1)
    held = total - residual.trace() + torch.cat([values.new_zeros(1), values.cumsum(0)])
    enough = held >= threshold * total * (1 - ROUNDING)
    needed = int(enough.int().argmax()) if enough.any() else width
    needed = min(needed, int((values > ROUNDING * total).sum()))
    return torch.cat([before, vectors[:, :needed]], dim=1).float()
