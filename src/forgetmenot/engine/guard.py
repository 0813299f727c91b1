"""Whether a model can take a layout: its answers compared with one sequence at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from forgetmenot.engine.learner import Learner, evaluating
from forgetmenot.engine.pack import Arrangement, Layout, pack
from forgetmenot.prompting.encoded import TokenSequence

EXAMINED = 8
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
"""Largest relative difference of a log-likelihood that counts as rounding."""


@dataclass(frozen=True)
class Verdict:
    """The layout that a model can take, and why not a faster one.

    Attributes:
        difference: The largest relative difference seen with the layout that was chosen.
        continues: Whether the model may also continue from the keys and values of a prefix.
        reasons: For each faster layout, and for "prefix", why it was not taken.
    """

    layout: Layout
    difference: float
    continues: bool
    reasons: dict[str, str]


def choose_layout(learner: Learner, sequences: Sequence[TokenSequence]) -> Verdict:
    """Choose the fastest exact layout on real sequences: the trie, else padded rows, else one at a time.

    The trie needs an arbitrary attention mask, which state-space models and ALiBi cannot take. Padded rows
    need a model whose answer does not depend on the padding.
    """
    sample = list(sequences[:: max(1, len(sequences) // EXAMINED)][:EXAMINED])
    truth = _score(learner, sample, "single")
    reasons: dict[str, str] = {}
    for layout in ("trie", "padded"):
        difference, reason = _compare(learner, partial(_score, learner, sample, layout), truth)
        if reason is None:
            continues = layout == "trie" and _continues(learner, sample, reasons)
            return Verdict(layout, difference, continues, reasons)
        reasons[layout] = reason
    return Verdict("single", 0.0, False, reasons)


def _compare(
    learner: Learner, answer: Callable[[], torch.Tensor], truth: torch.Tensor
) -> tuple[float, str | None]:
    """The largest relative difference, and why the answer does not do, if it does not."""
    try:
        difference = float(((answer() - truth).abs() / truth.abs().clamp(min=1)).max())
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        # A model that has no place for the mask says so in its own way: by any of these.
        return float("inf"), f"{type(error).__name__}: {error}"
    if difference <= TOLERANCE[learner.precision]:
        return difference, None
    return difference, f"log-likelihoods differ by {difference:.1e} relative"


def _continues(learner: Learner, sample: Sequence[TokenSequence], reasons: dict[str, str]) -> bool:
    """Whether the longest sequence's second half, continued from its first, is as likely as in one piece."""
    tokens = max((sequence.tokens for sequence in sample), key=len)
    if len(tokens) < 3:
        reasons["prefix"] = "the sequences are too short to try it"
        return False
    half = len(tokens) // 2
    second = TokenSequence(tokens, half + 1)
    halves = Arrangement(tokens[:half], (([0], pack([second], "trie", half)),), 1, len(tokens) - 1)
    counts = dict(learner.counts)
    _, reason = _compare(
        learner, partial(learner.log_likelihoods, halves), _score(learner, [second], "single")
    )
    learner.counts = counts
    if reason is not None:
        reasons["prefix"] = reason
    return reason is None


def _score(learner: Learner, sequences: Sequence[TokenSequence], layout: Layout) -> torch.Tensor:
    before, learner.layout = learner.layout, layout
    counts = dict(learner.counts)
    try:
        with evaluating(learner.model):
            if layout == "single":
                return torch.cat([learner.forward([sequence]) for sequence in sequences]).double()
            return learner.forward(sequences).double()
    finally:
        learner.layout = before
        learner.counts = counts
