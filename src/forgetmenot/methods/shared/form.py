"""What a task's examples have in common as tokens, so that new ones can be made of what a model writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from forgetmenot.errors import UserError
from forgetmenot.prompting.encoded import Encoded, TokenSequence

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    r"""A task's prompts and answers as tokens.

    Attributes:
        begin: The token that begins a text, where every prompt has one.
        head: What every prompt begins with behind it, such as an instruction; may be empty.
        tail: What every prompt ends with, such as "\nSentiment:".
        answers: Each label's answer, in the task's order; empty where answers are free text.
        closing: What ends an answer in training: for a label all that follows it, else the last token.
        room: The most tokens between head and tail.
        reply: The most tokens of an answer, its end included.
        cut: Whether some prompts were cut to fit, so that their text ends anywhere.
    """

    begin: Ids
    head: Ids
    tail: Ids
    answers: tuple[Ids, ...]
    closing: Ids
    room: int
    reply: int
    cut: bool

    @classmethod
    def of(cls, task: str, examples: Iterable[Encoded], bos: int | None) -> Self:
        """The form of a task's training examples.

        Args:
            task: The task's name, for what is refused.
            examples: At least two of different prompts.
            bos: The tokenizer's; a chat template that writes it before each turn has no `begin`.

        Raises:
            UserError: If they are plain text or have other choices in each row, all have the same prompt, or
                prompts end with text of their own, so that nothing says where an answer begins.
        """
        prompts, answers, closings = set[Ids](), set[tuple[Ids, ...]](), Counter[Ids]()
        reply, cut = 0, False
        for one in examples:
            start = one.answer.start
            if not one.prompt:
                raise UserError(f"task {task!r} is plain text, and this method needs prompts with answers.")
            prompts.add(one.answer.tokens[:start])
            answers.add(tuple(candidate.tokens[start:] for candidate in one.candidates))
            reply, cut = max(reply, len(one.answer.tokens) - start), cut or one.cut > 0
            said = len(one.answer.tokens) - 1 if one.gold is None else len(one.candidates[one.gold].tokens)
            closings[one.answer.tokens[said:]] += 1
        if len(answers) > 1:
            raise UserError(
                f"task {task!r} has other choices in each row, and this method needs a task whose choices "
                "are the same in all rows."
            )
        if len(prompts) < 2:
            raise UserError(f"task {task!r} has one prompt for all its rows, so there is nothing to write.")
        begun = all(prompt[0] == bos and bos not in prompt[1:] for prompt in prompts)
        begin = (bos,) if begun and bos is not None else ()
        prompts = {prompt[len(begin) :] for prompt in prompts}
        shortest = min(map(len, prompts))
        tail = _common([prompt[::-1] for prompt in prompts], shortest)[::-1]
        if not tail:
            raise UserError(
                f"the prompts of task {task!r} end with text of their own, so nothing says where an answer "
                "begins. Take a prompt whose template ends with words, such as 'Answer:'."
            )
        head = _common(prompts, shortest - len(tail))
        room = max(map(len, prompts)) - len(head) - len(tail)
        closing = closings.most_common(1)[0][0]  # an answer that was cut has no end
        return cls(begin, head, tail, answers.pop(), closing, room, reply, cut)

    def prompt(self, body: Ids) -> Ids:
        """The prompt around what an example has of its own."""
        return (*self.begin, *self.head, *body, *self.tail)

    def example(self, id: str, body: Ids, answer: Ids, gold: int | None = None) -> Encoded:
        """An example of this form.

        Args:
            id: Its id.
            body: What stands between head and tail.
            answer: What is learned, its end included; for a task of labels it is taken from `gold`.
            gold: The label's place.
        """
        prompt = self.prompt(body)
        candidates = tuple(TokenSequence((*prompt, *one), len(prompt)) for one in self.answers)
        learned = answer if gold is None else (*self.answers[gold], *self.closing)
        return Encoded(id, candidates, TokenSequence((*prompt, *learned), len(prompt)), prompt, gold, cut=0)

    def label(self, answer: Ids, ends: frozenset[int]) -> int | None:
        """The place of the label that a written answer is, with its end; None for any other text."""
        if not answer or answer[-1] not in ends:
            return None
        return next((place for place, one in enumerate(self.answers) if one == answer[:-1]), None)

    def plain(self) -> dict[str, Any]:
        """The form as plain data."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `plain` gave, also after JSON made lists of its tuples."""
        return cls(
            begin=tuple(data["begin"]),
            head=tuple(data["head"]),
            tail=tuple(data["tail"]),
            answers=tuple(map(tuple, data["answers"])),
            closing=tuple(data["closing"]),
            room=int(data["room"]),
            reply=int(data["reply"]),
            cut=bool(data["cut"]),
        )


