"""The training of one stage: adapter, method, optimizer steps, and what it leaves on disk."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.batches import Shuffled, chats_among
from forgetmenot.engine.free_memory import give_back
from forgetmenot.engine.merging import merge
from forgetmenot.engine.precision import rounded_once
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import Step, fit
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage
from forgetmenot.models.adapt import adapt, finish_stage
from forgetmenot.models.layers import first_learning, parameters_below
from forgetmenot.models.weights import save_weights
from forgetmenot.prompting import Encoded, TokenSequence
from forgetmenot.record.cost import write_cost
from forgetmenot.record.layout import REHEARSED
from forgetmenot.report.model_card import adapter_card
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.method_state import save_method_state
from forgetmenot.runs.midway import Midway
from forgetmenot.runs.plan import Plan, for_task
from forgetmenot.runs.session import Session


class StageTraining:
    """Trains the stages of one run.

    Args:
        plan: The run's.
        session: Has the model.
        directory: Where the run stands.
        display: What the user sees.
        first_sequences: What a merged model is held against its adapter on.
    """

    def __init__(
        self,
        plan: Plan,
        session: Session,
        directory: RunDirectory,
        display: Display,
        first_sequences: Callable[[], list[TokenSequence]],
    ) -> None:
        self.session, self.directory, self.display = session, directory, display
        self.first_sequences = first_sequences
        self.config, self.learner, self.method = plan.config, session.learner, plan.method
        self.stages = plan.stages
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            log_with=list(self.config.trackers) or None,
            project_dir=str(directory.path),
        )

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """The run's trackers, from their start to their end."""
        if self.config.trackers:
            self.accelerator.init_trackers("forgetmenot")
        try:
            yield
        finally:  # what was logged before an interruption is written too
            if self.config.trackers:
                self.accelerator.end_training()

    def train(self, stage: Stage, folder: Path) -> float:
        """Train the learner, which has the weights that the stage begins with, and write what that leaves.

        Args:
            stage: With its data.
            folder: Where the stage is written.

        Returns:
            The seconds that it took, in all the processes that have worked on it.
        """
        began = time.perf_counter()
        place = self.directory.stage(stage.name)
        with Midway(place, self.method, self.config.training, self.display.say) as midway:
            self._train(stage, midway)
            kept = {
                "bytes": self._save(stage, folder),
                "parameters_added": self._parameters() - self.session.record["parameters"],
            }
            if self.method.rehearses and stage.number > 1:
                kept["rehearsed"] = sum(map(len, self.method.rehearsed.values()))
            write_cost(folder, {"training": self.learner.counted(), "kept": kept})
            midway.finish(folder)
            self._write_rehearsed(folder)
        give_back()
        return midway.seconds + time.perf_counter() - began

    def _train(self, stage: Stage, midway: Midway) -> None:
        learner, method, settings = self.learner, self.method, self.config.training
        learner.reset_counts()
        seed = stage_seed(self.config.seed, stage.number)
        learner.model = adapt(learner.model, self.config.adapter, stage.number, seed)
        method.adapt(learner, stage)
        self._check_frozen(stage)
        examples, epochs = method.examples(learner, stage), epochs_of(settings, stage)
        shuffled = Shuffled(len(examples), settings.batch_size, epochs, seed, chats_among(examples))
        batches = method.batches(stage, examples, shuffled)
        self._say_notes(stage)
        method.begin(learner, stage)
        self.directory.event("training", stage=stage.name, steps=len(batches))
        rounded = rounded_once(learner.model, learner.precision)
        with (
            self.display.progress(stage.name, len(batches)) as advance,
            rounded,
            _naming(stage),
        ):
            fit(
                learner,
                examples,
                method,
                settings,
                accelerator=self.accelerator,
                epochs=epochs,
                learning_rate=self.session.learning_rate,
                seed=seed,
                on_step=self._recorder(stage, midway, advance),
                saves=midway,
                batches=batches,
            )
        method.end(learner, stage)
        self._say_notes(stage)
        self._finish(stage)

    def _check_frozen(self, stage: Stage) -> None:
        """Hold what the method lets learn against `adapter.layers`."""
        model = self.learner.model
        first = first_learning(model, self.config.adapter.layers)
        if first and any(value.requires_grad for value in parameters_below(model, first)):
            raise UserError(
                f"Stage {stage.name}: method {self.config.method.name} lets something below layer {first} "
                "learn, where adapter.layers says that nothing does; take layers: all with it."
            )

    def _finish(self, stage: Stage) -> None:
        """Merge the adapter where the config says so, and hold the merged model against it."""
        adapter, learner = self.config.adapter, self.learner
        if adapter.per_stage != "merge":
            return
        difference = merge(learner, lambda model: finish_stage(model, adapter), self.first_sequences())
        self.directory.event("merged", stage=stage.name, largest_difference_nats=difference)
        self.display.say(
            f"{stage.name}: the merged model's log-likelihoods differ from the adapter's by at most "
            f"{difference:.1e} nats."
        )

    def _save(self, stage: Stage, folder: Path) -> int:
        """Write the weights and the method's state, once, however many processes hold them.

        Returns:
            How many bytes the method's state takes; 0 where another process writes.
        """
        weights = shards.whole_weights(self.learner.model)
        if not ranks.writes():
            return 0
        save_weights(self.learner.model, self.config.adapter, folder, weights)
        for card in folder.glob("adapter/**/README.md"):  # PEFT's has headings and no content
            alone = self.config.adapter.per_stage != "new"
            text = adapter_card(self.config.model.title, self._learned(stage), alone=alone)
            card.write_text(text, encoding="utf-8")
        return save_method_state(self.method, folder)

    def _learned(self, stage: Stage) -> list[str]:
        """The tasks that a stage's weights have learned, in order."""
        before = self.stages[: stage.number - 1] if self.method.follows(stage) else ()
        return [task for one in (*before, stage) for task in one.tasks]

    def _write_rehearsed(self, folder: Path) -> None:
        """Write the examples of earlier tasks that the stage trained on as text, for people to read."""
        rows = [
            {"task": task, "id": one.id, "prompt": self._text(one.prompt), "answer": self._answer(one)}
            for task, examples in self.method.rehearsed.items()
            for one in examples
        ]
        if rows and ranks.writes():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / REHEARSED).write_text(lines, encoding="utf-8")

    def _answer(self, example: Encoded) -> str:
        return self._text(example.answer.tokens[example.answer.start :])

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.learner.tokenizer.decode(list(tokens)))

    def _say_notes(self, stage: Stage) -> None:
        """Pass on the method's messages to the user."""
        for note in self.method.notes:
            self.display.say(f"{stage.name}: {note}")
            self.directory.event("note", stage=stage.name, note=note)
        self.method.notes.clear()

    def _parameters(self) -> int:
        return sum(p.numel() for p in self.learner.model.parameters())

    def _recorder(self, stage: Stage, midway: Midway, advance: Callable[..., None]) -> Callable[[Step], None]:
        shown = 0

        def record(step: Step) -> None:
            nonlocal shown
            row: dict[str, Any] = asdict(step)
            del row["steps"]
            midway.record(row)
            advance(step.step - shown, f"loss {step.loss:.3f}")
            shown = step.step
            if self.config.trackers:
                self.accelerator.log({f"{stage.name}/{k}": v for k, v in row.items()}, step=step.step)

        return record


@contextmanager
def _naming(stage: Stage) -> Iterator[None]:
    """Say which stage it was that could not be trained."""
    try:
        yield
    except UserError as error:
        raise UserError(f"Stage {stage.name}: {error} The stages before it are kept.") from error


def epochs_of(settings: TrainingSettings, stage: Stage) -> int:
    """How often a stage passes over its examples; of several tasks, as often as one of them asks."""
    return max(for_task(settings.epochs, name) or 1 for name in stage.tasks)


def stage_seed(seed: int, stage: int) -> int:
    """A seed of each stage's own, so that resuming draws what an undisturbed run draws."""
    return int(np.random.SeedSequence([seed, stage]).generate_state(1)[0])
