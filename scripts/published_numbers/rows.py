"""What is measured and what others published of it: the content of `rows.yaml`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.tasks.yaml_file import read_yaml

PATH = Path(__file__).with_name("rows.yaml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Part):
    """A model: what it is called in print, and where its weights come from."""

    title: str
    weights: str


class Published(_Part):
    """A figure that someone published.

    Attributes:
        percent: As it stands there.
        source: A key of `Rows.sources`.
        how: How it was measured, in a few words.
    """

    percent: float
    source: str
    how: str


class Row(_Part):
    """One benchmark of one model.

    Attributes:
        model: A key of `Rows.models`, and the name of its folder.
        task: lm-eval's name.
        metric: lm-eval's metric and filter; the row's value is its mean.
        limit: Of the questions, or with a group of tasks of each task's; null is all.
        compare: As `limit`, for the comparison with lm-eval's own model; null is none.
        dtype: Of weights and activations where the value is measured; the comparison is in fp32.
        published: Empty where nobody published a comparable figure.
        differs: What differs from the published measurement.
    """

    model: str
    task: str
    shots: int
    metric: str
    limit: PositiveInt | None = None
    compare: PositiveInt | None = None
    dtype: Literal["fp32", "bf16"] = "bf16"
    published: list[Published] = []
    differs: str

    @property
    def name(self) -> str:
        """What the row's files are called."""
        return f"{self.model}-{self.task}-{self.shots}-shot"


class Rows(_Part):
    """The content of `rows.yaml`: a source is a sentence with its address; what a reader should know."""

    models: dict[str, Model]
    sources: dict[str, str]
    rows: list[Row]
    reading: str = ""


def read_rows(path: Path = PATH) -> Rows:
    """Read a file of rows.

    Raises:
        UserError: If a key is unknown, missing, or has an unfit value.
    """
    try:
        return Rows.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {validation_sentence(error, Rows)}") from error
