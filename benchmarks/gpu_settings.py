"""The content of `gpu.yaml`, whose comments say what each part is."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from forgetmenot.tasks.yaml_file import read_yaml

PATH = Path(__file__).with_name("gpu.yaml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dimensions(_Part):
    """A size: its configuration, how many parameters that makes, and its examples of each task."""

    parameters: PositiveInt
    score: PositiveInt
    train: PositiveInt
    config: dict[str, Any]


class Exact(_Part):
    """The most by which an attention kernel may differ from the dense mask."""

    log_likelihood: PositiveFloat
    gradient: PositiveFloat


class Paper(_Part):
    """The examples of the paper's whole sequence."""

    train: PositiveInt
    score: PositiveInt


class GpuSettings(_Part):
    """The content of the file."""

    tasks: list[str]
    exact: Exact
    sizes: dict[str, Dimensions]
    paper: Paper
    shares: dict[str, PositiveInt]


def read_settings(path: Path = PATH) -> GpuSettings:
    """Read the file."""
    return GpuSettings.model_validate(read_yaml(path))
