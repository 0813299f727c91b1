"""The score matrix in a terminal: while it fills, and when it is whole."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from forgetmenot.metrics import PAIRS
from forgetmenot.record.result_schema import VerdictOf
from forgetmenot.record.results import RunResults
from forgetmenot.report.by_reading import AskedBy, Recovery, asked_otherwise, recoveries
from forgetmenot.report.costs import costs
from forgetmenot.report.headline import headline
from forgetmenot.report.probe_tables import print_probes
from forgetmenot.report.story import moved, stories
from forgetmenot.report.verdict_words import (
    PAIR_TITLES,
    difference_words,
    examples_words,
    interval_words,
    margin_words,
    needed_words,
    short_words,
)
from forgetmenot.report.wording import (
    HEADLINES,
    NONE,
    asked_again,
    cross_fitted,
    left_out,
    number,
    signed,
    span,
)

COLUMN = 15
LEGEND = "* just learned, then the change since; dim: not above chance"
VERDICT_LEGEND = (
    "difference and its 95 % interval; kept: surely no worse than by the margin; forgotten, gained: surely "
    "worse, better (Holm’s correction over the tasks)"
)
STYLES = {"forgotten": "bold red", "cannot tell": "yellow", "kept": "", "gained": "green"}


class LiveTable:
    """The score matrix that fills as stages end; print it, or hand it to `rich.live.Live`.

    Columns that do not fit the terminal's width go into a further table below the first.

    Args:
        tasks: The columns.
        stage_names: The rows, the base model first ("00-base", "01-sst2").
        metrics: The name of each task's metric.
        trains_on: The tasks that each stage trains; read off the stages' names where not given.
        majority: The majority-class score of each task, where it has one.
        follows: Whether each stage went on from the one before; all do unless given.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        stage_names: Sequence[str],
        metrics: Mapping[str, str],
        *,
        trains_on: Sequence[Sequence[str]] | None = None,
        majority: Mapping[str, float | None] | None = None,
        follows: Sequence[bool] | None = None,
    ) -> None:
        trained = trains_on or [[task for task in tasks if task == name[3:]] for name in stage_names]
        self._results: dict[str, Any] = {
            "tasks": list(tasks),
            "stages": [
                {"name": name, "trains_on": list(names), "follows": following}
                for name, names, following in zip(
                    stage_names, trained, follows or [True] * len(stage_names), strict=True
                )
            ],
            "matrix": [],
            "metrics": dict(metrics),
            "majority": dict(majority or {}),
            "summary": {},
        }

    @property
    def begun(self) -> bool:
        """Whether it has a row."""
        return bool(self._results["matrix"])

    def fill(self, stage_index: int, row: Mapping[str, float | None]) -> None:
        """Set the scores after a stage; a task that is not in `row`, or None, is a missing cell."""
        matrix, tasks = self._results["matrix"], self._results["tasks"]
        matrix.extend([None] * len(tasks) for _ in range(len(matrix), stage_index + 1))
        matrix[stage_index] = [row.get(task) for task in tasks]

    def line(self, row: Mapping[str, float | None]) -> str:
        """The scores after a stage on one line, where the screen is no terminal that could redraw a table."""
        shown = RunResults(self._results).shown
        return "  ".join(
            f"{task} {'missing' if value is None else number(shown(task, value))}"
            for task, value in row.items()
        )

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Set the footer: the run's summary as in `results.json`."""
        self._results["summary"] = dict(summary)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        results = RunResults(self._results)
        yield from _tables(results, options.max_width, [])
        yield Text(LEGEND, style="dim")
        if results.summary:
            names = ("average_performance", "backward_transfer", "forgetting")
            yield Text(
                "   ".join(f"{HEADLINES[name]} {number(results.summary.get(name))}" for name in names),
                style="bold",
            )


