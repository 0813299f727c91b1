"""Other models that answer requests, as judges or teachers: behind an endpoint, or on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.prompting.tokens import Ids, Tokens, tokens_of
from forgetmenot.synthesis.endpoint import Messages

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

AT_ONCE = 64
"""Conversations that a local model answers before their answers are given, so that a kill loses no more."""


class Responder(Protocol):
    """Another model: `forgetmenot.synthesis.endpoint.Endpoint`, or a `LocalResponder`."""

    @property
    def name(self) -> str:
        """What its answers are kept under."""
        ...

    def complete_all(self, conversations: Sequence[Messages]) -> Iterator[tuple[int, str]]:
        """Each conversation's number and the answer to it, as they come."""
        ...


@dataclass(frozen=True)
class LocalResponder:
    """A model on this machine.

    Attributes:
        name: What its answers are kept under.
        load: Gives the model, when it is first needed.
        decoding: How it writes.
    """

    name: str
    load: Callable[[], Learner]
    decoding: Decoding

    @cached_property
    def _learner(self) -> Learner:
        return self.load()

    def complete_all(self, conversations: Sequence[Messages]) -> Iterator[tuple[int, str]]:
        """Each conversation's number and the answer to it, batch after batch.

        Raises:
            UserError: If a conversation leaves the model no position for an answer, or its logits are no
                numbers.
        """
        learner = self._learner
        tokens = tokens_of(learner.tokenizer)
        prompts = [as_tokens(tokens, messages, chat=None) for messages in conversations]
        positions, longest = learner.max_positions, max(map(len, prompts), default=0)
        if positions is not None and longest >= positions:
            raise UserError(
                f"The model {self.name!r} is asked {longest} tokens at once and has {positions} positions; "
                "take another judge or teacher, or a smaller max_new_tokens for what it reads."
            )
        for first in range(0, len(prompts), AT_ONCE):
            some = prompts[first : first + AT_ONCE]
            answers = learner.write(some, self.decoding, seeds=range(first, first + len(some)))
            if not all(answer.finite for answer in answers):
                raise UserError(
                    f"The logits of the model {self.name!r} are not finite, so it answers nothing."
                )
            yield from ((first + k, answer.text) for k, answer in enumerate(answers))


def as_tokens(tokens: Tokens, messages: Messages, *, chat: bool | None) -> Ids:
    """A conversation up to where the assistant answers.

    Args:
        tokens: Of the model that answers.
        messages: The turns.
        chat: Whether they are put in the model's chat template; None if it has one. Else the turns' texts
            stand below one another, and the answer follows after a blank line where there are several.
    """
    if tokens.has_chat_template if chat is None else chat:
        return tokens.chat([tokens.conversation(messages, reply=True)])[0]
    texts = [turn["content"] for turn in messages]
    return tokens.plain(["\n\n".join(texts) + ("\n\n" if len(texts) > 1 else "")])[0]
