"""Tasks of Super-NaturalInstructions by number: their files, their solved examples, their labels."""

import json
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import choose_prompt
from forgetmenot.tasks import load_tasks
from forgetmenot.tasks.super_ni import SUITES, SUPER_NI

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (SHARED / "super-ni").is_dir(), reason="the files are not here")


def write(folder: Path, number: int, **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"r{k}", "input": f"claim {k}", "output": [("support", "undermine")[k % 2]]} for k in range(50)
    ]
    content = {
        "Definition": ["Does it {{ help }}?"],
        "Positive Examples": [{"input": "claim 3", "output": "undermine", "explanation": "so"}],
        "Instances": rows,
        **changes,
    }
    (folder / f"task{number:03d}_it.json").write_text(json.dumps(content))


@pytest.mark.parametrize("root", ["super-ni", "."])
def test_a_task_has_its_definition_its_solved_examples_and_its_splits(root: str, tmp_path: Path) -> None:
    write(tmp_path / root, 738)
    [task] = load_tasks(["super-ni-738"], tmp_path)
    assert task.instruction == "Does it {{ help }}?"
    assert [(one.fields["input"], one.label) for one in task.demonstrations] == [("claim 3", "undermine")]
    everywhere = [*task.train, *task.select, *task.score]
    assert len(everywhere) == 49  # the solved example is in no split
    assert len(task.score) == 9
    assert len({one.fields["input"] for one in everywhere}) == 49
    prompt = choose_prompt(task, "default")
    assert prompt.render(task.score[0].fields).startswith("Does it {{ help }}?\n\nInput: claim")
    assert task.notes[1].startswith("1 instances are among its solved examples")


def test_a_free_answer_is_the_first_reference(tmp_path: Path) -> None:
    rows = [{"input": f"q {k}", "output": [f"a {k}", "another"]} for k in range(10)]
    write(tmp_path, 1345, Instances=rows, **{"Positive Examples": [{"input": "x", "output": "y"}]})
    [task] = load_tasks(["super-ni-1345"], tmp_path)
    assert (task.kind, task.metric) == ("answer", "edit_similarity")
    assert {str(one.target)[:2] for one in task.train} == {"a "}


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No file task738_\*\.json"):
        load_tasks(["super-ni-738"], tmp_path)
    with pytest.raises(UserError, match="set data_dir"):
        load_tasks(["super-ni-738"], None)
    write(tmp_path, 738, Instances=[{"input": "a", "output": ["maybe"]}])
    with pytest.raises(UserError, match=r"task738_it\.json, instance 1: the label 'maybe'"):
        load_tasks(["super-ni-738"], tmp_path)


def test_the_suites_are_the_papers_and_share_no_task() -> None:
    named = [number for numbers in SUITES.values() for number in numbers]
    assert len(named) == len(set(named)) == 22
    assert set(named) == set(SUPER_NI)
    for name, numbers in SUITES.items():
        assert all(bool(SUPER_NI[k].labels) == ("classification" in name) for k in numbers)


@needs_data
@pytest.mark.parametrize("number", sorted(set(SUPER_NI) - {284}))
def test_the_published_files_load(number: int) -> None:
    [task] = load_tasks([f"super-ni-{number}"], SHARED)
    assert len(task.demonstrations) >= 2
    assert task.train
    assert task.score
    assert task.instruction
