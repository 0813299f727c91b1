"""Tables of a preview, for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forgetmenot.report.wording import duration


def print_preview(found: Mapping[str, Any], console: Console) -> None:
    """Print two tables, the estimate and what it leaves out: `forgetmenot.runs.Preview.to_json`."""
    training = Table("stage", box=None, pad_edge=False)
    for name in ("examples", "epochs", "steps", "tokens", "with sharing", "time"):
        training.add_column(name, justify="right")
    for stage in found["stages"]:
        counts = [f"{stage[name]:,}" for name in ("examples", "epochs", "steps")]
        training.add_row(stage["name"], *counts, *_tokens(stage), _time(stage))

    scoring = Table("task", "prompt", box=None, pad_edge=False)
    for name in ("examples", "tokens", "with sharing", "time"):
        scoring.add_column(name, justify="right")
    for scored in found["scoring"]:
        scoring.add_row(
            scored["task"],
            scored["prompt"],
            f"{scored['examples']:,}",
            *_tokens(scored),
            duration(scored["seconds"]),
        )

    times = (not found["base_done"]) + sum(not stage["done"] for stage in found["stages"])
    console.print(Text("training", style="italic"))
    console.print(training)
    when = "before the first stage and after each" if times > len(found["stages"]) else "after what is left"
    said = f"\nscoring, {times} times: {when}"
    console.print(Text(said, style="italic"))
    console.print(scoring)
    memory, parameters = found["memory"], found["parameters"]
    parts = ", ".join(f"{name} {_size(memory[name])}" for name in ("weights", "gradients", "optimizer"))
    lines = (
        f"parameters: {parameters['all']:,}, of which {parameters['trainable']:,} learn",
        f"on: {found['machine']}",
        *_frozen(found["frozen"]),
        f"time: about {duration(found['seconds'])}: training {duration(sum(found['train_s']))}, "
        f"scoring {duration(sum(found['eval_s']))}",
        f"memory: about {_size(memory['peak'])} ({parts}; the rest: activations, data, the program)",
        f"directory: {found['directory']}, in which nothing was written",
        "not counted: " + " ".join(found["not_counted"]),
    )
    console.print()
    for sentence in found["can_be_shown"]:
        console.print(sentence, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _time(stage: Mapping[str, Any]) -> str:
    return "done" if stage["done"] else duration(stage["seconds"])


def _frozen(found: Mapping[str, Any] | None) -> list[str]:
    """What the layers that never learn take."""
    if found is None:
        return []
    if found["why_not"]:
        return [f"frozen layers: computed in every pass: {found['why_not']}"]
    there = f"{found['states'] - found['missing']:,} of {found['states']:,} states are in the cache"
    left = f", the others take {duration(found['seconds'])}" if found["missing"] else ""
    return [f"frozen layers: {there} ({_size(found['bytes'])} in all){left}"]


def _tokens(counts: Mapping[str, Any]) -> tuple[str, str]:
    """Before and after sharing; generated answers have no count."""
    if not counts["computed"]:
        return "generated", ""
    return f"{counts['without_sharing']:,}", f"{counts['computed']:,}"


def _size(count: int) -> str:
    """Bytes in readable units."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
