"""One adapter for each task, and a router that needs no task id: nothing learned can be overwritten.

Each task trains a LoRA adapter of its own on the untouched base model (AdapterCL; Madotto et al., EMNLP 2021,
"Continual Learning in Task-Oriented Dialogue Systems", arXiv 2012.15504). Which one answers a prompt x is
decided by the nearest class mean (Mensink et al. 2013), here over embeddings of the frozen base model:

    route(x) = argmin_t ‖h(x) − μ_t‖,        μ_t = mean of h over training prompts of task t,

with h(x) the base model's hidden state at the prompt's last token. With a router that makes no mistake each
task is answered as by the method `single`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from forgetmenot.engine import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods.method import Method, Stage
from forgetmenot.methods.method import Options as BaseOptions
from forgetmenot.models import answering_with


class Options(BaseOptions):
    """How prompts are told apart.

    Attributes:
        layer: Whose output embeds a prompt; 0 is the token embeddings. The middle one by default: what lies
            above it turns towards the answer, and away from the question.
        prompts: The most training prompts of a task that its centroid is the mean of, evenly spaced.
    """

    layer: NonNegativeInt | Literal["middle"] = "middle"
    prompts: PositiveInt = 512


class AdapterPerTask(Method):
    """Learn each task in a LoRA adapter of its own, and route each prompt by its nearest centroid."""

    Options = Options
    keeps: ClassVar[str] = "an adapter and the centroid of its prompts"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora",), "per_stage": ("new",)}
    not_one_model: ClassVar[str] = (
        "answers each prompt with the adapter of its task, which no single model does: its adapters can be "
        "loaded one by one with PEFT."
    )

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.adapters: dict[str, str] = {}
        self.centroids: dict[str, Tensor] = {}

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Leave only the stage's own adapter active."""
        (task,) = stage.tasks
        self.adapters[task] = learner.model.active_adapters[-1]
        learner.model.base_model.set_adapter([self.adapters[task]])

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take the centroid of the task's prompts."""
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

    @contextmanager
    def routed(self, learner: Learner, part: str) -> Iterator[None]:
        """With one task's adapter."""
        with answering_with(learner.model, [self.adapters[part]]):
            yield

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
        with answering_with(learner.model, []):
            return learner.hidden(prompts, layer)

    def state_dict(self) -> dict[str, Any]:
        """Each task's adapter and centroid."""
        centroids = {f"centroid.{task}": value for task, value in self.centroids.items()}
        return {"adapters": self.adapters, **centroids}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.adapters = dict(state["adapters"])
        self.centroids = {
            name.removeprefix("centroid."): value for name, value in state.items() if name != "adapters"
        }
