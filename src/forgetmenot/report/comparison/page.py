"""The page of a comparison: one HTML file that needs nothing else."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from forgetmenot.metrics import FORMULAS
from forgetmenot.record.layout import REPORT
from forgetmenot.report.comparison.claims import JudgedClaim
from forgetmenot.report.comparison.comparison import FINAL, Comparison, Group, TaskMeans
from forgetmenot.report.comparison.conclusions import conclusions, significant
from forgetmenot.report.comparison.figures import Point, scatter, size_text, strips
from forgetmenot.report.comparison.learned_and_kept import Balance, JointEnd, balance_picture
from forgetmenot.report.comparison.learned_and_left import Bar, bars_picture
from forgetmenot.report.comparison.runs import ComparedRun, majority
from forgetmenot.report.comparison.tables import failed_names, group_rows, groups_markdown
from forgetmenot.report.csv_text import csv_text
from forgetmenot.report.html import template
from forgetmenot.report.published import Published, PublishedTable
from forgetmenot.report.wording import number


def comparison_page(
    comparison: Comparison,
    published: Published | None = None,
    claims: Sequence[JudgedClaim] = (),
    folder: Path | None = None,
) -> str:
    """The page, from a comparison and the figures that a paper has published.

    Args:
        comparison: At least one of its runs.
        published: Shown in a section of their own; no other figure is computed from them.
        claims: What was stated before the runs, judged.
        folder: Where the page will lie: runs are linked from there; None links none.
    """
    first, *others = conclusions(comparison, claims)
    return str(
        template("comparison.html.jinja").render(
            comparison=comparison,
            first=first,
            others=others,
            columns=comparison.columns,
            formulas=[FORMULAS[figure] for figure in comparison.columns],
            claims=claims,
            bars=_bars(comparison),
            balance=_balance(comparison),
            tasks=_tasks(comparison),
            links={run.name: _link(run, folder) for run in comparison.finished},
            as_csv=csv_text(group_rows(comparison)),
            as_markdown=groups_markdown(comparison),
            tests=[(test, significant(test)) for test in comparison.tests],
            sizes=_sizes(comparison),
            loss=_loss(comparison),
            keys=[_key(comparison, key) for key in comparison.keys if key in ("prompt", "order")],
            published=published,
            tables=[_published(comparison, table) for table in (published.tables if published else ())],
            failures=[
                (failed_names([run.name for run in runs]), sentence)
                for sentence, runs in comparison.failures.items()
            ],
            size_text=size_text,
        )
    )


def _bars(comparison: Comparison) -> Markup | None:
    """What each row learned and what is left of it, where at least two have both figures."""
    bars = []
    for group in comparison.matched_groups:
        learned, left = group.spread("learning_accuracy"), group.spread(FINAL)
        if learned and left:
            bars.append(Bar(short_name(comparison, group), learned.mean, left.mean, left.interval))
    if len(bars) < 2:
        return None
    shares = [share for run in comparison.finished if (share := majority(run)) is not None]
    same = shares[0] if shares and len(set(shares)) == 1 else None
    return bars_picture(sorted(bars, key=lambda bar: -(bar.left or 0.0)), same)


def _balance(comparison: Comparison) -> Markup | None:
    """What each row learned against what it kept of it, where at least two learned tasks in turn."""
    series = _series(comparison.matched_groups)
    rows, joint, shapes = list[Balance](), None, set[tuple[int, int]]()
    for group in comparison.matched_groups:
        learned, kept, end = (
            group.spread(name) for name in ("learning_accuracy", "backward_transfer", FINAL)
        )
        if learned and kept:
            rows.append(
                Balance(
                    short_name(comparison, group),
                    learned.mean,
                    kept.mean,
                    learned.interval,
                    kept.interval,
                    series=series.get(group.name),
                )
            )
            shapes |= {(len(run.tasks), run.measured - 1) for one in group.finished if (run := one.results)}
        elif group.method == "joint" and end:
            joint = end.mean
    if len(rows) < 2:
        return None
    tasks, stages = shapes.pop()
    if joint is None or shapes or tasks != stages:
        return balance_picture(rows)
    return balance_picture(rows, JointEnd(joint, tasks))


def _series(groups: Sequence[Group]) -> dict[str, str]:
    """Rows that differ in their learning rate alone to what they share, in short: the method."""
    alike: dict[str, list[Group]] = {}
    for group in groups:
        if group.but_rate:
            alike.setdefault(group.but_rate, []).append(group)
    several = {name: rows for name, rows in alike.items() if len(rows) > 1}
    methods = [rows[0].method for rows in several.values()]
    return {
        row.name: (row.method if row.method and methods.count(row.method) == 1 else name)
        for name, rows in several.items()
        for row in rows
    }


def short_name(comparison: Comparison, group: Group) -> str:
    """A row's name in a picture: its method alone, where rows are methods and each has its own."""
    others = [one.method for one in comparison.groups if one.name != group.name]
    alone = comparison.kind == "method" and group.method not in others
    return group.method if alone and group.method else group.name