def print_matrix(content: Mapping[str, Any], console: Console) -> None:
    """Print a finished run: its score matrix, the verdicts on each task, the summary and the headline.

    Args:
        content: That of `results.json`.
        console: Where to print.
    """
    results = RunResults(content)
    last = results.measured - 1
    margins: list[tuple[str, list[Text]]] = [
        (
            "95 % at the end",
            [
                Text(_range(results.shown_span(task, results.spans(task)[last])), style="dim")
                for task in results.tasks
            ],
        ),
        (
            "chance level",
            [
                Text(number(results.shown(task, results.majority.get(task))), style="dim")
                for task in results.tasks
            ],
        ),
    ]
    for table in _tables(results, console.width, margins):
        console.print(table)
    console.print(Text(LEGEND, style="dim"), "")
    if any(results.verdicts.values()):
        console.print(_verdicts(results), Text(VERDICT_LEGEND, style="dim"), "", sep="\n")
    if results.summary.get("over") != []:  # of a run that trains on no task there is no figure
        console.print(_summary(results))
    for told in filter(None, (left_out(results), asked_again(results))):
        console.print(Text(told, style="dim"))
    console.print()
    if otherwise := asked_otherwise(results):
        console.print(_by_way(results, otherwise), "", sep="\n")
    if results.cost:
        words = "; ".join(f"{name} {value}" for name, value in costs(results.cost).items())
        console.print(Text(f"Cost: {words}.", style="dim"), "", sep="\n")
    first, *others = headline(results)
    console.print(Text(first, style="bold"), *map(Text, others), sep="\n")
    for story in stories(results):
        console.print("", *(Text(sentence) for sentence in story.sentences), sep="\n")
    for sentence in moved(results):
        console.print("", Text(sentence), sep="\n")
    print_probes(results.probes, console, in_sequence=results.in_sequence)


