"""A model, and how sequences are laid out for it: what all numbers of the engine come through."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.frozen_states import FrozenStates
from forgetmenot.engine.kept_parts import Keeps, KeepsNothing
from forgetmenot.engine.next_token import ends_of
from forgetmenot.engine.pack import Arrangement, Layout, Pack, arrange, cut, pack, positions
from forgetmenot.engine.precision import Precision, autocast, rounded_once
from forgetmenot.engine.ranks import PackTurn
from forgetmenot.errors import UserError
from forgetmenot.machine import fault
from forgetmenot.models.adapters.prompt import soft_prompt
from forgetmenot.models.folding import folded
from forgetmenot.models.rounded_lora import rounded_lora
from forgetmenot.prompting.encoded import TokenSequence

LEAST_BUDGET = 32  # positions, below which packs are not made smaller; ours

T = TypeVar("T")
Advance = Callable[[int], None]
"""Told how many examples were just finished."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""A bar for what takes long: given what it is and how many there are, a context with its `Advance`."""


def unseen(description: str, total: int) -> AbstractContextManager[Advance]:
    """Progress that is not shown."""
    return nullcontext(lambda count: None)


@dataclass
class LaidOut:
    """A model, and how sequences are laid out for it.

    Attributes:
        model: A Transformers causal LM, perhaps with PEFT adapters inside.
        tokenizer: Its tokenizer; the engine uses it only to know where an answer ends, and to read it.
        budget: The input positions in one pack, where its sequences share nothing; see `pack.cut`.
        precision: The dtype of activations.
        layout: How sequences are laid out where nothing is random: the guard's verdict.
        training_layout: The same while training: with adapter dropout a shared node would share one mask,
            so packs then share nothing.
        together: Whether answers may be written in batches of several: the guard's verdict too.
        continues: Whether scoring may continue from the keys and values of a common prefix: the guard's
            verdict too.
        dpo_beta: β of the loss of preferences.
        loss_average: Over what a step's loss is the mean; see `forgetmenot.engine.objectives`.
        counts: Input positions computed since `reset_counts`, and how many they would have been one sequence
            at a time.
        progress: How a method shows what takes long outside training.
        frozen: What the layers that never learn give, where that was computed once for all.
        keeps: Where log-likelihoods are kept as they come, for a process that goes on from there.
        divided: By how much packs and batches were made smaller than at first, since they did not fit.
        tell: What the user is told by.
    """

    model: Any
    tokenizer: Any
    budget: int
    precision: Precision = "fp32"
    layout: Layout = "trie"
    training_layout: Layout = "trie"
    continues: bool = True
    together: bool = True
    dpo_beta: float = 0.1
    loss_average: Literal["token", "example"] = "token"
    counts: dict[str, int] = field(default_factory=dict)
    progress: Progress = unseen
    frozen: FrozenStates | None = None
    keeps: Keeps = field(default_factory=KeepsNothing)
    divided: int = 1
    tell: Callable[[str], None] = lambda sentence: None

    def __post_init__(self) -> None:
        self.reset_counts()

    def reset_counts(self) -> None:
        """Count from here."""
        self.counts = {"computed": 0, "without_sharing": 0}

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is computed within is no work of the run, such as what holds a model against another."""
        counts = dict(self.counts)
        try:
            yield
        finally:
            self.counts = counts

    def counted(self) -> dict[str, int]:
        """The counts, summed over the processes."""
        summed = ranks.all_reduce(torch.tensor(list(self.counts.values()), dtype=torch.int64))
        return dict(zip(self.counts, summed.tolist(), strict=True))

    def within_memory(self, compute: Callable[[], T]) -> T:
        """What `compute` gives; where memory is too small, again, in packs and batches of half the size.

        They stay smaller from then on. Sums over packs change in their last bits. In several processes, which
        must cut alike, and for a single long sequence the error stands.
        """
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if fault(error) != "memory" or ranks.world_size() > 1 or self.budget < 2 * LEAST_BUDGET:
                    raise
            self.divide()

    def divide(self) -> None:
        """Make packs and batches half as large, and say so."""
        self.budget //= 2
        self.divided *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.tell(
            f"The memory is full: packs have about {self.budget:,} positions from here on, and batches of "
            f"written answers 1/{self.divided} of their size. The optimizer's batch stays the same, and "
            "numbers change by rounding alone."
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def max_positions(self) -> int | None:
        """How many tokens the model has positions for; None where it does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens at any of which a written answer is over; see `next_token.ends_of`."""
        return ends_of(self.model, self.tokenizer)

    def trainable(self) -> dict[str, Tensor]:
        """The parameters that learn, by name."""
        shards.put_away(self.model)
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def soft_tokens(self) -> tuple[int, ...]:
        """The ids of the soft prompt before every sequence; empty if there is none."""
        prompt = soft_prompt(self.model)
        return () if prompt is None else prompt.tokens

    def behind_prompt(self, sequences: Sequence[TokenSequence]) -> Sequence[TokenSequence]:
        """Sequences as the model gets them: behind the soft prompt, if it has one."""
        soft = self.soft_tokens
        if not soft:
            return sequences
        room = self.max_positions
        if room is not None and max((len(s.tokens) for s in sequences), default=0) + len(soft) - 1 > room:
            raise UserError(
                f"The soft prompt takes {len(soft)} of the model's {room} positions, and an example does not "
                f"fit into the rest; set training.max_length to at most {room - len(soft)}."
            )
        return [TokenSequence(soft + s.tokens, len(soft) + s.start) for s in sequences]

    def cut(self, sequences: Sequence[TokenSequence], parts: int = 1) -> list[list[int]]:
        """Divide sequences into packs that the model takes in one forward pass, about `parts` or more."""
        budget, sequences = self.budget, self.behind_prompt(sequences)
        if parts > 1:
            budget = min(budget, -(-positions(sequences, self._layout) // parts))
        return cut(sequences, self._layout, budget)

    def turns(self, packs: Sequence[Sequence[TokenSequence]]) -> Iterator[PackTurn]:
        """Which of these packs this process computes, in turn; see `forgetmenot.engine.ranks`."""
        dealt = ranks.world_size() > 1
        sizes = [positions(self.behind_prompt(pack), self._layout) if dealt else 0 for pack in packs]
        return self._turns(sizes)

    def _turns(self, sizes: Sequence[int]) -> Iterator[PackTurn]:
        return ranks.turns(sizes, keep_step=shards.is_sharded(self.model))

    def arrange(self, sequences: Sequence[TokenSequence]) -> Arrangement:
        """Lay sequences out for `log_likelihoods`, for those that will be asked more than once."""
        behind = self.behind_prompt(sequences)
        found = arrange(behind, self.layout, self.budget, continues=self.continues)
        if self.frozen is None:
            return found
        packs = ((part, self.frozen.under(packed, [behind[k] for k in part])) for part, packed in found.packs)
        return replace(found, packs=tuple(packs))

    def _pack(self, sequences: Sequence[TokenSequence]) -> Pack:
        sequences = self.behind_prompt(sequences)
        packed = pack(sequences, self._layout)
        self.counts["computed"] += packed.nodes
        self.counts["without_sharing"] += sum(len(s.tokens) - 1 for s in sequences)
        return packed if self.frozen is None else self.frozen.under(packed, sequences)

    @property
    def _layout(self) -> Layout:
        return self.training_layout if self.model.training else self.layout

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """The context of many passes with the same weights, which are rounded once, or hold LoRA's part."""
        lora = (folded if self.precision == "fp32" else rounded_lora)(self.model)
        with lora, rounded_once(self.model, self.precision), autocast(self.device, self.precision):
            yield


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """No dropout and no gradients, and the mode that was, afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def predicted_count(sequences: Sequence[TokenSequence]) -> int:
    """How many tokens are predicted."""
    return sum(len(s.tokens) - s.start for s in sequences)
