"""The engine's handle on the current model: what methods, evaluation and probes act through."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.forward import (
    hidden_states,
    layer_inputs,
    layer_states,
    log_likelihoods,
    lower_states,
    predicted_tokens,
)
from forgetmenot.engine.frozen_states import FrozenStates
from forgetmenot.engine.generate import Batch, Writer
from forgetmenot.engine.head import KeptHead, Read, head_alone, picked, plain_head
from forgetmenot.engine.kept_parts import Keeps, KeepsNothing
from forgetmenot.engine.lower import LowerStates
from forgetmenot.engine.merging import largest_difference, last_tokens
from forgetmenot.engine.next_token import ends_of
from forgetmenot.engine.pack import Arrangement, Layout, Pack, arrange, cut, pack, positions
from forgetmenot.engine.precision import Precision, activation_dtype, autocast, rounded_once
from forgetmenot.engine.predictions import Predictions, divergences, predictions
from forgetmenot.engine.prefix import compute_prefix
from forgetmenot.engine.ranks import PackTurn
from forgetmenot.engine.vllm_backend import write_by_vllm
from forgetmenot.errors import UserError
from forgetmenot.machine import fault
from forgetmenot.models.adapters.prompt import soft_prompt
from forgetmenot.models.composition import composition
from forgetmenot.models.folding import folded
from forgetmenot.models.quantize import merged
from forgetmenot.prompting.encoded import Encoded, TokenSequence

LEAST_BUDGET = 32  # positions, below which packs are not made smaller; ours
MERGED_SAMPLE = 16  # prompts on which a merged model is held against this one; ours

T = TypeVar("T")
Snapshot = Mapping[str, Tensor]
Advance = Callable[[int], None]
"""Told how many examples were just finished."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""A bar for what takes long: given what it is and how many there are, a context with its `Advance`."""


def unseen(description: str, total: int) -> AbstractContextManager[Advance]:
    """Progress that is not shown."""
    return nullcontext(lambda count: None)


