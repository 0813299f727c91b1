"""Routing: each prompt is answered by the part of the method that it is sent to."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.head import KeptHead, Read, picked
from forgetmenot.engine.laid_out import Advance
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Arrangement
from forgetmenot.methods import Method
from forgetmenot.prompting import Encoded, TokenSequence

T = TypeVar("T")

WITHOUT_GRADIENTS = "A probe asks without gradients: use log_likelihoods, score, hidden, generate or sample."


def by_part(
    learner: Learner,
    method: Method,
    prompts: Sequence[tuple[int, ...]],
    ask: Callable[[list[int], str], Sequence[T]],
) -> tuple[list[T], dict[str, int]]:
    """Ask for each prompt within the context of the part that it is routed to.

    Args:
        learner: The model as the method answers with it.
        method: What routes.
        prompts: The prompts' tokens.
        ask: From the places of some prompts, and the part that they are routed to, to one answer for each;
            "" where the same answers all.

    Returns:
        The answers in the order of the prompts, and how many each part gave; no counts where the same
        answers all, which are then asked at once.
    """
    parts = method.route(learner, prompts)
    if parts is None:
        return list(ask(list(range(len(prompts))), "")), {}
    found: dict[int, T] = {}
    for part in sorted(set(parts)):
        chosen = [k for k, one in enumerate(parts) if one == part]
        with method.routed(learner, part):
            found |= zip(chosen, ask(chosen, part), strict=True)
    return [found[k] for k in range(len(prompts))], dict(sorted(Counter(parts).items()))


class RoutedLearner(Learner):
    """The learner as its method answers, for probes: every question is routed, and nothing is trained."""

    def __init__(self, learner: Learner, method: Method) -> None:
        super().__init__(**{one.name: getattr(learner, one.name) for one in fields(Learner)})
        self._plain, self._method = learner, method

    def log_likelihoods(
        self, sequences: Sequence[TokenSequence] | Arrangement, advance: Advance | None = None
    ) -> Tensor:
        """As the learner's, routed by what each sequence is given; `score` calls it."""
        assert not isinstance(sequences, Arrangement), "what is laid out cannot be routed"
        return self.log_likelihoods_and_greedy(sequences, advance)[0]

    def log_likelihoods_and_greedy(
        self, sequences: Sequence[TokenSequence], advance: Advance | None = None
    ) -> tuple[Tensor, Tensor]:
        """As the learner's, routed by what each sequence is given."""

        def ask(places: list[int]) -> list[tuple[float, bool]]:
            some = [sequences[k] for k in places]
            values, greedy = super(RoutedLearner, self).log_likelihoods_and_greedy(some, advance)
            return list(zip(values.tolist(), greedy.tolist(), strict=True))

        found = self._routed([s.tokens[: s.start] for s in sequences], ask)
        values = torch.tensor([value for value, _ in found], dtype=torch.float64)
        return values, torch.tensor([greedy for _, greedy in found], dtype=torch.bool)

    def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
        *,
        advance: Advance | None = None,
        **unused: Any,
    ) -> list[Answer]:
        """As the learner's, routed by prompt; `generate` calls it. What no probe uses is not taken."""
        assert not any(unused.values()), sorted(unused)
        plain = super().write
        return self._routed(
            prompts, lambda places: plain([prompts[k] for k in places], decoding, advance=advance)
        )

    def states(self, sequences: Sequence[TokenSequence], layer: int = -1) -> Tensor:
        """As the learner's, routed by what each sequence is given; `hidden` calls it."""
        plain = super().states
        return self._for_each_token(sequences, lambda places: plain([sequences[k] for k in places], layer))

    def layer_states(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """As the learner's, routed by prompt."""
        plain = super().layer_states
        return torch.stack(self._routed(prompts, lambda places: list(plain([prompts[k] for k in places]))))

    def token_log_likelihoods(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """As the learner's, routed by what each sequence is given."""
        plain = super().token_log_likelihoods
        return self._for_each_token(sequences, lambda places: plain([sequences[k] for k in places]))

    def divergences(self, sequences: Sequence[TokenSequence], states: Tensor, head: KeptHead) -> Tensor:
        """As the learner's, routed by what each sequence is given."""
        plain, own = super().divergences, torch.split(states, _counts(sequences))
        return self._for_each_token(
            sequences,
            lambda places: plain([sequences[k] for k in places], torch.cat([own[k] for k in places]), head),
        )

    def sample(
        self, examples: Sequence[Encoded], seeds: Sequence[int], lengths: Sequence[int] | None = None
    ) -> list[TokenSequence]:
        """As the learner's, routed by prompt."""
        plain = super().sample

        def drawn(places: Sequence[int]) -> list[TokenSequence]:
            lengths_there = None if lengths is None else [lengths[k] for k in places]
            return plain([examples[k] for k in places], [seeds[k] for k in places], lengths_there)

        return self._routed([example.prompt for example in examples], drawn)

    def forward(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Refused: a pass with gradients is the model's own, not that of the part for a prompt."""
        raise TypeError(WITHOUT_GRADIENTS)

    def forward_tokens(self, sequences: Sequence[TokenSequence], read: Read = picked) -> Tensor:
        """Refused as `forward` is."""
        raise TypeError(WITHOUT_GRADIENTS)

    def hidden_with_gradients(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """Refused as `forward` is."""
        raise TypeError(WITHOUT_GRADIENTS)

    def log_probs(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Refused as `forward` is."""
        raise TypeError(WITHOUT_GRADIENTS)

    def gradient_of(
        self, examples: Sequence[Encoded], weights: Sequence[float] | None = None
    ) -> dict[str, Tensor]:
        """Refused as `forward` is."""
        raise TypeError(WITHOUT_GRADIENTS)

    def _for_each_token(
        self, sequences: Sequence[TokenSequence], ask: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """What is found for each predicted token, sequence after sequence, routed by what these are given."""

        def split(places: list[int]) -> Sequence[Tensor]:
            return torch.split(ask(places), _counts([sequences[k] for k in places]))

        return torch.cat(self._routed([s.tokens[: s.start] for s in sequences], split))

    def _routed(self, prompts: Sequence[tuple[int, ...]], ask: Callable[[list[int]], Sequence[T]]) -> list[T]:
        # Routing itself asks the plain learner; the parts answer through this one's methods.
        return by_part(self._plain, self._method, prompts, lambda places, _: ask(places))[0]


def _counts(sequences: Sequence[TokenSequence]) -> list[int]:
    """How many tokens of each sequence are predicted."""
    return [len(s.tokens) - s.start for s in sequences]
