"""Names become tasks, cheaply and in order; a public name never gives bundled data."""

import dataclasses
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pytest

from forgetmenot.errors import UserError
from forgetmenot.tasks import (
    Example,
    Task,
    expand,
    fingerprint,
    known_suites,
    known_tasks,
    load_tasks,
    super_ni,
)
from forgetmenot.tasks.bundled import BUNDLED
from forgetmenot.tasks.glue import GLUE
from forgetmenot.tasks.standard_cl import STANDARD_CL
from forgetmenot.tasks.trace import trace_tasks

needs_bundled = pytest.mark.skipif(
    not (files("forgetmenot.tasks") / "quickstart" / "qs-inference-score.jsonl").is_file(),
    reason="the bundled tasks have not been generated",
)


def test_suites_expand_in_order_and_paths_stay() -> None:
    assert expand(["glue4"]) == ["sst2", "mrpc", "cola", "mnli"]
    assert expand(["rte", "quickstart", "my/task.yaml"]) == [
        "rte",
        *known_suites()["quickstart"],
        "my/task.yaml",
    ]


def test_every_suite_holds_known_tasks_and_no_name_means_two_things() -> None:
    assert {task for tasks in known_suites().values() for task in tasks} <= set(known_tasks())
    assert not set(known_suites()) & set(known_tasks())
    kinds: tuple[Mapping[str, object], ...] = (
        GLUE,
        BUNDLED,
        STANDARD_CL,
        trace_tasks(),
        super_ni.SOURCE.titles,
    )
    assert len(known_tasks()) == sum(map(len, kinds))
    assert set(known_tasks()) == {name for kind in kinds for name in kind}
    assert all(line and "\n" not in line for line in known_tasks().values())


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["sst"], "Did you mean 'sst2' or 'cl-sst2'?"),
        (["glue"], "glue4"),
        (["my/task.json"], "a path that ends in .yaml"),
        (["glue4", "cola"], "'cola' is named twice"),
        (["a.yaml", "a.yaml"], "'a.yaml' is named twice"),
    ],
)
def test_wrong_names_are_refused_before_any_data_is_read(names: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        expand(names)
    assert sentence in str(error.value)


def test_two_files_may_not_give_one_name_and_none_may_take_a_public_one(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a b c"}\n')
    body = "name: {}\ndata: {{score: rows.jsonl}}\ntext: text\n"
    for file, name in (("a", "mine"), ("b", "mine"), ("c", "sst2"), ("d", "glue4")):
        (tmp_path / f"{file}.yaml").write_text(body.format(name))
    paths = {file: str(tmp_path / f"{file}.yaml") for file in "abcd"}
    assert [task.name for task in load_tasks([paths["a"]], None)] == ["mine"]
    with pytest.raises(UserError, match="'mine' is named twice"):
        load_tasks([paths["a"], paths["b"]], None)
    for file, name in (("c", "sst2"), ("d", "glue4")):
        with pytest.raises(UserError, match=f"'{name}' is taken"):
            load_tasks([paths[file]], None)


def test_the_fingerprint_changes_with_anything_that_is_read() -> None:
    example = Example("train-0", {"text": "a", "n": 1}, label="x", target=None)
    task = Task("t", "choice", "accuracy", [example], [], [example], labels=("x", "y"))
    replace = dataclasses.replace
    others = [
        replace(task, name="u"),
        replace(task, labels=("y", "x")),
        replace(task, train=[replace(example, fields={"text": "a", "n": 2})]),
        replace(task, train=[replace(example, label="y")]),
        replace(task, train=[replace(example, target=1.0)]),
        replace(task, train=[example, example]),
        replace(task, train=[], select=[example]),
    ]
    prints = {fingerprint(each) for each in (task, *others)}
    assert len(prints) == len(others) + 1
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in prints)
    reordered = replace(task, train=[replace(example, fields={"n": 1, "text": "a"})])
    assert fingerprint(reordered) == fingerprint(task)
    assert fingerprint(replace(task, notes=("x",), origin="y")) == fingerprint(task)


@needs_bundled
def test_bundled_tasks_load_with_no_data_folder_and_no_network() -> None:
    tasks = load_tasks(["quickstart"], None)
    assert [task.name for task in tasks] == list(known_suites()["quickstart"])
    for task in tasks:
        assert {example.label for example in task.score} == set(task.labels)
        assert set(task.train[0].fields) == set(BUNDLED[task.name].fields)
        assert len(task.train) > 9 * len(task.select) - 1 > 0
        assert not any("of score also occur in" in note for note in task.notes)
        assert task.origin == "bundled"
