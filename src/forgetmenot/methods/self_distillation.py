"""Self-distillation fine-tuning: learning from the demonstration through the model's own answers.

Shenfeld, Damani, Hübotter and Agrawal (2026), "Self-Distillation Enables Continual Learning", arXiv
2601.19897 (SDFT). For each prompt x with its demonstration c, the model draws an answer y of its own, and
learns to give at each of its tokens the distribution that a teacher gives who sees the demonstration too:

    1/|y| · Σ_t KL( p_φ(·|c, x, y_<t) ‖ p_θ(·|x, y_<t) )

Theirs: answers drawn from the student at temperature 1, one for each prompt, without gradient through the
draw; no likelihood of the data; the words around the demonstration; the mean over an answer's tokens. The
paper's theory has the reverse divergence, KL(p_θ ‖ p_φ); all of its results are of this one, as its second
version and its code say. Its teacher is a moving average of the model, φ ← rate · θ + (1 − rate) · φ after
each step; by its account a teacher that stays as it is learns less. Thinking Machines' ablation on the
authors' code finds no such difference (Qwen2.5-7B-Instruct on tool use: 67.0 and 68.0 over the vocabulary,
69.1 and 68.0 over the 20 likeliest tokens; the first of each with the fixed teacher, which TRL's trainer
takes too). It needs no second copy that follows, so it is the default here, with the 20 likeliest.

Where the sum over the vocabulary is cut, it is to the tokens that are likeliest under the distribution that
it is an expectation of: the teacher's, which is made to sum to 1 over them (Thinking Machines' loss); for the
reverse divergence the student's, and both are made to (TRL's `topk_logits` with its alpha of 1). Ours:
- Each stage begins with the teacher at its own first weights, which are the model of the stage before: soft
  prompts, which begin at random, are refused.
- Where a prompt is no chat, it follows the words once more, so that the answer goes on from the same text.
- An answer is cut where the teacher, whose prompt is longer, has no position left.
- Where the loss is a mean over tokens, an answer counts as many as its demonstration has, as for every
  method; with `training.loss_average: example` all answers count the same, as in the paper's code.

What the model cannot do with the demonstration in view it cannot learn in this way.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.anchor import from_state, to_state
from forgetmenot.methods.shared.distillation import divergence, likeliest_divergence, teach
from forgetmenot.methods.shared.memory import answer_lengths
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.prompting import Encoded, TokenSequence
from forgetmenot.prompting.texts import BETWEEN
from forgetmenot.prompting.tokens import Ids, tokens_of
from forgetmenot.settings import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner
    from forgetmenot.engine.predictions import Predictions

RATE = 0.02


class SelfDistillationOptions(Options):
    """The settings of `self-distillation`."""

    teacher: Literal["frozen", "ema"] = "frozen"
    """The teacher's weights: `frozen`, those that the stage begins with, as in TRL's trainer and in Thinking
    Machines'; `ema`, a moving average of the model's, as in the paper."""
    rate: float = Field(default=RATE, gt=0, le=1)
    """Of the moving average, with `teacher: ema`; 1 is the model itself. Within the paper's range of 0.01 to
    0.05."""
    divergence: Literal["forward", "reverse"] = "forward"
    """`forward`: KL(teacher ‖ student), by which the paper's results came about; `reverse`: KL(student ‖
    teacher), of which its theory speaks."""
    top_k: NonNegativeInt = 20
    """Over how many tokens the divergence is a sum: those likeliest under the teacher, or with `divergence:
    reverse` under the student; 0 for the whole vocabulary, as in the paper. In Thinking Machines' ablation 20
    do as well."""
    before: str = "\n\nThis is an example for a response to the question:\n"
    """The words between prompt and demonstration, in a chat within the user's turn. The paper's."""
    after: str = "\n\nNow answer with a response of your own, including the thinking process."
    """The words behind the demonstration. The paper's; give others where answers have no thinking process, or
    in the language of the task."""
    max_new_tokens: PositiveInt = 256
    """Where an answer that has not ended is cut. TRL's; the paper's code takes 1,024 or more."""
    skip: NonNegativeInt = 0
    """How many tokens at the beginning of each answer count nothing, against words that only the teacher has
    reason for ("Following the example"). The paper's code takes 3; answers of a word have no more."""

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.teacher == "frozen" and self.rate != RATE:
            raise ValueError("rate means nothing with teacher: frozen; leave it out, or set teacher: ema")
        return self


