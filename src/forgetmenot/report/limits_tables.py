"""Tables of `fmn limits`: scores of every condition, and their correlation over tasks."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from forgetmenot.report.markdown_table import markdown_table
from forgetmenot.report.wording import NONE, listed, number, p_value, signed, span

Rows = list[list[str]]
SCORES, DIFFERENCES = "Accuracy (95% interval) and mean margin in nats", "Tuned directly minus in context"
CORRELATIONS = "Correlation over tasks with what the base does"
WORDS = {
    "base": "base alone",
    "gold": "base, gold examples",
    "direct": "tuned directly",
    "samplegen": "tuned to write examples",
    "pipeline": "base, written examples",
    "unified": "gold, unified names",
    "corrupted": "gold, corrupted",
    "unanswered": "gold, no answers",
    "irrelevant": "gold of another task",
    "verbose": "gold, verbose",
}
MAIN = ("base", "gold", "direct", "samplegen", "pipeline")
MEASURES = {"accuracy": "accuracy", "above_majority": "above majority", "margin": "margin"}


def print_limits(found: Mapping[str, Any], console: Console) -> None:
    """Print what matters most of a parsed limits.json; the rest is in limits.md."""
    for title, (header, *body) in _tables(found, brief=True):
        table = Table(*header, title=title, title_justify="left", box=None, pad_edge=False)
        for row in body:
            table.add_row(*row)
        console.print(table)
        console.print()
    for sentence in conclusions(found):
        console.print(sentence, highlight=False)


def limits_markdown(found: Mapping[str, Any]) -> str:
    """A parsed limits.json as Markdown: what it says, and all tables."""
    parts = ["# The limits of tuned models", "\n".join(f"- {one}" for one in conclusions(found))]
    for title, rows in _tables(found, brief=False):
        parts += [f"## {title}", markdown_table(iter(rows))]
    return "\n\n".join(parts) + "\n"


def conclusions(found: Mapping[str, Any]) -> list[str]:
    """What was found and what that does not say, in sentences."""
    tuned = [name for name, one in found["tasks"].items() if one["trained"]]
    others = [name for name in found["tasks"] if name not in tuned]
    said = [
        f"Tuned on {listed(tuned)}."
        + (f" Held out: {listed(others)}." if others else " No task is held out.")
    ]
    main = [
        one
        for one in found["correlations"]
        if (one["of"], one["with"], one["coefficient"]) == ("direct", "gold", "spearman")
    ]
    said += [_correlated(one) for one in main]
    above = {_over(one): one for one in main if one["measure"] == "above_majority"}
    plain = [_over(one) for one in main if one["measure"] == "accuracy" and _is_sure(one)]
    by_chance = [name for name in plain if above[name]["interval"] and not _is_sure(above[name])]
    if by_chance:
        said.append(
            f"The correlation of accuracies of {listed(by_chance)} may come from the tasks' levels of chance "
            "alone: of accuracies above the majority none is shown."
        )
    n = len(found["tasks"])
    if found["paper_interval"]:
        said.append(
            f"Over {n} tasks even the paper's Spearman correlation, .851, would have the interval "
            f"{span(found['paper_interval'])}."
        )
    for model in found["models"]:
        for condition, cut in model["truncated"].items():
            counts = [f"{one['examples']} of {task}" for task, one in cut.items()]
            if counts:
                said.append(
                    f"{short(model['model'])}, {WORDS[condition]}: prompts too long for the model lost their "
                    f"beginning, {listed(counts)}."
                )
        only = [task for task in model["solved"]["direct"] if task not in model["solved"]["gold"]]
        if only:
            said.append(
                f"{short(model['model'])}: above the commonest label, by its whole interval, when tuned "
                f"directly and not with gold examples in context, on {listed(only)}."
            )
    return said


def _correlated(one: Mapping[str, Any]) -> str:
    which = "tasks" if one["over"] == "all" else "held-out tasks"
    of = f"{short(one['model'])}, {one['n']} {which}, {MEASURES[one['measure']]}"
    if one["value"] is None:
        return f"{of}: no correlation of tuned with in-context, for {one['reason']}."
    sure = f"95% interval {span(one['interval'])}" if one["interval"] else one["reason"]
    hinge = ""
    if one["leave_one_out"]:
        hinge = f"; without one task {span(one['leave_one_out'])}"
        hinge += f", hinging on {one['hinges_on']}" if one["hinges_on"] else ""
    verdict = " There may be none." if one["interval"] and not _is_sure(one) else ""
    return f"{of}: Spearman {number(one['value'])} of tuned with in-context ({sure}{hinge}).{verdict}"


def _is_sure(one: Mapping[str, Any]) -> bool:
    """Whether a correlation's whole interval is on one side of zero."""
    return one["interval"] is not None and not one["interval"][0] <= 0 <= one["interval"][1]


