"""Gradient projection memory (GPM; Saha et al. 2021, arXiv 2103.09762)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from forgetmenot.methods.shared.layer_inputs import extend, in_groups, input_grams
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.methods.shared.projection import Projection
from forgetmenot.settings import Number, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from forgetmenot.engine.learner import Learner


class GpmOptions(Options):
    """How much of each task is protected."""

    threshold: Number = Field(default=0.97, ge=0, le=1)
    """The part ε of the squared norm of each layer's inputs that is protected. 0 is `sequential`; at 1
    nothing changes that these inputs see. The default is where the authors' code begins on CIFAR-100."""
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
        taken, layers = [], dict(pair for _, pair in self._layers(learner))
        for group in in_groups(layers):
            for layer, gram in input_grams(learner, some, group).items():
                self.basis[layer] = extend(self.basis.get(layer), gram.cpu(), self.options.threshold)
                taken.append(self.basis[layer].shape[1] / len(gram))
        self.notes.append(f"{np.mean(taken):.1%} of the directions of the layers' inputs are taken.")

    def _layers(self, learner: Learner) -> Iterator[tuple[str, tuple[str, nn.Module]]]:
        """The trained linear layers: the weight's name, and the layer's (without the adapter's) with it."""
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        embeddings = learner.model.get_input_embeddings().weight
        for name, module in learner.model.named_modules():
            linear = isinstance(module, nn.Linear | Conv1D) and ".lora_B." not in name
            if linear and module.weight.requires_grad and module.weight is not embeddings:
                yield f"{name}.weight", (name.split(".lora_A.")[0], module)
