"""One model in `fmn limits`: the two models that are tuned from it, and every condition that is asked.

Each condition is a folder that appears whole, and is asked once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.readings import scored_task
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import make_method
from forgetmenot.prompting import Encoder, Prompt
from forgetmenot.prompting.solved_examples import CUE, up_to_cue
from forgetmenot.record.files import as_json, folder_written_whole, read_lines, write_json, write_text
from forgetmenot.record.layout import BASE, CONFIG, PREDICTIONS, stage_folder
from forgetmenot.record.predictions import (
    Predictions,
    read_predictions,
    require_finite,
    write_predictions,
)
from forgetmenot.record.seal import read_json, write_seal
from forgetmenot.runs.api import Run, run
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.display import Display
from forgetmenot.runs.saved import open_saved, take_up
from forgetmenot.trials.limits_figures import ALONE, GOLD, PIPELINE, differences_of, is_solved, scores_of
from forgetmenot.trials.limits_settings import LimitsSettings
from forgetmenot.trials.limits_tasks import (
    DIRECT,
    SAMPLEGEN,
    WATCHED,
    Case,
    asked_so,
    file_task,
    in_context_texts,
    requested,
    task_path,
)

if TYPE_CHECKING:
    from forgetmenot.runs.session import Session

SAME = ("precision", "dtype", "quantization", "device")
"""What base and tuned model must share, of what a run records of itself."""
TRUNCATED = "truncated.json"
"""In a condition's folder: of which tasks prompts were too long for the model, and lost their beginning."""
SPARE = 16
"""Tokens that a SampleGen model may write beyond the longest text that it learned; ours."""


