"""Which task a prompt belongs to, where nobody says: the one whose prompts it is most like.

The nearest class mean (Mensink et al. 2013) over embeddings of the untouched base model:

    route(x) = argmin_t ‖h(x) − μ_t‖,        μ_t = mean of h over training prompts of task t,

with h(x) the hidden state at the prompt's last token.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from forgetmenot.engine import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods.method import Method, Options, Stage


class RoutingOptions(Options):
    """How prompts are told apart.

    Attributes:
        layer: Whose output embeds a prompt; 0 is the token embeddings. The middle one by default: what lies
            above it turns towards the answer, and away from the question.
        prompts: The most training prompts of a task that its centroid is the mean of, evenly spaced.
    """

    layer: NonNegativeInt | Literal["middle"] = "middle"
    prompts: PositiveInt = 512


class Routing(Method):
    """Send each prompt to the part of the method that learned its task."""

    Options: ClassVar[type[Options]] = RoutingOptions

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.centroids: dict[str, Tensor] = {}

    @abstractmethod
    def as_base(self, learner: Learner) -> AbstractContextManager[None]:
        """Context in which the model answers as the untouched base."""

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take the centroid of each of the stage's tasks."""
        for task, examples in stage.data.items():
            if examples:
                some = examples[:: -(-len(examples) // self.options.prompts)]
                self.centroids[task] = self._embed(learner, [example.prompt for example in some]).mean(0)

    def route(self, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Sequence[str] | None:
        """The task whose centroid is nearest to each prompt."""
        if not self.centroids:
            return None
        tasks, centroids = list(self.centroids), torch.stack(list(self.centroids.values()))
        distances = torch.cdist(self._embed(learner, prompts), centroids)
        return [tasks[k] for k in distances.argmin(1).tolist()]

    def _embed(self, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """The base model's view of each prompt [prompts, width]."""
        if not all(prompts):
            raise UserError(
                "method.name: this method tells tasks apart by their prompts, and plain text has none. "
                "Leave such tasks out, or choose another method."
            )
        layers: int = learner.model.config.get_text_config().num_hidden_layers
        layer = layers // 2 if self.options.layer == "middle" else self.options.layer
        if layer > layers:
            raise UserError(f"method.layer: this model has {layers} layers, and no layer {layer}.")
        with self.as_base(learner):
            return learner.hidden(prompts, layer)

    def state_dict(self) -> dict[str, Any]:
        """Each task's centroid."""
        return {f"centroid.{task}": value for task, value in self.centroids.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.centroids = {
            name.removeprefix("centroid."): value
            for name, value in state.items()
            if name.startswith("centroid.")
        }
