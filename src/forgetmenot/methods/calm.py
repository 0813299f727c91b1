"""A small augmenting model and a bridge for each task: the anchor never changes, so it cannot forget.

Composition of two models (CALM; Bansal et al., ICLR 2024, arXiv 2401.02412; see
`forgetmenot.models.composition`). The paper composes an anchor with one model that knows something else. That
each task of a sequence has a small model and a bridge of its own is our use of it. They are as far apart as
the adapters of `adapter-per-task`, and the same router finds what answers a prompt. Without a bridge the
anchor answers as it always did, to the last bit.

A task tunes its small model and trains its bridge in the same steps, which is our choice too (the paper's
models are finished before they are composed). The small model learns from its own likelihood of the answers
alone, the bridge from the composed model's, to which the small model is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.routing import Routing, RoutingOptions
from forgetmenot.prompting.encoded import Encoded

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class CalmOptions(RoutingOptions):
    """What a task learns beside its bridge."""

    tune: bool = True
    """Whether the small model of each task learns the task too. If not, all bridges lead to the model that
    `adapter.augmenting` names, as it is."""


class Calm(Routing):
    """Train a small augmenting model and a bridge to it for each task, and route each prompt (CALM)."""

    Options = CalmOptions
    keeps: ClassVar[str] = (
        "a small model, a bridge and the centroid of its prompts; in all one covariance of them"
    )
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("bridge",), "per_stage": ("new",)}
    shards: ClassVar[bool] = False
    preferences: ClassVar[bool] = False
    weighs: ClassVar[bool] = True
    not_one_model: ClassVar[str] = (
        "answers each prompt with the small model and the bridge of its task, which no single model does."
    )

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.bridges: dict[str, int] = {}
        """The number of each task's bridge."""

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Note the stage's bridge, and let its augmenting model learn in fp32."""
        from forgetmenot.models.composition import bridge_of, compose

        (task,) = stage.tasks
        active, bridge = compose(learner.model).active, bridge_of(learner.model)
        assert active is not None
        assert bridge is not None
        self.bridges[task] = active
        if self.options.tune:
            bridge.augmenting.float().requires_grad_(True)
            bridge.tuned = True

    def learns_beside(self, learner: Learner) -> Sequence[Tensor]:
        """The small model."""
        from forgetmenot.models.composition import bridge_of

        bridge = bridge_of(learner.model)
        return [*bridge.augmenting.parameters()] if bridge is not None and self.options.tune else []

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """The composed model's negative log-likelihood of the answers, and the small model's own."""
        from forgetmenot.engine.augmenting_alone import augmenting_alone
        from forgetmenot.engine.objectives import weights

        answers, counts = [example.answer for example in batch], weights(learner, batch)
        loss = -(learner.forward(answers) * counts).sum()
        if self.options.tune:
            alone, own = augmenting_alone(learner, answers)
            lengths = [
                (len(one.tokens) - one.start) / (len(other.tokens) - other.start)
                for one, other in zip(answers, own, strict=True)
            ]
            loss = loss - (alone.forward(own) * counts * counts.new_tensor(lengths)).sum()
        return loss

    def as_base(self, learner: Learner) -> AbstractContextManager[None]:
        """As the anchor."""
        from forgetmenot.models.composition import compose

        return compose(learner.model).using(None)

    @contextmanager
    def routed(self, learner: Learner, part: str) -> Iterator[None]:
        """With one task's small model and bridge."""
        from forgetmenot.models.composition import compose

        with compose(learner.model).using(self.bridges[part]):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Each task's bridge and centroid."""
        return {"bridges": self.bridges, **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        super().load_state_dict(state)
        self.bridges = dict(state["bridges"])
