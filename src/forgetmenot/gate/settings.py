"""What the command line says of a check, as the Python function takes it."""

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.evaluation.settings import EvaluationSettings
from forgetmenot.prompting import PromptVariants


def margins(given: Sequence[str]) -> float | Mapping[str, float] | None:
    """The values of --margin: one number, or task=number and metric=number.

    Raises:
        UserError: If one is no margin, or a number for all stands beside others.
    """
    if not given:
        return None
    named: dict[str, float] = {}
    alone: list[float] = []
    for text in given:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError as error:
            raise UserError(f"--margin {text}: write a number, as 0.03, or task=0.03.") from error
        if equals:
            named[name] = number
        else:
            alone.append(number)
    if len(alone) > 1 or (alone and named):
        raise UserError("--margin: give one number for all tasks, or task=number for each, not both.")
    return check_margin(alone[0] if alone else named)


def check_margin(margin: float | Mapping[str, float] | None) -> float | Mapping[str, float] | None:
    """A margin as it was given, once it is seen to be one.

    Raises:
        UserError: If it is not above 0, or not below 1 where it is for all scores.
    """
    if margin is None:
        return None
    try:
        return EvaluationSettings.model_validate({"margin": margin}).margins
    except ValidationError as error:
        sentence = validation_sentence(error, EvaluationSettings)
        raise UserError(f"--{sentence}") from error


def check_prompt(prompt: PromptVariants) -> PromptVariants:
    """A variant, or a map task → variant, read from its file where a file is named.

    Raises:
        UserError: If it is neither.
    """
    try:
        found: PromptVariants = TypeAdapter(PromptVariants).validate_python(prompt)
    except ValidationError as error:
        raise UserError(
            f"--prompt: give a variant, a map from tasks to variants, or a YAML file of one, not {prompt!r}."
        ) from error
    return found
