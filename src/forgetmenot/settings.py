"""Settings that several rooms use: a list of names, and a name with its own options."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def split_names(value: Any) -> Any:
    """One text with commas becomes a list of names; anything else stays as it is."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
"""A list of names, or one text with commas between them."""


class NamedSettings(BaseModel):
    """A method or a probe by name, and beside its name the options that it defines itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})
