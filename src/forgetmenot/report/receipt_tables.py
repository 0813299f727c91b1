"""Tables on receipts: accuracy alone and with receipts, overrides, and what is recovered."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from forgetmenot.report.markdown_table import markdown_table
from forgetmenot.report.wording import NONE, number, p_value, signed, span

Rows = list[list[str]]
SCORES = "Scores (95% interval)"
OVERRIDES = "Overrides: answers other than the receipt's"
RECOVERY = "What the receipt gives back of what was forgotten"
PRINTED = (SCORES, OVERRIDES, RECOVERY)


def print_receipts(found: Mapping[str, Any], console: Console) -> None:
    """Print what matters most of a parsed `receipts.json`; the rest is in receipts.md."""
    for title, (header, *body) in _tables(found):
        if title not in PRINTED:
            continue
        table = Table(*header, title=title, title_justify="left", box=None, pad_edge=False)
        for row in body:
            table.add_row(*row)
        console.print(table)
        console.print()


def receipts_markdown(found: Mapping[str, Any]) -> str:
    """The tables of a parsed `receipts.json`, as Markdown."""
    parts = [f"# Receipts for {found['model']}"]
    for title, rows in _tables(found):
        parts += [f"## {title}", markdown_table(iter(rows))]
    return "\n\n".join(parts) + "\n"


def _tables(found: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    yield "Small models", _small_models(found)
    yield SCORES, _scores(found)
    yield "With the receipt against without (95% interval; p corrected for all tests here)", _tests(found)
    yield OVERRIDES, _overrides(found)
    yield "Accuracy by the receipt's confidence", _bins(found)
    if any("interpreter" in row for row in found["rows"]):
        yield "Interpreter", _interpreter(found)
    if found["recovery"]:
        yield RECOVERY, _recovery(found)


def _small_models(found: Mapping[str, Any]) -> Rows:
    header = ["task", "small model", "fitted on", "numbers learned", "seconds", "right on train, out of fold"]
    rows = [[*header, "temperature", "calibration error", "tokens of a prompt", "with receipt"]]
    for task, about in found["tasks"].items():
        temperature = f"{about['temperature']:.2f}" if about["calibrated_on"] else NONE
        model = [about["model"], about["source"], f"{about['parameters']:,}", f"{about['seconds']:.0f}"]
        trust = [number(about["accuracy"].get("train")), temperature, number(about["calibration_error"])]
        lengths = [f"{about['tokens'][how]:.1f}" for how in ("alone", "with receipt")]
        rows.append([task, *model, *trust, *lengths])
    return rows


def _scores(found: Mapping[str, Any]) -> Rows:
    systems = list(next(iter(found["rows"][0]["scores"].values())))
    rows = [["stage", "task", "metric", "n", "majority", *systems]]
    for row in found["rows"]:
        about = found["tasks"][row["task"]]
        for metric, scores in row["scores"].items():
            most = number(about["majority"]) if metric == about["metric"] else NONE
            cells = [f"{number(one['value'])} ({span(one['interval'])})" for one in scores.values()]
            rows.append([row["stage"], row["task"], metric, str(about["n"]), most, *cells])
    return rows


def _tests(found: Mapping[str, Any]) -> Rows:
    rows = [["stage", "task", "of", "against", "difference", "significance", "test"]]
    for row in found["rows"]:
        for test in row["tests"]:
            difference = f"{signed(test['difference'])} ({span(test['interval'])})"
            named = [row["stage"], row["task"], test["of"], test["against"]]
            rows.append([*named, difference, p_value(test["p_holm"]), test["test"] or NONE])
    return rows


def _overrides(found: Mapping[str, Any]) -> Rows:
    rows = [["stage", "task", "asked", "overridden", "of", "rate", "precision"]]
    for row in found["rows"]:
        for how, one in row["overrides"].items():
            shares = [number(one["rate"]), number(one["precision"])]
            rows.append([row["stage"], row["task"], how, str(one["overridden"]), str(one["n"]), *shares])
    return rows


def _bins(found: Mapping[str, Any]) -> Rows:
    rows = [["stage", "task", "confidence", "n", *found["rows"][0]["bins"][0]["accuracy"]]]
    for row in found["rows"]:
        for bin_ in row["bins"]:
            ends = f"{bin_['from']:.1f} to {bin_['to']:.1f}"
            shares = [number(value) for value in bin_["accuracy"].values()]
            rows.append([row["stage"], row["task"], ends, str(bin_["n"]), *shares])
    return rows


def _interpreter(found: Mapping[str, Any]) -> Rows:
    header = ["stage", "task", "n", "could not parse", "accuracy", "override rate", "override precision"]
    rows = [[*header, "influence", "stated", "features stated", "of these in the input"]]
    for row in found["rows"]:
        if (one := row.get("interpreter")) is not None:
            over = one["overrides"]
            shares = [number(value) for value in (one["accuracy"], over["rate"], over["precision"])]
            stated = [number(one["influence"]), str(one["influence_stated"])]
            features = [str(one["features_stated"]), str(one["features_in_the_input"])]
            counts = [str(one["n"]), str(one["could_not_parse"])]
            rows.append([row["stage"], row["task"], *counts, *shares, *stated, *features])
    return rows


def _recovery(found: Mapping[str, Any]) -> Rows:
    rows = [["task", "once learned", "at the end", "with receipt", "small model", "lost", "recovered"]]
    names = ("learned", "at_the_end", "with_receipt", "small_model", "lost", "recovered")
    return rows + [[one["task"], *(number(one[name]) for name in names)] for one in found["recovery"]]
