"""Conversations that a chat model writes from nothing: rehearsal for a model whose own data is not to be had.

Xu et al. 2024 ("Magpie", arXiv 2406.08464): given what its chat template writes before a user's words and
nothing else, a chat model writes a user's turn; then it answers it. A turn is drawn at temperature 1 from the
whole distribution, as there; the answer is greedy. Their filters by quality, difficulty and reward models are
left out: here what is empty, repeated, or has not ended is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.prompting.tokens import Ids, Tokens, tokens_of
from forgetmenot.settings import PositiveFloat, PositiveInt, Settings
from forgetmenot.synthesis.filters import EMPTY
from forgetmenot.synthesis.funnel import REPEAT, Step
from forgetmenot.synthesis.writer import Advance, seed_of

if TYPE_CHECKING:
    from forgetmenot.engine.decoding import Answer
    from forgetmenot.engine.learner import Learner

NO_END = "has not ended"
AT_ONCE = 32
"""Conversations that are written together, so that a kill loses no more."""

_MARK = "\ue0f3"  # the user's words in the chat template: a character for private use, which none trims


class GeneralSettings(Settings):
    """How conversations are written."""

    count: PositiveInt = 1000
    """How many are begun; fewer are kept."""
    temperature: PositiveFloat = 1.0
    """Of the user's turns; Magpie's."""
    max_turn_tokens: PositiveInt = 256
    """Where a user's turn that has not ended is cut, and dropped."""
    max_answer_tokens: PositiveInt = 512
    """Likewise an answer."""


@dataclass(frozen=True)
class Conversation:
    """One that was written.

    Attributes:
        number: Its place among all.
        user: The user's turn.
        answer: The model's; None where the turn was dropped.
        dropped: Why it is no row; None if it is one.
    """

    number: int
    user: str
    answer: str | None
    dropped: str | None


def write_conversations(
    learner: Learner,
    settings: GeneralSettings,
    *,
    seed: int = 0,
    done: Mapping[int, Conversation] | None = None,
    save: Callable[[Conversation], None] = lambda one: None,
    advance: Advance = lambda count: None,
) -> list[Conversation]:
    """Let a chat model write conversations of one turn each.

    Args:
        learner: The model.
        settings: How.
        seed: Of all draws: each follows from it and its number alone.
        done: Those that an earlier call has saved.
        save: Told each one as it comes.
        advance: Told how many were just written.

    Raises:
        UserError: The model has no chat template, or writes nothing but numbers that are none.
    """
    tokens = tokens_of(learner.tokenizer)
    before = opening(tokens)
    written = dict(done or {})
    for first in range(0, settings.count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, settings.count))
        missing = [number for number in numbers if number not in written]
        for one in _written(learner, tokens, before, missing, settings, seed) if missing else []:
            written[one.number] = one
            save(one)
        advance(len(numbers))
    return _without_repeats([written[number] for number in range(settings.count)])


def opening(tokens: Tokens) -> Ids:
    """What the chat template writes before a user's words.

    Raises:
        UserError: There is no template, or it does not write them as they stand.
    """
    if not tokens.has_chat_template:
        raise UserError(
            "--general lets a chat model write from its own chat template, and this tokenizer has none; take "
            "a model that was tuned for chats, or write examples of a task from a few solved ones."
        )
    text = tokens.conversation([{"role": "user", "content": _MARK}], reply=False)
    before, found, _ = text.partition(_MARK)
    if not found:
        raise UserError("the model's chat template does not write a user's words as they stand.")
    return tokens.chat([before])[0]


def _written(
    learner: Learner,
    tokens: Tokens,
    before: Ids,
    numbers: Sequence[int],
    settings: GeneralSettings,
    seed: int,
) -> list[Conversation]:
    """Some conversations: first the user's turns, then answers to those that are whole."""
    turns = learner.write(
        [before] * len(numbers),
        Decoding(settings.max_turn_tokens, temperature=settings.temperature),
        seeds=[seed_of(seed, "general", number) for number in numbers],
    )
    _check_finite(turns)
    dropped = [_why_dropped(turn, learner.ends) for turn in turns]
    whole = [place for place, reason in enumerate(dropped) if reason is None]
    asked = [
        tokens.conversation([{"role": "user", "content": turns[place].text.strip()}], reply=True)
        for place in whole
    ]
    answers = learner.write(tokens.chat(asked), Decoding(settings.max_answer_tokens)) if asked else []
    _check_finite(answers)
    of_place = dict(zip(whole, answers, strict=True))
    found = []
    for place, number in enumerate(numbers):
        answer, why = of_place.get(place), dropped[place]
        if answer is not None:
            why = _why_dropped(answer, learner.ends)
        said = None if answer is None else answer.text.strip()
        found.append(Conversation(number, turns[place].text.strip(), said, why))
    return found


def _why_dropped(answer: Answer, ends: frozenset[int]) -> str | None:
    if not answer.tokens or answer.tokens[-1] not in ends:
        return NO_END
    return None if answer.text.strip() else EMPTY


def _check_finite(answers: Sequence[Answer]) -> None:
    if not all(answer.finite for answer in answers):
        raise UserError("The model's logits are not finite (nan or infinite), so it writes nothing.")


def _without_repeats(written: Sequence[Conversation]) -> list[Conversation]:
    """Drop a user's turn that was written before."""
    known = set[str]()
    found = []
    for one in written:
        repeats = one.dropped is None and one.user in known
        found.append(Conversation(one.number, one.user, one.answer, REPEAT) if repeats else one)
        if one.dropped is None:
            known.add(one.user)
    return found


def general_funnel(written: Sequence[Conversation]) -> list[Step]:
    """What each step dropped, and why."""
    turns = Counter(one.dropped for one in written if one.answer is None)
    answers = Counter(one.dropped for one in written if one.answer is not None)
    return [
        Step("users' turns written", "turns", len(written), {why: turns[why] for why in (EMPTY, NO_END)}),
        Step(
            "turns answered", "turns", answers.total(), {why: answers[why] for why in (EMPTY, NO_END, REPEAT)}
        ),
    ]
