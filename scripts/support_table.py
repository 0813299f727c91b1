"""The table of supported combinations: try every method in every mode, and write docs/support.md.

    python -m scripts.support_table

A pair is a real command: two stages of the smaller bundled model on a few examples, from the base to the
report. It shows that the pair runs or is refused; that it is right is what the tests of each show.
"""

import contextlib
import io
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from rich.progress import track

from forgetmenot.cli import TERMINATED, main
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
    "bridge": ("--set", "adapter.kind=bridge"),
    "bf16": ("--set", "training.precision=bf16"),
    "activation checkpointing": ("--set", "training.activation_checkpointing=true"),
    "LoRA, two processes": (),
}
IN_TWO = ("LoRA, two processes",)
ABOUT = """\
# Supported combinations

Written by `python -m scripts.support_table`, which starts every method in every mode: two stages of the
bundled model `quickstart-small` on a few examples. "yes": the run finished and wrote its report. A number:
the run is refused, for the reason below. The tests check whether the scores are right; this table does not.
"""


def attempt(method: str, mode: str) -> str | None:
    """Run one pair; returns why it is refused, None if it is not.

    Raises:
        RuntimeError: It is neither done nor refused.
    """
    start = in_two_processes if mode in IN_TWO else in_this_process
    with tempfile.TemporaryDirectory() as folder:
        status, complaint = start([*COMMAND, "--method", method, "--output", f"{folder}/run", *MODES[mode]])
    if status not in (0, 2):
        raise RuntimeError(f"{method} with {mode} ended with {status}: {complaint}")
    return complaint.strip().removeprefix("forgetmenot: ") if status else None


def in_this_process(arguments: Sequence[str]) -> tuple[object, str]:
    """The exit status of a command, and what it complains of."""
    said, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
        try:
            main(arguments)
        except SystemExit as ended:
            return ended.code, complaint.getvalue()


def in_two_processes(arguments: Sequence[str]) -> tuple[object, str]:
    """The same of a command that two processes run together over gloo, as a launcher would start them.

    They are forked, which spares them the import of torch; so the parent must have a single thread.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank: int, complaint: Path) -> None:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        os.environ |= {name: str(number) for name, number in numbers.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        AcceleratorState._reset_state(reset_partial_state=True)  # what the parent made is not the child's
        status, text = in_this_process(arguments)
        complaint.write_text(text, encoding="utf-8")
        sys.exit(status if isinstance(status, int) else 0)

    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{rank}.txt" for rank in range(2)]
        processes = [context.Process(target=child, args=pair) for pair in enumerate(files)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    # The process that does not speak ends as if it had been told to.
    statuses = {process.exitcode for process in processes} - {0, TERMINATED}
    return (min(statuses, key=str) if statuses else 0), "".join(texts)


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
