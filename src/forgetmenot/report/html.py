"""The report of a run: one HTML file that needs nothing else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from forgetmenot.metrics import FORMULAS, PAIRS, MatrixRow, metric_named
from forgetmenot.metrics.resampling import Interval
from forgetmenot.record.damage import damaged
from forgetmenot.record.files import write_text
from forgetmenot.record.layout import (
    CONFIG,
    ENVIRONMENT,
    EVENTS,
    REPORT,
    TRAINING,
    log_in_training,
    stage_folder,
)
from forgetmenot.record.results import RunResults, TaskOutcome, load_results
from forgetmenot.record.saved_readings import with_saved_readings
from forgetmenot.record.seal import parse, read_checked, read_json
from forgetmenot.record.timing import read_timing
from forgetmenot.report import verdict_words
from forgetmenot.report.by_reading import asked_otherwise, recoveries
from forgetmenot.report.costs import costs, rehearsed_share
from forgetmenot.report.figures import curve, dumbbell, loss_line, points_told, score_scale
from forgetmenot.report.forgotten import lost_examples
from forgetmenot.report.headline import headline
from forgetmenot.report.layer_page import layer_pages
from forgetmenot.report.matrix_text import matrix_csv, matrix_markdown
from forgetmenot.report.story import moved, stories
from forgetmenot.report.wording import (
    HEADLINES,
    NONE,
    asked_again,
    common,
    cross_fitted,
    left_out,
    number,
    p_value,
    signed,
    span,
    way,
)

LONGEST_TEXT = 400
MOST_TASKS = 60
MOST_STAGES = 2 * MOST_TASKS
"""How many a page shows in full: a browser takes seconds for a table of more than some ten thousand cells."""


@dataclass(frozen=True)
class Now:
    """What a page that is served says of the moment.

    Attributes:
        sentences: What goes on, and what there is to do.
        seconds: After how many the browser asks again; None where nothing will change, or it is held still.
        held: Whether its reader holds it still.
    """

    sentences: Sequence[str]
    seconds: int | None = None
    held: bool = False


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run directory, from the files that are there.

    Returns:
        The report's path.

    Raises:
        UserError: The directory has no readable `results.json`.
    """
    path = run_dir / REPORT
    write_text(path, report_page(run_dir, load_results(run_dir)))
    return path


def report_page(run_dir: Path, results: RunResults, now: Now | None = None) -> str:
    """The page of a run: one HTML file, which asks for nothing from outside itself.

    Works for a run that is still going; what it has not measured yet is left open.

    Args:
        run_dir: The run's directory.
        results: Those of the run, or of the stages that are there.
        now: What the page says of the moment, where it is served while the run goes on.

    Raises:
        UserError: A file that the page is made of is damaged.
    """
    results, others = with_saved_readings(results, run_dir)
    timing = read_timing(run_dir)
    common_axis = _scale(results)
    columns, rows = shown(results)
    page = template("report.html.jinja").render(
        run=results,
        now=now,
        headline=headline(results),
        pairs=[pair for pair in PAIRS if results.verdicts.get(pair)],
        words=verdict_words,
        left_out=left_out(results),
        asked_again=asked_again(results),
        metrics=[
            metric_named(name).formula
            for name in dict.fromkeys(results.metrics[task] for task in results.tasks)
        ],
        columns=columns,
        rows=rows,
        most=MOST_TASKS,
        curves=_curves(results, [results.tasks[j] for j in columns], common_axis),
        ways=asked_otherwise(results),
        others=others,
        recovered=recoveries(results),
        stories=stories(results),
        moved=moved(results),
        axis=common_axis if all(results.bounded(task) for task in results.tasks) else None,
        outcomes=[(outcome, _dumbbell(results, outcome, common_axis)) for outcome in results.worst_first],
        headlines=[_figure(results, name) for name in HEADLINES],
        losses=lost_examples(run_dir, results) if results.complete else [],
        trainings=_trainings(run_dir, results, rows),
        layers=layer_pages(results),
        config=_text(run_dir / CONFIG),
        environment=(environment := read_json(run_dir / ENVIRONMENT, dict)),
        version=(environment or {}).get("versions", {}).get("forgetmenot"),
        finished=_finished(run_dir / EVENTS),
        as_csv=matrix_csv(results),
        as_markdown=matrix_markdown(results),
        timing=timing,
        costs=costs(results.cost, timing) if results.cost else {},
    )
    return str(page)


def _finished(events: Path) -> str | None:
    """When a run finished, as a day and a time; None where it has not."""
    lines = events.read_bytes().splitlines() if events.is_file() else []
    if not lines or b'"finished"' not in lines[-1]:
        return None
    return str(parse(events, lines[-1], dict)["time"])[:16].replace("T", " ")


def shown(results: RunResults) -> tuple[list[int], list[int]]:
    """The columns and the stages of which the page shows every score, in their order.

    All where a page can hold them; else the tasks that the table of outcomes begins with, and the stages that
    trained them with the first and the last one measured. `results.json` has the others.
    """
    tasks = [one.task for one in results.worst_first[:MOST_TASKS]]
    columns = [j for j, task in enumerate(results.tasks) if task in tasks]
    if len(results.stages) <= MOST_STAGES:
        return columns, list(range(len(results.stages)))
    own = {i for task in tasks if (i := results.own_stage(task)) is not None}
    return columns, sorted({0, *own, max(results.measured - 1, 0)})


