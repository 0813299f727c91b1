"""The report of a run: one HTML file that needs nothing else."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from forgetmenot.metrics import FORMULAS
from forgetmenot.report.costs import costs
from forgetmenot.report.figures import curve, dumbbell, loss_line, score_scale
from forgetmenot.report.findings import Fate, Findings, Interval, load
from forgetmenot.report.forgotten import lost_examples
from forgetmenot.report.ways import asked_otherwise
from forgetmenot.report.wording import NONE, common, number, p_value, signed, span, verdict, way

HEADLINES = (
    "average_performance",
    "backward_transfer",
    "forward_transfer",
    "forgetting",
    "learning_accuracy",
)
HAQUE = (
    "learning_sum",
    "learning_mean",
    "forgetting_sum",
    "forgetting_mean",
    "pretrained_mean",
    "final_mean",
    "stage_mean",
    "diagonal_mean",
)
LONGEST_TEXT = 400


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run directory, from the files that are there.

    Works for a run that is still going; what it has not measured yet is left open. The page asks for nothing
    from outside itself.

    Returns:
        The report's path.

    Raises:
        UserError: The directory has no readable `results.json`.
    """
    findings = load(run_dir)
    page = template("report.html.jinja").render(
        run=findings,
        verdict=verdict(findings),
        metrics=[FORMULAS[name] for name in dict.fromkeys(findings.metrics[task] for task in findings.tasks)],
        curves=_curves(findings),
        ways=asked_otherwise(findings),
        axis=_scale(findings) if all(findings.bounded(task) for task in findings.tasks) else None,
        kept=[(fate, _dumbbell(findings, fate)) for fate in findings.fates],
        headlines=[_figure(findings, name, findings.summary, name) for name in HEADLINES],
        haque=[_figure(findings, name, findings.summary.get("haque", {}), f"haque_{name}") for name in HAQUE],
        losses=lost_examples(run_dir, findings),
        trainings=_trainings(run_dir, findings),
        config=_text(run_dir / "config.yaml"),
        environment=_json(run_dir / "environment.json"),
        timing=_json(run_dir / "timing.json"),
        costs=costs(findings.cost, _json(run_dir / "timing.json")) if findings.cost else {},
    )
    path = run_dir / "report.html"
    aside = run_dir / "report.html.tmp"
    with aside.open("w", encoding="utf-8") as file:
        file.write(page)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return path


def template(name: str) -> Any:
    """A page of `templates/`, with the filters that write numbers as a person reads them."""
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


def _curves(findings: Findings) -> list[tuple[str, Markup]]:
    """One forgetting curve per task; tasks whose scores have the same bounds share an axis."""
    common = _scale(findings)
    curves = []
    for task in findings.tasks:
        scores, own = findings.column(task), findings.own_stage(task)
        if all(score is None for score in scores):
            continue
        label = f"{task}, {findings.metrics[task]} after each stage: " + ", ".join(
            f"{stage.label} {number(score)}" for stage, score in zip(findings.stages, scores, strict=True)
        )
        picture = curve(
            scores=scores,
            spans=findings.spans(task),
            stage_labels=[stage.label for stage in findings.stages],
            own=own,
            majority=findings.majority.get(task),
            scale=common if findings.bounded(task) else _own_scale(findings, task),
            connected=findings.in_sequence,
            label=label,
        )
        curves.append((task, picture))
    return curves


def _dumbbell(findings: Findings, fate: Fate) -> Markup:
    end = None if fate.state in ("apart", "last", "ahead") else fate.end
    told = [("base model", fate.base), ("after its own stage", fate.learned), ("at the end", end)]
    return dumbbell(
        base=fate.base,
        learned=fate.learned,
        end=end,
        majority=findings.majority.get(fate.task),
        scale=_scale(findings) if findings.bounded(fate.task) else _own_scale(findings, fate.task),
        label=f"{fate.task}: "
        + ", ".join(f"{name} {number(value)}" for name, value in told if value is not None),
    )


def _scale(findings: Findings) -> Interval:
    """The axis common to all bounded tasks."""
    bounded = [task for task in findings.tasks if findings.bounded(task)]
    values = [value for task in bounded for value in _values(findings, task)]
    return score_scale(values) if values else (0.0, 1.0)


def _own_scale(findings: Findings, task: str) -> Interval:
    return score_scale(_values(findings, task) or [0.0])


def _values(findings: Findings, task: str) -> list[float]:
    """Everything that a figure of the task draws."""
    ends = [end for pair in findings.spans(task) if pair for end in pair]
    drawn = [*findings.column(task), *ends, findings.majority.get(task)]
    return [value for value in drawn if value is not None]


def _figure(findings: Findings, name: str, values: Mapping[str, Any], formula: str) -> dict[str, Any]:
    """One number of the summary with all that it depends on."""
    return {
        "value": values.get(name),
        "interval": findings.summary_intervals.get(formula),
        "floor": findings.noise_floor.get(formula),
        "reason": findings.summary.get("reasons", {}).get(formula),
        "formula": FORMULAS[formula],
    }


def _trainings(run_dir: Path, findings: Findings) -> list[dict[str, Any]]:
    """The training loss of every stage that has logged one, on a common axis."""
    logs: list[tuple[str, list[dict[str, Any]]]] = []
    for stage in findings.stages:
        text = _text(run_dir / "stages" / stage.name / "training.jsonl")
        rows = [json.loads(line) for line in (text or "").splitlines() if line.endswith("}")]
        if rows := [row for row in rows if row.get("loss") is not None]:
            logs.append((stage.label, rows))
    highest = max((row["loss"] for _, rows in logs for row in rows), default=0.0) or 1.0
    return [
        {
            "stage": name,
            "first": rows[0]["loss"],
            "last": rows[-1]["loss"],
            "steps": rows[-1]["step"],
            "picture": loss_line(
                [(row["step"], row["loss"]) for row in rows],
                highest,
                f"Training loss of {name}: from {number(rows[0]['loss'])} to {number(rows[-1]['loss'])}",
            ),
        }
        for name, rows in logs
    ]


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _json(path: Path) -> Any:
    text = _text(path)
    return json.loads(text) if text is not None else None


def _shortened(text: str) -> str:
    """A text cut at a word, so that a page of examples stays readable."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT].rsplit(" ", 1)[0] + " …"


def _breakable(name: str) -> Markup:
    """A name that a narrow column may break after its own joints."""
    return Markup(re.sub(r"([_./:-])", r"\1<wbr>", str(escape(name))))


def _plain(value: Any) -> str:
    """A recorded value as a person writes it."""
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
