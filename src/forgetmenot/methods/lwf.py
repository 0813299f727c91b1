"""Learning without forgetting: answer the new task's prompts as the model did before.

Li and Hoiem (2016), "Learning without Forgetting", ECCV, arXiv 1606.09282; for a language model:

    Σ −log p_θ(y|x)  +  strength · T² · Σ KL(p_teacher^T ‖ p_θ^T)

The teacher is the model of the stage before (in the first stage the base model), put to the new task's
prompts: no old example is needed. A soft prompt begins at random and changes every answer, so the weights at
the stage's start would be another teacher; it is refused. p^T is softmax(logits / T). T² keeps the size of
the gradient over temperatures (Hinton et al. 2015, arXiv 1503.02531); the paper has the cross-entropy without
it, whose gradient is that of the divergence.

`over: vocabulary` compares the next token's distribution at each answer token, the label words of earlier
tasks included. `over: labels` compares the distribution over the task's own candidates, once an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.distillation import distil, divergence, tempered
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.prompting import Encoded
from forgetmenot.settings import NonNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot


class LwF(Method):
    """Keep the previous stage's answers to the new task's prompts (LwF)."""

    keeps = "nothing; while it trains, one copy of what learns"
    shards = False
    weighs = True
    # What learns must add nothing at first, or the teacher is no model that anybody had: soft prompts do.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    class Options(Options):
        """The settings of `lwf`."""

        strength: NonNegativeFloat = 1.0
        """The weight of the distillation; 0 is `sequential`. The default is our own: the paper's λ of 1 has
        no T² beside it, and so is 0.25 here at its temperature."""
        temperature: PositiveFloat = 2.0
        """The temperature T of both distributions. The default is the paper's."""
        over: Literal["vocabulary", "labels"] = "vocabulary"
        """Which outcomes the distributions are over: the whole vocabulary, or the task's candidates."""

    teacher: Snapshot

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take the teacher: the weights as they are."""
        if self.options.over == "labels":
            for task, examples in stage.data.items():
                if not all(example.candidates for example in examples):
                    raise UserError(
                        f"method.over: labels is for tasks that choose among labels, and {task!r} does not. "
                        "Use over: vocabulary."
                    )
        self.teacher = learner.snapshot()

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """Negative log-likelihood and distillation, both summed."""
        strength: float = self.options.strength
        temperature: float = self.options.temperature
        if not strength:
            return super().loss(learner, batch)
        if self.options.over == "vocabulary":
            answered, drift = distil(learner, self.teacher, batch, temperature)
        else:
            answered, drift = self._over_labels(learner, batch)
        return answered + strength * temperature**2 * drift

    def _over_labels(self, learner: Learner, batch: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        import torch

        from forgetmenot.engine.laid_out import evaluating
        from forgetmenot.engine.objectives import weights

        answers = [example.answer for example in batch]
        candidates = [candidate for example in batch for candidate in example.candidates]
        with learner.with_weights(self.teacher), evaluating(learner.model):
            taught = learner.forward_in_packs(candidates)
        found = learner.forward_in_packs([*answers, *candidates])
        counts = [len(example.candidates) for example in batch]
        pairs = zip(torch.split(taught, counts), torch.split(found[len(batch) :], counts), strict=True)
        drifts = [divergence(*(tempered(one, self.options.temperature) for one in pair)) for pair in pairs]
        counted = weights(learner, batch)
        return -(found[: len(batch)] * counted).sum(), (torch.stack(drifts) * counted).sum()
