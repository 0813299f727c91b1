"""The `model` and `adapter` parts of a config."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

BUNDLED = {
    "quickstart": "base",
    "quickstart-small": "small",
}
"""Models that come with the package: name → folder."""


class ModelSettings(BaseModel):
    """Which model: the `model` part of a config.

    Attributes:
        name: A bundled model, a local directory, or a hub id.
        revision: A branch, tag or commit of the hub repository.
        dtype: Of the weights that do not learn; those that learn are always fp32.
        quantization: Keep the linear layers' weights in four bits (`nf4`, doubly quantized); for LoRA only.
        trust_remote_code: Run code that comes with the model.
        allow_bin: Read pickled `.bin` weights (with `weights_only=True`) where there are no safetensors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)] = "quickstart"
    revision: str | None = None
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    quantization: Literal["nf4"] | None = None
    trust_remote_code: bool = False
    allow_bin: bool = False


class AdapterSettings(BaseModel):
    """Which parameters learn: the `adapter` part of a config.

    Attributes:
        kind: LoRA adapters, `full` fine-tuning, or a soft `prompt` before a model that stays as it is.
        rank: LoRA's inner width.
        alpha: LoRA's scale is alpha / rank.
        dropout: On the adapters' input.
        targets: `all-linear` (every linear layer but the LM head), or module names.
        tokens: The length of a soft prompt.
        per_stage: What later stages do: `continue` the same adapter, add a `new` one beside the earlier
            (which stay active but frozen), or `merge` it into the weights and begin a new one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["lora", "full", "prompt"] = "lora"
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    tokens: PositiveInt = 10
    per_stage: Literal["continue", "new", "merge"] = "continue"

    @model_validator(mode="after")
    def _all_of_use(self) -> Self:
        for name, field in type(self).model_fields.items():
            if name not in USED_BY[self.kind] and getattr(self, name) != field.default:
                raise ValueError(f"{name} means nothing with kind: {self.kind}; leave it out")
        if self.kind == "prompt" and self.per_stage == "merge":
            raise ValueError("a prompt cannot be merged into the weights; per_stage is continue or new")
        return self


USED_BY = {
    "lora": ("kind", "rank", "alpha", "dropout", "targets", "per_stage"),
    "full": ("kind",),
    "prompt": ("kind", "tokens", "per_stage"),
}
"""The keys that have a meaning with each kind."""
