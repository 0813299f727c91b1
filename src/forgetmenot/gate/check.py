"""`fmn check`: what a tuned model lost against its base, and whether it may ship.

Each side is asked in turn, the base first, so that one model at a time is in memory. Several tuned sides are
a chain (a stage, its export, its quantized file): each is judged against the one before, which tells what was
lost in training from what was lost in merging or rounding, and the last against the base, which decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.evaluation.settings import Asking, EvaluationSettings
from forgetmenot.gate.answered import ask_base, ask_tuned
from forgetmenot.gate.baseline import check_baseline
from forgetmenot.gate.content import content_of
from forgetmenot.gate.loaded import Loaded
from forgetmenot.gate.opened import Opened
from forgetmenot.gate.panel import Panel, load_panel
from forgetmenot.gate.settings import check_margin, check_prompt
from forgetmenot.gate.sides import Side, find_side, stands_elsewhere
from forgetmenot.paths import at_home, file_name
from forgetmenot.probes import Part
from forgetmenot.prompting import PromptVariants
from forgetmenot.report.check.files import write_check
from forgetmenot.report.check.terminal import print_check
from forgetmenot.report.screen import Screen
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.opening import opened
from forgetmenot.runs.ownership import check_ours
from forgetmenot.runs.probing import measure_probe, table
from forgetmenot.settings import split_names

WHOLE = 2**20
"""The tokens that a prompt may have beside an endpoint, which gets it whole: as many as the model takes."""


@dataclass(frozen=True)
class Check:
    """A finished check.

    Attributes:
        path: The directory of its files.
        content: That of check.json.
    """

    path: Path
    content: dict[str, Any]

    @property
    def status(self) -> int:
        """0: all kept; 1: something was forgotten; 3: nothing was, but of some task too little is known."""
        status: int = self.content["status"]
        return status

    def print(self, console: Console | None = None) -> None:
        """Print the verdicts."""
        print_check(self.content, console or Screen())


def check(
    base: str,
    *tuned: str,
    tasks: str | Sequence[str] = (),
    data_dir: str | Path | None = None,
    prompt: PromptVariants = "default",
    margin: float | Mapping[str, float] | None = None,
    limit: int | None = None,
    chat: bool = False,
    baseline: str | Path | None = None,
    sequential: bool = False,
    probes: Sequence[str | Mapping[str, Any]] = (),
    output: str | Path | None = None,
    console: Console | None = None,
) -> Check:
    """Ask a base and what was tuned from it the same questions, and judge every task.

    Args:
        base: A hub id, a directory, an adapter's directory, RUN_DIR:STAGE, a .gguf file, or an
            endpoint's URL.
        tuned: The same; several are a chain, of which each is also judged against the one before.
        tasks: Names, suites or task files, with commas between them or as a list.
        data_dir: The folder of public data; None for the hub.
        prompt: A variant, a map task → variant, or a YAML file with one.
        margin: ε of all tasks, or a map from tasks or metrics; each metric's own if None.
        limit: The most examples of a task.
        chat: Put prompts by the chat template of each side that has one.
        baseline: A file that keeps the base's answers; it is written if it is not there.
        sequential: Stop asking the tuned side as soon as every task is decided.
        probes: What is measured beside the tasks, as in `evaluation.probes`; `drift` is meant for this.
        output: A directory; named by the two sides and a hash if None.
        console: Where to show progress.

    Raises:
        UserError: If a side, a task or a setting is not there or does not fit.
    """
    margin = check_margin(margin)
    first = find_side(str(base))
    others = [find_side(str(one), first.model) for one in tuned]
    if not others:
        raise UserError("check: name a tuned model beside the base.")
    if sequential and len(others) > 1:
        raise UserError("check: --sequential is for one tuned model; a chain asks every example of each.")
    sides = [first, *others]
    asking = Asking(_evaluation(limit), check_prompt(prompt))
    training = next((one.config.training for one in sides if one.config is not None), TrainingSettings())
    panel = load_panel(
        split_names(tasks),
        _folder(data_dir),
        asking,
        margin,
        chat=chat,
        probes=probes,
        max_length=training.max_length,
    )
    said: list[str] = []
    if servers := [one.server for one in sides if one.server is not None]:
        panel, said = panel.for_endpoints(servers)
        training = training.model_copy(update={"max_length": WHOLE})
    kept = at_home(str(baseline), "--baseline") if baseline is not None else None
    if kept is not None:
        check_baseline(kept)
    directory = RunDirectory(_directory(sides, panel, output))
    check_ours(directory.path, "check")
    replaced = (directory.path / "check.json").is_file()
    notes = [note for side in sides for note in (*side.notes, *stands_elsewhere(side, first))] + said
    with opened(directory, console, "check") as display:
        if replaced:
            display.say(f"The check in {directory.path} is replaced.")
        for note in notes:
            display.say(note)
        adapted = first.is_plain and any(one.adapter is not None or one.run is not None for one in others)
        names = [f"{k:02d}-{side.title}" for k, side in enumerate(sides)]

        def probed(there: Opened, number: int) -> dict[str, list[Part]]:
            if not panel.probes:
                return {}
            assert isinstance(there, Loaded)  # an endpoint is refused where there are probes
            learner, method = there.session.learner, there.method
            return {
                name: measure_probe(probe, name, learner, method, names[number], names[0], directory)
                for name, probe in panel.probes.items()
            }

        answered = [ask_base(first, panel, training, display, probed, kept, adapted=adapted)]
        before = answered[0].answers if sequential else None
        for number, side in enumerate(others, start=1):
            answered.append(ask_tuned(side, panel, training, display, number, probed, before))
        notes += [note for one in answered for note in one.notes]
        tables = {
            name: table(probe, names, [[asdict(part) for part in one.probes[name]] for one in answered])
            for name, probe in panel.probes.items()
        }
        content = {**content_of(panel, answered), "probes": tables, "notes": notes}
        try:
            write_check(directory, content)
        except OSError as error:
            raise UserError(f"output: {directory.path} cannot be written ({error.strerror}).") from error
    return Check(directory.path, content)


def _evaluation(limit: int | None) -> EvaluationSettings:
    try:
        return EvaluationSettings(limit=limit)
    except ValidationError as error:
        raise UserError(f"--{validation_sentence(error, EvaluationSettings)}") from error


def _folder(data_dir: str | Path | None) -> Path | None:
    if data_dir is None:
        return None
    folder = at_home(str(data_dir), "--data-dir")
    if not folder.is_dir():
        raise UserError(f"--data-dir: there is no folder {str(data_dir)!r}.")
    return folder


def _directory(sides: Sequence[Side], panel: Panel, output: str | Path | None) -> Path:
    if output is not None:
        return at_home(str(output), "--output")
    about = [[one.given for one in sides], sorted(panel.margins.items()), panel.chat, str(panel.asking)]
    return Path("checks") / file_name("-".join([sides[0].title, "to", sides[-1].title]), about)
