"""Full fine-tuning that leaves the leading singular directions of every weight matrix as they are.

Orthogonal subspace fine-tuning (Nayak et al. 2025, "Sculpting Subspaces: Constrained Full Fine-Tuning in LLMs
for Continual Learning", arXiv 2504.07097), through PEFT's OSF. Each linear layer is split by its singular
values, W = U_h S_h V_h + U_l S_l V_l; the upper part h is frozen, and the lower part learns with U_l ⟂ U_h
and V_l ⟂ V_h, so that W V_hᵀ = U_h S_h holds throughout: what the leading directions read is answered as
before.

PEFT projects the gradients. AdamW then scales every entry by itself, and its step is orthogonal no longer, so
the parameters are projected as well after each step. After each stage the two parts become one matrix again
and the next stage splits that. The paper weighs layers by how much they change their input; PEFT gives all
the same share. How it grows is our own rule: each stage sets aside the same share of what was still free,

    preserved at stage t = 1 − (1 − p)^t.

Embeddings, norms, biases and the LM head do not learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Method, Stage
from forgetmenot.methods.shared.method import Options as BaseOptions

if TYPE_CHECKING:
    from peft.tuners.osf import OSFLayer

    from forgetmenot.engine.learner import Learner

ADAPTER = "default"
SAMPLE = 8  # of each task, on which the parts put together are held against the parts


class Options(BaseOptions):
    """How much of each matrix is preserved."""

    preserved: float = Field(default=0.5, gt=0, lt=1)
    """The share p of a matrix's rank that the first stage leaves as it is, and each later one of what is
    still free. The default is PEFT's, for the one stage that it knows."""


class OSF(Method):
    """Fine-tune fully, but orthogonally to the leading singular directions of each matrix (OSF)."""

    Options = Options
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("full",)}
    shards = False

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Split every linear layer; what is preserved grows with the stages."""
        from peft import OSFConfig, get_peft_model

        share = 1 - (1 - self.options.preserved) ** stage.number
        config = OSFConfig(effective_rank=share, target_modules="all-linear", task_type="CAUSAL_LM")
        learner.model = get_peft_model(learner.model, config)
        if not learner.trainable():
            raise UserError(
                "method.name: this method splits linear layers, and PEFT's OSF finds none in this model."
            )

    def stepped(self, learner: Learner) -> None:
        """Take back what the step brought into the preserved directions."""
        import torch
        from peft.tuners.osf import OSFLayer

        with torch.no_grad():
            for layer in learner.model.modules():
                if isinstance(layer, OSFLayer):
                    keep_apart(layer)

    def training_state(self) -> dict[str, Any]:
        """Nothing: a step changes the weights alone."""
        return {}

    def end(self, learner: Learner, stage: Stage) -> None:
        """Put the parts together: the stage leaves plain weights."""
        from forgetmenot.engine.merging import merge
        from forgetmenot.models.quantize import merged

        sample = [s for data in stage.data.values() for one in data[:SAMPLE] for s in one.sequences]
        if sample:
            merge(learner, merged, sample)
        else:  # a stage without examples has learned nothing to compare
            learner.model = merged(learner.model)


def keep_apart(layer: OSFLayer) -> None:
    """Project a layer's learning factors out of its preserved directions.

    PEFT keeps U_h and V_h only where the frozen lower part does not span their complement by itself.
    """
    free, start = layer.osf_svd_params[ADAPTER], (layer._osf_U_low_init, layer._osf_V_low_init)
    left, right = free["U_low"], free["V_low"]
    if ADAPTER in layer._osf_U_high:
        high = layer._osf_U_high[ADAPTER]
        left -= high @ (high.T @ left)
    else:
        low = start[0][ADAPTER]
        left.copy_(low @ (low.T @ left))
    if ADAPTER in layer._osf_V_high:
        high = layer._osf_V_high[ADAPTER]
        right -= (right @ high.T) @ high
    else:
        low = start[1][ADAPTER]
        right.copy_((right @ low.T) @ low)
