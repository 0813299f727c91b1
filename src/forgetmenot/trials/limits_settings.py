"""The settings of `fmn limits`: what is tuned on, what is shown, and what is tested."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from forgetmenot.errors import UserError, nearest, validation_sentence
from forgetmenot.prompting.solved_examples import CONTROLS
from forgetmenot.settings import Names, PositiveInt, Settings

OF_THE_RUNS = ("adapter", "training", "model")
"""The parts of a run's config that may be set beside these settings: they hold for base and tuned alike."""


class LimitsSettings(Settings):
    """How tuned models are compared with examples in context."""

    tests: PositiveInt = 100
    """The test examples of each task, a fixed random sample; the same in every condition."""
    examples: Annotated[int, Field(ge=1, le=1000)] = 2
    """Solved examples in a prompt, and those that a SampleGen model writes: the paper's 2."""
    balanced: bool = False
    """Whether labels take turns among the examples that are shown; the paper draws at random."""
    letters: PositiveInt = 300
    """Where each field of an example is cut, in every condition alike; ours."""
    prompts: Names = ("flan-1", "flan-2", "flan-3", "flan-4")
    """The variants in which a model is tuned, one drawn for each row; tests are asked in the first. Those
    that a task lacks are left out; a task with none of them has `default`."""
    rows: PositiveInt = 2000
    """Training rows in all; the paper has 20,000."""
    cap: PositiveInt = 3000
    """A task's share of them goes by its size, up to this: FLAN's examples-proportional mixing."""
    samplegen: bool = True
    """Whether a second model is tuned, to write its own examples."""
    controls: Names = tuple(CONTROLS)
    """Variants of the examples in context, asked of the base model."""

    @field_validator("controls")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in CONTROLS:
                raise ValueError(f"there is no control {name!r}. {nearest(name, CONTROLS)}")
        return names


def limits_settings(values: Mapping[str, Any]) -> tuple[LimitsSettings, dict[str, Any]]:
    """Settings from plain data, and beside them those of the runs, by dotted key.

    Raises:
        UserError: A key is unknown or a value unfit; the sentence names the key.
    """
    of_runs = {key: value for key, value in values.items() if key.split(".")[0] in OF_THE_RUNS}
    own = {key: value for key, value in values.items() if key not in of_runs}
    if "model" in of_runs or "model.name" in of_runs:
        raise UserError("model: name the models before --tasks; only keys such as model.dtype are set here.")
    try:
        return LimitsSettings.model_validate(own), of_runs
    except ValidationError as error:
        raise UserError(validation_sentence(error, LimitsSettings)) from error
