"""The settings of SELF-GUIDE: the paper's parameters, and the filters of each of its official scripts."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.settings import NonNegativeInt, Number, PositiveFloat, PositiveInt, Settings
from forgetmenot.tasks import Kind

GREETINGS = (
    *("Sure, I'd be happy to help!", "Of course!", "Let me check on that.", "I'm here to help."),
    *("Great question!", "Let me see.", "That's a good question.", "Thanks for asking."),
    *("Let me help you with that.", "No problem, here's the answer.", "I'm glad you asked."),
    *("Alright, let me explain.", "Absolutely!", "I understand your question."),
)
"""The openings of chats that the official noise list begins with."""

QUICK_START_NOISE = (*GREETINGS, "input", "output", "\n\n", "\\_\\_")
PIPELINE_NOISE = (*QUICK_START_NOISE, "therefore", "Therefore")

Variant = Literal["pipeline", "search", "quick-start"]

# What the official scripts set, by variant and kind of task; they contradict one another. `pipeline` made the
# paper's results, `search` is the script that looked for one set of parameters (find_one_params.py), and
# `quick-start` is what the repository tells a user to start from.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "pipeline": {
        "choice": {"temperature": 0.7, "input_window": True, "output_window": False},
        "answer": {"temperature": 0.9, "input_window": False, "output_window": True},
    },
    "search": {
        "choice": {"temperature": 0.7, "input_window": True, "output_window": False},
        "answer": {"temperature": 0.9, "input_window": True, "output_window": True},
    },
    "quick-start": {
        kind: {
            "temperature": 0.7,
            "input_window": False,
            "output_window": True,
            "min_frequency": 0.2,
            "noise": QUICK_START_NOISE,
        }
        for kind in ("choice", "answer")
    },
}

Share = Annotated[Number, Field(ge=0, le=1)]


class SynthesisSettings(Settings):
    """How a data set is written; a key that is null has the value that the variant gives it."""

    variant: Variant = "pipeline"
    """The official script whose filters and temperature count where the keys below are null."""
    rounds: PositiveInt = 40
    """How often inputs are written; each round may see those of earlier ones."""
    per_round: PositiveInt = 10
    """Inputs that are written in a round."""
    temperature: PositiveFloat | None = None
    """The temperature at which inputs are drawn; null is the script's."""
    top_k: NonNegativeInt = 40
    """Inputs are drawn among so many tokens; 0 for all."""
    max_input_tokens: PositiveInt = 500
    """Where an input that has not ended is cut."""
    chat: bool = False
    """Whether inputs are asked for in the model's chat template. The official code gives the model plain
    text, which small chat models too continue better than they follow a request."""
    worse: NonNegativeInt = 10
    """The most earlier inputs that a prompt shows beside the demonstrations; from one to so many are
    drawn."""
    context_tokens: PositiveInt = 3000
    """A prompt has fewer tokens than this: it shows fewer earlier inputs where it would not."""
    noise: tuple[str, ...] | None = None
    """An input or output in which one of these strings stands is dropped."""
    input_window: bool | None = None
    """Whether inputs must be about as long as those of the demonstrations."""
    output_window: bool | None = None
    """The same of outputs."""
    outputs: PositiveInt = 10
    """How many outputs of each input are held against one another."""
    best_of: PositiveInt = 20
    """How many are drawn for that; the likeliest are taken."""
    output_temperature: PositiveFloat = 0.2
    """The temperature at which outputs are drawn."""
    output_top_k: NonNegativeInt = 10
    """Outputs are drawn among so many tokens; 0 for all."""
    max_output_tokens: PositiveInt = 500
    """Where an output that has not ended is cut."""
    min_frequency: Share | None = None
    """The least share of the outputs that must be the same."""
    balance: bool = True
    """Whether all labels have as many rows as the rarest of them."""

    @model_validator(mode="after")
    def _enough_are_drawn(self) -> Self:
        if self.best_of < self.outputs:
            raise ValueError(
                f"best_of: {self.best_of} outputs are drawn, and {self.outputs} of them are to be taken; set "
                "best_of to as many, or outputs to fewer"
            )
        return self

    def of(self, kind: Kind) -> "SynthesisSettings":
        """The same, with the variant's values for a kind of task in place of what is null."""
        given = self.model_dump(exclude_none=True)
        common = {"min_frequency": 0.3, "noise": PIPELINE_NOISE}
        return SynthesisSettings.model_validate({**common, **VARIANTS[self.variant][kind], **given})


def synthesis_settings(values: Mapping[str, Any]) -> SynthesisSettings:
    """Settings from plain data.

    Raises:
        UserError: A key is unknown or a value unfit; the sentence names the key.
    """
    try:
        return SynthesisSettings.model_validate(values)
    except ValidationError as error:
        raise UserError(validation_sentence(error, SynthesisSettings)) from error
