"""The tasks that are watched in training, put to the model as it stands."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from forgetmenot.config import RunConfig
from forgetmenot.engine.attention import choose_attention, use_attention
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.settings import Asking, EvaluationSettings
from forgetmenot.gate.loaded import Loaded
from forgetmenot.gate.panel import Panel, again, load_panel
from forgetmenot.gate.undisturbed import undisturbed, use_kernel_for_tries
from forgetmenot.methods import make_method
from forgetmenot.paths import at_home
from forgetmenot.prompting import PromptVariants
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import AskedAgain
from forgetmenot.runs.session import Session
from forgetmenot.settings import split_names

ME = "ForgettingCallback"
"""What a user's mistakes are said of."""

Margin = float | Mapping[str, float] | None


@dataclass(frozen=True)
class Asked:
    """What came of asking a model once.

    Attributes:
        answers: Those of each task that could be asked.
        missing: Why a task has none, by its name.
        counts: Input positions that it took.
        again: Of the base: what another order and batch size change.
    """

    answers: dict[str, Predictions] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    again: dict[str, AskedAgain] = field(default_factory=dict)


class Watcher:
    """Tasks ready to be asked of one model, again and again while it learns.

    Attributes:
        panel: The tasks, as `fmn check` would put them.
        scored: The tasks in the model's tokens, once `prepare` has been called.
        session: How they are computed; what the guard found is in its identity after the first asking.
    """

    def __init__(self, panel: Panel, training: TrainingSettings) -> None:
        self.panel = panel
        self.training = training
        self.scored: list[ScoredTask] = []
        self.session: Session | None = None
        self._method = make_method("sequential", {}, 0)
        self._examined = False

    def prepare(self, model: Any, tokenizer: Any, precision: Literal["fp32", "bf16"]) -> None:
        """Make tokens of the tasks, which finds all that is wrong with them, and compute nothing.

        Args:
            model: The one that will be trained; its configuration says how long texts may be.
            tokenizer: Its tokenizer, of which a copy is used.
            precision: The one to compute in where the settings leave it open.

        Raises:
            UserError: If the tokenizer or an example does not serve.
        """
        training = self.training
        if training.precision != "auto":
            precision = training.precision
        learner = Learner(model, copy.deepcopy(tokenizer), budget=1, precision=precision)
        self.session = Session(RunConfig(training=training), learner, "dense")
        self.scored = self.panel.scored(self._opened())
        self.session.identity = {"max_length": self.session.max_length}
        self._examined = False
        self.release()

    def release(self) -> None:
        """Hold the model no longer: whoever trained it may want its memory."""
        if self.session is not None:
            self.session.learner.model = None

    def ask(self, model: Any, *, base: bool) -> Asked:
        """Put every task to a model in training, which is left as it was.

        Args:
            model: In any mode, perhaps with PEFT adapters inside.
            base: Whether this is the model before training: it is also asked some examples again, and what
                fails is raised. Later a task that cannot be asked is missing, with the reason.
        """
        assert self.session is not None, "prepared first"
        learner = self.session.learner
        learner.model = model
        learner.reset_counts()
        found = Asked()
        with undisturbed(model):
            try:
                self._take_up(model)
            except Exception as error:  # whatever it is: hours of training go on
                if base:
                    raise
                found.missing.update(dict.fromkeys((one.task.name for one in self.scored), _why(error)))
                return found
            for one in self.scored:
                try:
                    found.answers[one.task.name] = evaluate(learner, self._method, one)
                except Exception as error:  # whatever it is: hours of training go on
                    if base:
                        raise
                    found.missing[one.task.name] = _why(error)
                    _make_room()
            if base:
                found.again.update(again(self._opened(), self.scored, found.answers))
        found.counts.update(learner.counts)
        found.missing.update({task: why for task, one in found.answers.items() if (why := one.not_finite)})
        return found

    def _opened(self) -> Loaded:
        assert self.session is not None, "prepared first"
        return Loaded(self.session, self._method, {"title": "the model in training"})

    def _take_up(self, model: Any) -> None:
        """Bring the model into the engine's ways of computing, which the guard chooses the first time."""
        assert self.session is not None
        use_kernel_for_tries(model)
        if self._examined:
            use_attention(model, self.session.attention)
            return
        self.session.attention = choose_attention("auto", self.session.learner.device, model)
        use_attention(model, self.session.attention)
        learner = self.session.learner
        self.session.identity |= {
            "device": learner.device.type,
            "precision": learner.precision,
            "dtype": str(model.dtype).removeprefix("torch."),
        }
        writes = any(one.generated for one in self.scored)
        self.session.examine(self.scored[0].first_sequences(), writes=writes)
        self._examined = True


def load_watcher(
    tasks: str | Sequence[str],
    data_dir: str | Path | None,
    prompt: PromptVariants,
    limit: int | None,
    margin: Margin,
    *,
    chat: bool,
    max_length: int,
    precision: str,
) -> Watcher:
    """Load the tasks and check all settings.

    Raises:
        UserError: If a task is not there, cannot be asked or judged, or a setting is wrong.
    """
    names = [str(name) for name in split_names(tasks)]
    if not names or not all(names):
        raise UserError(f"{ME}: name at least one task to watch, as tasks=['sst2'].")
    folder = None if data_dir is None else at_home(str(data_dir), f"{ME}: data_dir")
    if folder is not None and not folder.is_dir():
        raise UserError(f"{ME}: data_dir: there is no folder {str(data_dir)!r}.")
    try:
        evaluation = EvaluationSettings.model_validate(
            {"limit": limit, "margin": "auto" if margin is None else margin}
        )
        training = TrainingSettings.model_validate({"max_length": max_length, "precision": precision})
    except ValidationError as error:
        settings = EvaluationSettings if error.title == "EvaluationSettings" else TrainingSettings
        raise UserError(f"{ME}: {validation_sentence(error, settings)}") from error
    try:
        panel = load_panel(names, folder, Asking(evaluation, prompt), evaluation.margins, chat=chat)
    except UserError as error:
        raise UserError(f"{ME}: {str(error).removeprefix('check: ').removeprefix('--')}") from error
    return Watcher(panel, training)


def _why(error: Exception) -> str:
    """What failed, as a clause."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _make_room() -> None:
    """Give back what an asking that failed has left on the device, since it may have failed for memory."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
