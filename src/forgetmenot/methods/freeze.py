"""Freeze the lower layers: what they hold is shared by the tasks and cannot be lost.

"Freeze" of Zheng et al. (ICLR 2025, "Spurious Forgetting in Continual Learning of Language Models", arXiv
2501.13453) freezes the input embeddings and the bottom layers, and stops early on each later task; how many
layers is chosen there by experiment, the share here is ours.

SEQ* (Zheng, Qiu & Ma, ACL 2024, "Learn or Recall? Revisiting Incremental Learning with Pre-trained Language
Models", arXiv 2312.07887) is another method: it freezes the whole pre-trained model after a warm-up on the
first task and goes on with its classifiers, which a causal language model that answers in words does not
have. Only `warm_up` is like it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Method, Stage
from forgetmenot.methods.shared.method import Options as BaseOptions
from forgetmenot.models.settings import AdapterSettings, used_by
from forgetmenot.settings import NonNegativeInt, Number

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class Options(BaseOptions):
    """What is frozen, and when.

    Attributes:
        share: The share of the layers, from below, that is frozen, rounded to whole layers. Where it freezes
            any, the input embeddings are frozen as well, and with them an LM head that is tied to them. 0
            freezes nothing. The default is ours.
        warm_up: How many first stages learn with everything: 1 is SEQ*'s; 0 freezes from the start.
    """

    share: Number = Field(default=0.5, ge=0, le=1)
    warm_up: NonNegativeInt = 1


class Freeze(Method):
    """Freeze the lower layers and the embeddings after the first task (Freeze, of Spurious Forgetting)."""

    Options = Options
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    def check(self, adapter: AdapterSettings) -> None:
        """With every layer frozen, no LoRA adapter is left to learn."""
        super().check(adapter)
        if self.options.share == 1 and not used_by(adapter.kind).base_learns:
            raise UserError(
                "method.share: 1 freezes everything that LoRA adapts; choose less, or adapter.kind: full."
            )

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Freeze what lies below, adapters included."""
        from forgetmenot.models.layers import decoder_layers

        layers = decoder_layers(learner.model)
        below = layers[: round(self.options.share * len(layers))]
        if stage.number <= self.options.warm_up or not below:
            return
        for module in (learner.model.get_input_embeddings(), *below):
            module.requires_grad_(False)
        if not learner.trainable():
            raise UserError(
                f"method.share: {self.options.share} freezes all that is trained in the {len(layers)} "
                "layers of this model; choose less."
            )
