"""Fine-tuning anchored to the base model by a divergence on the new task's answers.

    Σ −log p_θ(y|x)  +  strength · Σ KL(p_base ‖ p_θ)    over the vocabulary at each answer token

This is the anchor of Zhu et al. (2025), "Anchored Supervised Fine-Tuning", arXiv 2509.23753 (ASFT), in the
direction of their code, on the plain likelihood: without the reweighting of tokens (DFT) that they combine it
with, which is `asft`. Over several stages the base stays the model before the first of them, where `lwf` goes
on to the model of the stage before.

With LoRA the base is every adapter at its start, when B = 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.anchor import beside, from_state, to_state
from forgetmenot.methods.shared.distillation import distil
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from forgetmenot.settings import NonNegativeFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot


class KL(Method):
    """Keep the answers' distributions near the base model's (KL-anchored fine-tuning)."""

    name: ClassVar[str] = "kl"
    keeps = "one copy of what learns, as the base has it"
    shards = False
    weighs = True
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    class Options(Options):
        """The settings of `kl`."""

        strength: NonNegativeFloat = 0.1
        """The weight of the divergence; 0 is `sequential`. The default is that of ASFT's code."""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.base: Snapshot = {}

    def check(self, adapter: AdapterSettings) -> None:
        """The base must still be within reach."""
        super().check(adapter)
        if adapter.per_stage == "merge":
            raise UserError(
                f"method {self.name} needs the base model's answers, but adapter.per_stage: merge merges "
                "each adapter into the base model. Use per_stage: continue or new, or method lwf."
            )

    def begin(self, learner: Learner, stage: Stage) -> None:
        """What learns for the first time is as the base has it; of the rest that is remembered."""
        self.base = {**learner.snapshot(), **beside(learner, self.base)}

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """Negative log-likelihood and divergence, both summed."""
        strength: float = self.options.strength
        if not strength:
            return super().loss(learner, batch)
        answered, drift = distil(learner, self.base, batch)
        return answered + strength * drift

    def state_dict(self) -> dict[str, Any]:
        """The base's values."""
        return to_state(base=self.base if self.options.strength else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.base = from_state(state, "base")
