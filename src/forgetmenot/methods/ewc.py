"""Elastic weight consolidation: hold each weight as firmly as earlier tasks need it.

Kirkpatrick et al. (2017), "Overcoming catastrophic forgetting in neural networks", PNAS, arXiv 1612.00796,
eq. 3; with one anchor for each earlier task i:

    L(θ) + λ/2 · Σᵢ Σₖ Fᵢₖ (θₖ − θᵢₖ)²

Fᵢ is the diagonal of the Fisher information at the task's optimum θᵢ, so it is taken after training:

    Fₖ = mean over prompts x of E_{y ~ p(y|x)} [(∂ log p(y|x) / ∂θₖ)²]

The square of each single example's gradient: the square of a batch's mean gradient is something else. The
expectation is taken over answers that the model itself draws (`sampled`), one for each prompt; with the
data's own answers instead (`empirical`) the matrix is a different one, which vanishes where all is learned
(Kunstner et al. 2019, arXiv 1905.12558). An answer is drawn from all texts, not from the task's candidates
alone: p(y|x) is then the same in the draw as in the gradient, and the same as in training.

A sum of quadratics is one quadratic, so two tensors hold all tasks, exactly and up to a constant:
F = Σᵢ Fᵢ and the anchor Σᵢ Fᵢ θᵢ / F. The online variant (Schwarz et al. 2018, "Progress & Compress", ICML,
arXiv 1805.06370) forgets: F ← γ F + Fᵢ, and the anchor is the last task's optimum.

F is that of whole answers, which is exact for a summed loss; the loss here is a mean over answer tokens. So
the same λ holds tasks with long answers harder.

With LoRA all of this is in the coordinates of A and B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from forgetmenot.methods.shared.anchor import Importances, squared_distance
from forgetmenot.methods.shared.memory import answer_lengths
from forgetmenot.methods.shared.method import Options, Stage
from forgetmenot.prompting import Encoded
from forgetmenot.settings import NonNegativeFloat, Number, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot


class EWC(Importances):
    """Penalize changes of the weights that earlier tasks need most, by Fisher information (EWC)."""

    name = "ewc"

    class Options(Options):
        """The settings of `ewc`."""

        strength: NonNegativeFloat = 1000.0
        """The weight λ of the penalty; 0 is `sequential`. The paper chose it for each experiment, and so
        should you, on the `select` split (docs/protocol.md has a search); our default comes from none."""
        fisher: Literal["sampled", "empirical"] = "sampled"
        """Whether the Fisher information is that of answers that the model draws, or of the data's own."""
        fisher_per: Literal["answer", "token"] = "answer"
        """Whether the gradient is that of a whole `answer`'s log-likelihood, as the formula has it, or of its
        mean per `token`. The loss is a mean over tokens, so F of long answers is larger beside it (tenfold
        between answers of one token and of ten): take `token` where tasks with answers of unlike length
        follow each other, or one λ holds those with long ones far more firmly. F is then smaller, and λ to be
        chosen anew."""
        examples: PositiveInt = 256
        """How many training examples the mean is taken over, drawn at random. Ours: each costs a forward and
        a backward pass of its own."""
        gamma: Number | None = Field(default=None, ge=0, le=1)
        """The online variant's γ; null keeps an anchor for each task."""

    def penalty(self, learner: Learner) -> Tensor | None:
        """The penalty λ/2 · Σₖ Fₖ (θₖ − aₖ)²; nothing in the first stage."""
        strength: float = self.options.strength
        if not self.importance:
            return None
        return strength / 2 * squared_distance(learner, self.anchor, self.importance)

    def end(self, learner: Learner, stage: Stage) -> None:
        """Take the Fisher information at the optimum, and add it."""
        examples = [example for task in stage.data.values() for example in task]
        if not self.options.strength or not examples:
            return
        generator = np.random.default_rng([self.seed, stage.number])
        examples = [examples[k] for k in generator.permutation(len(examples))[: self.options.examples]]
        if self.options.fisher == "sampled":
            seeds = generator.integers(2**63, size=len(examples)).tolist()
            drawn = learner.sample(examples, seeds)
            examples = [replace(one, answer=answer) for one, answer in zip(examples, drawn, strict=True)]
        per_token = self.options.fisher_per == "token"
        self._add(diagonal_fisher(learner, examples, per_token=per_token), learner.snapshot())

    def _add(self, fisher: Snapshot, optimum: Snapshot) -> None:
        import torch

        before = self.importance or {name: torch.zeros_like(value) for name, value in fisher.items()}
        gamma: float | None = self.options.gamma
        if gamma is not None:
            self.importance = {name: gamma * before[name] + value for name, value in fisher.items()}
            self.anchor = optimum
            return
        self.importance = {name: before[name] + value for name, value in fisher.items()}
        # Where no task holds a parameter, 0/0, any anchor will do.
        shares = {name: (value / self.importance[name]).nan_to_num(1.0) for name, value in fisher.items()}
        anchor = self.anchor or optimum
        self.anchor = {name: anchor[name].lerp(value, shares[name]) for name, value in optimum.items()}


def diagonal_fisher(
    learner: Learner, examples: Sequence[Encoded], *, per_token: bool = False
) -> dict[str, Tensor]:
    """The mean over examples of the squared gradient of log p(answer | prompt), by parameter that learns.

    With `per_token` of its mean over the answer's tokens.
    """
    import torch

    total = {name: torch.zeros_like(p) for name, p in learner.trainable().items()}
    with learner.progress("Fisher information", len(examples)) as advance:
        for example, length in zip(examples, answer_lengths(examples), strict=True):
            for name, gradient in learner.gradient_of([example]).items():
                total[name] += (gradient / length if per_token else gradient).square()
            advance(1)
    return {name: value / len(examples) for name, value in total.items()}
