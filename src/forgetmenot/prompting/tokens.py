"""The rules of tokens: what text becomes, whatever tokenizer a model brings."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from forgetmenot.errors import UserError
from forgetmenot.prompting.chat_template import write_chat
from forgetmenot.prompting.pretokenize import may_be_cut, pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
Turn = Mapping[str, Any]

WRITES_A_PROMPT = "writes_a_prompt"
"""A key of tokenizer_config.json: every text is wrapped, for a model that embeds sentences alone."""

_AT_ONCE = 2_000_000  # letters that are tokenized in one call

# Two characters for private use, which no vocabulary merges with others: see Tokens.as_text.
_WEDGE = "\ue0f0\ue0f1"
# Marks where the answer ends in a conversation; for private use too, so that no template trims it.
_ANSWER_END = "\ue0f2"

# Some chat templates write today's date. A score must not depend on the day, so here it is always the same.
_DATE = "26 Jul 2024"
_DATE_PARTS = (
    "%Y=2024 %y=24 %m=07 %-m=7 %B=July %b=Jul %h=Jul %d=26 %-d=26 %e=26 %j=208 %A=Friday %a=Fri "
    "%F=2024-07-26 %H=00 %-H=0 %I=12 %-I=12 %M=00 %S=00 %p=AM %T=00:00:00 %Z= %z="
)
# Transformers hands a chat template plain data only, no functions, so the stopped clock is written in Jinja.
# The newline at its end is eaten by trim_blocks: the template behind it reads as if it stood alone.
_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(" | replace('{}', '{}')".format(*part.split("=")) for part in _DATE_PARTS.split())
    + " }}{% endmacro %}\n"
)


class Tokens:
    """A tokenizer that is always asked in the same way; `tokens_of` gives it.

    Attributes:
        eos: The tokenizer's EOS, which ends a text.
        head: What the tokenizer itself puts in front of every plain text: BOS for some, nothing for others.
        prefix: What stands in front where otherwise nothing would be given: the head or, where there is
            none, BOS, or EOS if there is no BOS (lm-eval's prefix token).
        longest: The letters of the longest token, where no text of that many times n letters has less than n
            tokens; None where a tokenizer may leave letters out, or take any number of them for one token.
        digest: Of all that shapes a fast tokenizer's tokens; None of one in Python, which does not say.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        """Learn what the tokenizer does by itself.

        Raises:
            UserError: It has no EOS token.
        """
        self._tokenizer = tokenizer
        # What Transformers asks too, and then makes much that is not asked here; None if it is all Python.
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        written = None if self._backend is None else self._backend.to_str()
        self._may_be_cut = written is not None and may_be_cut(written)
        self.longest = self._longest() if self._may_be_cut else None
        self.digest = None if written is None else hashlib.sha256(written.encode()).hexdigest()
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the tokenizer has no EOS token, which every answer ends in; set its `eos_token`."
            )
        self.eos: int = tokenizer.eos_token_id
        added = {token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        specials = added | named
        self._special_ids = frozenset(specials.values())
        self._special = _any_of(specials)
        self._added = {token.content: id for id, token in tokenizer.added_tokens_decoder.items()} | named
        self.head = self._learn_head()
        bos: int | None = tokenizer.bos_token_id
        self.prefix: Ids = self.head or (self.eos if bos is None else bos,)

    def plain(self, texts: Sequence[str]) -> list[Ids]:
        """Tokenize texts as they stand: head in front, nothing behind, and what looks special is text."""
        rows = self._ids(texts, split_special_tokens=True)
        for i, row in enumerate(rows):
            # A Unigram model holds its special tokens among its pieces, and finds them in text all the same.
            if not self._special_ids.isdisjoint(row) and self._special.search(texts[i]):
                rows[i] = self._pull_wedges(self.as_text(texts[i]), split_special_tokens=True)
        return [self.head + row for row in rows]

    def chat(self, texts: Sequence[str]) -> list[Ids]:
        """Tokenize conversations that `conversation` wrote: special tokens count, and none is added."""
        rows = self._ids(texts, split_special_tokens=False)
        for i, text in enumerate(texts):
            if _WEDGE in text:
                rows[i] = self._pull_wedges(text, split_special_tokens=False)
        return rows

    def as_text(self, text: str) -> str:
        """Break what looks like a special token with a wedge, whose own tokens are pulled out afterwards.

        So "<s>" becomes the tokens of "<" and "s>", while all around it is tokenized as ever.
        """
        wedged = self._special.sub(lambda match: match[0][0] + _WEDGE + match[0][1:], text)
        if self._special.search(wedged) or _WEDGE in text:
            raise UserError(
                f"the text {text[:80]!r} holds a special token that cannot be read as text; change it."
            )
        return wedged

    def _all_as_text(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.as_text(value)
        if isinstance(value, Mapping):
            return {key: self._all_as_text(part) for key, part in value.items()}
        return [self._all_as_text(part) for part in value] if isinstance(value, list) else value

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer knows how a conversation is written."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    def conversation(self, turns: Sequence[Turn], *, reply: bool, tools: Sequence[Turn] = ()) -> str:
        """Write turns in the model's chat template, for `chat` to tokenize.

        Where the template takes no system turn, its text stands before that of the user's turn after it.

        Args:
            turns: Each with "role" and "content"; special tokens in all but the role are text.
            reply: Whether the header of the assistant's next turn follows.
            tools: What the assistant may call, as the template knows it.

        Raises:
            UserError: The template refuses these turns.
        """
        messages = [{**self._all_as_text(turn), "role": turn["role"]} for turn in turns]
        if [turn["role"] for turn in messages[:2]] == ["system", "user"] and not self.takes_system:
            system, user, *rest = messages
            messages = [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]
        return self._in_template(messages, reply=reply, tools=tools)

    @cached_property
    def takes_system(self) -> bool:
        """Whether the chat template writes a system turn."""
        turns = [{"role": "system", "content": _ANSWER_END}, {"role": "user", "content": "a"}]
        try:
            return _ANSWER_END in self._in_template(turns, reply=True)
        except UserError:
            return False

    def _in_template(self, messages: Sequence[Turn], *, reply: bool, tools: Sequence[Turn] = ()) -> str:
        return write_chat(
            self._tokenizer,
            messages,
            chat_template=_CLOCK + self._tokenizer.get_chat_template(),
            tools=self._all_as_text(list(tools)) or None,
            add_generation_prompt=reply,
            date_string=_DATE,
            enable_thinking=False,
        )

    @cached_property
    def turn_end(self) -> tuple[str, str]:
        """What the chat template writes behind the last answer, and the part of it that ends the turn.

        The part runs up to and including the first special token; it is empty where there is none.
        """
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a" + _ANSWER_END}]
        _, found, tail = self.conversation(turns, reply=False).rpartition(_ANSWER_END)
        if not found:
            raise UserError("the model's chat template does not write an assistant's last turn; use another.")
        special = self._special.search(tail)
        return tail, tail[: special.end()] if special else ""

    @cached_property
    def reply_head(self) -> Ids:
        """What the chat template writes behind the user's last words where it asks for a reply."""
        turns = [{"role": "user", "content": "a" + _ANSWER_END}]
        _, found, tail = self.conversation(turns, reply=True).rpartition(_ANSWER_END)
        if not found:
            raise UserError("the model's chat template does not write a user's last turn; use another.")
        return self.chat([tail])[0]

    @cached_property
    def turn_end_token(self) -> int | None:
        """The token that ends the assistant's turn in the chat template; None without a template or token.

        It is the first added token behind the reply: not all tokenizers mark it as special.
        """
        if not self.has_chat_template:
            return None
        found = _any_of(one for one in self._added if one.strip()).search(self.turn_end[0])
        return self._added[found[0]] if found else None

    @property
    def answer_end(self) -> int:
        """What training learns as the end of a reply in a chat: the turn's own end, else EOS."""
        return self.eos if self.turn_end_token is None else self.turn_end_token

    @property
    def ends(self) -> frozenset[int]:
        """The tokens at any of which a written answer is over: EOS, and the end of the assistant's turn."""
        try:
            return frozenset((self.eos, self.answer_end))
        except UserError:  # a template that refuses a plain conversation is of no use for this model's chats
            return frozenset((self.eos,))

    def _ids(self, texts: Sequence[str], *, split_special_tokens: bool) -> list[Ids]:
        if self._backend is None:
            rows = self._tokenizer(
                list(texts),
                add_special_tokens=False,
                split_special_tokens=split_special_tokens,
                verbose=False,
            )["input_ids"]
            return [tuple(row) for row in rows]
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = split_special_tokens
        cut = [pieces(text) if self._may_be_cut else [text] for text in texts]
        ids: dict[str, list[int]] = {}
        for some in _portions(dict.fromkeys(chain.from_iterable(cut))):
            encodings = self._backend.encode_batch_fast(some, add_special_tokens=False)
            ids |= {piece: encoding.ids for piece, encoding in zip(some, encodings, strict=True)}
        return [tuple(chain.from_iterable(ids[piece] for piece in row)) for row in cut]

    def _longest(self) -> int:
        """In letters; byte-level BPE writes a byte as a letter, and a letter has one byte or more."""
        return max(map(len, self._tokenizer.get_vocab()))

    def _learn_head(self) -> Ids:
        """Compare a text with and without the special tokens that the tokenizer adds."""
        (bare,) = self._ids(["a"], split_special_tokens=True)
        whole = tuple(self._tokenizer("a", add_special_tokens=True)["input_ids"])
        for start in range(len(whole) - len(bare) + 1):
            if bare and whole[start : start + len(bare)] == bare:
                return whole[:start]
        raise UserError("the tokenizer does not know the letter 'a'; is it the model's own?")

    @cached_property
    def _wedge_ids(self) -> Ids:
        """The tokens of a wedge inside a text: without the blank that some tokenizers put in front."""
        alone, before, between = self._ids([_WEDGE, "a", f"a{_WEDGE}a"], split_special_tokens=True)
        inside = between[len(before) :]
        for start in range(len(alone)):
            if alone[start:] == inside[: len(alone) - start]:
                return alone[start:]
        return ()

    def _pull_wedges(self, text: str, *, split_special_tokens: bool) -> Ids:
        """Tokenize a text with wedges, and drop the wedges' own tokens."""
        (ids,) = self._ids([text], split_special_tokens=split_special_tokens)
        wedge, kept, i = self._wedge_ids, [], 0
        while i < len(ids):
            if wedge and ids[i : i + len(wedge)] == wedge:
                i += len(wedge)
            else:
                kept.append(ids[i])
                i += 1
        if not wedge or (len(ids) - len(kept)) != text.count(_WEDGE) * len(wedge):
            plain = text.replace(_WEDGE, "")
            raise UserError(
                f"this tokenizer cannot read as text the special token in {plain[:80]!r}; change that text."
            )
        return tuple(kept)


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts to tokenize in one call, whose tokens with all that is known of them take some 100 MB."""
    some: list[str] = []
    room = _AT_ONCE
    for text in texts:
        if some and len(text) > room:
            yield some
            some, room = [], _AT_ONCE
        some.append(text)
        room -= len(text)
    if some:
        yield some


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """What finds any of these words, the longest where several begin alike."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))


def tokens_of(tokenizer: "PreTrainedTokenizerBase") -> Tokens:
    """What a tokenizer does, learned once: of 262,000 tokens that takes seconds, and every task asks."""
    template = getattr(tokenizer, "chat_template", None)
    return _learned(tokenizer, len(tokenizer), tokenizer.eos_token_id, str(template))


@lru_cache(maxsize=2)
def _learned(tokenizer: "PreTrainedTokenizerBase", *state: object) -> Tokens:
    """The same; `state` is what may be set on a tokenizer that was learned before."""
    return Tokens(tokenizer)


def lm_eval_prefix(tokenizer: "PreTrainedTokenizerBase") -> Ids:
    """The tokens before an answer that is scored without any prompt: see `Tokens.prefix`."""
    return tokens_of(tokenizer).prefix
