"""The `receipts` part of a config."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from forgetmenot.settings import PositiveFloat, PositiveInt, Settings

TFIDF = "tfidf"


def _split(value: Any) -> Any:
    if isinstance(value, str) and value != "all":
        return tuple(part.strip() for part in value.split(","))
    return value


class ReceiptSettings(Settings):
    """Which small model writes receipts, and on which tasks."""

    model: str | None = None
    """The small model: `tfidf` (TF-IDF and logistic regression), or a Transformers encoder by hub id or
    directory; null for no receipts."""
    revision: str | None = None
    """A branch, tag or commit of the encoder's hub repository; null is `main`."""
    allow_bin: bool = False
    """Whether pickled `.bin` weights are read (with `weights_only=True`) where there are no safetensors."""
    tasks: Annotated[
        Literal["all"] | tuple[str, ...],
        BeforeValidator(_split, json_schema_input_type=str | tuple[str, ...]),
    ] = "all"
    """The tasks whose prompts carry receipts: `all` that choose among labels, or these."""
    sources: dict[str, str] = Field(default={})
    """A map from a task to the one on whose train split its small model is fitted instead: out of domain."""
    confidence: bool = True
    """Whether the prompt shows the confidence beside the label."""
    folds: Annotated[int, Field(ge=2)] = 5
    """In how many parts train is divided, so that its own prompts are answered out of fold."""
    limit: PositiveInt | None = None
    """Fit on a fixed random sample of so many examples of train; null takes all."""
    epochs: PositiveInt | None = None
    """The epochs of the encoder's fine-tuning; null for 3."""
    learning_rate: PositiveFloat | None = None
    """The learning rate of the encoder's fine-tuning; null for 2e-5."""

    @model_validator(mode="after")
    def _used(self) -> Self:
        """Refuse a setting that would have no effect."""
        changed = sorted(self.model_fields_set - {"model"})
        idle = [key for key in changed if getattr(self, key) != type(self).model_fields[key].default]
        if self.model is None and idle:
            raise ValueError(
                f"{idle[0]} has no effect without receipts.model; set that to {TFIDF}, for example"
            )
        of_encoders = [key for key in ("revision", "allow_bin", "epochs", "learning_rate") if key in idle]
        if self.model == TFIDF and of_encoders:
            raise ValueError(f"{of_encoders[0]} is for an encoder by hub id or directory, not for {TFIDF}")
        return self
