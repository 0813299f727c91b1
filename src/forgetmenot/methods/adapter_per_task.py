"""One adapter for each task, and a router that needs no task id: nothing learned can be overwritten.

Each task trains a LoRA adapter of its own on the untouched base model (AdapterCL; Madotto et al., EMNLP 2021,
"Continual Learning in Task-Oriented Dialogue Systems", arXiv 2012.15504). Which one answers a prompt is
decided by the nearest centroid of the tasks' prompts. With a router that makes no mistake each task is
answered as by the method `single`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.routing import Routing

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class AdapterPerTask(Routing):
    """Train a LoRA adapter for each task, and route each prompt to that of the nearest centroid."""

    keeps: ClassVar[str] = "an adapter and the centroid of its prompts; in all one covariance of them"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora",), "per_stage": ("new",)}
    not_one_model: ClassVar[str] = (
        "answers each prompt with the adapter of its task, which no single model does: its adapters can be "
        "loaded one by one with PEFT."
    )

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.adapters: dict[str, str] = {}

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Leave only the stage's own adapter active."""
        (task,) = stage.tasks
        self.adapters[task] = learner.model.active_adapters[-1]
        learner.model.base_model.set_adapter([self.adapters[task]])

    def as_base(self, learner: Learner) -> AbstractContextManager[None]:
        """Without adapters."""
        from forgetmenot.models.adapters.lora import answering_with

        return answering_with(learner.model, [])

    @contextmanager
    def routed(self, learner: Learner, part: str) -> Iterator[None]:
        """With one task's adapter."""
        from forgetmenot.models.adapters.lora import answering_with

        with answering_with(learner.model, [self.adapters[part]]):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Each task's adapter and centroid."""
        return {"adapters": self.adapters, **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        super().load_state_dict(state)
        self.adapters = dict(state["adapters"])
