"""Replay of examples that the model writes by SELF-GUIDE at the end of each stage.

Ours, of two published parts. When a task has been learned, the model writes inputs for it from a few of its
examples, answers each several times, and keeps what it answers consistently (SELF-GUIDE: Zhao et al. 2024,
arXiv 2407.12874; see `forgetmenot.synthesis.self_guide`). What it has kept is replayed in later stages in the
place of past examples. SELF-GUIDE itself tunes a model on such examples once and knows no further tasks.

The demonstrations are the stage's own; none is kept, so that later stages need no past example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from forgetmenot.methods.shared.memory import choose
from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.mixing import Mixing, MixOptions
from forgetmenot.settings import PositiveInt
from forgetmenot.synthesis.settings import SynthesisSettings

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.prompting.encoded import Encoded
    from forgetmenot.synthesis.subject import Subject


class SelfGuideReplayOptions(MixOptions):
    """How examples are written and kept."""

    share: Annotated[float, Field(ge=0, lt=1)] | Literal["all"] = "all"
    """The part of the mix that written examples are; `all` replays all that are kept."""
    memory: Annotated[int, Field(ge=0, strict=True)] | Annotated[float, Field(ge=0, le=1, strict=True)] = 0.1
    """How many are kept of each task at most, as many of each label: a whole number, or a fraction of its
    training data with a decimal point. 0 is `sequential`."""
    demonstrations: PositiveInt = 3
    """How many of the stage's examples are shown; as in the paper's few-shot prompts."""
    candidates: float = Field(default=5.0, ge=1)
    """How many inputs are written for each that is to be kept. Ours; it takes the place of
    `synthesis.rounds`."""
    synthesis: SynthesisSettings = SynthesisSettings()
    """The other settings of SELF-GUIDE; see `fmn synthesize`."""

    @model_validator(mode="after")
    def _one_way_to_count(self) -> SelfGuideReplayOptions:
        if self.synthesis.rounds != SynthesisSettings().rounds:
            raise ValueError(
                f"synthesis.rounds: {self.synthesis.rounds} would not count: candidates and memory say how "
                "many inputs are written; set those"
            )
        return self


class SelfGuideReplay(Mixing):
    """Replay examples that the model has written and answered itself (SELF-GUIDE's steps)."""

    Options = SelfGuideReplayOptions
    keeps = "examples written by the model, as tokens"
    past_data = False
    preferences = False

    def begin(self, learner: Learner, stage: Stage) -> None:
        """See that the requests which follow the training will fit the model."""
        from forgetmenot.synthesis.self_guide import check_fits
        from forgetmenot.synthesis.writer import LearnerWriter

        for task, examples in stage.data.items():
            if self.room(examples) and self.options.share != 0:
                subject = self._subject(stage, task)
                check_fits(LearnerWriter(learner), subject, self._settings(learner, subject))

    def end(self, learner: Learner, stage: Stage) -> None:
        """Let the model write examples of what it has just learned."""
        for task, examples in stage.data.items():
            count = self.room(examples)
            if not count or self.options.share == 0:
                continue
            written = self._written(learner, stage, task, count)
            random = self.random(stage, f"keep {task}")
            if kept := choose(learner, written, count, "class-balanced", random):
                self.memory[task] = kept
            if len(kept) < count:
                self.notes.append(f"{task}: {count} were to be kept, and only {len(kept)} are good enough.")

    def _written(self, learner: Learner, stage: Stage, task: str, count: int) -> Sequence[Encoded]:
        """A task's examples by the model as it stands."""
        from forgetmenot.synthesis.filters import window_of
        from forgetmenot.synthesis.self_guide import synthesize_examples
        from forgetmenot.synthesis.writer import LearnerWriter, seed_of

        subject = self._subject(stage, task)
        settings = self._settings(learner, subject)
        set_here: dict[str, Any] = {"rounds": math.ceil(self.options.candidates * count / settings.per_round)}
        for window, texts in (("input_window", subject.inputs), ("output_window", subject.answers)):
            if getattr(settings, window) and window_of(texts).is_empty:
                set_here[window] = False
                self.notes.append(
                    f"{task}: {window} is not used, since the demonstrations drawn are equally long there."
                )
        found = synthesize_examples(
            LearnerWriter(learner),
            subject,
            settings.model_copy(update=set_here),
            seed=seed_of(self.seed, stage.number, task),
            progress=learner.progress,
        )
        steps = [
            f"{step.name} {step.entered}, left {step.left}" + (f" ({step.reasons})" if step.reasons else "")
            for step in found.funnel
        ]
        self.notes.append(f"{task}: {'; '.join(steps)}.")
        return stage.wordings[task].encode(found.rows)

    def _subject(self, stage: Stage, task: str) -> Subject:
        """A task with a few of the stage's examples as demonstrations."""
        from forgetmenot.synthesis.subject import Subject

        wording, random = stage.wordings[task], self.random(stage, f"show {task}")
        rows = wording.examples
        shown = [rows[int(k)] for k in random.permutation(len(rows))[: self.options.demonstrations]]
        return Subject(wording.task, wording.prompt, shown, wording.task.instruction)

    def _settings(self, learner: Learner, subject: Subject) -> SynthesisSettings:
        """Those of SELF-GUIDE, within the model's positions."""
        settings: SynthesisSettings = self.options.synthesis.of(subject.task.kind)
        most = learner.max_positions or settings.context_tokens
        return settings.model_copy(update={"context_tokens": min(settings.context_tokens, most)})
