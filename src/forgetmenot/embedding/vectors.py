"""Vectors of sentences, on the trie: what all prompts begin with is computed once for a pack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from forgetmenot.embedding.prompt import EmbeddingSettings, asked
from forgetmenot.errors import UserError
from forgetmenot.prompting.encoded import TokenSequence
from forgetmenot.prompting.tokens import tokens_of

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

AT_ONCE = 1024  # sentences, all of whose states are held at a time; ours


def embed(
    learner: Learner,
    sentences: Sequence[str],
    settings: EmbeddingSettings,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """The vector of each sentence, as the model gives it and not normalized: fp32 [sentences, width].

    Args:
        learner: The model.
        sentences: Any texts; those that read alike are computed once.
        settings: How.
        advance: Told how many sentences were just finished.

    Raises:
        UserError: A sentence has more tokens than the model has positions for, or none at all.
    """
    import torch

    prompts = prompts_of(learner, sentences, settings)
    unique = sorted(set(prompts))  # neighbours share what they begin with, also across a chunk's tokens
    rows: list[Tensor] = []
    told = 0
    for begin in range(0, len(unique), AT_ONCE):
        some = unique[begin : begin + AT_ONCE]
        rows.append(_means(learner, some) if settings.pooling == "mean" else learner.hidden(some))
        if advance is not None:  # of what was given, as if no two were alike
            now = len(sentences) * (begin + len(some)) // len(unique)
            advance(now - told)
            told = now
    place = {prompt: k for k, prompt in enumerate(unique)}
    width: int = learner.model.config.get_text_config().hidden_size
    found = torch.cat(rows) if rows else torch.zeros(0, width)
    return found[[place[prompt] for prompt in prompts]]


def prompts_of(
    learner: Learner, sentences: Sequence[str], settings: EmbeddingSettings
) -> list[tuple[int, ...]]:
    """The tokens of which the last one's state, or the mean of all, is a sentence's vector.

    Raises:
        UserError: As `embed`.
    """
    prompts = tokens_of(learner.tokenizer).plain([asked(text, settings) for text in sentences])
    room = learner.max_positions
    for text, prompt in zip(sentences, prompts, strict=True):
        if not prompt:
            raise UserError(
                f"A sentence is empty, and this tokenizer writes nothing in front: with pooling "
                f"{settings.pooling} it has no vector. Leave it out."
            )
        if room is not None and len(prompt) > room:
            raise UserError(
                f"The sentence {text[:60]!r}… has {len(prompt):,} tokens with its prompt, and the model has "
                f"positions for {room:,}; cut it."
            )
    return prompts


def _means(learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Tensor:
    """The mean of the last layer's states over each prompt's tokens [prompts, width]."""
    import torch

    # A state is found where something is predicted: each token behind the first, and any behind the last.
    states = learner.states([TokenSequence((*prompt, 0), 1) for prompt in prompts])
    return torch.stack([part.mean(0) for part in torch.split(states, [len(prompt) for prompt in prompts])])
