"""The folder of a synthesis: of one task by one model, and never with half a task in it."""

from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.record.seal import read_json

CONTENT, DRAWN, TASK, CONFIG, CARD = "synthesis.json", "drawn.jsonl", "task.yaml", "run.yaml", "README.md"
TELLING = ("candidates.jsonl", "synthesis.html")
"""What is written beside, to be read."""
SPLITS = ("train.jsonl", "select.jsonl", "score.jsonl")


def check_same(path: Path, task: str, kind: str, model: str, revision: str) -> None:
    """See that a folder holds no synthesis of another task or by another model.

    Settings may differ: what was drawn before is used where it still fits, and the task is written anew.

    Args:
        path: The folder.
        task: The task's name.
        kind: The task's kind: conversations are none of the examples of a task that has their name.
        model: What the model is called.
        revision: Which model it is.

    Raises:
        UserError: It does.
    """
    there = read_json(path / CONTENT, dict)
    if there is None:
        return
    if (there.get("task"), there.get("kind")) != (task, kind):
        raise UserError(
            f"output: {path} holds what `fmn synthesize` wrote for task {there.get('task')!r}, and this is "
            f"task {task!r}; give another folder."
        )
    if there.get("model_revision") != revision:
        raise UserError(
            f"output: {path} holds what {there.get('model')} wrote ({there.get('model_revision')}), and this "
            f"is {model} ({revision}); give another folder."
        )


def withdraw(path: Path) -> None:
    """Take away the task that an earlier call wrote, what names its rows first.

    So a kill, or a synthesis of which no row is left, leaves no task file beside rows that are not its own.
    """
    for name in (CONFIG, TASK, CARD, *SPLITS, *TELLING, CONTENT):
        (path / name).unlink(missing_ok=True)
