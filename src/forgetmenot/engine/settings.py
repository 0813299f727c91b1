"""The `training` part of a config."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from forgetmenot.settings import NonNegativeFloat, NonNegativeInt, Number, PositiveFloat, PositiveInt

Epochs = Annotated[PositiveInt, Field(le=10_000)]


class TrainingSettings(BaseModel):
    """How a stage trains: the `training` part of a config.

    Attributes:
        dpo_beta: β of a stage of preferences.
        loss_average: Over what the loss of an optimizer step is the mean: its answer tokens (`token`), so
            that an answer of 150 tokens counts as much as 75 of two; or its examples (`example`), each the
            mean over its own tokens. Take `example` where answers of unequal length are learned together, in
            `joint` or with replay, and each example is to matter as much.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: Epochs | dict[str, Epochs] = 1
    batch_size: PositiveInt = 32
    micro_batch: PositiveInt | Literal["auto"] = "auto"
    learning_rate: PositiveFloat | Literal["auto"] = "auto"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: Number = Field(default=0.03, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat | None = 1.0
    max_length: PositiveInt = 1024
    dpo_beta: PositiveFloat = 0.1
    loss_average: Literal["token", "example"] = "token"
    limit: NonNegativeInt | dict[str, NonNegativeInt] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["auto", "flex", "dense"] = "auto"
    activation_checkpointing: bool | Literal["auto"] = "auto"
