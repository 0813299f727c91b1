"""Gradient projection memory (GPM; Saha et al. 2021, arXiv 2103.09762)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.projection import Projection
from forgetmenot.prompting.encoded import Encoded
from forgetmenot.settings import Number, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetmenot.engine.learner import Learner

ROUNDING = 1e-12
"""An eigenvalue below this part of all is no direction."""


class GpmOptions(Options):
    """How much of each task is protected."""

    threshold: Number = Field(default=0.97, ge=0, le=1)
    """The part ε of the squared norm of each layer's inputs that is protected. 0 is `sequential`; at 1
    nothing changes that these inputs see. The default is our own."""
    examples: PositiveInt = 64
    """How many examples of a stage the inputs are taken from. The default is our own."""


class GPM(Projection):
    """Update linear layers only orthogonally to the inputs of past tasks (GPM).

    After a task each layer's inputs R on some examples are looked at, and the fewest directions added to M
    with which it holds ε of ‖R‖² (left singular vectors of R, found as eigenvectors of R Rᵀ). Each token of
    each sequence counts once in R, however sequences are packed, and padding does not. Later every
    change of the weight W becomes ΔW (I − M Mᵀ), so that W gives the same on those inputs. What is no linear
    layer (embeddings, norms, biases) is frozen after the first task.

    With LoRA each task has an adapter of its own, whose A is kept orthogonal to M from the start; B is free.
    """

    Options: ClassVar[type[Options]] = GpmOptions
    keeps = "directions of each layer's inputs: at most its width, squared"
    # An adapter that has learned answers old inputs, and with one B a new task would change what it answers.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full"), "per_stage": ("new", "merge")}

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Bind the layers that learn; freeze what no projection can hold; begin adapters in what is free."""
        if not self.basis:
            return
        self._bound = {name: pair for name, pair in self._layers(learner) if pair[0] in self.basis}
        for name, parameter in learner.trainable().items():
            parameter.requires_grad_(name in self._bound or ".lora_B." in name)
        self.project({name: p.detach() for name, p in learner.trainable().items() if ".lora_A." in name})

    def project(self, values: Mapping[str, Tensor]) -> None:
        """Take out what acts on past inputs."""
        from transformers.pytorch_utils import Conv1D

        for name in values.keys() & self._bound.keys():
            layer, module = self._bound[name]
            value = values[name].T if isinstance(module, Conv1D) else values[name]
            basis = self.basis[layer].to(value)
            value.sub_(value @ basis @ basis.T)

    def end(self, learner: Learner, stage: Stage) -> None:
        """Add the directions that the stage's inputs need."""
        examples = [example for task in stage.data.values() for example in task]
        if self.options.threshold == 0 or not examples:
            return
        drawn = np.random.default_rng([self.seed, stage.number]).permutation(len(examples))
        some = [examples[k] for k in drawn[: self.options.examples].tolist()]
        taken = []
        for layer, gram in self._input_grams(learner, some).items():
            self.basis[layer] = extend(self.basis.get(layer), gram.cpu(), self.options.threshold)
            taken.append(self.basis[layer].shape[1] / len(gram))
        self.notes.append(f"{np.mean(taken):.1%} of the directions of the layers' inputs are taken.")

    def _input_grams(self, learner: Learner, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """For each layer R Rᵀ of its inputs on what is learned and what is scored, in fp64 [width, width].

        R has a column for each token of each sequence; those of the LM head are where a token is predicted.
        """
        grams: dict[str, Tensor] = {}

        def add(layer: str, inputs: Tensor, counts: Tensor) -> None:
            rows = inputs.double()
            grams[layer] = grams.get(layer, 0) + (rows.T * counts) @ rows

        sequences = [one for e in examples for one in (e.answer, *e.candidates)]
        learner.layer_inputs(sequences, dict(pair for _, pair in self._layers(learner)), add)
        return grams

    def _layers(self, learner: Learner) -> Iterator[tuple[str, tuple[str, nn.Module]]]:
        """The trained linear layers: the weight's name, and the layer's (without the adapter's) with it."""
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        embeddings = learner.model.get_input_embeddings().weight
        for name, module in learner.model.named_modules():
            linear = isinstance(module, nn.Linear | Conv1D) and ".lora_B." not in name
            if linear and module.weight.requires_grad and module.weight is not embeddings:
                yield f"{name}.weight", (name.split(".lora_A.")[0], module)


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
