"""The `evaluation` part of a config: what is scored after every stage, and how."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
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
    PositiveInt,
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


ScoringName = Annotated[str, AfterValidator(_known_scoring)]
Normalization = Literal["none", "tokens", "bytes", "unconditional"]
Calibration = Literal["none", "contextual", "prior"]


class ReadingSettings(BaseModel):
    """A reading beside the run's own; what it does not name is as in the run's own.

    Attributes:
        realign: Before a task is asked, train for a moment on so many of its training examples; see
            `forgetmenot.runs.realign`. The weights are then put back.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: PromptVariants | None = None
    demonstrations: CountOrSettings | None = None
    scoring: ScoringName | None = None
    normalization: Normalization | None = None
    calibration: Calibration | None = None
    realign: PositiveInt | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("give a setting that differs from the run's own, such as {scoring: generation}")
        return self


class GenerationSettings(BaseModel):
    """How answers are generated, beside what each task says of its own (its length, its stop strings).

    Attributes:
        max_new_tokens: The most tokens of an answer; `auto` is each task's own most, which a number only
            lowers.
        temperature: 0 takes the likeliest token; else tokens are drawn, from a seed of each example's own.
        top_k: Draw among the k likeliest tokens; 0 for all.
        top_p: Draw among the fewest tokens that together reach this probability.
        batch_tokens: The most positions of a batch, prompts and answers; `auto` follows from the model and
            the device.
        margins: Whether predictions keep how far each token's likeliest logit lay above the second.
        backend: `transformers`, or `vllm` on a GPU where it is installed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_new_tokens: PositiveInt | Literal["auto"] = "auto"
    temperature: NonNegativeFloat = 0.0
    top_k: NonNegativeInt = 0
    top_p: Number = Field(default=1.0, gt=0, le=1)
    batch_tokens: PositiveInt | Literal["auto"] = "auto"
    margins: bool = False
    backend: Literal["transformers", "vllm"] = "transformers"

    @model_validator(mode="after")
    def _draws_if_it_chooses_among(self) -> Self:
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise ValueError(
                "top_k and top_p have no effect at temperature 0, which takes the most likely token"
            )
        return self


class EvaluationSettings(BaseModel):
    """What is scored after every stage, and how a choice among labels is read.

    Attributes:
        split: What is scored: `score`; or `select`, on which settings are chosen, so that `score` never is.
        limit: Score a fixed random sample of so many examples of each task, the same for every run.
        also_score: Tasks that are scored and never trained on; lm-evaluation-harness's may be among them.
        margin: How small a drop counts as none: `auto`, each metric's own; one number, for all scores that
            have a fixed range; or a map from tasks or metrics to numbers.
        prompts: Prompt variants to read beside the run's own; short for `readings` that name a `prompt`.
        readings: Further ways of asking, each a reading of its own beside the run's.
        scoring: By the `likelihood` of each candidate, or by `generation`: what the model writes, greedily;
            `last-label` reads the same text as SELF-GUIDE does, by the label that it names last.
        normalization: What a candidate's log-likelihood is divided by, `tokens` or `bytes`, or freed from:
            its `unconditional` log-likelihood.
        calibration: What is divided out of the candidates' probabilities: those of a `contextual` example
            without content, or the `prior`, the mean over `select`.
        generation: How free answers are generated.
        probes: What is measured beside the tasks: names, or {name: NAME, its option: value}.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["score", "select"] = "score"
    limit: PositiveInt | None = None
    also_score: Names = ()
    margin: Annotated[Literal["auto"] | float | dict[str, float], BeforeValidator(_margin)] = "auto"
    prompts: Names = ()
    probes: Annotated[tuple[NamedSettings, ...], BeforeValidator(_probes)] = ()
    readings: tuple[ReadingSettings, ...] = ()
    scoring: ScoringName = "likelihood"
    normalization: Normalization = "none"
    calibration: Calibration = "none"
    generation: GenerationSettings = GenerationSettings()

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
