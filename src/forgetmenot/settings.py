"""Settings that several rooms use: numbers, a list of names, and a name with its own options."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def split_names(value: Any) -> Any:
    """One text with commas becomes a list of names; anything else stays as it is."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
"""A list of names, or one text with commas between them."""


def _is_a_number(value: Any) -> Any:
    """`true` is not 1: who wrote `limit: true` meant something else."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


MOST = 10**9
"""The most of what is counted: examples, tokens, rows."""

PositiveInt = Annotated[int, BeforeValidator(_is_a_number), Field(gt=0, le=MOST)]
NonNegativeInt = Annotated[int, BeforeValidator(_is_a_number), Field(ge=0, le=MOST)]
Seed = Annotated[int, BeforeValidator(_is_a_number), Field(ge=0, lt=2**63)]
Number = Annotated[float, BeforeValidator(_is_a_number)]
PositiveFloat = Annotated[Number, Field(gt=0)]
NonNegativeFloat = Annotated[Number, Field(ge=0)]


class NamedSettings(BaseModel):
    """A method or a probe by name, and beside its name the options that it defines itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})
