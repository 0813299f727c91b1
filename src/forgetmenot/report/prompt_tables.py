"""Tables of prompt variants: for a terminal, and as one HTML page."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.metrics.resampling import Interval
from forgetmenot.record.results import SIGNIFICANT
from forgetmenot.report.figures import score_scale, whisker
from forgetmenot.report.html import template
from forgetmenot.report.wording import NONE, listed, number, p_value, span

CHOSEN_HERE = (
    "The best was chosen on these very examples, so its lead is too large on average; "
    "p is Holm-corrected over the variants of a task."
)


def print_prompts(found: Mapping[str, Any], console: Console) -> None:
    """Print a table for each task of a prompts.json, the best variant first, and what the range is worth."""
    for name, task in found["tasks"].items():
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        written = ["unparsed"] if _written(task) else []
        for title in (name, task["metric"], "95 % interval", "behind the best", "p", *written):
            table.add_column(title, no_wrap=True)
        for variant, score in _sorted(task):
            style = "bold" if _is_best(task, score) else "" if _above(task, score) else "dim"
            cells = [*_cells(variant, score), *([str(score["unparsed"])] if written else [])]
            table.add_row(*(Text(cell, style=style) for cell in cells))
        console.print(table)
        for variant, reason in task["left_out"].items():
            console.print(Text(f"{variant} was left out: {reason}.", style="dim"))
        console.print(Text(conclusion(name, task)), "", sep="\n")
    console.print(Text(f"Dim: not above chance. {CHOSEN_HERE}", style="dim"))


def prompts_page(found: Mapping[str, Any]) -> str:
    """One HTML page of a prompts.json that asks for nothing from outside itself."""
    tasks = [
        {
            **task,
            "name": name,
            "verdict": conclusion(name, task),
            "rows": [
                {**one, "name": variant, "picture": _picture(task, variant, one)}
                for variant, one in _sorted(task)
            ],
            "scale": _scale(task),
            "written": _written(task),
        }
        for name, task in found["tasks"].items()
    ]
    page: str = template("prompts.html.jinja").render(
        name=found["model"].rstrip("/").rpartition("/")[2], tasks=tasks, chosen_here=CHOSEN_HERE
    )
    return page


def conclusion(name: str, task: Mapping[str, Any]) -> str:
    """How much the prompt matters for a task, in a sentence or two."""
    if task["chosen"] is None:
        return f"{name}: no prompt has a score."
    equal = [variant for variant, one in _sorted(task) if _is_best(task, one)]
    others = [one for one in task["variants"].values() if not _is_best(task, one)]
    behind = sum(one["p_holm"] is not None and one["p_holm"] < SIGNIFICANT for one in others)
    best = task["variants"][task["chosen"]]["value"]
    score = f"({number(best)}, n = {task['n']:,})"
    if len(equal) == 1:
        said = f"{name}: {task['chosen']} is best {score}"
    else:
        said = (
            f"{name}: {listed(equal)} are equal and best {score}, and {task['chosen']} is taken as the first"
        )
    if others:
        said += f"; {behind} of {len(others)} others are significantly behind"
    if task["range"] is not None:
        said += (
            f". The prompts range over {number(task['range'])}, where chance alone would give "
            f"{number(task['range_by_chance'])} ({p_value(task['range_p'])})"
        )
    if task["majority"] is not None and best <= task["majority"]:
        said += f". None is above chance ({number(task['majority'])})"
    return said + "."


def _cells(variant: str, one: Mapping[str, Any]) -> list[str]:
    behind = number(one["behind"]) if one["behind"] is not None else ""
    p = p_value(one["p_holm"]) if one["p_holm"] is not None else ""
    return [variant, number(one["value"]), span(one["interval"]), behind, p]


def _written(task: Mapping[str, Any]) -> bool:
    """Whether the labels were read off written answers."""
    return any(one["unparsed"] is not None for one in task["variants"].values())


def _sorted(task: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The variants, the highest score first and those without one last."""
    variants = task["variants"].items()
    return sorted(variants, key=lambda pair: (pair[1]["value"] is None, -(pair[1]["value"] or 0.0)))


def _is_best(task: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    """Whether a variant's score is the highest; several may have it, of which the first is chosen."""
    chosen = task["variants"].get(task["chosen"])
    return chosen is not None and one["value"] == chosen["value"]


def _above(task: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    return one["value"] is not None and (task["majority"] is None or one["value"] > task["majority"])


def _picture(task: Mapping[str, Any], variant: str, one: Mapping[str, Any]) -> Markup:
    if one["value"] is None:
        return Markup(NONE)
    interval = tuple(one["interval"]) if one["interval"] else None
    label = f"{variant}: {number(one['value'])}" + (f", {span(interval)}" if interval else "")
    return whisker(one["value"], interval, task["majority"], _scale(task), _is_best(task, one), label)


def _scale(task: Mapping[str, Any]) -> Interval:
    """The axis that holds every score of a task, its interval and the chance level."""
    drawn = [task["majority"]]
    for one in task["variants"].values():
        drawn += [one["value"], *(one["interval"] or ())]
    return score_scale([value for value in drawn if value is not None] or [0.0])