def write_bodies(
    learner: Learner,
    form: Form,
    contexts: Sequence[Ids],
    seeds: Sequence[int],
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    what: str = "writing examples",
) -> list[Ids | None]:
    """What the model writes for an example of this form, up to the task's tail.

    The tail up to its first token that ends an answer is what the model must write, as in a chat, where the
    end of the user's turn is such a token.

    Args:
        learner: The model that writes.
        form: The task's.
        contexts: What stands before each example's head, `form.begin` included: demonstrations, or a name.
        seeds: One for each.
        temperature: Of the draw.
        top_k: Draw among the k likeliest; 0 for all.
        top_p: Draw among the fewest that together reach p.
        what: What the progress bar says.

    Returns:
        Each body; None where the model wrote nothing before the tail, an end, or no tail within `form.room`
        tokens. Where the task's own texts are cut to fit, such a body is cut there too.
    """
    from forgetmenot.engine.decoding import Decoding

    cut = next((k + 1 for k, token in enumerate(form.tail) if token in learner.ends), len(form.tail))
    tail = form.tail[:cut]
    text = learner.tokenizer.decode(list(tail[:-1] if tail[-1] in learner.ends else tail))
    decoding = Decoding(
        form.room + len(tail),
        stop=() if tail[-1] in learner.ends or not text.strip() else (text,),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    with learner.progress(what, len(contexts)) as advance:
        written = learner.write(
            [(*context, *form.head) for context in contexts], decoding, seeds=seeds, advance=advance
        )
    return [_body(form, answer.tokens, tail, learner.ends) if answer.finite else None for answer in written]


def write_answers(
    learner: Learner,
    form: Form,
    prompts: Sequence[Ids],
    seeds: Sequence[int],
    *,
    temperature: float,
    top_k: int = 0,
    what: str = "writing answers",
) -> list[Ids]:
    """What the model answers: all tokens that it writes, the one that ends the answer among them."""
    from forgetmenot.engine.decoding import Decoding

    decoding = Decoding(form.reply, temperature=temperature, top_k=top_k)
    with learner.progress(what, len(prompts)) as advance:
        written = learner.write(prompts, decoding, seeds=seeds, advance=advance)
    return [answer.tokens if answer.finite else () for answer in written]


def _body(form: Form, tokens: Ids, tail: Ids, ends: frozenset[int]) -> Ids | None:
    """What stands before the first tail, or what was cut; None where there is neither, or an end in it."""
    places = (at for at in range(1, len(tokens) - len(tail) + 1) if tokens[at : at + len(tail)] == tail)
    cut = form.room if form.cut and len(tokens) >= form.room > 0 else 0
    at = next(places, cut)
    return None if not at or ends & set(tokens[:at]) else tokens[:at]


def _common(rows: Iterable[Ids], most: int) -> Ids:
    """The longest common beginning of rows, of at most so many tokens: what least and greatest share."""
    rows = list(rows)
    least, greatest = min(rows), max(rows)
    length = next((k for k in range(most) if least[k] != greatest[k]), most)
    return least[:length]
