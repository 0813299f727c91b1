"""The continual loop: score the base, then train, score and commit one stage after another."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from forgetmenot import signals
from forgetmenot.engine import ranks
from forgetmenot.engine.free_memory import give_back
from forgetmenot.engine.kept_parts import KeepsNothing
from forgetmenot.engine.learner import Learner
from forgetmenot.evaluation.answer_log import AnswerLog
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.readings import scored_tasks
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import Stage
from forgetmenot.metrics import margin_of
from forgetmenot.models.weights import has_weights
from forgetmenot.probes import Probe
from forgetmenot.prompting import TokenSequence
from forgetmenot.prompting.wording import Wording
from forgetmenot.record.cost import read_cost, write_cost
from forgetmenot.record.layout import (
    ASKED_AGAIN,
    BASE,
    PREDICTIONS,
    SCORES,
    predictions_file,
)
from forgetmenot.record.predictions import Predictions, read_predictions, score, write_predictions
from forgetmenot.record.seal import read_json
from forgetmenot.report.beforehand import AtHand
from forgetmenot.runs.again import ask_again
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.method_state import load_method_state
from forgetmenot.runs.plan import Plan, training_examples, training_rows
from forgetmenot.runs.probing import measure_stage, measured
from forgetmenot.runs.realign import realigned
from forgetmenot.runs.session import Session
from forgetmenot.runs.stage_training import StageTraining


class Loop:
    """Takes one run from the state of its directory to its last stage."""

    def __init__(
        self,
        plan: Plan,
        session: Session,
        directory: RunDirectory,
        display: Display,
        probes: Mapping[str, Probe] | None = None,
    ) -> None:
        self.plan, self.session, self.directory, self.display = plan, session, directory, display
        self.probes = probes or {}
        self.config, self.learner, self.method = plan.config, session.learner, plan.method
        self.learner.progress, self.learner.tell = display.progress, self._tell
        self.method.check_model(self.learner)
        self.scored = self._scored_tasks()
        tokenizer, longest = session.learner.tokenizer, session.max_length
        self.data = {
            task.name: training_examples(self.config, task, plan.prompts[task.name], tokenizer, longest)
            for task in plan.trained
        }
        self.wordings = {
            task.name: Wording(
                task, plan.prompts[task.name], training_rows(self.config, task), tokenizer, longest
            )
            for task in plan.trained
        }
        for name, encoded in self.data.items():
            if encoded.left_out:
                self.display.say(
                    f"{name}: the model's chat template leaves out text of earlier answers, such as "
                    f"reasoning, in {encoded.left_out:,} of {len(encoded):,} training examples, and also "
                    "where the model is asked."
                )
        for name, wording in self.wordings.items():
            if moved := wording.system_turns_moved:
                self.display.say(
                    f"{name}: the model's chat template takes no system turn: in {moved:,} of "
                    f"{len(wording.examples):,} training examples, and where the model is asked, its text "
                    "stands before the first user's turn."
                )
        self.truncated = {name: encoded.truncated for name, encoded in self.data.items()}
        self.training = StageTraining(plan, session, directory, display, self.first_sequences)

    def _tell(self, sentence: str) -> None:
        self.display.say(sentence)
        self.directory.event("told", sentence=sentence)

    @property
    def at_hand(self) -> list[AtHand]:
        """What each task will be judged on."""
        margins = self.config.evaluation.margins
        return [
            one.at_hand(margin_of(one.task.name, one.task.metric, margins))
            for one in self.scored[PREDICTIONS]
        ]

    def first_sequences(self) -> list[TokenSequence]:
        """What the guard looks at: the first batch that is scored."""
        return self.scored[PREDICTIONS][0].first_sequences(self.config.training.batch_size)

    def sequences(self) -> dict[str, list[TokenSequence]]:
        """All that is trained on and scored, by a name for each set."""
        learned = {
            f"{name}: training": [
                s for one in data for s in (one.candidates if one.is_preference else [one.answer])
            ]
            for name, data in self.data.items()
        }
        scored = {
            f"{one.task.name}: {file}": one.sequences
            for file, tasks in self.scored.items()
            for one in tasks
            if not one.generated
        }
        return learned | scored

    def run(self) -> None:
        """Score the base model, then train and score every stage that is not committed yet."""
        with self.training.tracked():
            self._run()
        self.directory.sweep("*")

    def _run(self) -> None:
        names = [BASE, *(stage.name for stage in self.plan.stages)]
        committed = ranks.agreed(lambda: [name for name in names if self.directory.is_committed(name)])
        if committed:
            further = next((name for name in names if name not in committed), "the results")
            done = f"{len(committed)} of {len(names)} stages are done, the last {committed[-1]}"
            self.display.say(f"{done}; going on with {further}.")
        present = BASE  # the stage whose weights the learner has
        if BASE in committed:
            self._add_columns(BASE)
        else:
            self._score_base()
        self._probe(0, BASE, present)
        self._show(0, BASE)
        previous = BASE
        for stage in self.plan.stages:
            if stage.name in committed:
                if self._add_columns(stage.name):
                    present = stage.name
            else:
                self._train_and_score(stage, previous, present)
                present = stage.name
            present = self._probe(stage.number, stage.name, present)
            self._prune(stage)
            self._show(stage.number, stage.name)
            previous = stage.name

    def _go_to(self, name: str) -> None:
        if name == BASE:
            self.session.to_base()
        else:
            self.session.to_stage(self.directory.stage(name), trainable=True)

    def _score_base(self) -> None:
        with self.directory.committing(BASE) as folder:
            seconds = self._score(folder, BASE, self._due(BASE))
        self.directory.sweep(BASE)
        self.directory.record_time(0, {"train_s": 0.0, "eval_s": seconds})
        self.directory.event("committed", stage=BASE)

    def _train_and_score(self, stage: Stage, previous: str, present: str) -> None:
        """Take a stage from where it stands to its commit.

        Args:
            stage: The next one.
            previous: The stage before.
            present: The stage whose weights the learner has.
        """
        data, further = ({name: self.data[name] for name in names} for names in (stage.tasks, stage.sources))
        stage = replace(stage, data=data, further=further, wordings=self.wordings)
        trained = ranks.agreed(lambda: self.directory.trained(stage.name, self.display.say))
        with self.directory.committing(stage.name) as folder:
            if trained is None:
                start = BASE if self.method.start(stage) == "base" else previous
                if present != start:
                    self._go_to(start)
                if previous != BASE:  # from disk always: a resumed run knows what an undisturbed one does
                    load_method_state(self.method, self.directory.stage(previous))
                self.directory.event("began", stage=stage.name)
                seconds = self.training.train(stage, folder)
                self.directory.record_trained(stage.name, seconds)
            else:
                left = self.directory.writing(stage.name)
                self.display.say(f"{stage.name}: trained already; going on with its scores.")
                self.session.to_stage(left, trainable=True)
                load_method_state(self.method, left)
                write_cost(folder, trained.cost)
                seconds = trained.seconds
            eval_s = self._score(folder, stage.name, self._due(stage.name))
        self.directory.sweep(stage.name)
        self.directory.record_time(stage.number, {"train_s": seconds, "eval_s": eval_s})
        self.directory.event("committed", stage=stage.name)

    def _scored_tasks(self) -> dict[str, list[ScoredTask]]:
        """What is scored after every stage, by the file that its predictions go to: the headline first."""
        learner, longest = self.session.learner, self.session.max_length
        return {
            predictions_file(reading.name): scored_tasks(
                self.config.asking, reading, self.plan.scored, learner, longest
            )
            for reading in self.plan.readings
        }

    def _due(self, name: str) -> dict[str, list[ScoredTask]]:
        """What is scored after a stage."""
        rows = self.plan.rows
        number = next(i for i, row in enumerate(rows) if row.name == name)
        return {
            file: [one for one in tasks if not 0 < number < one.begins(rows)]
            for file, tasks in self.scored.items()
        }

    def _score(self, folder: Path, name: str, asked: dict[str, list[ScoredTask]]) -> float:
        """Score questions and add them to a stage's folder; returns the seconds that it took."""
        began = time.perf_counter()
        self.learner.reset_counts()
        total = sum(one.count() for tasks in asked.values() for one in tasks)
        path = folder / SCORES
        cells = read_json(path, list) or []
        before = read_cost(folder).get("scoring", {})
        kept = AnswerLog(self.directory.stage(name))
        for sentence in kept.said:
            self.display.say(sentence)
        with (
            self.method.answering(self.learner),
            self.display.progress(f"{name}: scoring", total) as advance,
            _kept(self.learner, kept),
        ):

            def done(count: int) -> None:
                advance(count)
                signals.check()

            for file, tasks in asked.items():
                answers = []
                for one in tasks:
                    answers.append(self._answers(one, done, kept))
                    give_back()
                names = [one.task.name for one in tasks]
                write_predictions(folder / file, dict(zip(names, answers, strict=True)))
                if name == BASE and file == PREDICTIONS:
                    self._ask_again(folder, tasks, answers)
                cells += [_cell(*pair) for pair in zip(tasks, answers, strict=True)]
        counted = {name: count + before.get(name, 0) for name, count in self.learner.counted().items()}
        write_cost(folder, {**read_cost(folder), "scoring": counted})
        path.write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return time.perf_counter() - began

    def _answers(self, one: ScoredTask, done: Callable[[int], None], kept: AnswerLog) -> Predictions:
        """A task's answers; where it is realigned, of the weights after that."""
        if not len(one.realign):
            return evaluate(self.learner, self.method, one, done, kept)
        with kept.with_other_weights(), realigned(self.session, one), kept.with_other_weights():
            return evaluate(self.learner, self.method, one, done, kept)

    def _ask_again(self, folder: Path, tasks: Sequence[ScoredTask], answers: Sequence[Predictions]) -> None:
        """Keep what the base answers otherwise when it is asked again, beside what was kept before."""
        path = folder / ASKED_AGAIN
        found = read_json(path, dict) or {}
        for scored, said in zip(tasks, answers, strict=True):
            if (again := ask_again(self.learner, self.method, scored, said)) is not None:
                found[scored.task.name] = again
        if found:
            path.write_text(json.dumps(found) + "\n")

    def _add_columns(self, name: str) -> bool:
        """Score what a committed stage has not been asked yet, since the list of tasks has grown.

        Returns:
            Whether anything was scored: the learner then has the stage's weights.
        """
        folder = self.directory.stage(name)
        asked: dict[str, list[ScoredTask]] = {}
        for file, tasks in self._due(name).items():
            there = read_predictions(folder / file)
            new = [one for one in tasks if one.task.name not in there]
            if new:
                asked[file] = new
        if not asked or not (name == BASE or has_weights(folder)):
            return False
        self._go_to(name)
        if name != BASE:
            load_method_state(self.method, folder)
        with self.directory.committing(name) as writing:
            self._score(writing, name, asked)
        self.directory.event("scored further tasks", stage=name)
        return True

    def _probe(self, number: int, name: str, present: str) -> str:
        """Take the measurements beside the tasks that a committed stage still lacks.

        Returns:
            The stage whose weights the learner has afterwards.
        """
        if not self.probes.keys() - measured(self.directory, name).keys():
            return present
        if present != name:
            if not has_weights(self.directory.stage(name)):
                return present
            self._go_to(name)
            load_method_state(self.method, self.directory.stage(name))
        measure_stage(self.probes, self.learner, self.method, number, name, BASE, self.directory)
        return name

    def _show(self, number: int, name: str) -> None:
        there = read_predictions(self.directory.stage(name) / PREDICTIONS)
        scored = [task for task in self.plan.scored if task.name in there]
        row = {task.name: score(task.metric, there[task.name]).value for task in scored}
        self.display.stage_done(number, name, row)

    def _prune(self, stage: Stage) -> None:
        """Remove the weights that the config does not keep, once no later stage begins with them."""
        if self.config.checkpoints == "all":
            return
        finished = stage.number == len(self.plan.stages)
        for other in self.plan.stages[: stage.number]:
            last = other.number == stage.number
            if not last or (finished and self.config.checkpoints == "none"):
                self.directory.remove_weights(other.name)


@contextmanager
def _kept(learner: Learner, log: AnswerLog) -> Iterator[None]:
    """Keep log-likelihoods as they come."""
    learner.keeps = log
    try:
        yield
    finally:
        learner.keeps = KeepsNothing()


def _cell(scored: ScoredTask, predictions: Predictions) -> dict[str, Any]:
    """A task's scores after a stage, for people who open the file."""
    measured = {metric: score(metric, predictions) for metric in scored.metrics}
    routed = {"routed": dict(predictions.routed)} if predictions.routed else {}
    unparsed = {"unparsed": predictions.unparsed} if scored.rule.generates else {}
    return {
        "task": scored.task.name,
        "prompt": scored.prompt.name,
        "prompt_hash": scored.prompt.hash,
        **scored.described,
        "n": len(scored.examples),
        "truncated": scored.encoded.truncated,
        **routed,
        **unparsed,
        "scores": {metric: one.value for metric, one in measured.items()},
    }
