"""A callback for Transformers' `Trainer` and TRL's trainers: what a training forgets, while it trains."""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from transformers import TrainerCallback

from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.gate.outcome import Outcome, judged
from forgetmenot.gate.trainers import check_best, check_model, log, plain
from forgetmenot.gate.training_facts import about, environment
from forgetmenot.gate.undisturbed import same_random_states
from forgetmenot.gate.watch_record import WatchRecord
from forgetmenot.gate.watcher import ME, Margin, Watcher, load_watcher
from forgetmenot.paths import at_home
from forgetmenot.prompting import PromptVariants
from forgetmenot.record.layout import ENVIRONMENT, REPORT
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import VerdictOf


class ForgettingCallback(TrainerCallback):  # type: ignore[misc]
    """Asks the model watched tasks every so many optimizer steps, and judges them against the base.

    The base is the model before the first step. What is asked, how it is computed and judged is that of
    `fmn check`. Training goes on to the bit as it would without the callback.

    Attributes:
        verdicts: What became of each task by the last asking, as in the `verdicts` of results.json.
        path: The folder of results.json and report.html; None before a trainer is known.
    """

    def __init__(
        self,
        tasks: str | Sequence[str],
        *,
        every: int,
        trainer: Any = None,
        stop: bool = False,
        best: bool = False,
        limit: int | None = 300,
        margin: Margin = None,
        prompt: PromptVariants = "default",
        chat: bool = False,
        data_dir: str | Path | None = None,
        max_length: int = 1024,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        tokenizer: Any = None,
        output: str | Path | None = None,
    ) -> None:
        """Load the tasks and check everything that can be known before training.

        Args:
            tasks: Names of tasks and suites, paths to task files, and names of lm-evaluation-harness's.
            every: Ask after so many optimizer steps, and also before the first and after the last.
            trainer: The trainer, to which the callback adds itself; `add_to` does the same later.
            stop: End the training when a watched task is forgotten.
            best: Mark the last checkpoint at which none is forgotten, as the trainer's state marks its best
                one (`best_model_checkpoint`); every checkpoint is then asked.
            limit: The most examples of a task, a fixed sample; None for all.
            margin: ε of all tasks, or a map from tasks or metrics to numbers; None for each metric's own.
            prompt: A variant, or a map task → variant.
            chat: Put prompts by the model's chat template.
            data_dir: The folder of public data; None for the hub.
            max_length: The most tokens of a prompt with its answer.
            precision: Of the asking: `auto` is bf16 where the trainer's `bf16` is set, else fp32.
            tokenizer: The model's, where the trainer has none (`processing_class`).
            output: The folder of the page; `forgetting` in the trainer's own if None.

        Raises:
            UserError: If a task is not there or cannot be asked, a setting is wrong, or does not go with the
                trainer's.
        """
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise UserError(f"{ME}: every is a number of optimizer steps, 1 or more, not {every!r}.")
        self.every, self.stop, self.best = every, stop, best
        self.verdicts: dict[str, VerdictOf] = {}
        with same_random_states():
            self._watcher: Watcher = load_watcher(
                tasks, data_dir, prompt, limit, margin, chat=chat, max_length=max_length, precision=precision
            )
        self._tokenizer = tokenizer
        self._output = None if output is None else at_home(str(output), f"{ME}: output")
        self._trainer: Callable[[], Any] = lambda: None  # the trainer holds the callback, and no circle
        self._state: Any = None
        self._record: WatchRecord | None = None
        self._base: dict[str, Predictions] = {}
        self._asked_at: int | None = None
        self._clean = False
        self._told: set[str] = set()
        if trainer is not None:
            self.add_to(trainer)

    @property
    def path(self) -> Path | None:
        """The folder of results.json and report.html; None before a trainer is known."""
        return None if self._record is None else self._record.path

    def add_to(self, trainer: Any) -> Self:
        """Watch this trainer.

        Raises:
            UserError: If its model cannot be asked, or its settings do not go with the callback's.
        """
        self.attach(trainer)
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        return self

    def attach(self, trainer: Any) -> None:
        """Log through this trainer, to which something else adds the callback; see `add_to`."""
        self._trainer = weakref.ref(trainer)
        self._prepare(trainer.args, trainer.model, trainer.processing_class)

    def write_report(self) -> Path:
        """Write results.json and the page from what was asked so far, as after a training that failed.

        Of several processes the first writes.

        Returns:
            The page's path.

        Raises:
            UserError: If nothing was asked.
        """
        if self._record is not None and not ranks.writes():
            return self._record.path / REPORT
        if self._record is None or not self._record.stages:
            raise UserError(f"{ME}: nothing was asked yet; there is no page to write.")
        return self._record.write_page(self._watcher.scored, self._watcher.panel.margins)

    # What a trainer calls.

    def on_init_end(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **_: Any
    ) -> None:
        """Check what can be checked where the callback was given to the trainer as it was made."""
        self._prepare(args, model, processing_class)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Ask the base, or take up its answers where training is resumed."""
        if self._record is None:
            raise UserError(f"{ME}: it knows no trainer; give it one by trainer=… or add_to(trainer).")
        if self._state is state:
            return  # it was added twice
        check_model(plain(model))
        self._state, self._asked_at = state, None
        training = about(args, plain(model), self._trainer(), self._watcher)
        if state.global_step == 0:
            self._ask(state, control, model, "base", training)
            return
        resumed = ranks.agreed(lambda: self._resume(state.global_step, training))
        if isinstance(resumed, str):
            raise UserError(resumed)
        self._asked_at = resumed

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """Ask where it is time, or training ends, or a checkpoint is to be judged."""
        due = state.global_step % self.every == 0
        if due or control.should_training_stop or (self.best and control.should_save):
            self._ask(state, control, model)
        self._mark(state, control)
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """The same at the end of an epoch, where checkpoints may be saved."""
        if control.should_training_stop or (self.best and control.should_save):
            self._ask(state, control, model)
        self._mark(state, control)
        return control

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """Mark a checkpoint that something decided to save after the step had ended."""
        if self.best:
            self._ask(state, control, model)
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if self._clean and folder.is_dir():
                state.best_global_step, state.best_model_checkpoint = state.global_step, str(folder)
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Ask the model that training hands back, and write the page."""
        best = state.best_global_step if state.best_model_checkpoint else None
        if args.load_best_model_at_end and best not in (None, state.global_step):
            self._asked_at = None  # another model than after the last step
            self._ask(state, control, model, f"best-step-{best}")
        else:
            self._ask(state, control, model)
        if ranks.writes():
            with ranks.alone():
                try:
                    self.write_report()
                except Exception as error:  # noqa: BLE001 (the trained model must not be lost for a page)
                    self._warn(f"the page could not be written ({_said(error)}); try write_report() again.")
        self._watcher.release()
        ranks.wait()

    # What it does then.

    def _prepare(self, args: Any, model: Any, tokenizer: Any) -> None:
        """Check the trainer's settings and make tokens of the tasks."""
        check_model(plain(model))
        if self.best:
            check_best(args)
        tokenizer = self._tokenizer if self._tokenizer is not None else tokenizer
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor of texts and images has one
        if tokenizer is None:
            raise UserError(f"{ME}: the trainer has no tokenizer; give it as tokenizer=….")
        if self._watcher.panel.chat and not getattr(tokenizer, "chat_template", None):
            raise UserError(f"{ME}: chat=True, and the tokenizer has no chat template; leave chat out.")
        self._record = WatchRecord(self._output or Path(args.output_dir) / "forgetting")
        self._record.check()
        with same_random_states():
            self._watcher.prepare(plain(model), tokenizer, "bf16" if args.bf16 else "fp32")

    def _ask(
        self,
        state: Any,
        control: Any,
        model: Any,
        title: str | None = None,
        begin: Mapping[str, Any] | None = None,
    ) -> None:
        """Ask once at a step, log what was found, and do what the settings say.

        Args:
            state: The trainer's.
            control: What it will do next.
            model: In training.
            title: What readers call this asking; its step if None.
            begin: Where this is the base: what the record says of the training.
        """
        step = state.global_step
        if self._asked_at == step:
            return
        model = plain(model)
        several = ranks.world_size() > 1
        # One process asks: where it fails, none of the others waits for its part.
        outcome = ranks.agreed(lambda: self._outcome(model, step, title or f"step-{step}", begin, several))
        if outcome.error is not None:
            raise UserError(outcome.error)
        self._asked_at = step
        self.verdicts = dict(outcome.verdicts or {})
        self._clean = not (outcome.missing or outcome.forgotten)
        log(self._trainer(), state, control, model, outcome.logged)
        for task, why in outcome.missing.items():
            kind = f"{task} {why.partition(':')[0]}"
            self._warn(f"{task} has no score at step {step}, and training goes on ({why}).", once=kind)
        if self.stop and outcome.forgotten:
            self._warn(f"training stops at step {step}, since it has forgotten {outcome.forgotten_in_words}.")
            control.should_training_stop = True

    def _mark(self, state: Any, control: Any) -> None:
        """Mark the checkpoint that the trainer is about to save, so that it is saved as the best one."""
        if self.best and self._clean and control.should_save and self._asked_at == state.global_step:
            state.best_global_step = state.global_step

    def _outcome(
        self, model: Any, step: int, title: str, begin: Mapping[str, Any] | None, several: bool
    ) -> Outcome:
        """Ask, keep the answers and judge them, in the one process that does so."""
        assert self._record is not None
        began = time.perf_counter()
        with ranks.alone():
            try:
                if begin is not None:
                    self._record.begin(begin)
                asked = self._watcher.ask(model, base=begin is not None)
                self._record.add(title, step, asked, time.perf_counter() - began)
                if begin is not None:
                    self._base = asked.answers
                    self._record.directory.write_json(ENVIRONMENT, environment(self._watcher))
                return judged(asked, None if begin is not None else self._base, self._watcher)
            except Exception as error:
                if begin is None:
                    return Outcome(missing=dict.fromkeys(self._base, _said(error)))
                if several:
                    return Outcome(error=f"{ME}: the base cannot be asked ({_said(error)}).")
                raise

    def _resume(self, step: int, training: Mapping[str, Any]) -> int | str:
        """Take up the base's answers; the step of the last asking, or why there are none."""
        assert self._record is not None
        try:
            self._base = self._record.resume(training, step)
        except UserError as error:
            return str(error)
        return self._record.stages[-1].step

    def _warn(self, sentence: str, once: str | None = None) -> None:
        """Tell the user something in one process; what is said once is known by a key."""
        if ranks.writes() and (once is None or once not in self._told):
            self._told.add(once or "")
            warnings.warn(f"{ME}: {sentence}", stacklevel=2)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