@dataclass(frozen=True)
class Trial:
    """One model: its two tuned ones, and every condition.

    Attributes:
        model: Its name.
        folder: Where its runs and answers are.
    """

    model: str
    folder: Path
    cases: Sequence[Case]
    settings: LimitsSettings

    @property
    def conditions(self) -> list[str]:
        """All of them, in the order of tables."""
        written = [SAMPLEGEN, PIPELINE] if self.settings.samplegen else []
        return [ALONE, GOLD, DIRECT, *written, *self.settings.controls]

    def tune(self, tasks: Path, settings: Mapping[str, Any], console: Console | None) -> None:
        """Fine-tune the base on the mixture: to answer, and to write examples first.

        The first run scores the tests before and after, and so holds the base alone and the model tuned
        directly.
        """
        kinds = [DIRECT, SAMPLEGEN] if self.settings.samplegen else [DIRECT]
        for kind in kinds:
            watched = {} if kind == DIRECT else {"evaluation.limit": WATCHED}
            run(
                {
                    "model": self.model,
                    "tasks": [str(task_path(tasks, one.name, kind)) for one in self.cases],
                    "method": "joint",
                    "training.loss_average": "example",
                    "output": str(self._run(kind)).replace("{", "{{").replace("}", "}}"),
                    **watched,
                    **settings,
                },
                console=console,
            )

    def measured(self, display: Display) -> dict[str, Any]:
        """What limits.json holds of the model; asks what was not asked before."""
        begun = self._begun(DIRECT)
        if self.settings.samplegen:
            check_same(begun, self._begun(SAMPLEGEN), self._run(SAMPLEGEN))
            self._ask(SAMPLEGEN, [SAMPLEGEN], display)
        self._ask(DIRECT, [one for one in self.conditions if one not in (ALONE, DIRECT, SAMPLEGEN)], display)
        answers = {name: self._answers(name) for name in self.conditions}
        scores = scores_of(answers)
        return {
            "model": self.model,
            **{key: begun[key] for key in ("model_revision", *SAME, "learning_rate")},
            "adapter": self._config(DIRECT).adapter.in_words,
            "scores": scores,
            "differences": differences_of(answers),
            "solved": {
                condition: [task for task, of_task in scores.items() if is_solved(of_task[condition])]
                for condition in self.conditions
            },
            "truncated": {
                name: self._truncated(name) for name in self.conditions if name not in (ALONE, DIRECT)
            },
            "written": self._about_written(),
        }

    def _run(self, kind: str) -> Path:
        return self.folder / f"run-{kind}"

    def _config(self, kind: str) -> RunConfig:
        return read_resolved(self._run(kind) / CONFIG)

    def _last(self, kind: str) -> str:
        name: str = Run(self._run(kind)).results["stages"][-1]["name"]
        return name

    def _begun(self, kind: str) -> dict[str, Any]:
        return begun_with(RunDirectory(self._run(kind)))

    def _ask(self, kind: str, conditions: Sequence[str], display: Display) -> None:
        """Ask the conditions that are not there: of a tuned SampleGen model, or of the base."""
        open_ones = [one for one in conditions if not (self.folder / one).is_dir()]
        if not open_ones:
            return
        directory, config = RunDirectory(self._run(kind)), self._config(kind)
        method = make_method(config.method.name, config.method.options, config.seed)
        session = open_saved(directory, config, display)
        check_same(self._begun(DIRECT), session.identity, directory.path)
        stage = self._last(kind) if kind == SAMPLEGEN else BASE
        if not take_up(directory, session, method, stage):
            raise UserError(f"{directory.path}: the weights of {stage} are gone; delete the folder.")
        first = next(in_context_texts(self.cases))
        session.examine(self._scored(session, *first).first_sequences())
        with method.answering(session.learner):
            for condition in open_ones:
                texts = self._texts(condition, session, display)
                scored = {case.name: self._scored(session, case, some) for case, some in texts}
                total = sum(one.count() for one in scored.values())
                with display.progress(f"{self.folder.name}: {condition}", total) as advance:
                    answers = {
                        task: evaluate(session.learner, method, one, advance) for task, one in scored.items()
                    }
                for task, said in answers.items():
                    require_finite(task, [said])
                cut = {task: one.encoded.truncated for task, one in scored.items()}
                with folder_written_whole(self.folder / condition) as aside:
                    write_predictions(aside / PREDICTIONS, answers)
                    write_json(
                        aside / TRUNCATED, {task: count for task, count in cut.items() if count["examples"]}
                    )
                    write_seal(aside)
                display.say(f"{self.folder.name}: {condition} is asked.")

    def _scored(self, session: Session, case: Case, texts: Sequence[str]) -> ScoredTask:
        """A task's tests, asked by these texts."""
        asking = self._config(DIRECT).asking
        return scored_task(asking, *asked_so(case, texts), session.learner, session.max_length)

    def _texts(self, condition: str, session: Session, display: Display) -> Iterable[tuple[Case, list[str]]]:
        """The prompts of a condition, task after task."""
        if condition == SAMPLEGEN:
            return [(case, self._written_by(case, session, display)) for case in self.cases]
        if condition == PIPELINE:
            return [(case, [up_to_cue(one["text"]) for one in self._kept(case)]) for case in self.cases]
        return in_context_texts(self.cases, None if condition == GOLD else condition)

    def _written_by(self, case: Case, session: Session, display: Display) -> list[str]:
        """Each test's prompt and, behind it, what the tuned model wrote up to its answer."""
        asked = [requested(case, one) for one in case.tests]
        if not self._written(case).is_file():
            learner = session.learner
            longest = max(len(learner.tokenizer.encode(text)) for text in typical(case))
            decoding = Decoding(min(longest + SPARE, session.max_length // 2), stop=(CUE,))
            prompts = encoded_requests(case, asked, session, decoding.max_new_tokens)
            with display.progress(f"{self.folder.name}: writing {case.name}", len(prompts)) as advance:
                answers = learner.write(prompts, decoding, advance=advance)
            lines = [
                {
                    "example": one.id,
                    "text": answer.text,
                    "ended": CUE in learner.tokenizer.decode(answer.tokens),
                }
                for one, answer in zip(case.tests, answers, strict=True)
            ]
            write_text(self._written(case), "".join(as_json(line, indent=None) for line in lines))
        return [
            f"{text}\n{up_to_cue(one['text'])}" for text, one in zip(asked, self._kept(case), strict=True)
        ]

    def _truncated(self, condition: str) -> dict[str, Any]:
        """How many prompts lost their beginning, and how many tokens in all; only tasks of which any did."""
        return read_json(self.folder / condition / TRUNCATED, dict) or {}

    def _written(self, case: Case) -> Path:
        return self.folder / "written" / f"{case.name}.jsonl"

    def _kept(self, case: Case) -> list[dict[str, Any]]:
        return read_lines(self._written(case))

    def _about_written(self) -> dict[str, Any]:
        """How much of what SampleGen models wrote came to the place of an answer, by task."""
        if not self.settings.samplegen:
            return {}
        return {
            case.name: {"n": len(kept), "ended": sum(bool(one["ended"]) for one in kept)}
            for case in self.cases
            if (kept := self._kept(case))
        }

    def _answers(self, condition: str) -> dict[str, Predictions]:
        """What was answered in a condition, by task."""
        if condition not in (ALONE, DIRECT):
            return read_predictions(self.folder / condition / PREDICTIONS)
        stage = BASE if condition == ALONE else self._last(DIRECT)
        path = stage_folder(self._run(DIRECT), stage) / PREDICTIONS
        found = read_predictions(path)
        return {case.name: found[file_task(case.name, DIRECT)] for case in self.cases}


def check_same(one: Mapping[str, Any], other: Mapping[str, Any], path: Path) -> None:
    """See that two models, or a run and what goes on with it, are computed alike.

    Args:
        one: What the run of the base and the model tuned directly recorded.
        other: What the other run recorded, or how this process computes.
        path: Of the run that `other` is of.

    Raises:
        UserError: They are not, as where a run was begun on another machine.
    """
    for key in SAME:
        if one.get(key) != other.get(key):
            raise UserError(
                f"{path}: its {key} is {other.get(key)}, and that of the base {one.get(key)}, so that their "
                "difference would be no difference of tuning. Go on where the runs were begun, or give "
                "another --output."
            )


def typical(case: Case) -> list[str]:
    """Texts as a SampleGen model writes them, of the first training rows."""
    return [case.written.learned(case.shown.before(one), one) for one in case.task.train[:64]]


def encoded_requests(
    case: Case, texts: Sequence[str], session: Session, reserved: int
) -> list[tuple[int, ...]]:
    """The prompts of a SampleGen model as tokens, with room for what it writes."""
    tests = [
        replace(one, fields={"text": text}, label=None, target="")
        for one, text in zip(case.tests, texts, strict=True)
    ]
    task = replace(
        case.task, kind="answer", metric="exact_match", labels=(), train=(), select=(), score=tests
    )
    prompt = Prompt("default", "{{ text }}", separator="\n", keep="end")
    encoder = Encoder(task, prompt, session.learner.tokenizer, session.max_length, reserved)
    return [one.prompt for one in encoder.encode_all(tests)[:]]
