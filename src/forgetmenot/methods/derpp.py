"""Dark experience replay (DER++; Buzzega et al. 2020, arXiv 2004.07211)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import NonNegativeFloat, PositiveInt

from forgetmenot.methods.replay import Replay, ReplayOptions
from forgetmenot.methods.shared.memory import answer_lengths
from forgetmenot.methods.shared.method import Stage
from forgetmenot.prompting.encoded import Encoded

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

Logits: TypeAlias = "tuple[Tensor, Tensor]"
"""Tokens, int32, and their log-probabilities in nats, fp32: both [answer tokens, logits kept]."""


class DerOptions(ReplayOptions):
    """How much past answers and past logits count. The paper tunes α and β; the defaults are our own.

    Attributes:
        alpha: α, the weight of the squared distance from the remembered logits.
        beta: β, the weight of past examples' own answers. With alpha 0 and beta 1 this is `replay`.
        logits: How many logits are remembered of each answer token: those of the likeliest.
    """

    alpha: NonNegativeFloat = 0.5
    beta: NonNegativeFloat = 1.0
    logits: PositiveInt = 8


class DarkExperienceReplay(Replay):
    """Replay past examples together with the model's logits from that time (DER++).

    A past example counts β · NLL + α · Σ mean_k (z_k − z'_k)² over its answer tokens, where z'
    are logits of the model at the end of the example's stage. Three things differ from the paper. A
    vocabulary's worth of logits for each token would be megabytes an example, so only those of the likeliest
    tokens are kept, normalised (log-probabilities: a softmax knows logits up to a constant). They are taken
    at the end of the stage, as tasks have an end here, and not while it trains. And past examples come as a
    `share` of the mix, once for both terms, where the paper draws two more batches for each step.
    """

    Options = DerOptions
    keeps = "some of its examples, as tokens, and a few logits for each answer token"

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.logits: dict[str, list[Logits]] = {}

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Find each remembered example's logits by the example itself."""
        self._then = {
            id(example): (words.long().to(learner.device), values.to(learner.device))
            for task, examples in self.memory.items()
            for example, (words, values) in zip(examples, self.logits[task], strict=True)
        }

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """The answers' negative log-likelihood, and for past examples the two weighted terms."""
        import torch

        alpha, beta = self.options.alpha, self.options.beta
        if (alpha == 0 and beta == 1) or not any(id(example) in self._then for example in batch):
            return super().loss(learner, batch)
        terms = []
        for example, log_probs in zip(batch, answer_log_probs(learner, batch), strict=True):
            targets = torch.tensor(example.answer.tokens[example.answer.start :], device=log_probs.device)
            likelihood = log_probs.gather(1, targets[:, None]).sum()
            if id(example) in self._then:
                words, values = self._then[id(example)]
                distance = (log_probs.gather(1, words) - values).square().mean(1).sum()
                terms.append(alpha * distance - beta * likelihood)
            else:
                terms.append(-likelihood)
        return torch.stack(terms).sum()

    def end(self, learner: Learner, stage: Stage) -> None:
        """Remember examples, and what the model answers to them now."""
        super().end(learner, stage)
        for task in stage.tasks:
            if task in self.memory:
                self.logits[task] = likeliest(learner, self.memory[task], self.options.logits)

    def state_dict(self) -> dict[str, Any]:
        """The remembered examples and logits."""
        import torch

        state = super().state_dict()
        for task, logits in self.logits.items():
            state[f"words.{task}"] = torch.cat([words for words, _ in logits])
            state[f"values.{task}"] = torch.cat([values for _, values in logits])
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember them again."""
        import torch

        super().load_state_dict(state)
        self.logits = {}
        for task, examples in self.memory.items():
            lengths = answer_lengths(examples)
            words, values = (torch.split(state[f"{part}.{task}"], lengths) for part in ("words", "values"))
            self.logits[task] = list(zip(words, values, strict=True))


def likeliest(learner: Learner, examples: Sequence[Encoded], count: int) -> list[Logits]:
    """The likeliest tokens at each answer token of each example, without gradients."""
    from forgetmenot.engine.learner import evaluating

    found: dict[int, Logits] = {}
    with evaluating(learner.model):
        for indices in learner.cut([example.answer for example in examples]):
            for k, log_probs in zip(
                indices, answer_log_probs(learner, [examples[k] for k in indices]), strict=True
            ):
                values, words = log_probs.topk(count, dim=1)
                found[k] = (words.int().cpu(), values.cpu())
    return [found[k] for k in range(len(examples))]


def answer_log_probs(learner: Learner, examples: Sequence[Encoded]) -> Sequence[Tensor]:
    """For each example the whole distribution at each answer token, in one pass: [tokens, vocabulary]."""
    import torch

    log_probs = learner.log_probs([example.answer for example in examples])
    return list(torch.split(log_probs, answer_lengths(examples)))
