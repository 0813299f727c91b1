"""The score matrix in a terminal: while it fills, and when it is whole."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from forgetmenot.report.costs import costs
from forgetmenot.report.findings import Findings
from forgetmenot.report.probes import print_probes
from forgetmenot.report.ways import AskedBy, asked_otherwise
from forgetmenot.report.wording import number, p_value, signed, span, verdict

COLUMN = 15
HEADLINES = {
    "average_performance": "average performance",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "forgetting": "forgetting",
    "learning_accuracy": "learning accuracy",
}
STATES = {
    "forgotten": "forgotten",
    "improved": "improved",
    "kept": "kept",
    "untested": "not tested",
    "last": "learned last",
    "ahead": "to come",
    "apart": "from the base",
    "scored": "only scored",
    "unknown": "cell missing",
}
LEGEND = "* just learned, then the change since; dim: not above the majority class"


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

    def fill(self, stage_index: int, row: Mapping[str, float | None]) -> None:
        """Set the scores after a stage; a task that is not in `row`, or None, is a missing cell."""
        matrix, tasks = self._results["matrix"], self._results["tasks"]
        matrix.extend([None] * len(tasks) for _ in range(len(matrix), stage_index + 1))
        matrix[stage_index] = [row.get(task) for task in tasks]

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Set the footer: the run's summary as it stands in `results.json`."""
        self._results["summary"] = dict(summary)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        findings = Findings(self._results)
        yield from _tables(findings, options.max_width, [])
        yield Text(LEGEND, style="dim")
        if findings.summary:
            names = ("average_performance", "backward_transfer", "forgetting")
            yield Text(
                "   ".join(f"{HEADLINES[name]} {number(findings.summary.get(name))}" for name in names),
                style="bold",
            )


def print_matrix(results: Mapping[str, Any], console: Console) -> None:
    """Print a finished run: its score matrix, what became of each task, the summary and the verdict.

    Args:
        results: The parsed `results.json`.
        console: Where to print.
    """
    findings = Findings(results)
    last = findings.measured - 1
    margins: list[tuple[str, list[Text]]] = [
        (
            "95 % at the end",
            [Text(_range(findings.spans(task)[last]), style="dim") for task in findings.tasks],
        ),
        (
            "majority class",
            [Text(number(findings.majority.get(task)), style="dim") for task in findings.tasks],
        ),
        ("in the end", [_fate(findings, task) for task in findings.tasks]),
    ]
    for table in _tables(findings, console.width, margins):
        console.print(table)
    console.print(Text(LEGEND, style="dim"), "", _summary(findings), "", sep="\n")
    if otherwise := asked_otherwise(findings):
        console.print(_by_way(findings, otherwise), "", sep="\n")
    if findings.cost:
        words = "; ".join(f"{name} {value}" for name, value in costs(findings.cost).items())
        console.print(Text(f"Cost: {words}.", style="dim"), "", sep="\n")
    console.print(Text(verdict(findings), style="bold"))
    print_probes(findings.probes, console)


def _tables(findings: Findings, width: int, margins: Sequence[tuple[str, list[Text]]]) -> list[Table]:
    """The matrix, cut into as many tables as the width asks for."""
    stage_width = max(len(stage.name) for stage in findings.stages)
    wide = max([COLUMN, *(len(task) + 2 for task in findings.tasks)])
    at_once = max(1, (width - max(stage_width, 15) - 4) // wide)
    return [
        _table(findings, range(first, min(first + at_once, len(findings.tasks))), margins)
        for first in range(0, len(findings.tasks), at_once)
    ]


def _table(findings: Findings, columns: range, margins: Sequence[tuple[str, list[Text]]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("after stage", no_wrap=True)
    for j in columns:
        task = findings.tasks[j]
        header = Text(f"{task}\n").append(findings.metrics[task], style="not bold dim")
        table.add_column(header, min_width=COLUMN - 2, overflow="fold")
    for i, stage in enumerate(findings.stages):
        table.add_row(stage.name, *(_cell(findings, i, findings.tasks[j]) for j in columns))
    table.add_section()
    for name, cells in margins:
        table.add_row(Text(name, style="dim"), *(cells[j] for j in columns))
    return table


def _cell(findings: Findings, i: int, task: str) -> Text:
    """One score on its colour, the star of the stage that learned it, or the change since."""
    value, own = findings.column(task)[i], findings.own_stage(task)
    if i >= findings.measured:
        return Text("  ·", style="dim")
    if value is None:
        return Text(" missing", style="yellow")
    above = findings.above_majority(task, value)
    heat: Style | str = _heat(findings.level(task, value) or 0.0) if above else "dim"
    cell = Text.assemble((f" {number(value)} ", heat))
    if i == own:
        cell.append(" *", style="bold")
    change = findings.since_learned(task, i)
    if change is not None:
        cell.append(f" {signed(change)}", style="red" if change < 0 else "green")
    return cell


def _heat(level: float) -> Style:
    """Forget-me-not blue, from pale to deep, with a foreground that can be read on it."""
    pale, deep = (222, 233, 250), (62, 112, 196)
    red, green, blue = (round(a + (b - a) * level) for a, b in zip(pale, deep, strict=True))
    ink = Color.from_rgb(255, 255, 255) if level > 0.6 else Color.from_rgb(20, 30, 50)
    return Style(color=ink, bgcolor=Color.from_rgb(red, green, blue))


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f}..{interval[1]:.3f}"


def _fate(findings: Findings, task: str) -> Text:
    fate = findings.fate(task)
    if fate.not_learned:
        return Text("not learned", style="yellow")
    words = STATES[fate.state] if fate.p is None else f"{STATES[fate.state]}\n{p_value(fate.p)}"
    return Text(words, style={"forgotten": "bold red", "improved": "green"}.get(fate.state, ""))


def _by_way(findings: Findings, ways: Sequence[AskedBy]) -> Table:
    """Each task right after its own stage and at the end, by each way of asking."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("asked by", *findings.tasks):
        table.add_column(title, overflow="fold")
    for one in ways:
        cells = []
        for move in one.moves:
            cell = Text("") if move is None else Text(f"{number(move.learned)} → {number(move.end)}")
            if move is not None and move.change is not None:
                cell.append(f" {signed(move.change)}", style="red" if move.change < 0 else "green")
            if move is not None and move.unparsed is not None:
                cell.append(f"\n{move.unparsed} of {move.n} no label", style="dim")
            cells.append(cell)
        table.add_row(one.title, *cells)
    return table


def _summary(findings: Findings) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "value", "95 % interval", "noise floor", ""):
        table.add_column(name)
    reasons = findings.summary.get("reasons", {})
    for name, title in HEADLINES.items():
        interval, floor = findings.summary_intervals.get(name), findings.noise_floor.get(name)
        table.add_row(
            title,
            Text(number(findings.summary.get(name)), style="bold"),
            span(interval) if interval else "",
            number(floor) if floor is not None else "",
            Text(reasons.get(name, ""), style="dim"),
        )
    return table
