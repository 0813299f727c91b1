"""The encoder of examples as tokens: the prompt, its candidates, and what training learns."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from forgetmenot.errors import UserError
from forgetmenot.prompting.encoded import Encoded, TokenSequence
from forgetmenot.prompting.examples import EncodedExamples
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.prompting.texts import as_text, check_choices, gold_place, naming
from forgetmenot.prompting.tokens import WRITES_A_PROMPT, Ids, tokens_of
from forgetmenot.tasks.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 1024  # examples whose texts go through the tokenizer together
_LETTERS = 4_000_000  # or fewer, with so many letters


class Encoder:
    """Encodes the examples of one task under one prompt for one tokenizer."""

    def __init__(
        self,
        task: Task,
        prompt: Prompt,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        reserved: int | None = None,
    ):
        """Check that task, prompt and tokenizer belong together.

        Args:
            task: Whose examples will be encoded.
            prompt: The prompt of the examples.
            tokenizer: The model's own.
            max_length: The most tokens that a prompt may have with its longest answer and its end.
            reserved: The tokens that a prompt leaves free for an answer that is generated, whatever the gold
                one is; None where the gold one, or a candidate, follows it.

        Raises:
            UserError: A label has no choice or a choice no label, the template names a field that the
                examples lack or does not render, or the tokenizer lacks an EOS or a needed chat template.
        """
        self._task, self._prompt, self._max_length, self._reserved = task, prompt, max_length, reserved
        check_choices(task, prompt)
        if getattr(tokenizer, "init_kwargs", {}).get(WRITES_A_PROMPT):
            raise UserError(
                "This model was exported for sentence embeddings: its tokenizer writes a prompt around every "
                "text. Take the model that it was made from."
            )
        self._tokens = tokens_of(tokenizer)
        self._forgotten: dict[str, int] = {}
        if prompt.chat and not self._tokens.has_chat_template:
            what, other = f"prompt {prompt.name!r} of task {task.name!r} is a chat", "take another prompt, "
            if task.kind == "messages":
                what, other = f"task {task.name!r} holds chats", ""
            raise UserError(
                f"{what}, and the model has no chat template: name one (model.chat_template: chatml, plain, "
                f"or a file), {other}or take a model tuned for chat."
            )
        for split in (task.train, task.select, task.score):
            if split:
                self._check_fields(split[0])

    @cached_property
    def _closing(self) -> Ids:
        """What ends an answer: it is learned with it, and is what ends one that is written."""
        if not self._prompt.eos:
            return ()
        if self._task.kind == "messages" and self._tokens.turn_end[1]:
            return ()  # the conversation holds the turn's end
        return (self._tokens.answer_end if self._prompt.chat else self._tokens.eos,)

    def encode(self, example: Example) -> Encoded:
        """Encode one example; see `encode_all`."""
        return self.encode_all([example])[0]

    def encode_all(self, examples: Sequence[Example]) -> EncodedExamples:
        """Encode examples, in order, each as if it were the only one.

        The answer starts where the prompt's own tokens end, as in lm-eval's `_encode_pair`. Where a
        tokenizer merges over that boundary, it starts at the last position up to which the prompt and all
        candidates agree, so that all candidates score the same text and training learns what is scored.

        Raises:
            UserError: An example does not fit, has no valid label or target, or two of its candidates
                cannot be told apart; the sentence names task and example.
        """
        batches = []
        for batch in self._written(examples):
            rows = iter(self._tokenize([text for _, group in batch for text in group]))
            encoded = [self._encoded(example, [next(rows) for _ in group]) for example, group in batch]
            batches.append(EncodedExamples.of(encoded))
        return EncodedExamples.join(batches)

    def _written(self, examples: Sequence[Example]) -> Iterator[list[tuple[Example, list[str]]]]:
        """Examples with their texts, as many together as do not take much memory."""
        batch: list[tuple[Example, list[str]]] = []
        letters = 0
        for example in examples:
            batch.append((example, self._texts(example, example.fields)))
            letters += sum(map(len, batch[-1][1]))
            if len(batch) == _BATCH or letters > _LETTERS:
                yield batch
                batch, letters = [], 0
        if batch:
            yield batch

    def _texts(self, example: Example, fields: Mapping[str, Any]) -> list[str]:
        """Write the prompt, and then each whole text, prompt and answer, that may come of it."""
        with naming(self._task, example):
            if self._task.kind == "messages":
                return self._conversation(example.id, fields["messages"], fields.get("tools", ()))
            text = as_text(self._task, self._prompt, example, fields)
            if not text.turns:
                return text.whole
            prompt = self._tokens.conversation(text.turns, reply=True)
            self._left_out(text.turns, prompt)
            return [prompt, *(prompt + self._tokens.as_text(answer) for answer in text.answers)]

    def _conversation(
        self, id: str, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        """Write all turns before the last, and all turns up to the end of the last one's own text.

        What is learned is what the model is asked with, and the answer; a template that writes otherwise is
        refused.
        """
        if len(turns) < 2:
            raise UserError("a conversation needs a turn before the assistant's last.")
        asked = self._tokens.conversation(turns[:-1], reply=True, tools=tools)
        whole = self._tokens.conversation(turns, reply=False, tools=tools)
        tail, end = self._tokens.turn_end
        if not whole.endswith(tail):
            raise UserError(
                "the model's chat template ends this conversation unlike others; leave the row out."
            )
        learned = whole.removesuffix(tail)
        for tool in tools:
            self._check_call(tool, asked, "the tool")
        self._forgotten[id] = self._left_out(turns[:-1], asked)
        if not learned.startswith(asked):
            raise UserError(
                "the model's chat template writes other text before the answer when it asks for one than "
                f"when it is learned: {asked[-30:]!r} is what it asks with last. Give it a chat template "
                "that does not open the answer (as with <think>) by itself, or leave the row out."
            )
        if self._left_out(turns[-1:], learned[len(asked) :]):
            raise UserError(
                "the model's chat template leaves out part of the answer (as the reasoning in <think>); give "
                "the tokenizer a template that keeps it, or take it out of the row."
            )
        return [asked, learned + end]

    def _left_out(self, turns: Sequence[Mapping[str, Any]], text: str) -> int:
        """How many of the assistant's turns do not stand in a text whole, as where reasoning is dropped.

        Raises:
            UserError: Another turn, or a call of a tool, does not.
        """
        count = 0
        for turn in turns:
            for call in turn.get("tool_calls", ()):
                self._check_call(call, text, "the call of")
            if self._tokens.as_text(turn["content"]).strip() in text:
                continue
            if turn["role"] != "assistant":
                raise UserError(
                    f"the model's chat template leaves out the {turn['role']} turn {turn['content'][:40]!r}; "
                    "give the tokenizer a template that writes it, or put its text into another turn."
                )
            count += 1
        return count

    def _check_call(self, call: Mapping[str, Any], text: str, what: str) -> None:
        """Refuse a template that does not write the name of a tool, or of one that is called."""
        named = call.get("function", call)
        name = named.get("name") if isinstance(named, Mapping) else None
        if name is not None and str(name) not in text:
            raise UserError(
                f"the model's chat template does not write {what} {name!r}; take a model whose template "
                "knows tools, or leave the row out."
            )

    def _tokenize(self, texts: Sequence[str]) -> list[Ids]:
        return self._tokens.chat(texts) if self._prompt.chat else self._tokens.plain(texts)

    def _encoded(self, example: Example, rows: Sequence[Ids]) -> Encoded:
        """Find the boundary of prompt and answer, cut what is too long, and say what is learned."""
        with naming(self._task, example):
            rows, start = self._bounded(rows)
            before = after = self._length(rows)
            if self._needed(rows, start) > self._max_length:
                rows, start = self._shortened(example)
                after = self._length(rows)
            prompt, *wholes = rows
            closing = self._closing
            if len(wholes[0]) + len(closing) > self._max_length:  # an answer that may be cut, and has no end
                wholes, closing = [wholes[0][: self._max_length]], ()
                after = min(after, self._max_length)
            if not self._prompt.eos and len(wholes[0]) == start:
                raise UserError("its answer is empty, and with `eos: false` nothing of it would be learned.")
            gold, candidates = None, list[Ids]()
            if self._task.kind == "choice":
                self._check_distinct([whole[start:] for whole in wholes])
                gold, candidates = gold_place(self._task, example), wholes
            if self._task.kind == "preference":
                candidates = [whole + self._closing for whole in wholes]
                if candidates[0] == candidates[1]:
                    raise UserError("the chosen and the rejected answer have the same tokens.")
        return Encoded(
            id=example.id,
            candidates=tuple(TokenSequence(tokens, start) for tokens in candidates),
            answer=TokenSequence(wholes[gold or 0] + closing, start),
            prompt=() if self._task.kind == "text" else prompt,
            gold=gold,
            cut=before - after,
            left_out=self._forgotten.pop(example.id, 0),
        )

    def _length(self, rows: Sequence[Ids]) -> int:
        """The tokens that truncation takes from: of the prompt with its longest answer, or of it alone."""
        return len(rows[0]) if self._reserved is not None else max(map(len, rows[1:]))

    def _needed(self, rows: Sequence[Ids], start: int) -> int:
        """The tokens that a prompt takes, with what must follow it."""
        if self._reserved is not None:
            return len(rows[0]) + self._reserved
        needed = self._length(rows) + len(self._closing)
        return min(needed, start + self._max_length // 3) if self._prompt.cut_answer else needed

    def _bounded(self, rows: Sequence[Ids]) -> tuple[Sequence[Ids], int]:
        """Return the rows and the first position of the answer, which has at least one token before it."""
        start = _agreement(rows)
        if start:
            return rows, start
        return [self._tokens.prefix + row for row in rows], len(self._tokens.prefix)

    def _shortened(self, example: Example) -> tuple[Sequence[Ids], int]:
        """Cut the fields that may be cut, the longest first, to the most characters that fit."""
        named = self._prompt.fields if self._prompt.truncate is None else self._prompt.truncate
        names = [name for name in named if isinstance(example.fields.get(name), str)]

        def fitted(limit: int) -> tuple[Sequence[Ids], int] | None:
            short = {name: self._part(example.fields[name], limit) for name in names}
            texts = self._texts(example, {**example.fields, **short})
            if limit and self._surely_too_long(texts):
                return None
            rows = self._bounded(self._tokenize(texts))
            return rows if not limit or self._needed(*rows) <= self._max_length else None

        fitting, limit = fitted(0), 0
        assert fitting is not None, "nothing is refused at 0"
        if self._needed(*fitting) > self._max_length:
            what = f"even without {' and '.join(sorted(names))}" if names else "and nothing in it may be cut"
            few = ", set fewer `demonstrations`" if self._prompt.demonstrations else ""
            answer = "its answer" if self._reserved is None else f"{self._reserved} tokens for an answer"
            raise UserError(
                f"the prompt {self._prompt.name!r} with {answer} takes {self._needed(*fitting)} tokens, "
                f"{what}; max_length is {self._max_length}. Raise `training.max_length`{few}, or leave the "
                "row out. A model's positions bound max_length."
            )
        too_long = max((len(example.fields[name]) for name in names), default=0)
        while too_long - limit > 1:
            middle = (limit + too_long) // 2
            trial = fitted(middle)
            if trial is None:
                too_long = middle
            else:
                fitting, limit = trial, middle
        return fitting

    def _surely_too_long(self, texts: Sequence[str]) -> bool:
        """Whether texts need not be tokenized to be told too long: rows of megabytes would take minutes.

        Twice as long as need be, for wedges (`Tokens.as_text`) are letters without tokens.
        """
        if self._tokens.longest is None or self._prompt.cut_answer:
            return False
        counted = texts[:1] if self._reserved is not None else texts
        return max(map(len, counted)) > 2 * self._tokens.longest * self._max_length

    def _part(self, text: str, limit: int) -> str:
        return text[:limit] if self._prompt.keep == "start" else text[len(text) - min(limit, len(text)) :]

    def _check_distinct(self, answers: Sequence[Ids]) -> None:
        """Refuse candidates of which one begins another: the shorter would always be the likelier."""
        for (shorter, one), (longer, other) in pairwise(sorted(zip(answers, self._task.labels, strict=True))):
            if longer[: len(shorter)] == shorter:
                how = "are" if shorter == longer else "begin"
                cure = (
                    "Use other words."
                    if self._prompt.end or shorter == longer
                    else 'Set `end`, such as "\\n", or use other words.'
                )
                raise UserError(
                    f"prompt {self._prompt.name!r}: the tokens of {self._prompt.choices[one]!r} {how} those "
                    f"of {self._prompt.choices[other]!r}, so they cannot be compared. {cure}"
                )

    def _check_fields(self, example: Example) -> None:
        with naming(self._task, example):
            if self._task.kind != "messages":  # the chat template writes these
                self._prompt.render(example.fields)


def _agreement(rows: Sequence[Ids]) -> int:
    """The length of the longest common prefix: what the least and the greatest share, all share."""
    least, greatest = min(rows), max(rows)
    unlike = (i for i, (one, other) in enumerate(zip(least, greatest, strict=False)) if one != other)
    return next(unlike, len(least))
