"""The choice of the next token, and the end of an answer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from forgetmenot.engine.decoding import Decoding


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
    """

    def __init__(self, decoding: Decoding, seeds: Sequence[int] | None, *, margins: bool) -> None:
        self.decoding, self.records = decoding, margins
        self.noise = GumbelNoise(seeds) if seeds is not None and decoding.temperature > 0 else None
        self.margins: list[Tensor] = []

    def __call__(self, input_ids: Tensor | None, scores: Tensor) -> Tensor:
        """Note the margins, and turn a draw into a maximum."""
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


class Endings:
    """Knows where a text ends: at EOS, or at a stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        # A token is at least one byte, and the first in view may begin within a letter of up to four.
        self.view = max((len(one.encode()) for one in stop), default=0) + 4

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last token ends the answer."""
        if tokens[-1] == self.tokenizer.eos_token_id:
            return True
        if not self.stop:
            return False
        near = self._decoded(tokens[-self.view :])
        return any(one in near for one in self.stop) and self.text(tokens) != self._decoded(tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """What is written before the first stop string."""
        whole = self._decoded(tokens)
        return whole[: min((at for one in self.stop if (at := whole.find(one)) >= 0), default=len(whole))]

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
