"""The `training` part of a config."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from forgetmenot.settings import NonNegativeFloat, NonNegativeInt, Number, PositiveFloat, PositiveInt

Epochs = Annotated[PositiveInt, Field(le=10_000)]

SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,5}[smh]", text):
        raise ValueError("write a time as 30s, 10m or 2h, or a whole number of optimizer steps, or null")
    return text


StepsOrTime = PositiveInt | Annotated[str, AfterValidator(_duration)]


class TrainingSettings(BaseModel):
    """How a stage trains: the `training` part of a config.

    Attributes:
        save_every: How often the state of a stage that is being trained is kept on disk, so that an
            interrupted run goes on from there: a time ("30s", "10m", "2h"), optimizer steps, or null for
            never. By the clock the next save waits at least fifty times as long as the last one took, so
            that a slow disk comes to a fiftieth of the time. No number of the run follows from it.
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
    save_every: StepsOrTime | None = "10m"
    limit: NonNegativeInt | dict[str, NonNegativeInt] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["auto", "flex", "dense"] = "auto"
    activation_checkpointing: bool | Literal["auto"] = "auto"

    @property
    def save_every_seconds(self) -> float | None:
        """The time between two saves; None where steps are counted, or nothing is saved."""
        every = self.save_every
        return int(every[:-1]) * SECONDS[every[-1]] if isinstance(every, str) else None
