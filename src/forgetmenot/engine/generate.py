"""Generated answers: greedy or drawn, in batches of similar length, over a prefix that is computed once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.composed import Positions, augmented, bridge_width, text_configs
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.head import fp32_head
from forgetmenot.engine.kv_cache import growing_cache, keep_rows
from forgetmenot.engine.next_token import Endings, NextToken
from forgetmenot.engine.precision import activation_dtype
from forgetmenot.engine.prefix import Prefix, compute_prefix
from forgetmenot.errors import UserError
from forgetmenot.models.composition import composition

ROWS = 128
TOKENS = 65_536
CACHE_BYTES = {"cpu": 2**30, "cuda": 2**33}
"""The most that a batch holds of rows, of positions, and of bytes of keys and values."""

WORTHWHILE = 16
"""The least tokens of a common prefix for which it goes through the model by itself."""

ENDED = 1 / 16
"""The part of a batch that must have ended before the others go on alone: dropping rows copies the rest."""

Batch = dict[int, Answer]
"""The answers of a batch, by the place of their prompt."""


@dataclass
class _Row:
    """What is written of one answer so far; see `Answer`."""

    tokens: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    finite: bool = True

    def add(self, token: int, margin: float | None, finite: bool) -> list[int]:
        """Write a token on; returns all of them."""
        self.tokens.append(token)
        if margin is not None:
            self.margins.append(margin)
        self.finite &= finite
        return self.tokens


@dataclass(frozen=True)
class Writer:
    """A model as it stands, ready to write.

    Attributes:
        model: A Transformers causal LM.
        tokenizer: Its tokenizer.
        ends: The tokens that end an answer and are part of its tokens; see `next_token.ends_of`.
        cached: Whether the model takes the engine's own cache; else Transformers' `generate` writes.
        continues: Whether answers may continue from the keys and values of a common prefix.
        batch_positions: The most positions in a batch, prompts and answers; None for what `TOKENS` and
            `CACHE_BYTES` allow.
        divided: By how much that is made smaller, where it did not fit into memory.
    """

    model: Any
    tokenizer: Any
    ends: frozenset[int]
    cached: bool = True
    continues: bool = True
    batch_positions: int | None = None
    divided: int = 1

    def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
        *,
        seeds: Sequence[int] | None = None,
        margins: bool = False,
        dealt: bool = True,
        advance: Callable[[int], None] | None = None,
        done: Mapping[int, Answer] | None = None,
        save: Callable[[Batch], None] | None = None,
    ) -> list[Answer]:
        """The answer to each prompt, up to an end, a stop string, `max_new_tokens` or the last position.

        Prompts are batched by length and padded on the left; padding is masked and has no position. A row
        leaves its batch when it has ended. The batches are dealt to the processes; of a sharded model every
        process writes all of them, since its processes must make the same number of forward passes.

        Args:
            prompts: Token ids, none empty.
            decoding: How answers are written.
            seeds: One for each prompt, for answers that are drawn: a draw does not depend on what else is in
                the batch, or on which process draws it.
            margins: Whether to note how sure each token was.
            dealt: Whether the processes share the batches; else this one writes all itself.
            advance: Told how many prompts were just answered.
            done: Answers that an earlier call has saved: their batches are not written again.
            save: Told each batch's answers as they come.
        """
        answers: Batch = dict(done or {})
        batches = list(self._batches(prompts, decoding))
        sizes = [sum(len(prompts[k]) for k in batch) for batch in batches]
        shared = self._shared_prefix(prompts) if len(answers) < len(prompts) else None
        for number, together in _own(sizes, everything=not dealt or shards.is_sharded(self.model)):
            batch = batches[number]
            if not all(k in answers for k in batch):
                next_token = NextToken(decoding, seeds and [seeds[k] for k in batch], margins=margins)
                written = self._write(batch, prompts, decoding, next_token, shared)
                answers |= written
                if save is not None:
                    save(written)
            if advance is not None:
                advance(sum(len(batches[k]) for k in together))
        if dealt:
            answers = ranks.gathered(answers)
        return [answers[k] for k in range(len(prompts))]

    def _batches(self, prompts: Sequence[tuple[int, ...]], decoding: Decoding) -> Iterator[list[int]]:
        """Prompts of similar length together: a pure function of the prompts, the model and the settings."""
        most = self.batch_positions or min(
            TOKENS, CACHE_BYTES[self._device.type] // self._bytes_per_position()
        )
        most //= self.divided
        order = sorted(range(len(prompts)), key=lambda k: (len(prompts[k]), prompts[k]))
        batch: list[int] = []
        for k in order:
            if batch and (
                len(batch) == ROWS
                or (len(batch) + 1) * (len(prompts[k]) + self._room(prompts[k], decoding)) > most
                or (
                    not self.cached
                    and self._room(prompts[k], decoding) != self._room(prompts[batch[0]], decoding)
                )
            ):
                yield batch
                batch = []
            batch.append(k)
        if batch:
            yield batch

    def _room(self, prompt: tuple[int, ...], decoding: Decoding) -> int:
        """How many tokens may follow a prompt: the model may have no further position."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(min(decoding.max_new_tokens, (positions or float("inf")) - len(prompt)))

    def _bytes_per_position(self) -> int:
        own = sum(map(self._bytes_of, text_configs(self.model)))
        return own + bridge_width(self.model) * activation_dtype(self.model).itemsize

    def _bytes_of(self, config: Any) -> int:
        """What one position of one of the models takes in the cache."""
        heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
        if heads is None:  # a state of one size, however long the row: its activations are what grows
            return int(config.hidden_size * activation_dtype(self.model).itemsize)
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return int(2 * config.num_hidden_layers * heads * size * activation_dtype(self.model).itemsize)

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def _shared_prefix(self, prompts: Sequence[tuple[int, ...]]) -> Prefix | None:
        """What all prompts begin with, through the model once; each keeps a token of its own behind it.

        A window that slides over positions would see the padding between prefix and prompt.
        """
        windowed = any(getattr(config, "sliding_window", None) for config in text_configs(self.model))
        if not self.cached or not self.continues or windowed or len(prompts) < 2:
            return None
        least, greatest = min(prompts), max(prompts)
        length = min(map(len, prompts)) - 1
        common = next((i for i in range(length) if least[i] != greatest[i]), length)
        if common < WORTHWHILE:
            return None
        return compute_prefix(self.model, least[:common], activation_dtype(self.model))

    def _write(
        self,
        batch: Sequence[int],
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
        next_token: NextToken,
        shared: Prefix | None,
    ) -> Batch:
        rooms = [self._room(prompts[k], decoding) for k in batch]
        ask = [prompts[k] for k in batch]
        endings = Endings(self.tokenizer, self.ends, decoding.stop)
        if self.cached:
            rows = self._decode(ask, rooms, endings, next_token, shared)
        else:
            rows = self._by_transformers(ask, rooms[0], endings, next_token)
        return {
            k: Answer(endings.text(row.tokens), tuple(row.tokens), tuple(row.margins), row.finite)
            for k, row in zip(batch, rows, strict=True)
        }

    def _decode(
        self,
        prompts: Sequence[tuple[int, ...]],
        rooms: Sequence[int],
        endings: Endings,
        next_token: NextToken,
        shared: Prefix | None,
    ) -> list[_Row]:
        """Token by token, with a cache of the engine's own; prompts that are the same are read once."""
        written = [_Row() for _ in prompts]
        begun = shared.layers[0][0].shape[-2] if shared is not None else 0
        distinct = list(dict.fromkeys(prompts))
        tokens, mask = _padded([prompt[begun:] for prompt in distinct], self._padding, self._device)
        mask = torch.cat([mask.new_ones(len(distinct), begun), mask], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, begun:]
        cache = growing_cache(shared, len(distinct))
        going = [row for row, room in enumerate(rooms) if room > 0]
        present = list(range(len(prompts)))  # the rows that the cache holds
        while going:
            logits = self._step(tokens, mask, positions, cache)
            if len(logits) < len(present):  # the first step: a row for each prompt from here on
                of_each = [distinct.index(prompt) for prompt in prompts]
                keep_rows(cache, of_each, self._device)
                logits, mask, positions = (one[of_each] for one in (logits, mask, positions))
            chosen = next_token(None, logits).argmax(-1).tolist()
            finite = next_token.finite.pop().tolist()
            sure = next_token.margins.pop().tolist() if next_token.records else [None] * len(present)
            still = set(going)
            for place, row in enumerate(present):
                if row in still:
                    tokens_of_row = written[row].add(chosen[place], sure[place], finite[place])
                    if len(tokens_of_row) == rooms[row] or endings.reached(tokens_of_row):
                        still.discard(row)
            going = [row for row in going if row in still]
            places = list(range(len(present)))
            if going and len(present) - len(going) > int(ENDED * len(present)):
                places = [place for place, row in enumerate(present) if row in still]
                present = going
                keep_rows(cache, places, self._device)
                next_token.keep(places)
            tokens = torch.tensor([[chosen[place]] for place in places], device=self._device)
            mask = torch.cat([mask[places], mask.new_ones(len(places), 1)], dim=1)
            positions = positions[places, -1:] + 1
        return written

    def _step(self, tokens: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """The logits behind each row's last token, in fp32 [rows, vocabulary]."""
        rows = Positions(tokens, positions, mask=mask)
        with augmented(self.model, rows, cache), fp32_head(self.model):
            logits = self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        return logits[:, -1].float()  # type: ignore[no-any-return]

    def _by_transformers(
        self, prompts: Sequence[tuple[int, ...]], room: int, endings: Endings, next_token: NextToken
    ) -> list[_Row]:
        """The same by Transformers, for models with a state of another kind; all have the same room."""
        if room < 1:
            return [_Row() for _ in prompts]
        if composition(self.model) is not None:
            raise UserError(
                "adapter.kind: bridge: one of the two models does not take the trie's mask, and then a "
                "composed model cannot write; take other models, or tasks that are scored by likelihood."
            )
        tokens, mask = _padded(prompts, self._padding, self._device)
        width = tokens.shape[1]

        def ended(ids: Tensor, *_: Any, **__: Any) -> Tensor:
            return torch.tensor([endings.reached(row) for row in ids[:, width:].tolist()], device=ids.device)

        rows = self.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # some checkpoints bring their own, which greedy search obeys too
            no_repeat_ngram_size=0,
            max_new_tokens=room,
            eos_token_id=sorted(self.ends),
            pad_token_id=self._padding,
            logits_processor=[next_token],
            stopping_criteria=[ended],
        )[:, width:].tolist()
        written = []
        for place, row in enumerate(rows):  # after its end a row is filled with padding
            length = next((n for n in range(1, len(row) + 1) if endings.reached(row[:n])), len(row))
            margins = [float(step[place]) for step in next_token.margins[:length]]
            finite = all(bool(step[place]) for step in next_token.finite[:length])
            written.append(_Row(row[:length], margins, finite))
        return written

    @property
    def _padding(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)


def _own(sizes: Sequence[int], *, everything: bool) -> Iterator[tuple[int, Sequence[int]]]:
    """The batches that this process writes, each with those that all processes write meanwhile."""
    if everything:
        return ((k, (k,)) for k in range(len(sizes)))
    return ((turn.pack, turn.dealt) for turn in ranks.turns(sizes))


def _padded(rows: Sequence[tuple[int, ...]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows padded on the left, and which of their tokens count [rows, width]."""
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, width - len(row) :] = torch.tensor(row)
        mask[place, width - len(row) :] = 1
    return tokens.to(device), mask.to(device)
