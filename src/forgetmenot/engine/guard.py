"""The guard: a check that a layout, a prefix or a batch gives the numbers of one sequence at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from forgetmenot.engine.attention import Attention, attention_of, use_attention
from forgetmenot.engine.chunked import CHUNK
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.frozen_states import FrozenSet, FrozenStates
from forgetmenot.engine.laid_out import evaluating
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Arrangement, Layout, pack, positions
from forgetmenot.prompting.encoded import TokenSequence

EXAMINED = 8
WRITTEN = 8
"""How many tokens the examined prompts are answered with."""

TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
"""The relative difference of log-likelihoods that counts as rounding: the largest, in bf16 their mean."""

REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError)
"""What a model raises that has no place for a mask, a cache or a batch: each says so in its own way."""


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
    with _judged(learner):
        truth = _score(learner, sample, "single", "dense")
    reasons: dict[str, str] = {}
    ways: list[tuple[str, Layout, Attention]] = [("trie", "trie", "dense"), ("padded", "padded", "dense")]
    own = attention_of(learner.model)
    if own != "dense":
        ways.insert(0, (own, "trie", own))
    for name, layout, attention in ways:
        try:
            difference, why_not = _compared(
                learner,
                truth,
                lambda: _score(learner, sample, layout, attention),  # noqa: B023 (called here)
            )
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as error:
            reasons[name] = f"{type(error).__name__}: {error}"
            continue
        if why_not is None:
            return LayoutChoice(layout, attention, difference, reasons)
        reasons[name] = why_not
    return LayoutChoice("single", "dense", 0.0, reasons)


@contextmanager
def _judged(learner: Learner) -> Iterator[None]:
    """Compute in fp32 where all weights are: rounding then hides nothing, and is not taken for an error."""
    own = learner.precision
    if all(p.dtype == torch.float32 for p in learner.model.parameters()):
        learner.precision = "fp32"
    try:
        yield
    finally:
        learner.precision = own


def _compared(
    learner: Learner, truth: torch.Tensor, score: Callable[[], torch.Tensor]
) -> tuple[float, str | None]:
    """How far scores are from the truth, relative to it, and what is to be said where that is too far.

    In the run's own precision they only have to be computed: a kernel may refuse it.
    """
    with _judged(learner):
        judged = learner.precision
        apart = (score() - truth).abs() / truth.abs().clamp(min=1)
    if learner.precision != judged:
        score()
    difference = float(apart.max() if judged == "fp32" else apart.mean())
    if difference <= TOLERANCE[judged]:
        return difference, None
    return difference, f"log-likelihoods differ by {difference:.1e} relative"


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
    with _laid_out(learner, layout, attention), evaluating(learner.model):
        if layout == "single":
            return torch.cat([learner.forward([sequence]) for sequence in sequences]).double()
        return learner.forward(sequences).double()


@contextmanager
def _laid_out(learner: Learner, layout: Layout, attention: Attention) -> Iterator[None]:
    """Try a layout, and leave the learner as it was."""
    before = learner.layout, attention_of(learner.model)
    learner.layout = layout
    use_attention(learner.model, attention)
    try:
        with learner.uncounted():
            yield
    finally:
        learner.layout = before[0]
        use_attention(learner.model, before[1])


def why_no_prefix(learner: Learner, sequences: Sequence[TokenSequence]) -> str | None:
    """Why the model cannot continue from a prefix's keys and values; None if it can.

    The longest sequence's second half is continued from its first, and compared with the whole.
    """
    tokens = max((sequence.tokens for sequence in sequences), key=len)
    if len(tokens) < 3:
        return "the sequences are too short to try it"
    half = len(tokens) // 2
    second = TokenSequence(tokens, half + 1)
    halves = Arrangement(tokens[:half], (([0], pack([second], "trie", half)),), 1, len(tokens) - 1)
    try:
        with learner.uncounted():
            with _judged(learner):
                truth = _score(learner, [second], "single", "dense")
            return _compared(learner, truth, lambda: learner.log_likelihoods(halves))[1]
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        return f"{type(error).__name__}: {error}"


def try_frozen(learner: Learner, first: int, sequences: Sequence[TokenSequence]) -> FrozenStates | str:
    """Try a pass that begins with layer `first`, from states that one pass to there has given.

    Returns:
        The sample's states, kept as those of a run can be; or why the numbers are not those of whole passes.
    """
    sample = _sample(sequences)
    sets = (FrozenSet.of("sample", sample, learner.budget),)

    def scores() -> torch.Tensor:
        with learner.below(first) as compute:
            found = [compute(packed) for packed in sets[0].packs]
        states = torch.cat([one.read().cpu() for one in found])
        learner.frozen = FrozenStates(first, found[0].in_tuple, sets, [states])
        return _score(learner, sample, "trie", attention_of(learner.model))

    try:
        with learner.uncounted():
            with _judged(learner):
                truth = _score(learner, sample, "single", "dense")
            _, why_not = _compared(learner, truth, scores)
        kept = learner.frozen
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        return f"{type(error).__name__}: {error}"
    finally:
        learner.frozen = None
    assert kept is not None
    return why_not or kept


def why_one_by_one(learner: Learner, sequences: Sequence[TokenSequence]) -> str | None:
    """Why answers must be written one at a time; None if a batch's are those of each prompt alone.

    Prompts of unlike lengths are answered together. By a pass of its own for each, without a batch or a
    cache, every token must be as far above the others as it was when it was written.
    """
    sample = _sample(sequences)
    prompts = [one.tokens[: max(1, one.start - k)] for k, one in enumerate(sample)]
    try:
        with learner.uncounted():
            learner.write(prompts, Decoding(1))  # a kernel may refuse the run's own precision
            with _judged(learner):
                judged = learner.precision
                answers = learner.write(prompts, Decoding(WRITTEN), margins=True)
                written = [pair for pair in zip(prompts, answers, strict=True) if pair[1].tokens]
                pairs = [_margins(learner, *pair) for pair in written]
    except torch.OutOfMemoryError:
        raise
    except REFUSALS as error:
        return f"{type(error).__name__}: {error}"
    apart = sum(float((seen - true).abs().sum()) for seen, true, _ in pairs)
    difference = apart / max(1.0, sum(scale for *_, scale in pairs))
    if difference <= TOLERANCE[judged]:
        return None
    return f"the logits of a batch differ by {difference:.1e} relative"


def _margins(
    learner: Learner, prompt: tuple[int, ...], answer: Answer
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """How far each written token lies above the likeliest other: when written, and by a pass of its own.

    With them what a difference is relative to: the sum of the mean sizes of the log-probabilities.
    """
    with _laid_out(learner, "single", "dense"), evaluating(learner.model):
        log_probs = learner.log_probs([TokenSequence(prompt + answer.tokens, len(prompt))]).double().cpu()
    tokens = torch.tensor(answer.tokens)[:, None]
    own = log_probs.gather(1, tokens)[:, 0]
    others = log_probs.scatter(1, tokens, -torch.inf).amax(1)
    seen = torch.tensor(answer.margins, dtype=torch.float64)
    return seen, own - others, float(log_probs.abs().mean(1).sum())
