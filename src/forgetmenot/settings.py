"""Settings that several rooms use: numbers, a list of names, and a name with its own options."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def split_names(value: Any) -> Any:
    """One text with commas becomes a list of names; anything else stays as it is."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(split_names, json_schema_input_type=str | tuple[str, ...])]
"""A list of names, or one text with commas between them."""


def by_name(value: Any) -> Any:
    """A name alone stands for a section whose `name` it is."""
    return {"name": value} if isinstance(value, str) else value


def _is_a_number(value: Any) -> Any:
    """`true` is not 1: who wrote `limit: true` meant something else."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


MOST = 10**9
"""The most of what is counted: examples, tokens, rows."""

PositiveInt = Annotated[int, Field(gt=0, le=MOST), BeforeValidator(_is_a_number)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MOST), BeforeValidator(_is_a_number)]
Seed = Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(_is_a_number)]
Number = Annotated[float, BeforeValidator(_is_a_number)]
PositiveFloat = Annotated[Number, Field(gt=0)]
NonNegativeFloat = Annotated[Number, Field(ge=0)]


class Settings(BaseModel):
    """A section of settings: an unknown key is an error, and the text under a key tells people what it is.

    The text is shown by `fmn list settings` and in docs/settings.md, and stands nowhere else.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class NamedSettings(Settings):
    """A method or a probe by name, and beside its name the options that it defines itself."""

    model_config = ConfigDict(extra="allow")

    name: str
    """Its name; its options stand beside it."""

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})