def short(model: str) -> str:
    """A model's name without its folder or owner."""
    return model.rstrip("/").rpartition("/")[2]


def _tables(found: Mapping[str, Any], *, brief: bool) -> Iterator[tuple[str, Rows]]:
    for model in found["models"]:
        yield f"{short(model['model'])}: {SCORES}", _scores(model, found["tasks"], brief)
    if brief:
        yield CORRELATIONS, _main_correlations(found)
        return
    yield DIFFERENCES, _differences(found)
    yield CORRELATIONS, _correlations(found)
    if any(model["written"] for model in found["models"]):
        yield "What SampleGen models wrote", _written(found)


def _scores(model: Mapping[str, Any], tasks: Mapping[str, Any], brief: bool) -> Rows:
    conditions = list(next(iter(model["scores"].values())))
    if brief:
        conditions = [one for one in conditions if one in MAIN]
    rows = [["task", "majority", *(one if brief else WORDS[one] for one in conditions)]]
    for task, of_task in model["scores"].items():
        name = task if tasks[task]["trained"] else f"{task} (held out)"
        cells = [_cell(of_task[one], brief) for one in conditions]
        rows.append([name, number(of_task[conditions[0]]["majority"]), *cells])
    return rows


def _cell(figures: Mapping[str, Any], brief: bool) -> str:
    if brief:
        return f"{number(figures['accuracy'])} {signed(figures['margin'])}"
    return f"{number(figures['accuracy'])} ({span(figures['accuracy_interval'])}) {signed(figures['margin'])}"


def _differences(found: Mapping[str, Any]) -> Rows:
    rows = [["model", "task", "difference", "95% interval", "p, corrected"]]
    for model in found["models"]:
        for task, one in model["differences"].items():
            shown = [signed(one["difference"]), span(one["interval"]), p_value(one.get("p_holm"))]
            rows.append([short(model["model"]), task, *shown])
    return rows


def _main_correlations(found: Mapping[str, Any]) -> Rows:
    rows = [["model", "of, with", "measure", "Spearman", "95% interval", "without one task"]]
    for one in found["correlations"]:
        if one["coefficient"] == "spearman" and one["of"] in MAIN and one["with"] in MAIN:
            cells = [number(one["value"]), span(one["interval"]), span(one["leave_one_out"])]
            rows.append([_over(one), f"{one['of']}, {one['with']}", MEASURES[one["measure"]], *cells])
    return rows


def _correlations(found: Mapping[str, Any]) -> Rows:
    header = ["model", "of", "with", "measure", "coefficient", "n", "value", "95% interval"]
    rows = [[*header, "without one task", "hinges on", "most that noise leaves"]]
    for one in found["correlations"]:
        what = [WORDS[one["of"]], WORDS[one["with"]], MEASURES[one["measure"]], one["coefficient"]]
        sure = [str(one["n"]), number(one["value"]), span(one["interval"]), span(one["leave_one_out"])]
        rows.append([_over(one), *what, *sure, one["hinges_on"] or NONE, number(one["ceiling"])])
    return rows


def _over(one: Mapping[str, Any]) -> str:
    name = short(one["model"])
    return name if one["over"] == "all" else f"{name}, held out"


def _written(found: Mapping[str, Any]) -> Rows:
    rows = [["model", "task", "texts", "came to an answer"]]
    for model in found["models"]:
        for task, one in model["written"].items():
            rows.append([short(model["model"]), task, str(one["n"]), str(one["ended"])])
    return rows
