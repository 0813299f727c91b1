"""Dark experience replay (DER++; Buzzega et al. 2020, arXiv 2004.07211)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from forgetmenot.methods.replay import Replay, ReplayOptions
from forgetmenot.methods.shared.distillation import row_weights
from forgetmenot.methods.shared.memory import answer_lengths
from forgetmenot.methods.shared.method import Stage
from forgetmenot.prompting.encoded import Encoded
from forgetmenot.settings import NonNegativeFloat, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

Logits: TypeAlias = "tuple[Tensor, Tensor]"
"""Tokens, int32, and their log-probabilities in nats, fp32: both [answer tokens, logits kept]."""


class DerOptions(ReplayOptions):
    """How much past answers and past logits count. The paper tunes α and β; the defaults are our own."""

    alpha: NonNegativeFloat = 0.5
    """The weight α of the squared distance from the remembered logits."""
    beta: NonNegativeFloat = 1.0
    """The weight β of past examples' own answers. With alpha 0 and beta 1 this is `replay`."""
    logits: PositiveInt = 8
    """How many logits are remembered of each answer token: those of the likeliest."""


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
    weighs = True
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

        from forgetmenot.engine.predictions import summed

        alpha, beta = self.options.alpha, self.options.beta
        if (alpha == 0 and beta == 1) or not any(id(example) in self._then for example in batch):
            return super().loss(learner, batch)

        def terms(
            log_probs: Tensor, targets: Tensor, past: Tensor, words: Tensor, values: Tensor, weights: Tensor
        ) -> Tensor:
            likelihood = log_probs.gather(1, targets[:, None])[:, 0]
            distance = (log_probs.gather(1, words) - values).square().mean(1)
            return (torch.where(past, alpha * distance - beta * likelihood, -likelihood) * weights).sum()

        rows: list[tuple[Tensor, ...]] = []  # for each example what `terms` takes beside the distributions
        for example, length in zip(batch, answer_lengths(batch), strict=True):
            targets = torch.tensor(example.answer.tokens[example.answer.start :], device=learner.device)
            nothing = targets.new_zeros(length, self.options.logits)
            then = self._then.get(id(example))
            words, values = then or (nothing, nothing.float())
            rows.append(
                (targets, torch.full_like(targets, then is not None, dtype=torch.bool), words, values)
            )
        answers = [example.answer for example in batch]
        others = [torch.cat(parts) for parts in zip(*rows, strict=True)]
        weights = row_weights(learner, batch, answers)
        return summed(terms, [learner.predictions(answers)], *others, weights)

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
    import torch

    from forgetmenot.engine.laid_out import evaluating

    found: dict[int, Logits] = {}
    with evaluating(learner.model):
        for indices in learner.cut([example.answer for example in examples]):
            pack = [examples[k] for k in indices]
            asked = learner.predictions([example.answer for example in pack])
            tops = [asked.log_probs(chunk).topk(count, dim=1) for chunk in asked.chunks()]
            words, values = (
                torch.split(torch.cat(parts).cpu(), answer_lengths(pack))
                for parts in zip(*((top.indices.int(), top.values) for top in tops), strict=True)
            )
            found.update(zip(indices, zip(words, values, strict=True), strict=True))
    return [found[k] for k in range(len(examples))]
