"""The guard: a check that a layout gives the same numbers as one sequence at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from forgetmenot.engine.attention import Attention, attention_of, use_attention
from forgetmenot.engine.chunked import CHUNK
from forgetmenot.engine.learner import Learner, evaluating
from forgetmenot.engine.pack import Arrangement, Layout, pack, positions
from forgetmenot.prompting.encoded import TokenSequence

EXAMINED = 8
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
"""Largest relative difference of a log-likelihood that counts as rounding."""


@dataclass(frozen=True)
class LayoutChoice:
    """The layout that a model can take, and why not a faster one.

    Attributes:
        attention: How a trie is masked: another than `dense` only where the model uses it already.
        difference: The largest relative difference seen with the layout that was chosen.
        reasons: For the model's way of masking and for each faster layout, why it was not taken.
    """

    layout: Layout
    attention: Attention
    difference: float
    reasons: dict[str, str]


def choose_layout(learner: Learner, sequences: Sequence[TokenSequence]) -> LayoutChoice:
    """Choose the fastest exact layout on real sequences: the trie, else padded rows, else one at a time.

    The trie needs an arbitrary attention mask, which state-space models and ALiBi cannot take. Padded rows
    need a model whose answer does not depend on the padding.
    """
    sample = _sample(sequences)
    truth = _score(learner, sample, "single", "dense")
    reasons: dict[str, str] = {}
    ways: list[tuple[str, Layout, Attention]] = [("trie", "trie", "dense"), ("padded", "padded", "dense")]
    own = attention_of(learner.model)
    if own != "dense":
        ways.insert(0, (own, "trie", own))
    for name, layout, attention in ways:
        try:
            scores = _score(learner, sample, layout, attention)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            # A model that has no place for the mask says so in its own way: by any of these.
            reasons[name] = f"{type(error).__name__}: {error}"
            continue
        difference = float(((scores - truth).abs() / truth.abs().clamp(min=1)).max())
        if difference <= TOLERANCE[learner.precision]:
            return LayoutChoice(layout, attention, difference, reasons)
        reasons[name] = f"log-likelihoods differ by {difference:.1e} relative"
    return LayoutChoice("single", "dense", 0.0, reasons)


def _sample(sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Some of the sequences from all over; more of them if they are so short that one chunk holds them."""
    count = EXAMINED
    while True:
        sample = list(sequences[:: max(1, len(sequences) // count)][:count])
        if count >= len(sequences) or positions(sample, "trie") > CHUNK:
            return sample
        count *= 2


def _score(
    learner: Learner, sequences: Sequence[TokenSequence], layout: Layout, attention: Attention
) -> torch.Tensor:
    before = learner.layout, attention_of(learner.model)
    counts = dict(learner.counts)
    learner.layout = layout
    use_attention(learner.model, attention)
    try:
        with evaluating(learner.model):
            if layout == "single":
                return torch.cat([learner.forward([sequence]) for sequence in sequences]).double()
            return learner.forward(sequences).double()
    finally:
        learner.layout = before[0]
        use_attention(learner.model, before[1])
        learner.counts = counts


def why_no_prefix(learner: Learner, sequences: Sequence[TokenSequence]) -> str | None:
    """Why the model cannot continue from a prefix's keys and values; None if it can.

    The longest sequence's second half is continued from its first, and compared with the whole.
    """
    tokens = max((sequence.tokens for sequence in sequences), key=len)
    if len(tokens) < 3:
        return "the sequences are too short to try it"
    half = len(tokens) // 2
    second = TokenSequence(tokens, half + 1)
    truth = _score(learner, [second], "single", "dense").item()
    halves = Arrangement(tokens[:half], (([0], pack([second], "trie", half)),), 1, len(tokens) - 1)
    counts = dict(learner.counts)
    try:
        difference = abs(learner.log_likelihoods(halves).item() - truth) / max(1.0, abs(truth))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        learner.counts = counts
    if difference <= TOLERANCE[learner.precision]:
        return None
    return f"log-likelihoods differ by {difference:.1e} relative"
