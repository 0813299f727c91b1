"""O-LoRA's CL_Benchmark: its layout, its gaps, its orders and its prompts."""

import json
from pathlib import Path

import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import choose_prompt
from forgetmenot.tasks import known_suites, load_tasks
from forgetmenot.tasks.standard_cl import ORDERS, STANDARD_CL

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (SHARED / "standard-cl").is_dir(), reason="the files are not here")


def write(folder: Path, **splits: list[tuple[str, str]]) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        content = [{"label": label, "sentence": sentence} for label, sentence in rows]
        (folder / f"{split}.json").write_text(json.dumps(content))


def rows(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [("Good" if k % 2 else "Bad", f"Text: film {start + k}\n") for k in range(count)]


@pytest.mark.parametrize("root", ["standard-cl", "CL_Benchmark", "."])
def test_three_files_are_the_three_splits(root: str, tmp_path: Path) -> None:
    write(tmp_path / root / "SC/IMDB", train=rows(30), dev=rows(5, 30), test=rows(4, 35))
    [task] = load_tasks(["imdb"], tmp_path)
    assert (len(task.train), len(task.select), len(task.score)) == (30, 5, 4)
    assert task.train[1].fields == {"sentence": "Text: film 1"}
    assert task.train[1].label == "Good"
    assert task.notes == ()


def test_dev_is_scored_where_there_is_no_test_and_test_alone_is_not_learned_whole(tmp_path: Path) -> None:
    write(tmp_path / "one/SC/IMDB", train=rows(30), dev=rows(5, 30))
    [task] = load_tasks(["imdb"], tmp_path / "one")
    assert (len(task.train), len(task.select), len(task.score)) == (27, 3, 5)

    write(tmp_path / "two/SC/IMDB", dev=[*rows(50), *rows(10)])
    [task] = load_tasks(["imdb"], tmp_path / "two")
    assert "dev.json is the only file" in task.notes[0]
    texts = [{e.fields["sentence"] for e in split} for split in (task.train, task.select, task.score)]
    assert len(set.union(*texts)) == sum(map(len, texts)) == 50
    assert 10 <= len(task.score) <= 12
    assert len(task.train) + len(task.select) + len(task.score) == 60


def test_what_is_missing_or_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set data_dir to a folder that holds standard-cl"):
        load_tasks(["yahoo"], None)
    with pytest.raises(UserError, match=r"No data of yahoo under .*TC/yahoo"):
        load_tasks(["yahoo"], tmp_path)
    write(tmp_path / "SC/IMDB", train=[("Good", "a"), ("Fair", "b")])
    with pytest.raises(UserError, match=r"train.json, row 2: the label 'Fair'"):
        load_tasks(["imdb"], tmp_path)


def test_each_order_is_a_suite_and_holds_what_was_published() -> None:
    assert all(known_suites()[name] == order for name, order in ORDERS.items())
    for first, *others in (
        ("standard-cl", "standard-cl-2", "standard-cl-3"),
        ("long-15", "long-15-2", "long-15-3"),
    ):
        for other in others:
            assert set(ORDERS[other]) == set(ORDERS[first])
            assert ORDERS[other] != ORDERS[first]
    assert set(ORDERS["long-15"]) == set(STANDARD_CL)


def test_every_prompt_lists_the_labels_in_the_tasks_order(tmp_path: Path) -> None:
    for name, standard in STANDARD_CL.items():
        folder = tmp_path / standard.folder
        write(folder, train=[(label, "A thing.") for label in standard.labels])
        [task] = load_tasks([name], tmp_path)
        prompt = choose_prompt(task, "default")
        text = prompt.render(task.train[0].fields)
        assert text.endswith("A thing.\nAnswer:")
        assert dict(prompt.choices) == {label: label for label in standard.labels}
        assert f"Option: {', '.join(standard.labels)}\n" in text or name == "copa"


@needs_data
def test_the_local_suite_loads_whole() -> None:
    tasks = {task.name: task for task in load_tasks(["standard-cl-local"], SHARED)}
    sizes = {name: (len(t.train), len(t.select), len(t.score)) for name, t in tasks.items()}
    assert sizes == {
        "agnews": (3600, 400, 7600),
        "amazon": (4500, 500, 7600),
        "yelp": (3600, 400, 1000),
        "dbpedia": (5472, 608, 1520),
        "imdb": (1440, 160, 400),
    }
    for task in tasks.values():
        assert {example.label for example in task.score} == set(task.labels)
