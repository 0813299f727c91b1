"""A soft prompt for each task, behind the frozen ones of the tasks before, on a model that never changes.

Progressive Prompts (Razdaibiedina et al. 2023, ICLR, arXiv 2301.12314). Task t learns P_t, and the model
reads [P_1 … P_t] x: what earlier tasks learned is there to attend to, and cannot be overwritten. Three things
are our own. The new prompt comes last, so that in a causal model the earlier ones are read as when they were
learned. There is no residual MLP around a prompt while it trains. And which prompts answer:

- `routed` (default): a prompt x of task t is answered behind P_1 … P_t, as when t was learned, and t is found
  by the nearest centroid of the tasks' prompts. With a router that makes no mistake nothing is forgotten.
- `all`: every x is answered behind all prompts so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.routing import Routing, RoutingOptions

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class ProgressiveOptions(RoutingOptions):
    """Which prompts answer."""

    answers: Literal["routed", "all"] = "routed"
    """Which prompts answer: those up to the task that the router finds, or all so far."""


class ProgressivePrompts(Routing):
    """Train a soft prompt for each task, after those of earlier tasks (Progressive Prompts)."""

    Options = ProgressiveOptions
    keeps: ClassVar[str] = "a soft prompt and the centroid of its prompts; in all one covariance of them"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("prompt",), "per_stage": ("new",)}

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.parts: dict[str, int] = {}
        """Each task to how many prompts there were when it was learned."""

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Note how many prompts the stage's tasks are learned behind."""
        self.parts |= dict.fromkeys(stage.tasks, stage.number)

    def as_base(self, learner: Learner) -> AbstractContextManager[None]:
        """Without prompts."""
        from forgetmenot.models.adapters.prompt import with_parts

        return with_parts(learner.model, 0)

    def route(self, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Sequence[str] | None:
        """The task whose centroid is nearest, unless all prompts answer."""
        return None if self.options.answers == "all" else super().route(learner, prompts)

    @contextmanager
    def routed(self, learner: Learner, part: str) -> Iterator[None]:
        """Behind the prompts up to one task's own."""
        from forgetmenot.models.adapters.prompt import with_parts

        with with_parts(learner.model, self.parts[part]):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Each task's place and centroid."""
        return {"parts": self.parts, **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        super().load_state_dict(state)
        self.parts = dict(state["parts"])
