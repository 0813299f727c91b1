"""The `receipts` part of a config."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from forgetmenot.settings import PositiveFloat, PositiveInt

TFIDF = "tfidf"


def _split(value: Any) -> Any:
    if isinstance(value, str) and value != "all":
        return tuple(part.strip() for part in value.split(","))
    return value


class ReceiptSettings(BaseModel):
    """Which small model writes receipts, and on which tasks.

    Attributes:
        model: `tfidf` (TF-IDF and logistic regression), or a Transformers encoder by hub id or directory;
            None for no receipts.
        revision: A branch, tag or commit of the hub repository.
        allow_bin: Read pickled `.bin` weights (with `weights_only=True`) where there are no safetensors.
        tasks: The tasks whose prompts carry receipts: all that choose among labels, or these.
        sources: Task → the task on whose train split its small model is fitted instead: out of domain.
        confidence: Whether the prompt shows the confidence beside the label.
        folds: In how many parts train is divided, so that its own prompts are answered out of fold.
        limit: Fit on a fixed random sample of so many examples of train.
        epochs: Of the encoder's fine-tuning; None for 3.
        learning_rate: Of the encoder's fine-tuning; None for 2e-5.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    revision: str | None = None
    allow_bin: bool = False
    tasks: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_split)] = "all"
    sources: dict[str, str] = {}
    confidence: bool = True
    folds: Annotated[int, Field(ge=2)] = 5
    limit: PositiveInt | None = None
    epochs: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None

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