@dataclass(frozen=True)
class Words:
    """What stands around a demonstration, as tokens.

    Attributes:
        before: Between the prompt and the demonstration.
        after: Behind the demonstration.
        head: In a chat, what is between the user's last words and the reply; else empty.
        again: Elsewhere, what is between `after` and the prompt, which follows once more; in a chat empty.
        begin: What every text begins with; the second time it is left out.
        ends: The tokens that end an answer.
    """

    before: Ids
    after: Ids
    head: Ids
    again: Ids
    begin: Ids
    ends: frozenset[int]

    @classmethod
    def of(cls, learner: Learner, options: SelfDistillationOptions, *, chat: bool) -> Words:
        """The words in the model's tokens."""
        tokens = tokens_of(learner.tokenizer)
        before, after, again = (
            tuple(learner.tokenizer.encode(text, add_special_tokens=False))
            for text in (options.before, options.after, "" if chat else BETWEEN)
        )
        return cls(before, after, tokens.reply_head if chat else (), again, tokens.head, learner.ends)

    @property
    def count(self) -> int:
        """How many tokens they are together."""
        return len(self.before) + len(self.after) + len(self.again)

    def around(self, example: Encoded) -> Ids:
        """The teacher's prompt.

        Raises:
            UserError: A chat's own prompt does not end as a user's turn does.
        """
        asked = example.answer.tokens[: example.answer.start]
        demonstration = example.answer.tokens[example.answer.start :]
        if demonstration[-1] in self.ends:
            demonstration = demonstration[:-1]
        words = (*self.before, *demonstration, *self.after)
        if not self.head:
            return (*asked, *words, *self.again, *asked[len(self.begin) :])
        question, head = asked[: -len(self.head)], asked[-len(self.head) :]
        if head != self.head:
            raise UserError(
                f"example {example.id!r}: method self-distillation puts the demonstration into the last "
                "user's turn, and the prompt does not end with one as the model's chat template writes it; "
                "leave the row out."
            )
        return (*question, *words, *head)


class SelfDistillation(Method):
    """Learn from the model's own answers, with a teacher that sees the demonstration (SDFT)."""

    Options = SelfDistillationOptions
    keeps = "nothing; while it trains, one copy of what learns"
    shards = False
    weighs = True
    # As for `lwf`: with a soft prompt drawn at random the teacher would begin as no model that anybody had.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    teacher: dict[str, Tensor]

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Check that the teacher's prompts fit; it begins with the weights as they are."""
        self.number, self.steps = stage.number, 0
        (task,) = stage.tasks
        self.words = Words.of(learner, self.options, chat=stage.wordings[task].prompt.chat)
        positions = learner.max_positions
        for example in stage.data[task]:
            if not example.prompt:
                raise UserError(f"method self-distillation needs prompts, and {task!r} is plain text.")
            shown = self.words.around(example)
            needed = len(shown) + answer_lengths([example])[0]
            if positions is not None and needed > positions:
                raise UserError(
                    f"task {task!r}, example {example.id!r}: method self-distillation shows the "
                    f"demonstration too, which with another answer as long takes {needed} tokens, and the "
                    f"model has {positions} positions. Set training.max_length to at most "
                    f"{(positions - self.words.count) // 2}, or shorter words (method.before, method.after)."
                )
        self.teacher = dict(learner.snapshot())

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """The divergence from the demonstrated teacher, a mean over the tokens of each answer of its own."""
        from forgetmenot.engine.predictions import summed

        prompts = [self.words.around(example) for example in batch]
        own = self._answered(learner, batch, prompts)
        shown = [
            TokenSequence(prompt + one.tokens[one.start :], len(prompt))
            for prompt, one in zip(prompts, own, strict=True)
        ]
        taught = teach(learner, self.teacher, shown)
        weights = self._weights(learner, batch, own)

        def part(found: Predictions, rows: Tensor) -> Tensor:
            return summed(self._divergence, (found, taught.only(rows)), weights[rows])

        return learner.sum_over_packs(own, part)

    def _answered(
        self, learner: Learner, batch: Sequence[Encoded], prompts: Sequence[tuple[int, ...]]
    ) -> list[TokenSequence]:
        """Each example's prompt with the model's own answer, as far as there is room behind the teacher's."""
        most, positions = self.options.max_new_tokens, learner.max_positions
        room = [most if positions is None else min(most, positions - len(prompt)) for prompt in prompts]
        return learner.sample(batch, [self._draw(example) for example in batch], room)

    def _divergence(self, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        """Summed over rows: from log-probabilities of both [rows, vocabulary]."""
        reverse, count = self.options.divergence == "reverse", self.options.top_k
        p, q = (student, teacher) if reverse else (teacher, student)
        return (
            likeliest_divergence(p, q, weights, count, both=reverse) if count else divergence(p, q, weights)
        )

    def _weights(self, learner: Learner, batch: Sequence[Encoded], own: Sequence[TokenSequence]) -> Tensor:
        """What each token of the answers counts: all of an answer together what its demonstration counts."""
        import torch

        from forgetmenot.engine.objectives import weights

        found = []
        for one, length, each in zip(own, answer_lengths(batch), weights(learner, batch), strict=True):
            drawn = len(one.tokens) - one.start
            counted = torch.arange(drawn, device=learner.device) >= self.options.skip
            found.append(counted * (each * length / max(drawn - self.options.skip, 1)))
        return torch.cat(found)

    def _draw(self, example: Encoded) -> int:
        """The seed of an example's answer at this step, in whichever batch and process it is drawn."""
        place = [self.seed, self.number, self.steps, zlib.crc32(example.id.encode())]
        return int(np.random.SeedSequence(place).generate_state(1)[0])

    def stepped(self, learner: Learner) -> None:
        """The teacher follows, if it is an average."""
        self.steps += 1
        if self.options.teacher == "ema":
            for name, parameter in learner.trainable().items():
                self.teacher[name].lerp_(parameter.detach(), self.options.rate)

    def training_state(self) -> dict[str, Any]:
        """How many answers each prompt has had, and the teacher, if it has followed."""
        followed = to_state(teacher=self.teacher) if self.options.teacher == "ema" else {}
        return {"steps": self.steps, **followed}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.steps = state["steps"]
        if self.options.teacher == "ema":
            self.teacher = from_state(state, "teacher")
