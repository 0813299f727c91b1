"""A moving average of the weights: a slow learner beside the fast one, that answers and may hold it back.

After each step of the fast learner θ, over all stages,

    θ_slow ← d θ_slow + (1 − d) θ.

By default that is all: a plain average of weights (Polyak and Juditsky 1992; with this decay "mean teacher",
Tarvainen and Valpola 2017, arXiv 1703.01780). With `strength` the fast one is held to the slow one's outputs
while it learns,

    Σ −log p_θ(y|x)  +  strength · Σ KL(p_slow ‖ p_θ)    over the vocabulary at each answer token.

I-LoRA (Ren et al. 2024, "Analyzing and Reducing Catastrophic Forgetting in Parameter Efficient Tuning", arXiv
2402.18865) has the same two learners, and is defined by what this method does not do: it replays past
examples and holds their hidden states (squared distance). So neither setting is I-LoRA. With LoRA the
averages are those of A and of B, as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from forgetmenot.methods.shared.anchor import beside, from_state, require_the_same_parameters, to_state
from forgetmenot.methods.shared.distillation import distil
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from forgetmenot.settings import NonNegativeFloat, Number

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot


class EMA(Method):
    """Answer with a moving average of the weights, kept over all stages (EMA)."""

    keeps = "one copy of what learns, in all"
    shards = False
    weighs = True

    class Options(Options):
        """The settings of `ema`."""

        decay: Number = Field(default=0.99, ge=0, lt=1)
        """How much of the slow learner a step keeps, d; with 0 the slow learner is the fast one. The default
        is our own."""
        strength: NonNegativeFloat = 0.0
        """The weight of the divergence from the slow learner; 0 takes no pass of its own. The default is our
        own."""
        answers: Literal["slow", "fast"] = "slow"
        """Which of the two is scored and exported; the fast one continues to learn."""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.slow: Snapshot = {}

    def check(self, adapter: AdapterSettings) -> None:
        """One average over all stages is one of the same parameters."""
        require_the_same_parameters("ema", adapter)

    def begin(self, learner: Learner, stage: Stage) -> None:
        """The slow learner begins where the first stage does."""
        self.slow = beside(learner, self.slow) or learner.snapshot()

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """Negative log-likelihood and divergence, both summed."""
        strength: float = self.options.strength
        if not strength:
            return super().loss(learner, batch)
        answered, drift = distil(learner, self.slow, batch)
        return answered + strength * drift

    def stepped(self, learner: Learner) -> None:
        """Move the slow learner towards the fast one."""
        import torch

        with torch.no_grad():
            for name, value in learner.trainable().items():
                self.slow[name].lerp_(value, 1 - self.options.decay)

    @contextmanager
    def answering(self, learner: Learner) -> Iterator[None]:
        """With the slow learner, once there is one."""
        if self.options.answers == "fast" or not self.slow:
            yield
            return
        with learner.with_weights(beside(learner, self.slow)):
            yield

    def training_state(self) -> dict[str, Any]:
        """The slow learner."""
        return to_state(slow=self.slow)

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """The slow learner."""
        return to_state(slow=self.slow)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.slow = from_state(state, "slow")
