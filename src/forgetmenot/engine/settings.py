"""The `training` part of a config."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from forgetmenot.settings import (
    NonNegativeFloat,
    NonNegativeInt,
    Number,
    PositiveFloat,
    PositiveInt,
    Settings,
)

Epochs = Annotated[PositiveInt, Field(le=10_000)]

SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,5}[smh]", text):
        raise ValueError("write a time as 30s, 10m or 2h, or a whole number of optimizer steps, or null")
    return text


StepsOrTime = PositiveInt | Annotated[str, AfterValidator(_duration), Field(title="a time as 10m")]


class TrainingSettings(Settings):
    """How a stage trains: the `training` part of a config."""

    epochs: Epochs | dict[str, Epochs] = 1
    """How often a stage goes through its examples, or a map from tasks to such numbers, with 1 for those that
    it does not name."""
    batch_size: PositiveInt = 32
    """The examples of an optimizer step, over all processes."""
    micro_batch: PositiveInt | Literal["auto"] = "auto"
    """The most examples that go through the model at once, for less memory. `auto` takes as many as fit a
    pack (docs/performance.md)."""
    learning_rate: PositiveFloat | Literal["auto"] = "auto"
    """The highest learning rate. `auto` follows from the kind of adapter and the model's width
    (docs/settings.md); the rate that was used is in environment.json."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up; each stage begins anew."""
    warmup_ratio: Number = Field(default=0.03, ge=0, lt=1)
    """The share of a stage's steps in which the learning rate rises from 0."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's weight decay."""
    max_grad_norm: PositiveFloat | None = 1.0
    """The norm to which a longer gradient is cut; null cuts none."""
    max_length: PositiveInt = 1024
    """The most tokens of a prompt with its answer. Fields of a longer one are cut, and counted
    (docs/prompts.md)."""
    dpo_beta: PositiveFloat = 0.1
    """DPO's β, in a stage of preferences."""
    loss_average: Literal["token", "example"] = "token"
    """Over what the loss of an optimizer step is the mean (docs/comparing.md). `token`: its answer tokens, so
    that an answer of 150 tokens counts as much as 75 of two. `example`: its examples, each the mean over its
    own tokens; take it where answers of unequal length are learned together, in `joint` or with replay, and
    each example is to matter as much."""
    save_every: StepsOrTime | None = "10m"
    """How often the state of a stage in training is kept on disk, so that an interrupted run goes on from
    there: a time (30s, 10m, 2h), a number of optimizer steps, or null for never. By the clock the next save
    waits at least fifty times as long as the last one took. No number of the run follows from it."""
    limit: NonNegativeInt | dict[str, NonNegativeInt] | None = None
    """Train on a fixed random sample of so many examples of each task, or a map from tasks to such numbers;
    null takes all."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """In which type activations are computed. `auto` is bf16 where the processor multiplies it natively, on a
    CPU for models from width 512 on; else fp32."""
    attention: Literal["auto", "flex", "dense"] = "auto"
    """How attention is computed. `auto` is FlexAttention (`flex`) on a CUDA device and chunks of queries
    elsewhere, for the models that take them; `dense` is a full mask for the model's own kernel."""
    activation_checkpointing: bool | Literal["auto"] = "auto"
    """Whether activations are computed again in the backward pass, which saves memory and takes time. `auto`
    does so in full fine-tuning of more than a billion parameters."""

    @property
    def save_every_seconds(self) -> float | None:
        """The time between two saves; None where steps are counted, or nothing is saved."""
        every = self.save_every
        return int(every[:-1]) * SECONDS[every[-1]] if isinstance(every, str) else None
