"""The common base of methods that place each task's LoRA adapter by what the layers' inputs have been so far.

After each task some of its examples go through the model once more, and of the inputs of every adapted layer
the second moments R Rᵀ are taken, divided by their mean square, so that each task counts alike (our choice).
What a method keeps of them says where the next task's adapter begins.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from forgetmenot.methods.shared.layer_inputs import in_groups, input_grams
from forgetmenot.methods.shared.lora_layers import linear_layers
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.methods.shared.sources import learned_tasks
from forgetmenot.prompting.encoded import Encoded
from forgetmenot.settings import Names, NonNegativeInt

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

TINY = 1e-300  # where a layer's inputs are all 0


class PlacedOptions(Options):
    """Whose inputs are looked at."""

    examples: NonNegativeInt = 64
    """Of how many examples of each task the layers' inputs are looked at; 0 is `sequential`. The default is
    our own."""
    sources: Names = ()
    """Tasks of the run that are never learned by themselves: their inputs stand for what the base model
    knows, and count from the first stage on."""


class PlacedLora(Method):
    """Begin each task's adapter where the inputs so far say.

    Attributes:
        kept: What is kept of each layer's inputs, by the layer's name.
    """

    Options: ClassVar[type[Options]] = PlacedOptions
    # An adapter that has learned answers past inputs: a later task has one of its own.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora",), "per_stage": ("new", "merge")}
    shards = False

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.kept: dict[str, Tensor] = {}

    @abstractmethod
    def with_one_more(self, kept: Tensor | None, gram: Tensor) -> Tensor:
        """What is kept of a layer's inputs, once those of a further task are there, fp64 [width, width]."""

    @abstractmethod
    def place(self, learner: Learner, layers: Mapping[str, LoraLayer], stage: Stage) -> None:
        """Let the adapters that learn begin where they should."""

    def stages(self, tasks: Sequence[str]) -> list[Stage]:
        """One for each task but the sources."""
        sources = self.options.sources
        return [replace(stage, sources=sources) for stage in super().stages(learned_tasks(tasks, sources))]

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Look at the sources before anything is learned, and place the adapters."""
        if not self.options.examples:
            return
        layers = linear_layers(learner)
        if stage.number == 1:
            self.kept = {}
            self.look_at(learner, layers, stage, stage.further)
        self.place(learner, layers, stage)

    def end(self, learner: Learner, stage: Stage) -> None:
        """Look at what the stage has learned."""
        self.look_at(learner, linear_layers(learner), stage, stage.data)

    def look_at(
        self,
        learner: Learner,
        layers: Mapping[str, LoraLayer],
        stage: Stage,
        data: Mapping[str, Sequence[Encoded]],
    ) -> None:
        """Add the inputs of tasks to what is kept."""
        for layer, grams in self.moments(learner, layers, stage, data):
            for gram in grams:
                kept = self.kept.get(layer)
                kept = kept if kept is None else kept.to(gram.device)
                self.kept[layer] = self.with_one_more(kept, gram)

    def moments(
        self,
        learner: Learner,
        layers: Mapping[str, LoraLayer],
        stage: Stage,
        data: Mapping[str, Sequence[Encoded]],
    ) -> Iterator[tuple[str, list[Tensor]]]:
        """Each layer with its inputs' second moments on each task, of mean square 1, in fp64."""
        some = []
        for task, examples in data.items():
            random = np.random.default_rng([self.seed, stage.number, *task.encode()])
            drawn = random.permutation(len(examples))[: self.options.examples].tolist()
            some += [[examples[k] for k in drawn]] if drawn else []
        for group in in_groups(layers, len(some)):
            of_tasks = [input_grams(learner, examples, group) for examples in some]
            for layer in group:
                grams = [one[layer] for one in of_tasks if layer in one]
                yield layer, [gram * (len(gram) / gram.trace().clamp(min=TINY)) for gram in grams]

    def state_dict(self) -> dict[str, Any]:
        """What is kept."""
        return dict(self.kept)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.kept = dict(state)