def template(name: str) -> Any:
    """A page of `templates/`, with the filters that write numbers in readable form."""
    environment = Environment(
        loader=PackageLoader("forgetmenot.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "span": span,
        "p_value": p_value,
        "breakable": _breakable,
        "shortened": _shortened,
        "plain": _plain,
        "common": common,
        "way": way,
    }
    return environment.get_template(name)


def _curves(results: RunResults, tasks: Sequence[str], common: Interval) -> list[tuple[str, Markup]]:
    """One forgetting curve per task; tasks whose scores have the same bounds share an axis."""
    curves = []
    for task in tasks:
        scores, own = results.column(task), results.own_stage(task)
        if all(score is None for score in scores):
            continue
        scores = [results.shown(task, score) for score in scores]
        told = points_told(len(scores), own)
        label = f"{task}, {results.metrics[task]} after each stage: " + ", ".join(
            f"{results.stages[i].label} {number(scores[i])}" for i in told
        )
        picture = curve(
            scores=scores,
            spans=[results.shown_span(task, span) for span in results.spans(task)],
            stage_labels=[stage.label for stage in results.stages],
            own=own,
            majority=results.shown(task, results.majority.get(task)),
            scale=common if results.bounded(task) else _own_scale(results, task),
            connected=results.in_sequence,
            label=label,
        )
        curves.append((task, picture))
    return curves


def _dumbbell(results: RunResults, outcome: TaskOutcome, common: Interval) -> Markup:
    """A task's way; its end is drawn where a stage came after its own."""
    end = outcome.end if not outcome.trained or outcome.own_end or not results.verdicts else None
    values = [outcome.shown(value) for value in (outcome.base, outcome.learned, end)]
    told = zip(("base model", "after its own stage", "at the end"), values, strict=True)
    last = outcome.own_end or outcome.base_end
    return dumbbell(
        *values,
        majority=outcome.shown(results.majority.get(outcome.task)),
        lost=last is not None and last["decision"] == "forgotten",
        scale=common if results.bounded(outcome.task) else _own_scale(results, outcome.task),
        label=f"{outcome.task}: "
        + ", ".join(f"{name} {number(value)}" for name, value in told if value is not None),
    )


def _scale(results: RunResults) -> Interval:
    """The axis common to all bounded tasks."""
    bounded = [task for task in results.tasks if results.bounded(task)]
    values = [value for task in bounded for value in _values(results, task)]
    return score_scale(values) if values else (0.0, 1.0)


def _own_scale(results: RunResults, task: str) -> Interval:
    return score_scale(_values(results, task) or [0.0])


def _values(results: RunResults, task: str) -> list[float]:
    """Everything that a figure of the task draws."""
    ends = [end for pair in results.spans(task) if pair for end in pair]
    drawn = [*results.column(task), *ends, results.majority.get(task)]
    shown = [results.shown(task, value) for value in drawn]
    return [value for value in shown if value is not None]


def _figure(results: RunResults, name: str) -> dict[str, Any]:
    """One number of the summary with all that it depends on."""
    return {
        "value": results.summary.get(name),
        "interval": results.summary_intervals.get(name),
        "fitted": cross_fitted(results.cross_fitted.get(name)),
        "floor": results.noise_floor.get(name),
        "reason": results.summary.get("reasons", {}).get(name),
        "formula": FORMULAS[name],
    }


def _trainings(run_dir: Path, results: RunResults, rows: Sequence[int]) -> list[dict[str, Any]]:
    """The training loss of every stage shown that has logged one, on a common axis."""
    logs: list[tuple[MatrixRow, list[dict[str, Any]]]] = []
    learned = results.cost.get("answer_tokens", {})
    for stage in (results.stages[i] for i in rows):
        path = stage_folder(run_dir, stage.name) / TRAINING
        if not path.parent.exists():
            path = log_in_training(run_dir, stage.name)
        content = read_checked(path) or b""
        steps = [parse(path, line, dict) for line in content.splitlines() if line.endswith(b"}")]
        if steps := [step for step in steps if step.get("loss") is not None]:
            logs.append((stage, steps))
    highest = max((step["loss"] for _, steps in logs for step in steps), default=0.0) or 1.0
    return [
        {
            "stage": stage.label,
            "rehearsed": rehearsed_share(one["phases"])
            if (one := learned.get(stage.name)) and one["rehearsed"]
            else "",
            "first": steps[0]["loss"],
            "last": steps[-1]["loss"],
            "steps": steps[-1]["step"],
            "picture": loss_line(
                [(step["step"], step["loss"]) for step in steps],
                highest,
                f"Training loss of {stage.label}: "
                f"from {number(steps[0]['loss'])} to {number(steps[-1]['loss'])}",
            ),
        }
        for stage, steps in logs
    ]


def _text(path: Path) -> str | None:
    content = read_checked(path)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not UTF-8") from error


def _shortened(text: str) -> str:
    """A text cut at a word, so that a page of examples stays readable."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT].rsplit(" ", 1)[0] + " …"


def _breakable(name: str) -> Markup:
    """A name that a narrow column may break after its own joints."""
    return Markup(re.sub(r"([_./:-])", r"\1<wbr>", str(escape(name))))


def _plain(value: Any) -> str:
    """A recorded value as a user writes it."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) >= 1 else f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_plain(part) for part in value) or NONE
    return str(value)
