"""The writer: the model whose text becomes data, seen as what draws texts by seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.errors import UserError
from forgetmenot.prompting import TokenSequence
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.synthesis.responder import as_tokens
from forgetmenot.synthesis.subject import Request

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

Advance = Callable[[int], None]


class Drawn(NamedTuple):
    """A text that was drawn: a stop string that ended it included, special tokens not.

    Attributes:
        text: What was written.
        log_likelihood: The model's own, of all its tokens, in nats; None where it was not asked for.
    """

    text: str
    log_likelihood: float | None = None


class Writer(Protocol):
    """What texts are drawn from; `LearnerWriter` is one."""

    def length(self, request: Request) -> int:
        """The tokens of a request."""
        ...

    def draw(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        seeds: Sequence[int],
        *,
        weighed: bool = False,
        advance: Advance | None = None,
    ) -> list[Drawn]:
        """A text for each request, which depends on the request and its seed alone.

        Args:
            requests: What to go on from.
            decoding: How.
            seeds: One for each.
            weighed: Whether their log-likelihoods are wanted.
            advance: Told how many were just drawn.
        """
        ...


@dataclass(frozen=True)
class LearnerWriter:
    """The model of a learner as it stands now."""

    learner: Learner

    def length(self, request: Request) -> int:
        """The tokens of a request."""
        return len(self._tokens(request))

    def draw(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        seeds: Sequence[int],
        *,
        weighed: bool = False,
        advance: Advance | None = None,
    ) -> list[Drawn]:
        """A text for each request, in batches over what all of them begin with.

        Raises:
            UserError: The model's logits are no numbers, or a request leaves no position to write on.
        """
        prompts = [self._tokens(request) for request in requests]
        most = self.learner.max_positions
        if most is not None and any(len(prompt) >= most for prompt in prompts):
            raise UserError(
                f"a request has {max(map(len, prompts))} tokens and the model {most} positions; set a "
                "smaller context_tokens, or give fewer demonstrations."
            )
        answers = self.learner.write(prompts, decoding, seeds=list(seeds), advance=advance)
        if not all(answer.finite for answer in answers):
            raise UserError("The model's logits are not finite (nan or infinite), so it writes nothing.")
        texts = [self._text(answer) for answer in answers]
        if not weighed:
            return [Drawn(text) for text in texts]
        whole = [
            TokenSequence(prompt + answer.tokens, len(prompt))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        likely = self._weighed(whole)
        return [Drawn(text, value) for text, value in zip(texts, likely, strict=True)]

    def _weighed(self, sequences: Sequence[TokenSequence]) -> list[float]:
        """Their log-likelihoods; what was drawn several times is computed once."""
        distinct = list(dict.fromkeys(sequences))
        values = self.learner.log_likelihoods(distinct).tolist()
        of = dict(zip(distinct, values, strict=True))
        return [of[sequence] for sequence in sequences]

    def _tokens(self, request: Request) -> tuple[int, ...]:
        return as_tokens(tokens_of(self.learner.tokenizer), request.messages, chat=request.chat)

    def _text(self, answer: Answer) -> str:
        """All that was written, the stop string too: it may be what a filter looks for.

        A zero, which no file of a task holds, is written as what stands for no character (U+FFFD).
        """
        ends = self.learner.ends
        tokens = answer.tokens[:-1] if answer.tokens and answer.tokens[-1] in ends else answer.tokens
        text = str(self.learner.tokenizer.decode(list(tokens), skip_special_tokens=True))
        return text.replace("\0", "\ufffd")


def seed_of(*place: object) -> int:
    """A seed that follows from where something is drawn, and from nothing else that was drawn."""
    return int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:8]) >> 1
