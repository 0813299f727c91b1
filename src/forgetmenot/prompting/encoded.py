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
        candidates: For a choice, prompt + answer for each label in the task's order, without its end;
            all with the same start. For a preference the chosen and the rejected answer, with their end.
            Empty for other kinds.
        answer: What training learns: the gold candidate's tokens, the target's, or the chosen answer's, and
            what ends it: EOS, in a chat the end of the turn.
        prompt: What generation continues from. Empty for plain text.
        gold: The index of the right candidate; None where the task is no choice.
        cut: How many tokens truncation removed from the named fields.
        left_out: How many of the assistant's earlier turns the chat template does not write whole.
        reference: For a preference in training: the log-likelihoods of its candidates under the weights with
            which the stage began, in nats.
    """

    id: str
    candidates: tuple[TokenSequence, ...]
    answer: TokenSequence
    prompt: tuple[int, ...]
    gold: int | None
    cut: int
    reference: tuple[float, float] | None = None
    left_out: int = 0

    @property
    def sequences(self) -> tuple[TokenSequence, ...]:
        """What is scored of it: its candidates, or its answer where there are none."""
        return self.candidates or (self.answer,)

    @property
    def is_preference(self) -> bool:
        """Whether one answer is to become likelier than another, and neither is right by itself."""
        return self.gold is None and bool(self.candidates)
