"""README's settings are all that there are, with the values that they have."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from forgetmenot.config import RunConfig
from forgetmenot.tasks.yaml_file import parse_yaml

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def lacking(settings: BaseModel, written: dict[str, Any], where: str = "") -> list[str]:
    """The keys of settings that are not written, however deep they lie."""
    found = []
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if key not in written:
            found.append(where + key)
        elif isinstance(value, BaseModel):
            assert isinstance(written[key], dict), f"{where}{key} is short for a section"
            found += lacking(value, written[key], f"{where}{key}.")
    return found


def test_the_settings_are_complete_and_have_their_defaults() -> None:
    block = README.split("\n## Settings\n")[1].split("```yaml\n")[1].split("```")[0]
    written = parse_yaml(block)
    assert lacking(RunConfig(), written) == []
    assert RunConfig.model_validate(written) == RunConfig()
