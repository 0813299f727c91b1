"""Prompts from examples, and tokens from prompts."""

from forgetmenot.prompting.demonstrations import CountOrSettings, Demonstrations, DemonstrationSettings
from forgetmenot.prompting.encoded import Encoded, TokenSequence
from forgetmenot.prompting.encoded_cache import encode_cached, why_no_cache
from forgetmenot.prompting.encoder import Encoder
from forgetmenot.prompting.examples import EncodedExamples, Mix, RaggedExamples
from forgetmenot.prompting.parsing import last_choice, parse_choice
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.prompting.tokens import lm_eval_prefix
from forgetmenot.prompting.variants import (
    PromptVariants,
    bundled_prompts,
    choose_prompt,
    known_prompts,
    prompts_of,
)

__all__ = [
    "CountOrSettings",
    "DemonstrationSettings",
    "Demonstrations",
    "Encoded",
    "EncodedExamples",
    "Encoder",
    "Mix",
    "Prompt",
    "PromptVariants",
    "RaggedExamples",
    "TokenSequence",
    "bundled_prompts",
    "choose_prompt",
    "encode_cached",
    "known_prompts",
    "last_choice",
    "lm_eval_prefix",
    "parse_choice",
    "prompts_of",
    "why_no_cache",
]
