"""The engine's handle on the current model: what methods, evaluation and probes act through."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetmenot.engine.forward import hidden_states, log_likelihoods, next_token_log_probs
from forgetmenot.engine.generate import generate
from forgetmenot.engine.pack import Layout, Pack, cut, pack
from forgetmenot.engine.precision import Precision, autocast
from forgetmenot.prompting.encoded import Encoded, TokenSequence

Snapshot = Mapping[str, Tensor]
Advance = Callable[[int], None]
"""Told how many examples were just finished."""


@dataclass
class Learner:
    """A model, how sequences are laid out for it, and the numbers that it gives back.

    Attributes:
        model: A Transformers causal LM, perhaps with PEFT adapters inside.
        tokenizer: Its tokenizer; the engine uses it only to know where generated text ends.
        budget: The most input positions in one pack.
        precision: The dtype of activations.
        layout: How sequences are laid out where nothing is random: the guard's verdict.
        training_layout: The same while training: with adapter dropout a shared node would share one mask,
            so packs then share nothing.
        counts: Input positions computed since `reset_counts`, and how many they would have been one sequence
            at a time.
    """

    model: Any
    tokenizer: Any
    budget: int
    precision: Precision = "fp32"
    layout: Layout = "trie"
    training_layout: Layout = "trie"
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reset_counts()

    def reset_counts(self) -> None:
        """Count from here."""
        self.counts = {"computed": 0, "without_sharing": 0}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def trainable(self) -> dict[str, Tensor]:
        """The parameters that learn, by name."""
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

    def log_probs(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """The whole distribution at each predicted token, with gradients: nats, fp32 [predicted, vocabulary].

        Sequence after sequence, in one forward pass: the caller cuts (`cut`) what does not fit.
        """
        with autocast(self.device, self.precision):
            return next_token_log_probs(self.model, self._pack(sequences))

    def _pack(self, sequences: Sequence[TokenSequence]) -> Pack:
        packed = pack(sequences, self.training_layout if self.model.training else self.layout)
        self.counts["computed"] += packed.nodes
        self.counts["without_sharing"] += sum(len(s.tokens) - 1 for s in sequences)
        return packed

    def cut(self, sequences: Sequence[TokenSequence]) -> list[list[int]]:
        """Divide sequences into packs that the model takes in one forward pass."""
        return cut(sequences, self.training_layout if self.model.training else self.layout, self.budget)

    def log_likelihoods(self, sequences: Sequence[TokenSequence], advance: Advance | None = None) -> Tensor:
        """Log-likelihood of each sequence's predicted tokens, without gradients: nats, fp64 [sequences]."""
        result = torch.empty(len(sequences), dtype=torch.float64)
        with evaluating(self.model):
            for indices in self.cut(sequences):
                result[indices] = self.forward([sequences[k] for k in indices]).double().cpu()
                if advance is not None:
                    advance(len(indices))
        return result

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
        sequences = [TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts]
        width = self.model.config.get_text_config().hidden_size
        result = torch.empty(len(prompts), width)
        with evaluating(self.model), autocast(self.device, self.precision):
            for indices in self.cut(sequences):
                packed = self._pack([sequences[k] for k in indices])
                result[indices] = hidden_states(self.model, packed, layer).cpu()
        return result

    def gradient_of(self, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """Gradient of the summed negative log-likelihood of the examples' answers, by parameter that learns.

        What `.grad` holds stays as it is.
        """
        parameters = self.trainable()
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        answers = [example.answer for example in examples]
        for indices in self.cut(answers):
            loss = -self.forward([answers[k] for k in indices]).sum()
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    total[name] += gradient
        return total

    def dot(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
        """The inner product over all parameters of two sets of values for them, summed in fp64."""
        return float(sum((value.double() * other[name].double()).sum() for name, value in one.items()))

    def norm(self, values: Mapping[str, Tensor]) -> float:
        """The Euclidean norm over all parameters."""
        return math.sqrt(self.dot(values, values))

    def generate(
        self,
        prompts: Sequence[tuple[int, ...]],
        max_new_tokens: int,
        advance: Advance | None = None,
    ) -> list[str]:
        """The text that the model writes after each prompt, greedily, up to EOS."""
        with evaluating(self.model), autocast(self.device, self.precision):
            return generate(self.model, self.tokenizer, prompts, max_new_tokens, advance)

    def snapshot(self) -> Snapshot:
        """A copy of the parameters that learn."""
        return {name: p.detach().clone() for name, p in self.trainable().items()}

    @contextmanager
    def with_weights(self, snapshot: Snapshot) -> Iterator[None]:
        """Answer with other values of the named parameters, then put the present ones back."""
        parameters = dict(self.model.named_parameters())
        present = {name: parameters[name].detach().clone() for name in snapshot}
        try:
            load_weights(parameters, snapshot)
            yield
        finally:
            load_weights(parameters, present)


def load_weights(parameters: Mapping[str, Tensor], values: Snapshot) -> None:
    """Copy values into the parameters of the same names."""
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
