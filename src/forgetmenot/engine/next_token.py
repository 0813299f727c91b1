"""The choice of the next token, and the end of an answer."""

import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from forgetmenot.engine.decoding import Decoding
from forgetmenot.prompting.tokens import tokens_of


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Makes greedy search a draw: logits + Gumbel noise have their maximum at token k with p = softmax_k.

    Each row has a generator of its own, which `generate(do_sample=True)` cannot give it.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor | None, scores: Tensor) -> Tensor:
        """Add −log E with E ~ Exp(1) to each logit [rows, vocabulary]."""
        drawn = [torch.empty(scores.shape[1]).exponential_(generator=g) for g in self.generators]
        return scores - torch.stack(drawn).log().to(scores.device)


class NextToken(LogitsProcessor):  # type: ignore[misc]
    """From logits to scores whose maximum is the next token.

    Attributes:
        margins: Of each call, how far each row's likeliest logit lies above the second [rows].
        finite: Of each call, whether a row's logits were numbers [rows].
    """

    def __init__(self, decoding: Decoding, seeds: Sequence[int] | None, *, margins: bool) -> None:
        self.decoding, self.records = decoding, margins
        self.noise = GumbelNoise(seeds) if seeds is not None and decoding.temperature > 0 else None
        self.margins: list[Tensor] = []
        self.finite: list[Tensor] = []

    def __call__(self, input_ids: Tensor | None, scores: Tensor) -> Tensor:
        """Note the margins and what is no number, and turn a draw into a maximum."""
        self.finite.append(scores.amax(-1).isfinite())  # a nan is a maximum, and −inf may rule a token out
        if self.records:
            best = scores.float().topk(2, dim=-1).values
            self.margins.append((best[:, 0] - best[:, 1]).cpu())
        if self.noise is None:
            return scores
        return self.noise(input_ids, self._narrowed(scores.float() / self.decoding.temperature))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        if self.noise is not None:
            self.noise.generators = [self.noise.generators[row] for row in rows]

    def _narrowed(self, logits: Tensor) -> Tensor:
        """Rule out what lies outside the k likeliest and outside the nucleus of p."""
        k, p = self.decoding.top_k, self.decoding.top_p
        if 0 < k < logits.shape[-1]:
            least = logits.topk(k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if p < 1:
            ordered, tokens = logits.sort(dim=-1, descending=True, stable=True)
            before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
            outside = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, tokens, before >= p)
            logits = logits.masked_fill(outside, -torch.inf)
        return logits


def ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens at any of which an answer is over.

    The tokenizer's EOS, what the model's generation config has as such, and the end of the assistant's turn
    in the chat template: many chat models end a turn otherwise than a text.
    """
    config = getattr(model, "generation_config", None)
    own = getattr(config, "eos_token_id", None)
    named = [own] if isinstance(own, int) else own or []
    return tokens_of(tokenizer).ends | frozenset(named)


class Endings:
    """Knows where a text ends: at one of the tokens that end an answer, or at a stop string.

    A stop string may hold special tokens, which are no part of a text otherwise.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int], stop: Sequence[str]) -> None:
        self.tokenizer, self.ends, self.stop = tokenizer, frozenset(ends), tuple(stop)
        specials = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
        specials += [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self.special = re.compile("|".join(map(re.escape, specials)) or "(?!)")
        self.skips = not any(map(self.special.search, stop))
        """Whether special tokens are left out before stop strings are looked for."""
        # A token is at least one byte, and the first in view may begin within a letter of up to four.
        self.view = max((len(one.encode()) for one in stop), default=0) + 4

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last token ends the answer."""
        if tokens[-1] in self.ends:
            return True
        if not self.stop:
            return False
        near = self._decoded(tokens[-self.view :])
        return any(one in near for one in self.stop) and self._stop(self._decoded(tokens)) is not None

    def text(self, tokens: Sequence[int]) -> str:
        """What is written before the token that ends it and before the first stop string."""
        whole = self._decoded(tokens[:-1] if tokens and tokens[-1] in self.ends else tokens)
        whole = whole[: self._stop(whole)]
        return whole if self.skips else self.special.sub("", whole)

    def _stop(self, text: str) -> int | None:
        """Where the first stop string begins."""
        return min((at for one in self.stop if (at := text.find(one)) >= 0), default=None)

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=self.skips))