def _tables(results: RunResults, width: int, margins: Sequence[tuple[str, list[Text]]]) -> list[Table]:
    """The matrix, cut into as many tables as the width asks for."""
    stage_width = max(len(stage.name) for stage in results.stages)
    wide = max([COLUMN, *(len(task) + 2 for task in results.tasks)])
    at_once = max(1, (width - max(stage_width, 15) - 4) // wide)
    return [
        _table(results, range(first, min(first + at_once, len(results.tasks))), margins)
        for first in range(0, len(results.tasks), at_once)
    ]


def _table(results: RunResults, columns: range, margins: Sequence[tuple[str, list[Text]]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("after stage", no_wrap=True)
    for j in columns:
        task = results.tasks[j]
        header = Text(f"{task}\n").append(results.metric_title(task), style="not bold dim")
        table.add_column(header, min_width=COLUMN - 2, overflow="fold")
    for i, stage in enumerate(results.stages):
        table.add_row(stage.name, *(_cell(results, i, results.tasks[j]) for j in columns))
    table.add_section()
    for name, cells in margins:
        table.add_row(Text(name, style="dim"), *(cells[j] for j in columns))
    return table


def _cell(results: RunResults, i: int, task: str) -> Text:
    """One score on its colour, the star of the stage that learned it, or the change since."""
    value, own = results.column(task)[i], results.own_stage(task)
    if i >= results.measured:
        return Text("  ·", style="dim")
    if value is None:
        return Text(" missing", style="yellow")
    above = results.above_chance(task, value)
    heat: Style | str = _heat(results.level(task, value) or 0.0) if above else "dim"
    cell = Text.assemble((f" {number(results.shown(task, value))} ", heat))
    if i == own:
        cell.append(" *", style="bold")
    change = results.since_learned(task, i)
    if change is not None:
        cell.append(f" {signed(results.shown(task, change))}", style="red" if change < 0 else "green")
    return cell


def _heat(level: float) -> Style:
    """Forget-me-not blue, from pale to deep, with a foreground that can be read on it."""
    pale, deep = (222, 233, 250), (62, 112, 196)
    red, green, blue = (round(a + (b - a) * level) for a, b in zip(pale, deep, strict=True))
    ink = Color.from_rgb(255, 255, 255) if level > 0.6 else Color.from_rgb(20, 30, 50)
    return Style(color=ink, bgcolor=Color.from_rgb(red, green, blue))


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f}..{interval[1]:.3f}"


def _verdicts(results: RunResults) -> Table:
    """What became of each task between the base model, its own stage and the end, the worst first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    pairs = [pair for pair in PAIRS if results.verdicts.get(pair)]
    recovered = recoveries(results)
    further = ["brought back at the end by"] if recovered else []
    for title in ("task", *(PAIR_TITLES[pair] for pair in pairs), *further):
        table.add_column(title, overflow="fold")
    for outcome in results.worst_first:
        judged = [results.verdicts[pair].get(outcome.task) for pair in pairs]
        if (one := next(filter(None, judged), None)) is None:
            continue
        name = Text(outcome.task).append(f"\n{examples_words(one)}", style="dim")
        name.append(f"\nmargin {margin_words(one['margin'], outcome.metric)}", style="dim")
        cells = [_verdict(verdict, outcome.metric) for verdict in judged]
        if recovered:
            cells.append(_recovered(recovered.get(outcome.task, []), outcome.metric))
        table.add_row(name, *cells)
    return table


def _verdict(verdict: VerdictOf | None, metric: str) -> Text:
    """A verdict in a cell: what was decided, the difference with its interval, and what would decide it."""
    if verdict is None:
        return Text(NONE, style="dim")
    short = short_words(verdict, metric)
    cell = Text(short, style=STYLES[verdict["decision"]])
    if verdict["difference"] is not None:
        cell.append(f"\n{difference_words(verdict, metric)}", style="default not bold")
        cell.append(f"\n{interval_words(verdict, metric)}", style="dim not bold")
    if verdict["needed"]:
        cell.append(f"\n{needed_words(verdict)}", style="dim not bold")
    elif verdict["reason"]:
        cell.append(f"\n{verdict['reason']}", style="dim not bold")
    return cell


def _recovered(found: Sequence[Recovery], metric: str) -> Text:
    """What each other way of asking brings back of a task, with its interval."""
    cell = Text("" if found else NONE, style="" if found else "dim")
    for one in found:
        cell.append(f"{one.how}: ", style="dim").append(difference_words(one.brought_back, metric))
        cell.append(f" {interval_words(one.brought_back, metric)}\n", style="dim")
    cell.rstrip()
    return cell


def _by_way(results: RunResults, ways: Sequence[AskedBy]) -> Table:
    """Each task right after its own stage and at the end, by each way of asking."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("asked by", *results.tasks):
        table.add_column(title, overflow="fold")
    for reading in ways:
        cells = []
        for task, move in zip(results.tasks, reading.moves, strict=True):
            cell = Text("")
            if move is not None:
                ends = (number(results.shown(task, value)) for value in (move.learned, move.end))
                cell.append(" → ".join(ends))
            if move is not None and move.change is not None:
                change = signed(results.shown(task, move.change))
                cell.append(f" {change}", style="red" if move.change < 0 else "green")
            if move is not None and move.unparsed is not None:
                cell.append(f"\n{move.unparsed} of {move.n} no label", style="dim")
            cells.append(cell)
        table.add_row(reading.title, *cells)
    return table


def _summary(results: RunResults) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "value", "95 % interval", "noise floor", ""):
        table.add_column(name)
    reasons = results.summary.get("reasons", {})
    for name, title in HEADLINES.items():
        interval, floor = results.summary_intervals.get(name), results.noise_floor.get(name)
        table.add_row(
            title,
            Text(number(results.summary.get(name)), style="bold"),
            span(interval) if interval else cross_fitted(results.cross_fitted.get(name)),
            number(floor) if floor is not None else "",
            Text(reasons.get(name, ""), style="dim"),
        )
    return table
