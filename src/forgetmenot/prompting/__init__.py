"""Examples become prompts, and prompts become tokens."""

from forgetmenot.prompting.cache import encode_cached
from forgetmenot.prompting.encoded import Encoded, TokenSequence
from forgetmenot.prompting.encoder import Encoder
from forgetmenot.prompting.examples import EncodedExamples
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.prompting.variants import bundled_prompts, choose_prompt, known_prompts, prompts_of

__all__ = [
    "Encoded",
    "EncodedExamples",
    "Encoder",
    "Prompt",
    "TokenSequence",
    "bundled_prompts",
    "choose_prompt",
    "encode_cached",
    "known_prompts",
    "prompts_of",
]
