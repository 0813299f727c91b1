"""`fmn init`: from a file of rows to a task that a run takes, and nothing guessed in silence."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import forgetmenot as fmn
from forgetmenot.cli import main
from forgetmenot.errors import UserError
from forgetmenot.tasks import load_tasks
from forgetmenot.tasks.yaml_file import read_yaml
from forgetmenot.trials.init import init

TEAMS = ("billing", "tech", "sales")
TICKETS = [
    {"No": 100 + k, "Ticket text": f"Case {k * k}", "Channel": ("mail", "phone")[k % 2], "Team": TEAMS[k % 3]}
    for k in range(60)
]
QUESTIONS = [{"id": k, "question": f"What is {k}+1?", "answer": str(k + 1)} for k in range(30)]
ALPACA = [
    {
        "instruction": f"Say {k}.",
        "input": "" if k % 2 else "Loudly.",
        "output": f"Here it is, as you asked: {k}.",
    }
    for k in range(30)
]
SHARE_GPT = [
    {"conversations": [{"from": "human", "value": f"{k}?"}, {"from": "gpt", "value": f"{k}."}]}
    for k in range(30)
]
PAIRS = [{"prompt": f"{k}?", "chosen": f"Good {k}", "rejected": f"Bad {k}"} for k in range(30)]


def jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "kind", "metric", "asked"),
    [
        (TICKETS, "choice", "accuracy", "Ticket text: Case 0\nChannel: mail\nTeam:"),
        (QUESTIONS, "answer", "exact_match", "What is 0+1?\nAnswer:"),
        (ALPACA, "answer", "rouge_l", "Say 0.\n\nLoudly.\n\nResponse:"),
        (SHARE_GPT, "messages", "loss", "[user] 0?"),
        (PAIRS, "preference", "preference", "0?"),
    ],
)
def test_what_people_have_becomes_a_task(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[Any],
    kind: str,
    metric: str,
    asked: str,
) -> None:
    made = init(jsonl(tmp_path / "mine.jsonl", rows))
    assert (made.path, made.task.name) == (tmp_path / "mine.yaml", "mine")
    assert (made.task.kind, made.task.metric) == (kind, metric)
    assert len(made.task.train) + len(made.task.select) + len(made.task.score) == len(rows)
    assert len(made.task.score) == len(rows) // 10
    made.print()
    said = capsys.readouterr().out
    # whichever row is the first of what is left to train on
    shown = asked if made.task.train[0].id == "train-0" else asked.split("0")[0]
    assert "\n".join(f"  │ {line}" for line in shown.split("\n")) in said


def test_names_of_rows_are_not_shown_to_the_model(tmp_path: Path) -> None:
    made = init(jsonl(tmp_path / "mine.jsonl", TICKETS))
    content = made.path.read_text(encoding="utf-8")
    assert "not shown to the model: No" in content
    template = read_yaml(made.path)["prompts"]["default"]["template"]
    assert "{{ Ticket_text }}" in template
    assert "No" not in template


def test_labels_that_begin_one_another_are_told_apart_by_their_end(tmp_path: Path) -> None:
    rows = [{"text": f"Row {k}", "label": (1, 10, 2)[k % 3]} for k in range(30)]
    made = init(jsonl(tmp_path / "mine.jsonl", rows))
    assert set(made.task.labels) == {"1", "10", "2"}
    assert read_yaml(made.path)["prompts"]["default"]["end"] == "\n"


def test_a_hole_in_a_column_is_written_as_nothing(tmp_path: Path) -> None:
    rows = [{"title": None if k % 2 else f"T{k}", "body": f"B{k}", "label": "ab"[k % 2]} for k in range(30)]
    made = init(jsonl(tmp_path / "mine.jsonl", rows))
    assert "Title: {{ title | default('') }}" in read_yaml(made.path)["prompts"]["default"]["template"]


@pytest.mark.parametrize("name", ["label", "Kind: of\t'thing'", "#tag", "1st", "yes", "größe"])
def test_a_columns_name_may_be_anything(tmp_path: Path, name: str) -> None:
    rows = [{f"{name} in": f"Row {k}", name: "ab"[k % 2]} for k in range(30)]
    made = init(jsonl(tmp_path / "mine.jsonl", rows), answer=name)
    assert made.task.labels == ("a", "b")
    assert all(len(example.fields) == 1 for example in made.task.train)


def test_a_folder_of_notes_is_read_whole_and_parts_of_a_note_stay_together(tmp_path: Path) -> None:
    for k in range(30):
        place = tmp_path / "notes" / ("deep" if k % 2 else ".") / f"{k}.md"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"# Note {k}\n\n" + f"One sentence of note {k}. " * 120, encoding="utf-8")
    (tmp_path / "notes" / ".hidden.md").write_text("nobody sees this")
    made = init(tmp_path / "notes")
    assert (made.task.kind, made.task.cluster) == ("text", "document")
    splits = (made.task.train, made.task.select, made.task.score)
    documents = [{example.fields["document"] for example in split} for split in splits]
    assert all(documents)
    assert sum(map(len, documents)) == 30
    text = "".join(example.fields["text"] for split in splits for example in split)
    assert sum(text.count(f"note {k}.") for k in range(30)) == 30 * 120
    assert "nobody" not in text


def test_rows_from_memory_are_written_beside_the_task(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TICKETS)
    frame.loc[3, "Channel"] = float("nan")
    path = tmp_path / "tickets.yaml"
    made = fmn.init(frame, path)
    assert made.task.labels
    assert (tmp_path / "tickets.jsonl").is_file()
    assert made.task.train[3].fields["Channel"] is None or made.task.train[3].id != "train-3"
    datasets = pytest.importorskip("datasets")
    again = fmn.init(datasets.Dataset.from_list(TICKETS), path, fresh=True)
    assert len(again.task.train) == len(made.task.train)
    with pytest.raises(UserError, match="name the task file"):
        fmn.init(TICKETS)
    with pytest.raises(UserError, match="rows are dicts"):
        fmn.init(["a", "b"], tmp_path / "other.yaml")


def test_files_for_training_and_scoring_are_found_beside_each_other(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", TICKETS)
    jsonl(tmp_path / "validation.jsonl", TICKETS[:6])
    made = init(tmp_path / "train.jsonl")
    assert len(made.task.score) == 6
    assert read_yaml(made.path)["data"] == {"train": "train.jsonl", "score": "validation.jsonl"}
    folder = init(tmp_path, tmp_path / "whole.yaml")
    assert len(folder.task.score) == 6


def test_packed_files_are_read(tmp_path: Path) -> None:
    rows = "\n".join(json.dumps(row) for row in QUESTIONS)
    (tmp_path / "mine.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    made = init(tmp_path / "mine.jsonl.gz")
    assert made.path == tmp_path / "mine.yaml"
    assert made.task.kind == "answer"
    (tmp_path / "bad.jsonl.gz").write_bytes(gzip.compress(rows.encode())[:-9])
    with pytest.raises(UserError, match=r"bad\.jsonl\.gz could not be unpacked"):
        init(tmp_path / "bad.jsonl.gz")


@pytest.mark.parametrize("column", ["note", "text", "answer"])
def test_a_single_column_is_plain_text_whatever_its_name(tmp_path: Path, column: str) -> None:
    rows = [{column: f"Note number {k} is a text."} for k in range(30)]
    made = init(jsonl(tmp_path / "mine.jsonl", rows))
    assert (made.task.kind, made.task.metric) == ("text", "loss")
    assert str(made.task.score[0].fields["text"]).startswith("Note number")


def test_of_plain_text_it_says_what_is_not_read(tmp_path: Path) -> None:
    rows = [{"subject": f"About {k}", "body": f"The text of {k}."} for k in range(30)]
    made = init(jsonl(tmp_path / "mine.jsonl", rows))
    assert made.task.kind == "text"
    assert "# not read: subject" in made.path.read_text(encoding="utf-8")


def test_many_labels_are_labels_where_the_column_is_named_so(tmp_path: Path) -> None:
    rows = [{"text": f"Word {k}.", "label": f"intent {k % 77}"} for k in range(400)]
    made = init(jsonl(tmp_path / "mine.jsonl", rows))
    assert (made.task.kind, len(made.task.labels)) == ("choice", 77)


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (lambda k: None if k == 18 else "ab"[k % 2], "row 19 has none"),
        (lambda k: (1.0, 1.5, 2.0)[k % 3], "1.5 is no whole number"),
        (lambda k: f"label {k}", "60 values in 60 rows"),
    ],
)
def test_a_column_of_labels_is_not_dropped_in_silence(tmp_path: Path, label: Any, why: str) -> None:
    rows = [{"text": f"Word {k}.", "label": label(k)} for k in range(60)]
    with pytest.raises(UserError, match=why):
        init(jsonl(tmp_path / "mine.jsonl", rows))


@pytest.mark.parametrize("column", ["id", "ID", "ticket_id", "url", "", "Unnamed: 0", "uuid"])
def test_what_says_the_same_is_held_out_together_whatever_names_the_rows(tmp_path: Path, column: str) -> None:
    table = tmp_path / "mine.csv"
    rows = [f"row {k},Text number {k % 10}.,{'ab'[k % 2]}" for k in range(100)]
    table.write_text("\n".join([f"{column},text,label", *rows]) + "\n", encoding="utf-8")
    task = init(table).task
    train, other = (
        {str(one.fields["text"]) for one in rows} for rows in (task.train, (*task.score, *task.select))
    )
    assert other
    assert not train & other


def test_the_file_says_what_is_held_out(tmp_path: Path) -> None:
    made = init(jsonl(tmp_path / "mine.jsonl", 7 * TICKETS))
    assert "10% of them are scored, and never trained on; a tenth of the rest is for choices" in (
        made.path.read_text(encoding="utf-8")
    )
    assert made.task.select


@pytest.mark.parametrize(
    ("rows", "answer", "sentence"),
    [
        (QUESTIONS[:9], None, "has 9 rows; 10 are the fewest"),
        ([{"a": f"{k}", "b": f"{k}!"} for k in range(30)], None, "name it with --answer"),
        ([{"a": "xy"[k % 2], "b": "uv"[k % 2]} for k in range(30)], None, "name it with --answer"),
        (QUESTIONS, "anwser", "no column 'anwser'. Did you mean 'answer'?"),
    ],
)
def test_what_cannot_be_told_is_asked(
    tmp_path: Path, rows: list[Any], answer: str | None, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        init(jsonl(tmp_path / "mine.jsonl", rows), answer=answer)
    assert sentence in str(error.value)
    assert not (tmp_path / "mine.yaml").exists()


def test_a_task_file_is_not_written_over(tmp_path: Path) -> None:
    place = jsonl(tmp_path / "sst2.jsonl", TICKETS)
    made = init(place)
    assert made.task.name == "my-sst2"
    with pytest.raises(UserError, match="is there already"):
        init(place)
    assert init(place, fresh=True).task.labels == made.task.labels


def test_the_command_ends_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["good", "bad"]
    rows = [{"text": f"it is {words[k % 2]} {k}", "label": words[k % 2]} for k in range(40)]
    jsonl(tmp_path / "mine.jsonl", rows)
    with pytest.raises(SystemExit) as ended:
        main(["init", "mine.jsonl"])
    assert not ended.value.code
    assert "and should answer:" in capsys.readouterr().out
    found = fmn.run({"model": "quickstart", "tasks": ["mine.yaml"], "output": "out"})
    assert found.matrix.shape == (2, 1)


def test_rows_from_memory_write_over_nobodys_file(tmp_path: Path) -> None:
    mine = jsonl(tmp_path / "tickets.jsonl", QUESTIONS)
    before = mine.read_bytes()
    with pytest.raises(UserError, match=r"tickets\.jsonl is there already"):
        fmn.init(TICKETS, tmp_path / "tickets.yaml")
    assert mine.read_bytes() == before
    with pytest.raises(UserError, match="name it with --answer"):
        fmn.init([{"a": str(k), "b": f"{k}!"} for k in range(30)], tmp_path / "other.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["tickets.jsonl"]


def test_a_share_is_not_short_of_a_row_by_rounding(tmp_path: Path) -> None:
    jsonl(tmp_path / "rows.jsonl", [{"body": f"Row {k}"} for k in range(100)])
    (tmp_path / "t.yaml").write_text("name: t\ndata: {train: rows.jsonl, score: 29%}\ntext: body\n")
    [task] = load_tasks([str(tmp_path / "t.yaml")], None)
    assert len(task.score) == 29