@dataclass
class Learner:
    """A model, how sequences are laid out for it, and the numbers that it gives back.

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

    def counted(self) -> dict[str, int]:
        """The counts, summed over the processes."""
        summed = ranks.all_reduce(torch.tensor(list(self.counts.values()), dtype=torch.int64))
        return dict(zip(self.counts, summed.tolist(), strict=True))

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

    def gathered(self) -> dict[str, Tensor]:
        """What the step's backward passes left in `.grad`, by parameter that learns; to change in place."""
        return {name: p.grad for name, p in self.trainable().items() if p.grad is not None}

    def forward(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Log-likelihood of each sequence's predicted tokens, with gradients: nats, fp32 [sequences].

        One forward pass: the caller cuts (`cut`) what does not fit.
        """
        with autocast(self.device, self.precision):
            return log_likelihoods(self.model, self._pack(sequences))

    def forward_tokens(self, sequences: Sequence[TokenSequence], read: Read = picked) -> Tensor:
        """Log-probability of each predicted token, with gradients: nats, fp32 [predicted].

        Sequence after sequence, in one forward pass: the caller cuts (`cut`) what does not fit. Another
        `read` gives more of each than this [predicted, …]; see `forgetmenot.engine.head.Read`.
        """
        with autocast(self.device, self.precision):
            return predicted_tokens(self.model, self._pack(sequences), read)

    def forward_in_packs(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """What `forward` gives, of as many sequences as one loss needs at once.

        They are cut, and where that makes several packs the backward pass computes each again, so that the
        activations of one are held at a time.
        """
        cut = self.cut(sequences)
        if len(cut) == 1:
            return self.forward(sequences)
        values = []
        for indices in cut:
            packed = self._pack([sequences[k] for k in indices])
            with autocast(self.device, self.precision):
                values.append(checkpoint(log_likelihoods, self.model, packed, use_reentrant=False))
        order = torch.tensor([k for indices in cut for k in indices], device=self.device)
        return torch.cat(values)[order.argsort()]

    def log_probs(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """The whole distribution at each predicted token, with gradients: nats, fp32 [predicted, vocabulary].

        Sequence after sequence, in one forward pass: the caller cuts (`cut`) what does not fit.
        """
        return self.predictions(sequences).log_probs()

    def predictions(self, sequences: Sequence[TokenSequence], weights: Snapshot | None = None) -> Predictions:
        """What whole distributions follow from, with gradients; see `forgetmenot.engine.predictions`.

        One forward pass: the caller cuts (`cut`) what does not fit. Within `with_weights` the same weights
        are given here: the head is asked later.
        """
        return predictions(self.model, self._pack(sequences), self.precision, weights)

    def sum_over_packs(
        self, sequences: Sequence[TokenSequence], part: Callable[[Predictions, Tensor], Tensor]
    ) -> Tensor:
        """The sum over packs of what `part` gives of their predictions, with gradients.

        They are cut as in `forward_in_packs`; several packs are computed again in the backward pass.

        Args:
            sequences: As many as one loss needs at once.
            part: Given a pack's predictions, and the rows of these among those of all sequences in order.
        """
        cut = self.cut(sequences)
        rows = torch.split(torch.arange(_predicted(sequences)), [len(s.tokens) - s.start for s in sequences])

        def found(packed: Pack, places: Tensor) -> Tensor:
            return part(predictions(self.model, packed, self.precision), places)

        parts = []
        for indices in cut:
            packed, places = (
                self._pack([sequences[k] for k in indices]),
                torch.cat([rows[k] for k in indices]),
            )
            if len(cut) == 1:
                return found(packed, places)
            parts.append(checkpoint(found, packed, places, use_reentrant=False))
        return torch.stack(parts).sum(0)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """The context of many passes with the same weights, which are rounded once, or hold LoRA's part."""
        fold = folded(self.model) if self.precision == "fp32" else nullcontext()
        with fold, rounded_once(self.model, self.precision), autocast(self.device, self.precision):
            yield

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

    def _pack(self, sequences: Sequence[TokenSequence]) -> Pack:
        sequences = self.behind_prompt(sequences)
        packed = pack(sequences, self._layout)
        self.counts["computed"] += packed.nodes
        self.counts["without_sharing"] += sum(len(s.tokens) - 1 for s in sequences)
        return packed if self.frozen is None else self.frozen.under(packed, sequences)

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

    @contextmanager
    def below(self, first: int) -> Iterator[Callable[[Pack], LowerStates]]:
        """What gives the states that enter layer `first`, of a pack on the trie: one pass up to there."""
        with evaluating(self.model), self._computing():
            yield lambda packed: lower_states(self.model, packed, first)

    def log_likelihoods(
        self, sequences: Sequence[TokenSequence] | Arrangement, advance: Advance | None = None
    ) -> Tensor:
        """Log-likelihood of each sequence's predicted tokens, without gradients: nats, fp64 [sequences]."""
        if isinstance(sequences, Arrangement):
            return self._scored(sequences, advance)
        return self.within_memory(lambda: self._scored(self.arrange(sequences), advance))

    def log_likelihoods_and_greedy(
        self, sequences: Sequence[TokenSequence], advance: Advance | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `log_likelihoods` gives, and whether greedy decoding would write the predicted tokens."""
        values = self.within_memory(lambda: self._scored(self.arrange(sequences), advance, greedy=True))
        predicted = torch.tensor([len(s.tokens) - s.start for s in sequences], dtype=torch.float64)
        return values[:, 0], values[:, 1] == predicted

    def _scored(self, arranged: Arrangement, advance: Advance | None, *, greedy: bool = False) -> Tensor:
        """Log-likelihoods, with `greedy` as the first of two columns: see `forward.log_likelihoods`."""
        shape = (arranged.sequences, 2) if greedy else (arranged.sequences,)
        result = torch.zeros(shape, dtype=torch.float64)
        found = []
        with (
            self.keeps.parts(self.model, arranged, greedy=greedy) as kept,
            evaluating(self.model),
            self._computing(),
        ):
            prefix = None
            if arranged.prefix:
                prefix = compute_prefix(self.model, arranged.prefix, activation_dtype(self.model))
                self.counts["computed"] += len(arranged.prefix)
            # What is found is read last: the next pack is laid out while the device works. Not so on a CPU,
            # where small tensors kept between the passes' large ones stop malloc from using the room between
            # them again: the process grew by 400 KB with each pack.
            for turn in self._turns([packed.nodes for _, packed in arranged.packs]):
                indices, packed = arranged.packs[turn.pack]
                values = kept.done.get(turn.pack)
                if values is None:
                    cache = prefix.cache() if prefix is not None else None
                    values = log_likelihoods(self.model, packed, cache, greedy=greedy)
                    kept.add(turn.pack, values)
                self.counts["computed"] += packed.nodes
                if turn.counts and values.device.type == "cpu":
                    result[indices] = values.double()
                elif turn.counts:
                    found.append((indices, values))
                if advance is not None:
                    advance(sum(len(arranged.packs[k][0]) for k in turn.dealt))
        for indices, values in found:
            result[indices] = values.double().cpu()
        if ranks.writes():  # counts are summed over the processes
            self.counts["without_sharing"] += arranged.without_sharing
        return ranks.all_reduce(result)

    def token_log_likelihoods(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Log-probability of each predicted token, without gradients: nats, fp32 [predicted].

        Sequence after sequence.
        """
        result = torch.zeros(_predicted(sequences))
        return self._for_each_predicted(
            sequences, result, lambda packed, _: predicted_tokens(self.model, packed)
        )

    def score(self, examples: Sequence[Encoded], advance: Advance | None = None) -> list[np.ndarray]:
        """Log-likelihood of each example's candidates, in nats: one array [candidates] for each example.

        The reading is lm-eval's `loglikelihood`: the sum over the answer's tokens, without EOS.
        """
        flat = [candidate for example in examples for candidate in example.candidates]
        values = self.log_likelihoods(flat, advance).numpy()
        bounds = np.cumsum([0] + [len(example.candidates) for example in examples])
        return [values[a:b] for a, b in pairwise(bounds.tolist())]

    def hidden(self, prompts: Sequence[tuple[int, ...]], layer: int = -1) -> Tensor:
        """The hidden state of each prompt's last token, without gradients: fp32 [prompts, width].

        Args:
            prompts: Token ids, none empty.
            layer: As Transformers counts: 0 is the embeddings, −1 what goes into the LM head.
        """
        # A state is found where something is predicted: any token does, and it is computed nowhere.
        return self.states([TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts], layer)

    def layer_states(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """The states of each prompt's last token in all layers: fp32 [prompts, layers + 2, width].

        Without gradients: the embeddings, what each layer gives, and what goes into the LM head.
        """
        sequences = [TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts]
        text = self.model.config.get_text_config()
        result = torch.zeros(len(prompts), text.num_hidden_layers + 2, text.hidden_size)
        return self._for_each_predicted(sequences, result, lambda packed, _: layer_states(self.model, packed))

    def hidden_with_gradients(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """What `hidden` gives of the last layer, with gradients: fp32 [prompts, width].

        One forward pass: the caller cuts (`cut`) what does not fit.
        """
        with autocast(self.device, self.precision):
            packed = self._pack([TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts])
            return hidden_states(self.model, packed, -1)

    def states(self, sequences: Sequence[TokenSequence], layer: int = -1) -> Tensor:
        """The hidden state that predicts each predicted token, without gradients: fp32 [predicted, width].

        Sequence after sequence; layers count as in `hidden`.
        """
        width = self.model.config.get_text_config().hidden_size
        if layer == -1:  # OPT-350M projects its last states to another width
            width = self.model.get_output_embeddings().weight.shape[-1]
        result = torch.zeros(_predicted(sequences), width)
        return self._for_each_predicted(
            sequences, result, lambda packed, _: hidden_states(self.model, packed, layer)
        )

    @property
    def head_is_apart(self) -> bool:
        """Whether predictions follow from what `states` gives and the LM head alone.

        They do not in padded batches, nor where more than the head lies behind a model's decoder.
        """
        return self.layout in ("trie", "blocks") and head_alone(self.model)

    def head(self) -> KeptHead:
        """The LM head without what adapters add to it; it shares the model's own memory."""
        return plain_head(self.model)

    def divergences(self, sequences: Sequence[TokenSequence], states: Tensor, head: KeptHead) -> Tensor:
        """KL(another model ‖ this one) over the vocabulary at each predicted token: nats, fp64 [predicted].

        Without gradients, and for models whose head is apart (`head_is_apart`). No more than a bounded number
        of distributions is there at a time.

        Args:
            sequences: What is predicted.
            states: What `states` gave of the other model for the same sequences.
            head: The other model's.
        """

        def found(packed: Pack, rows: Tensor) -> Tensor:
            own = predictions(self.model, packed, self.precision)
            return divergences(states[rows].to(self.device), head, own)

        result = torch.zeros(len(states), dtype=torch.float64)
        return self._for_each_predicted(sequences, result, found)

    def _for_each_predicted(
        self, sequences: Sequence[TokenSequence], result: Tensor, find: Callable[[Pack, Tensor], Tensor]
    ) -> Tensor:
        """Fill a result [predicted, …], sequence after sequence, over packs and processes.

        Args:
            sequences: What is predicted.
            result: Zeros.
            find: From a pack, and the rows of its predicted tokens in the result, to the content of these.
        """
        rows = torch.split(torch.arange(len(result)), [len(s.tokens) - s.start for s in sequences])

        def fill() -> None:
            packs = self.cut(sequences)
            for turn in self.turns([[sequences[k] for k in indices] for indices in packs]):
                indices = packs[turn.pack]
                places = torch.cat([rows[k] for k in indices])
                found = find(self._pack([sequences[k] for k in indices]), places)
                if turn.counts:
                    result[places] = found.cpu()

        with evaluating(self.model), self._computing():
            self.within_memory(fill)
        return ranks.all_reduce(result)

    def layer_inputs(
        self,
        sequences: Sequence[TokenSequence],
        layers: Mapping[str, nn.Module],
        take: Callable[[str, Tensor, Tensor], None],
    ) -> None:
        """Show what layers get from sequences, without gradients; see `forgetmenot.engine.forward`."""
        with evaluating(self.model), autocast(self.device, self.precision):
            for indices in self.cut(sequences):
                layer_inputs(self.model, self._pack([sequences[k] for k in indices]), layers, take)

    def gradient_of(self, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """Gradient of the summed negative log-likelihood of the examples' answers, by parameter that learns.

        What `.grad` holds stays as it is.

        Raises:
            UserError: If the model is sharded: PyTorch sums its gradients into `.grad` alone.
        """
        if shards.is_sharded(self.model):
            raise UserError(
                "This method takes gradients of its own, which a sharded model does not give; "
                "launch without --use_fsdp."
            )
        total = self.within_memory(lambda: self._gradient_of([example.answer for example in examples]))
        return {name: ranks.all_reduce(gradient) for name, gradient in total.items()}

    def _gradient_of(self, answers: Sequence[TokenSequence]) -> dict[str, Tensor]:
        parameters = self.trainable()
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        packs = [[answers[k] for k in indices] for indices in self.cut(answers)]
        for turn in self.turns(packs):
            loss = -self.forward(packs[turn.pack]).sum()
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    total[name] += gradient
        return total

    def dot(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
        """The inner product over all parameters of two sets of values for them, summed in fp64."""
        products = [(value.double() * other[name].double()).sum() for name, value in one.items()]
        return sum(shards.whole(product).item() for product in products)

    def norm(self, values: Mapping[str, Tensor]) -> float:
        """The Euclidean norm over all parameters."""
        return math.sqrt(self.dot(values, values))

    def generate(
        self,
        prompts: Sequence[tuple[int, ...]],
        max_new_tokens: int,
        advance: Advance | None = None,
    ) -> list[str]:
        """The text that the model writes after each prompt, greedily, up to where its answer ends.

        Raises:
            UserError: If the model's logits are no numbers.
        """
        answers = self.write(prompts, Decoding(max_new_tokens), advance=advance)
        if not all(answer.finite for answer in answers):
            raise UserError(
                "The model's logits are not finite (nan or infinite), so it writes nothing: its weights are "
                "broken, or it has diverged in training."
            )
        return [answer.text for answer in answers]

    def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
        *,
        seeds: Sequence[int] | None = None,
        margins: bool = False,
        batch_positions: int | None = None,
        advance: Advance | None = None,
        done: Mapping[int, Answer] | None = None,
        save: Callable[[Batch], None] | None = None,
    ) -> list[Answer]:
        """What the model writes after each prompt, greedily or drawn; see `forgetmenot.engine.generate`."""
        behind = [self.soft_tokens + prompt for prompt in prompts]
        written = dict(done or {})

        def keep(batch: Batch) -> None:
            written.update(batch)  # where a later one does not fit into memory, it is not written again
            if save is not None:
                save(batch)

        with evaluating(self.model), self._computing():
            return self.within_memory(
                lambda: self._writer(batch_positions).write(
                    behind, decoding, seeds=seeds, margins=margins, advance=advance, done=written, save=keep
                )
            )

    def write_by_vllm(
        self,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
        *,
        seeds: Sequence[int] | None = None,
        margins: bool = False,
        advance: Advance | None = None,
    ) -> list[Answer]:
        """The same by vLLM, from a copy of the model with its adapters merged, written to disk for it.

        Raises:
            UserError: If vLLM cannot be had, the model is shared among processes, it has a soft prompt or a
                bridge, or merging changes its answers.
        """
        if self.soft_tokens or composition(self.model) is not None:
            raise UserError(
                "evaluation.generation.backend: vllm takes no soft prompt and no bridge; use transformers."
            )
        if ranks.world_size() > 1:
            raise UserError("evaluation.generation.backend: vllm runs in one process; launch one.")
        with evaluating(self.model), TemporaryDirectory() as folder:
            plain = merged(deepcopy(self.model))
            sample = last_tokens(prompts[:MERGED_SAMPLE])
            if sample:
                with self.uncounted():
                    before = self.log_likelihoods(sample)
                largest_difference(replace(self, model=plain), sample, before)
            plain.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            dtype = torch.bfloat16 if self.precision == "bf16" else plain.dtype
            del plain
            answers = write_by_vllm(
                Path(folder),
                self.tokenizer,
                self.ends,
                prompts,
                decoding,
                dtype=dtype,
                seeds=seeds,
                margins=margins,
            )
        if advance is not None:
            advance(len(prompts))
        return answers

    def _writer(self, batch_positions: int | None = None) -> Writer:
        most = batch_positions if self.together else 1
        cached = self.layout == "trie"
        return Writer(self.model, self.tokenizer, self.ends, cached, self.continues, most, self.divided)

    def sample(
        self, examples: Sequence[Encoded], seeds: Sequence[int], lengths: Sequence[int] | None = None
    ) -> list[TokenSequence]:
        """Each example's prompt with an answer of the model's own, drawn token by token.

        It ends where an answer ends, or is cut where it has so many tokens: by default as many as the
        example's answer. This process draws all of them itself; what is drawn follows from the weights and
        the example's seed alone.
        """
        prompts = [example.answer.tokens[: example.answer.start] for example in examples]
        if lengths is None:
            lengths = [len(example.answer.tokens) - example.answer.start for example in examples]
        behind = [self.soft_tokens + prompt for prompt in prompts]
        with evaluating(self.model), self._computing():
            decoding = Decoding(max(lengths), temperature=1.0)
            answers = self.within_memory(
                lambda: self._writer().write(behind, decoding, seeds=seeds, dealt=False)
            )
        return [
            TokenSequence(prompt + answer.tokens[:length], len(prompt))
            for prompt, answer, length in zip(prompts, answers, lengths, strict=True)
        ]

    def snapshot(self) -> Snapshot:
        """A copy of the parameters that learn."""
        return {name: p.detach().clone() for name, p in self.trainable().items()}

    @contextmanager
    def with_weights(self, snapshot: Snapshot) -> Iterator[None]:
        """Answer with other values of the named parameters, then put the present ones back."""
        shards.put_away(self.model)
        parameters = dict(self.model.named_parameters())
        present = {name: parameters[name].detach().clone() for name in snapshot}
        try:
            copy_weights(parameters, snapshot)
            yield
        finally:
            shards.put_away(self.model)
            copy_weights(parameters, present)

    @property
    def _layout(self) -> Layout:
        return self.training_layout if self.model.training else self.layout


def _predicted(sequences: Sequence[TokenSequence]) -> int:
    """How many tokens are predicted."""
    return sum(len(s.tokens) - s.start for s in sequences)


def copy_weights(parameters: Mapping[str, Tensor], values: Snapshot) -> None:
    """Copy values into the parameters of the same names.

    Autocast keeps what it has rounded of a weight as long as its context lasts, and would go on with that.
    """
    torch.clear_autocast_cache()
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


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
