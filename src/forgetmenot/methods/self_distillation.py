"""Self-distillation fine-tuning: learning from the demonstration through the model's own answers.

Shenfeld, Damani, Hübotter and Agrawal (2026), "Self-Distillation Enables Continual Learning", arXiv
2601.19897 (SDFT). For each prompt x with its demonstration c, the model draws an answer y of its own, and
learns to give at each of its tokens the distribution that a teacher gives who sees the demonstration too:

    Σ_t KL( p_θ(·|x, y_<t) ‖ p_φ(·|c, x, y_<t) ),    φ ← rate · θ + (1 − rate) · φ after each step

Theirs: answers drawn from the student and without gradient through the draw, one for each prompt; the reverse
divergence over the whole vocabulary; the moving average as teacher; no likelihood of the data. Ours:
- c is the example itself as training would show it, prompt, answer and EOS, and x follows again. The paper
  says in words what the demonstration is and asks for a further answer; tokens alone need no words in the
  language of the task, and no knowledge of a chat template.
- An answer is at most as long as the demonstration's.
- Each stage begins with the teacher at its own first weights, which are the model of the stage before: soft
  prompts, which begin at random, are refused.
- The sum is divided by the demonstrations' tokens, as for every method, not by the answers'.

What the model cannot do with the demonstration in view it cannot learn in this way.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.anchor import from_state, to_state
from forgetmenot.methods.shared.distillation import divergence, row_weights, teach
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.prompting import Encoded, TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class SelfDistillation(Method):
    """Learn from the model's own answers, with a teacher that sees the demonstration (SDFT)."""

    keeps = "nothing; while it trains, one copy of what learns"
    shards = False
    weighs = True
    # As for `lwf`: with a soft prompt drawn at random the teacher would begin as no model that anybody had.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    class Options(Options):
        """The settings of `self-distillation`."""

        rate: float = Field(default=0.02, gt=0, le=1)
        """Of the moving average that is the teacher; 1 is the model itself. Within the paper's range of 0.01
        to 0.05."""

    teacher: dict[str, Tensor]

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Check that the teacher's prompts fit; it begins with the weights as they are."""
        positions = learner.max_positions
        for task, examples in stage.data.items():
            for example in examples:
                if not example.prompt:
                    raise UserError(f"method self-distillation needs prompts, and {task!r} is plain text.")
                needed = 2 * len(example.answer.tokens)
                if positions is not None and needed > positions:
                    raise UserError(
                        f"task {task!r}, example {example.id!r}: method self-distillation shows the prompt "
                        f"twice, which takes {needed} tokens, and the model has {positions} positions. "
                        f"Set training.max_length to at most {positions // 2}."
                    )
        self.number, self.steps = stage.number, 0
        self.teacher = dict(learner.snapshot())

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """The divergence from the demonstrated teacher, summed over the tokens of the model's own answers."""
        from forgetmenot.engine.predictions import summed

        own = learner.sample(batch, [self._draw(example) for example in batch])
        shown = [
            TokenSequence(example.answer.tokens + one.tokens, len(example.answer.tokens) + one.start)
            for example, one in zip(batch, own, strict=True)
        ]
        taught = teach(learner, self.teacher, shown)
        return summed(divergence, (learner.predictions(own), taught), row_weights(learner, batch, own))

    def _draw(self, example: Encoded) -> int:
        """The seed of an example's answer at this step, in whichever batch and process it is drawn."""
        place = [self.seed, self.number, self.steps, zlib.crc32(example.id.encode())]
        return int(np.random.SeedSequence(place).generate_state(1)[0])

    def stepped(self, learner: Learner) -> None:
        """The teacher follows."""
        self.steps += 1
        for name, parameter in learner.trainable().items():
            self.teacher[name].lerp_(parameter.detach(), self.options.rate)

    def training_state(self) -> dict[str, Any]:
        """The teacher, and how far it has followed."""
        return {"steps": self.steps, **to_state(teacher=self.teacher)}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.steps, self.teacher = state["steps"], from_state(state, "teacher")