def _tasks(comparison: Comparison) -> list[tuple[str, dict[str, TaskMeans]]]:
    """Each task with the scores of every row on it."""
    found = {group.name: group.tasks() for group in comparison.groups if group.finished}
    tasks = dict.fromkeys(task for scores in found.values() for task in scores)
    return [
        (task, {name: scores[task] for name, scores in found.items() if task in scores}) for task in tasks
    ]


def _link(run: ComparedRun, folder: Path | None) -> str | None:
    """The way from the page to a run's own report; None where there is no such file."""
    if folder is None or run.path is None or not (run.path / REPORT).is_file():
        return None
    return Path(os.path.relpath(run.path / REPORT, folder)).as_posix()


def _sizes(comparison: Comparison) -> Markup | None:
    """Size against what was lost, where there are at least two sizes."""
    points = [
        Point(one.name, one.parameters, found.mean, found.std)
        for one in comparison.groups
        if one.parameters and (found := one.spread(comparison.loss))
    ]
    if len({point.parameters for point in points}) < 2:
        return None
    return _scatter(points, f"{_loss(comparison)} against parameters")


def _loss(comparison: Comparison) -> str:
    return "Haque’s forgetting a task" if comparison.haque else "The drop a task since it was learned"


def _scatter(points: Sequence[Point], title: str) -> Markup:
    told = ", ".join(f"{p.name} ({size_text(p.parameters)}) {number(p.value)}" for p in points)
    return scatter(points, f"{title}: {told}")


def _key(comparison: Comparison, key: str) -> dict[str, Any]:
    """What a level of one key does to each group, and on the whole."""
    levels = comparison.levels(key)
    effects = {title: comparison.effect(key, figure) for figure, title in comparison.effects.items()}
    values = [value for run in comparison.finished if (value := run.figure(FINAL)) is not None]
    scale = _around(values)
    pictures = []
    for group in comparison.groups:
        rows = [
            (
                level,
                [
                    value
                    for run in group.finished
                    if comparison.level(run, key) == level and (value := run.figure(FINAL)) is not None
                ],
            )
            for level in levels
        ]
        if any(figures for _, figures in rows):
            told = ", ".join(f"{level} {number(sum(v) / len(v))}" for level, v in rows if v)
            pictures.append((group.name, strips(rows, scale, f"{group.name}, final mean by {key}: {told}")))
    return {"key": key, "levels": levels, "effects": effects, "pictures": pictures}


def _around(values: Sequence[float]) -> tuple[float, float]:
    """An axis close around values, so that small differences can be seen."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) * 0.08 or 0.05
    return low - margin, high + margin


def _published(comparison: Comparison, table: PublishedTable) -> dict[str, Any]:
    """A published table, with our own figure beside a row of the same model, in columns of their own."""
    ours = {key: column["ours"] for key, column in table.columns.items() if "ours" in column}
    mine = {one.name: one for one in comparison.groups}
    rows = []
    for row in table.rows:
        matching = next(
            (mine[name] for name in (row["label"], *row.get("checkpoints", ())) if name in mine), None
        )
        spreads = {key: matching.spread(figure) if matching else None for key, figure in ours.items()}
        rows.append((row, {key: found and found.mean for key, found in spreads.items()}, matching))
    sized = [
        Point(row["label"], row["parameters"], row["forgetting"]) for row in table.rows if "parameters" in row
    ]
    return {
        "title": table.title,
        "columns": table.columns,
        "ours": ours if any(matching for *_, matching in rows) else {},
        "rows": rows,
        "picture": _scatter(sized, "Published forgetting against parameters") if len(sized) > 1 else None,
    }
