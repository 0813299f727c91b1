"""docs/data.md: each kind's rows, task file and prompt belong together."""

from pathlib import Path

import pytest

from forgetmenot.prompting import choose_prompt
from forgetmenot.prompting.texts import as_text
from forgetmenot.tasks import load_tasks
from forgetmenot.tasks.yaml_file import parse_yaml

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def blocks(heading: str) -> list[tuple[str, str]]:
    """The language and the content of each block under a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    parts = section.split("```")[1::2]
    return [(language, content) for language, _, content in (part.partition("\n") for part in parts)]


@pytest.mark.parametrize("heading", ["Labels", "Free answers", "Chats", "Plain text", "Preferences"])
def test_rows_and_task_file_give_the_prompt(tmp_path: Path, heading: str) -> None:
    (_, rows), (language, yaml), *prompt = blocks(heading)
    assert language == "yaml"
    place = parse_yaml(yaml)["data"]["train"]
    if heading == "Plain text":
        for name in rows.split():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"What {name} says.\n")
    else:
        assert len(rows.splitlines()) == 3 + place.endswith(".csv")
        (tmp_path / place).write_text(rows, encoding="utf-8")
    # three rows are too few to hold some out
    (tmp_path / "task.yaml").write_text(yaml.replace("10%", place), encoding="utf-8")
    [task] = load_tasks([str(tmp_path / "task.yaml")], None)
    assert len(task.score) == 3
    if prompt:
        [(_, shown)] = prompt
        text = as_text(task, choose_prompt(task, "default"), task.train[0], task.train[0].fields)
        assert text.prompt == shown.rstrip("\n")
