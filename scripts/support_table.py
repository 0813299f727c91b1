"""Which method runs on which engine: try every pair, and write docs/support.md.

    python -m scripts.support_table

A pair is a real command: two stages of the smaller bundled model on a few examples, from the base to the
report. It shows that the pair runs or is refused; that it is right is what the tests of each show.
"""

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.progress import track

from forgetmenot.cli import main
from forgetmenot.methods import METHODS

PAGE = Path(__file__).parents[1] / "docs" / "support.md"
COMMAND = (
    *("run", "--model", "quickstart-small", "--tasks", "qs-sentiment,qs-paraphrase"),
    *("--set", "training.limit=8", "--set", "evaluation.limit=4"),
)
# What is added to the command; a new way to run is a line here.
MODES = {
    "LoRA": (),
    "LoRA with dropout": ("--set", "adapter.dropout=0.1"),
    "LoRA, new per stage": ("--set", "adapter.per_stage=new"),
    "LoRA, merged per stage": ("--set", "adapter.per_stage=merge"),
    "full fine-tuning": ("--set", "adapter.kind=full"),
    "soft prompt": ("--set", "adapter.kind=prompt"),
    "bf16": ("--set", "training.precision=bf16"),
    "activation checkpointing": ("--set", "training.activation_checkpointing=true"),
}
ABOUT = """\
# What runs with what

Written by `python -m scripts.support_table`, which starts every method in every way to run: two stages of the
bundled model `quickstart-small` on a few examples. "yes": it went through to the report. A number: it is
refused, for the reason below. That the numbers are right is what the tests show, not this table.
"""


def attempt(method: str, mode: str) -> str | None:
    """Run one pair; returns why it is refused, None if it is not.

    Raises:
        RuntimeError: It is neither done nor refused.
    """
    said, complaint = io.StringIO(), io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complaint),
    ):
        try:
            main([*COMMAND, "--method", method, "--output", f"{folder}/run", *MODES[mode]])
        except SystemExit as ended:
            status = ended.code
    if status not in (0, 2):
        raise RuntimeError(f"{method} with {mode} ended with {status}: {complaint.getvalue()}")
    return complaint.getvalue().strip().removeprefix("forgetmenot: ") if status else None


def page(refused: Mapping[tuple[str, str], str | None], methods: Iterable[str]) -> str:
    """The table as Markdown.

    Args:
        refused: (method, mode) to why it is refused, None where it runs.
        methods: The rows.
    """
    reasons = list(dict.fromkeys(reason for reason in refused.values() if reason))
    lines = [f"| method | {' | '.join(MODES)} |", "| --- " * (len(MODES) + 1) + "|"]
    for method in methods:
        cells = [refused[method, mode] for mode in MODES]
        shown = ["yes" if reason is None else f"({reasons.index(reason) + 1})" for reason in cells]
        lines.append(f"| `{method}` | {' | '.join(shown)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    return "\n".join([ABOUT, *lines, *([""] if notes else []), *notes, "", processes()]) + "\n"


def processes() -> str:
    """Which methods run in several processes, by what they say of themselves."""
    sharded = [
        f"`{name}`"
        for name, one in METHODS.items()
        if one.shards and "full" in one.needs.get("kind", ("full",))
    ]
    return (
        "In several processes that each hold the model (`--num-processes`) every method runs, and gives what "
        "it gives in one (`tests/runs/test_process_methods.py`). With weights spread over them (FSDP2) run "
        f"{', '.join(sharded)}; the others are refused before anything is loaded."
    )


if __name__ == "__main__":
    pairs = [(method, mode) for method in METHODS for mode in MODES]
    found = {pair: attempt(*pair) for pair in track(pairs, description="pairs")}
    PAGE.write_text(page(found, METHODS), encoding="utf-8")
    print(PAGE, file=sys.stderr)
