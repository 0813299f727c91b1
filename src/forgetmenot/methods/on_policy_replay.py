"""On-policy replay: past prompts with the newest model's own answers.

Chen et al. (2026), "On-Policy Replay for Continual Supervised Fine-Tuning", arXiv 2605.29495 (OPR). Before
each stage the model answers the prompts that are remembered of each earlier task; the answers are rewarded,
and those with the highest reward are trained on beside the new examples, by the plain likelihood.

The paper's and its code's: one answer to each prompt, drawn at temperature .1; the best in equal parts of all
past tasks; two rewards, `rule`, what the answer scores against the
right one, and `confidence`, the mean log-probability of its tokens. Ours:
- The share is of the mix: 1 % of it is n·.01/.99 examples beside n new ones, where the code takes 1 % of a
  task's training set, 50 of 5,000.
- The code asks all past training prompts; here those are asked that `memory` keeps.
- `rule` is ROUGE-L over tokens: the F-measure of the longest common subsequence, which is 1 for the right
  label and 0 for one of other tokens. The code takes each task's own metric.
- An answer may be as long as the task's longest that is remembered; what has not ended by then is left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from rapidfuzz.distance import LCSseq

from forgetmenot.methods.shared.memory import answer_lengths
from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.mixing import Mixing, MixOptions
from forgetmenot.methods.shared.rehearsal import RehearsalOptions
from forgetmenot.prompting import Encoded, Mix, TokenSequence
from forgetmenot.settings import NonNegativeFloat

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class OnPolicyReplayOptions(MixOptions, RehearsalOptions):
    """How past prompts come into a stage."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """The part of the mix that they are; the code's 1 % is of one task's training set, about as many."""
    reward: Literal["rule", "confidence"] = "rule"
    """What orders the answers: `rule`, against the right answer, or the model's `confidence`."""
    temperature: NonNegativeFloat = 0.1
    """The temperature of the draw. The default is the code's."""


class OnPolicyReplay(Mixing):
    """Replay past prompts with the newest model's own answers, the best by a reward (OPR)."""

    Options = OnPolicyReplayOptions
    preferences = False
    # A soft prompt drawn at random would answer as no model that anybody had: see `lwf`.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    def examples(self, learner: Learner, stage: Stage) -> Mix:
        """The stage's own, and past prompts with the model's answers after them."""
        self._number = stage.number
        return super().examples(learner, stage)

    def ordered(
        self, learner: Learner, task: str, examples: Sequence[Encoded], random: np.random.Generator
    ) -> list[Encoded]:
        """A task's prompts with the model's answers, the highest rewards first."""
        answered = self._answered(learner, task, examples)
        if self.options.reward == "rule":
            rewards = np.array([overlap(right.answer, own.answer) for right, own in answered])
        else:
            sums = learner.log_likelihoods([own.answer for _, own in answered]).numpy()
            rewards = sums / np.array(answer_lengths([own for _, own in answered]))
        if len(answered) < len(examples):
            self.notes.append(
                f"{task}: {len(examples) - len(answered)} answers have no end and are left out."
            )
        return [answered[k][1] for k in np.argsort(-rewards, kind="stable")]

    def _answered(
        self, learner: Learner, task: str, examples: Sequence[Encoded]
    ) -> list[tuple[Encoded, Encoded]]:
        """Each example, and it again with the model's own answer; without those that have no end."""
        from forgetmenot.engine.decoding import Decoding

        prompts = [one.answer.tokens[: one.answer.start] for one in examples]
        place = np.random.SeedSequence([self.seed, self._number, zlib.crc32(task.encode())])
        decoding = Decoding(max(answer_lengths(examples)), temperature=self.options.temperature)
        with learner.progress(f"answering past prompts of {task}", len(prompts)) as advance:
            answers = learner.write(
                prompts,
                decoding,
                seeds=[int(seed) for seed in place.generate_state(len(prompts))],
                advance=advance,
            )
        return [
            (one, replace(one, answer=TokenSequence((*prompt, *answer.tokens), len(prompt))))
            for one, prompt, answer in zip(examples, prompts, answers, strict=True)
            if answer.finite and answer.tokens and answer.tokens[-1] in learner.ends
        ]


def overlap(right: TokenSequence, written: TokenSequence) -> float:
    """ROUGE-L over the tokens of two answers with their ends: 2 LCS / (m + n), Lin 2004 with β = 1."""
    one, other = right.tokens[right.start :], written.tokens[written.start :]
    return 2 * LCSseq.similarity(one, other) / (len(one) + len(other))
