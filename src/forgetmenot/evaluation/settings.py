"""The `evaluation` part of a config: what is scored after every stage, and how."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from forgetmenot.errors import UserError, nearest, validation_sentence
from forgetmenot.evaluation.scoring import SCORINGS
from forgetmenot.prompting import CountOrSettings, DemonstrationSettings, PromptVariants
from forgetmenot.settings import (
    NamedSettings,
    Names,
    NonNegativeFloat,
    NonNegativeInt,
    Number,
    PositiveFloat,
    PositiveInt,
    Settings,
    split_names,
)


def _probes(value: Any) -> Any:
    entries = split_names(value)
    if not isinstance(entries, list | tuple):
        return entries  # pydantic refuses it
    named = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    names = [entry.get("name") for entry in named if isinstance(entry, Mapping)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the probe {twice} is listed twice")
    return named


def _known_scoring(name: str) -> str:
    if name not in SCORINGS:
        raise ValueError(f"there is no way of scoring {name!r}. {nearest(name, SCORINGS)}")
    return name


def _margin(value: Any) -> Any:
    numbers = list(value.values()) if isinstance(value, Mapping) else [] if value == "auto" else [value]
    for one in numbers:
        if not isinstance(one, int | float) or isinstance(one, bool) or not 0 < one < math.inf:
            raise ValueError(f"a margin is a number above 0, as 0.03, not {one!r}")
        if not isinstance(value, Mapping) and one >= 1:
            raise ValueError(f"{one!r} is no margin for scores between 0 and 1; 0.03 is three points")
    return value


def _scorings(schema: dict[str, Any]) -> None:
    schema["enum"] = list(SCORINGS)  # when the schema is made: all that are in the table then


ScoringName = Annotated[str, AfterValidator(_known_scoring), Field(json_schema_extra=_scorings)]
Normalization = Literal["none", "tokens", "bytes", "unconditional"]
Calibration = Literal["none", "contextual", "prior"]


Margin = Annotated[
    Literal["auto"] | float | dict[str, float],
    BeforeValidator(
        _margin,
        json_schema_input_type=Literal["auto"]
        | Annotated[float, Field(gt=0, lt=1)]
        | dict[str, PositiveFloat],
    ),
]
Probes = Annotated[
    tuple[NamedSettings, ...],
    BeforeValidator(_probes, json_schema_input_type=str | tuple[str | NamedSettings, ...]),
]


class ReadingSettings(Settings):
    """A reading beside the run's own; what it does not name is as in the run's own."""

    prompt: PromptVariants | None = None
    """Another prompt variant, or a map from tasks to variants."""
    demonstrations: CountOrSettings | None = None
    """Other demonstrations."""
    scoring: ScoringName | None = None
    """Another way of scoring."""
    normalization: Normalization | None = None
    """Another normalization."""
    calibration: Calibration | None = None
    """Another calibration."""
    realign: PositiveInt | None = None
    """Before a task is asked, train for a moment on so many of its training examples, and put the weights
    back afterwards (docs/prompts.md)."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("give a setting that differs from the run's own, such as {scoring: generation}")
        return self


class GenerationSettings(Settings):
    """How answers are generated, beside what each task says of its own (its length, its stop strings)."""

    max_new_tokens: PositiveInt | Literal["auto"] = "auto"
    """The most tokens of an answer. `auto` is each task's own most, which a number only lowers."""
    temperature: NonNegativeFloat = 0.0
    """0 takes the likeliest token; else tokens are drawn, by a seed of each example's own."""
    top_k: NonNegativeInt = 0
    """Above temperature 0, draw among the k likeliest tokens; 0 for all."""
    top_p: Number = Field(default=1.0, gt=0, le=1)
    """Above temperature 0, draw among the fewest tokens that together reach this probability."""
    batch_tokens: PositiveInt | Literal["auto"] = "auto"
    """The most positions of a batch, prompts and answers. `auto` follows from the model and the device."""
    margins: bool = False
    """Whether predictions keep how sure each token was: how far its logit lay above the second one."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """What writes the answers; `vllm` on a GPU where it is installed."""

    @model_validator(mode="after")
    def _draws_if_it_chooses_among(self) -> Self:
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise ValueError(
                "top_k and top_p have no effect at temperature 0, which takes the most likely token"
            )
        return self


class EvaluationSettings(Settings):
    """What is scored after every stage, and how a choice among labels is read."""

    split: Literal["score", "select"] = "score"
    """What is scored: `score`; or `select`, on which settings are chosen, so that `score` never is."""
    limit: PositiveInt | None = None
    """Score a fixed random sample of so many examples of each task, the same for every run; null scores
    all."""
    also_score: Names = ()
    """What is scored and never trained on (`--watch`): tasks, suites, task files, and names of
    lm-evaluation-harness's tasks (docs/tasks.md)."""
    margin: Margin = "auto"
    """How small a drop counts as none (docs/statistics.md): `auto`, each metric's own; a number, for all
    scores that have a fixed range (0.03 is three points); or a map from tasks or metrics to numbers."""
    prompts: Names = ()
    """Prompt variants that are read beside the run's own; short for `readings` that name a `prompt`."""
    probes: Probes = ()
    """What is measured beside the tasks (docs/probes.md): names (`fmn list probes`), or `{name: NAME, its
    option: value}` (`fmn list probes NAME`)."""
    readings: tuple[ReadingSettings, ...] = ()
    """Further ways of asking, each a reading of its own beside the run's (docs/prompts.md)."""
    scoring: ScoringName = "likelihood"
    """How a choice among labels is read: by the `likelihood` of each candidate; by `generation`, what the
    model writes; or by `last-label`, the same text read as SELF-GUIDE does, by the label that it names
    last."""
    normalization: Normalization = "none"
    """What a candidate's log-likelihood is divided by, its `tokens` or `bytes`, or freed from, its
    `unconditional` log-likelihood (docs/prompts.md)."""
    calibration: Calibration = "none"
    """What is divided out of the candidates' probabilities: those of a `contextual` example without content,
    or the `prior`, the mean over `select` (docs/prompts.md)."""
    generation: GenerationSettings = GenerationSettings()
    """How free answers are written, beside what each task says of its own, its length and its stop strings
    (docs/trace.md)."""

    @property
    def margins(self) -> float | Mapping[str, float] | None:
        """The margins that are set, as `metrics.margin_of` takes them."""
        return None if self.margin == "auto" else self.margin

    @field_validator("readings", mode="before")
    @classmethod
    def _one_by_one(cls, value: Any) -> Any:
        """Validate each by itself, so that the sentence names the reading and its key."""
        if not isinstance(value, list | tuple):
            return value
        return tuple(
            one if isinstance(one, ReadingSettings) else reading_settings(one, f"evaluation.readings.{k}")
            for k, one in enumerate(value)
        )


@dataclass(frozen=True)
class Asking:
    """How a run asks, as far as its config says: what its readings are made of.

    Attributes:
        evaluation: What is scored and how.
        prompt: The variant of each task.
        demonstrations: What is shown before each example.
        seed: What answers are drawn by, where they are drawn.
    """

    evaluation: EvaluationSettings
    prompt: PromptVariants = "default"
    demonstrations: DemonstrationSettings = field(default_factory=DemonstrationSettings)
    seed: int = 0


def reading_settings(value: Any, where: str) -> ReadingSettings:
    """One further reading from plain data.

    Raises:
        UserError: If a key is unknown or a value unfit; the sentence begins with `where`.
    """
    try:
        return ReadingSettings.model_validate(value)
    except ValidationError as error:
        raise UserError(validation_sentence(error, ReadingSettings, where)) from error
