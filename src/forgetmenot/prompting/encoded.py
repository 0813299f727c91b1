"""An example as tokens: what prompting hands to the engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Tokens of which a tail is scored or learned.

    Attributes:
        tokens: The whole sequence, special tokens included.
        start: The first position that counts, at least 1: tokens[start:] are predicted, tokens[:start]
            are given.
    """

    tokens: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as the model sees it.

    Attributes:
        id: The example's id.
        candidates: For a choice, prompt + answer for each label in the task's order, without EOS; all
            with the same start. Empty for other kinds.
        answer: What training learns: the gold candidate's tokens, or the target's, and EOS.
        prompt: What generation continues from. Empty for plain text.
        gold: The index of the right candidate; None where the task is no choice.
        cut: How many tokens truncation removed from the named fields.
    """

    id: str
    candidates: tuple[TokenSequence, ...]
    answer: TokenSequence
    prompt: tuple[int, ...]
    gold: int | None
    cut: int
