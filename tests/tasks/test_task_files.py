"""A user's own task is a YAML file beside its rows; what is wrong with either is said in one sentence."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import choose_prompt
from forgetmenot.tasks import Task, load_tasks
from forgetmenot.tasks.yaml_file import read_yaml

TRIAGE = """\
name: my-triage
data: {train: train.jsonl, score: dev.jsonl}
prompts:
  default: {template: "Ticket: {{ text }}\\nTeam:", choices: {billing: billing, tech: tech}}
label: team
metric: accuracy
"""
TICKETS = [
    {"text": "I was charged twice.", "team": "billing"},
    {"text": "It does not start. ", "team": "tech"},
]
CHAT = [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": "Four. "}]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue())


def load(folder: Path, yaml: str, **files: list[dict[str, Any]]) -> Task:
    """Write a task file and its rows (`train="…"` as train.jsonl) and load it."""
    for name, rows in files.items():
        write_rows(folder / f"{name}.jsonl", rows)
    (folder / "task.yaml").write_text(yaml)
    [task] = load_tasks([str(folder / "task.yaml")], None)
    return task


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_a_choice_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    write_rows(tmp_path / f"train.{suffix}", TICKETS)
    write_rows(tmp_path / f"dev.{suffix}", TICKETS[::-1])
    task = load(tmp_path, TRIAGE.replace("jsonl", suffix))
    assert (task.name, task.kind, task.metric, task.labels) == (
        "my-triage",
        "choice",
        "accuracy",
        ("billing", "tech"),
    )
    assert [(e.id, e.label, dict(e.fields)) for e in task.train] == [
        ("train-0", "billing", {"text": "I was charged twice."}),
        ("train-1", "tech", {"text": "It does not start. "}),
    ]
    assert [e.label for e in task.score] == ["tech", "billing"]
    assert task.prompts["default"]["template"] == "Ticket: {{ text }}\nTeam:"
    assert task.notes == ("2 of 2 examples of score also occur in train, word for word.",)
    assert str(tmp_path / f"dev.{suffix}") in task.origin


def test_validation_is_score_and_select_may_be_given(tmp_path: Path) -> None:
    yaml = TRIAGE.replace("score: dev.jsonl", "validation: dev.jsonl, select: choose.jsonl")
    train = [{"text": str(row), "team": "tech"} for row in range(50)]
    task = load(tmp_path, yaml, train=train, dev=TICKETS, choose=TICKETS[:1])
    assert (len(task.train), len(task.select), len(task.score)) == (50, 1, 2)
    assert task.notes == ("1 of 2 examples of score also occur in select, word for word.",)
    assert task.select[0].id == "select-0"


@pytest.mark.parametrize(
    ("data", "sizes"), [("train: train.jsonl", (45, 5, 0)), ("score: train.jsonl", (0, 0, 50))]
)
def test_train_or_score_alone_is_enough(tmp_path: Path, data: str, sizes: tuple[int, int, int]) -> None:
    rows = [{"text": str(row), "team": "tech"} for row in range(50)]
    task = load(tmp_path, TRIAGE.replace("train: train.jsonl, score: dev.jsonl", data), train=rows)
    assert (len(task.train), len(task.select), len(task.score)) == sizes


@pytest.mark.parametrize(
    ("choices", "labels", "values"),
    [
        ("{yes: yes, no: no}", ("yes", "no"), ["yes", "no"]),
        ("{1: 1, 2: 2}", ("1", "2"), [1, 2.0]),
        ("{true: yes, false: no}", ("true", "false"), [True, False]),
        ("{on: on, off: off}", ("on", "off"), ["on", "off"]),
    ],
)
def test_labels_are_the_words_that_the_person_typed(
    tmp_path: Path, choices: str, labels: tuple[str, ...], values: list[Any]
) -> None:
    yaml = TRIAGE.replace("{billing: billing, tech: tech}", choices)
    rows = [{"text": "a", "team": value} for value in values]
    task = load(tmp_path, yaml, train=rows, dev=rows)
    assert task.labels == labels
    assert [example.label for example in task.train] == list(labels)
    assert all(isinstance(word, str) for word in task.prompts["default"]["choices"].values())


def test_an_answer_is_text_even_where_it_is_a_number(tmp_path: Path) -> None:
    yaml = "name: sums\ndata: {train: train.jsonl}\nprompts: {default: {template: '{{ q }}'}}\ntarget: a\n"
    task = load(tmp_path, yaml, train=[{"q": "1 + 1", "a": 2}, {"q": "colour", "a": "red"}])
    assert (task.kind, task.metric, task.labels) == ("answer", "exact_match", ())
    assert [(example.target, dict(example.fields)) for example in task.train] == [
        ("2", {"q": "1 + 1"}),
        ("red", {"q": "colour"}),
    ]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_chats_as_lists_or_as_json_in_a_cell(tmp_path: Path, suffix: str, as_text: bool) -> None:
    cell = json.dumps(CHAT) if as_text or suffix == "csv" else CHAT
    write_rows(tmp_path / f"train.{suffix}", [{"chat": cell, "source": "x"}])
    task = load(tmp_path, f"name: chats\ndata: {{train: train.{suffix}}}\nmessages: chat\n")
    assert (task.kind, task.metric) == ("messages", "loss")
    assert task.train[0].fields == {"messages": CHAT}
    assert task.train[0].target == "Four. "


def test_plain_text(tmp_path: Path) -> None:
    task = load(
        tmp_path, "name: prose\ndata: {score: dev.jsonl}\ntext: body\n", dev=[{"body": "Once upon", "n": 1}]
    )
    assert (task.kind, task.metric, task.score[0].fields) == ("text", "loss", {"text": "Once upon"})


MANNERS = (
    "name: manners\ndata: {score: dev.jsonl}\nchosen: good\nrejected: bad\n"
    'prompts: {default: {template: "{{ q }}"}}\n'
)


def test_preferences_are_two_columns(tmp_path: Path) -> None:
    task = load(tmp_path, MANNERS, dev=[{"q": "How?", "good": "So.", "bad": "What?"}])
    assert (task.kind, task.metric, task.labels) == ("preference", "preference", ("chosen", "rejected"))
    assert task.score[0].fields == {"q": "How?", "chosen": "So.", "rejected": "What?"}
    assert task.score[0].label == "chosen"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("So.", r"line 1: the chosen and the rejected answer are the same"),
        ([{"role": "assistant", "content": "What?"}], r"line 1: 'bad' is \[.*, not an answer as text"),
        (" ", r"line 1: 'bad' is ' ', not an answer as text"),
    ],
)
def test_a_pair_that_is_none_is_named(tmp_path: Path, bad: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(tmp_path, MANNERS, dev=[{"q": "How?", "good": "So.", "bad": bad}])


@pytest.mark.parametrize("key", ["chosen: good\n", "rejected: bad\n"])
def test_half_a_preference_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=r"chosen"):
        load(tmp_path, MANNERS.replace(key, ""), dev=[{"q": "How?", "good": "So.", "bad": "What?"}])


def test_rows_from_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    label = datasets.ClassLabel(names=["billing", "tech"])
    features = datasets.Features({"text": datasets.Value("string"), "team": label})
    hub = tmp_path / "hub"
    for split, teams in (("train", [0, 1]), ("validation", [1, 0]), ("test", [-1, -1])):
        rows = datasets.Dataset.from_dict({"text": ["a", split], "team": teams}, features)
        rows.to_parquet(str(hub / "data" / f"{split}-00000-of-00001.parquet"))
    yaml = TRIAGE.replace("{train: train.jsonl, score: dev.jsonl}", f"{{hub: '{hub}'}}")
    task = load(tmp_path, yaml)
    assert [example.label for example in task.train] == ["billing", "tech"]
    assert [example.label for example in task.score] == ["tech", "billing"]
    assert "set data.revision to fix it" in task.notes[0]

    pinned = load(tmp_path, yaml.replace("'}", "', score: train, revision: main}"))
    assert (len(pinned.train), len(pinned.score), pinned.notes) == (0, 2, ())
    with pytest.raises(UserError, match=r"split test, row 1: team is -1: .*hidden"):
        load(tmp_path, yaml.replace("'}", "', score: test}"))
    with pytest.raises(UserError, match=r"no split 'dev'\. .*Known: test, train, validation"):
        load(tmp_path, yaml.replace("'}", "', score: dev}"))


def changed(old: str, new: str) -> str:
    assert old in TRIAGE
    return TRIAGE.replace(old, new)


WRONG_FILES = [
    (changed("label: team", "lable: team"), ["lable", "Did you mean 'label'?"]),
    (changed("score:", "scroe:"), ["data.scroe", "Did you mean 'score'?"]),
    (changed("label: team", "label: 3"), ["label", "text (in quotes"]),
    (changed("name: my-triage\n", ""), ["name", "task.yaml"]),
    (changed("my-triage", "../elsewhere"), ["../elsewhere"]),
    (changed("label: team\n", ""), ["the keys label, target, messages, text, chosen; it has none"]),
    (TRIAGE + "target: text\n", ["it has label, target"]),
    (TRIAGE + "chosen: good\n", ["exactly one of the keys", "label, chosen"]),
    (TRIAGE + "rejected: bad\n", ["both keys", "'rejected'"]),
    (TRIAGE + "name: twice\n", ["line 7", "'name' occurs twice"]),
    (changed("metric: accuracy", "metric: acuracy"), ["'acuracy'", "Did you mean 'accuracy'?"]),
    (changed("metric: accuracy", "metric: rouge_l"), ["'rouge_l' does not fit 'label'"]),
    (
        changed("tech: tech}", "tech: tech, sales: sales}").replace("accuracy", "f1"),
        ["f1 needs 2 labels", "3"],
    ),
    (changed("default:", "other:"), ["'prompts' must hold a prompt named 'default'"]),
    (changed("choices: {billing: billing, tech: tech}", "chat: false"), ["prompts.default.choices"]),
    (changed("billing: billing, ", ""), ["prompts.default.choices", "two labels"]),
    (changed("{train: train.jsonl, score: dev.jsonl}", "{select: dev.jsonl}"), ["neither train nor score"]),
    (changed("score: dev.jsonl", "score: dev.jsonl, validation: dev.jsonl"), ["mean the same"]),
    (changed("score: dev.jsonl", "score: dev.jsonl, revision: main"), ["need data.hub"]),
    (changed("dev.jsonl", "gone.jsonl"), ["data.score", "gone.jsonl", "does not exist"]),
    (changed("dev.jsonl", "task.yaml"), ["task.yaml", "Known: .csv"]),
    ("- a\n- b\n", ["must hold keys"]),
    ("name: [unclosed\n", ["task.yaml, line 2", "not YAML"]),
    ("name: \x07\n", ["task.yaml is not YAML"]),
]


@pytest.mark.parametrize(("yaml", "parts"), WRONG_FILES)
def test_a_wrong_task_file_is_one_sentence(tmp_path: Path, yaml: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, yaml, train=TICKETS, dev=TICKETS)
    message = str(error.value)
    assert str(tmp_path / "task.yaml") in message
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_a_task_file_that_is_missing_or_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml could not be read: No such file"):
        load_tasks([str(tmp_path / "gone.yaml")], None)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UserError, match=r"latin\.yaml is not UTF-8"):
        load_tasks([str(tmp_path / "latin.yaml")], None)


ANSWER = "name: a\ndata: {train: train.jsonl}\nprompts: {default: {template: x}}\ntarget: a\n"
MESSAGES = "name: a\ndata: {train: train.jsonl}\nmessages: chat\n"
TEXT = "name: a\ndata: {train: train.jsonl}\ntext: body\n"
USER, ASSISTANT = CHAT
WRONG_ROWS: list[tuple[str, dict[str, Any], str]] = [
    (TRIAGE, {"text": "a", "team": "sales"}, "the label 'sales' in 'team' is none of billing, tech"),
    (TRIAGE, {"text": "a", "team": "tech "}, "the label 'tech '"),
    (TRIAGE, {"text": "a", "team": "teck"}, "none of billing, tech. Did you mean 'tech'? Mend"),
    (TRIAGE, {"text": "a"}, "'team' is missing or null; the row has text"),
    (TRIAGE, {"text": "a", "taem": "tech"}, "the row has text, taem. Did you mean 'taem'?"),
    (TRIAGE, {"text": "a", "team": None}, "'team' is missing or null"),
    (TRIAGE, {"text": "a", "team": -1}, "labels of this split are hidden"),
    (TRIAGE, {"text": "a", "team": ["tech"]}, "neither text nor a number"),
    (ANSWER, {"a": " "}, "the target in 'a' is empty"),
    (ANSWER, {"a": ["x"]}, "neither text nor a number"),
    (MESSAGES, {"chat": [ASSISTANT, USER]}, "'chat' needs a turn of the assistant's after"),
    (MESSAGES, {"chat": [ASSISTANT]}, "after at least one other"),
    (MESSAGES, {"chat": []}, "'chat' needs a turn of the assistant's after"),
    (MESSAGES, {"chat": [USER, {"from": "bot", "value": "Four."}]}, "turn 2 of 'chat' needs a role"),
    (MESSAGES, {"chat": [USER, {"from": "gpt"}]}, "turn 2 of 'chat' needs a role"),
    (MESSAGES, {"chat": [USER, {"role": "assistant", "content": None}]}, "turn 2 of 'chat' needs"),
    (MESSAGES, {"chat": "not json"}, "'chat' is not JSON"),
    (MESSAGES, {"chat": [{"from": ["a"], "value": "x"}]}, "turn 1 of 'chat' needs a role"),
    (
        MESSAGES,
        {"chat": [USER, {**ASSISTANT, "tool_calls": "look_up"}]},
        "'tool_calls' of turn 2 of 'chat' must",
    ),
    (MESSAGES, {"chat": [USER, {**ASSISTANT, "tool_calls": 3}]}, "'tool_calls' of turn 2 of 'chat' must"),
    (MESSAGES, {"chat": [USER, {**ASSISTANT, "tool_calls": ["x"]}]}, "'tool_calls' of turn 2 of 'chat' must"),
    (
        MESSAGES,
        {"chat": [USER, {**ASSISTANT, "tool_calls": [{"function": {"name": "f", "arguments": "{x"}}]}]},
        "the arguments '{x' are not JSON",
    ),
    (MESSAGES, {"chat": {"role": "user"}}, "'chat' must be a list of turns"),
    (TEXT, {"body": "  "}, "not a text with something in it"),
    (TEXT, {"body": 3}, "'body' is 3"),
]


@pytest.mark.parametrize(("yaml", "row", "sentence"), WRONG_ROWS)
def test_a_wrong_row_is_named_with_its_line(
    tmp_path: Path, yaml: str, row: dict[str, Any], sentence: str
) -> None:
    good = {"text": "a", "team": "tech", "a": "x", "chat": CHAT, "body": "y"}
    with pytest.raises(UserError) as error:
        load(tmp_path, yaml, train=[good, row], dev=[good])
    assert f"{tmp_path / 'train.jsonl'}, line 2: " in str(error.value)
    assert sentence in str(error.value)


def test_an_empty_file_is_an_empty_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dev\.jsonl has no rows"):
        load(tmp_path, TRIAGE, train=TICKETS, dev=[])
    with pytest.raises(UserError, match=r"choose\.jsonl has no rows"):
        load(
            tmp_path,
            TRIAGE.replace("score:", "select: choose.jsonl, score:"),
            train=TICKETS,
            dev=TICKETS,
            choose=[],
        )


def test_rows_that_share_a_passage_are_a_cluster(tmp_path: Path) -> None:
    rows = [{**TICKETS[k % 2], "text": f"Ticket {k}.", "thread": f"t{k // 2}"} for k in range(4)]
    task = load(tmp_path, TRIAGE + "cluster: thread\n", train=rows, dev=rows)
    assert task.cluster == "thread"
    chats = [{"messages": CHAT, "thread": "t0"}, {"messages": CHAT, "thread": "t1"}]
    yaml = "name: c\ndata: {score: chats.jsonl}\nmessages: messages\ncluster: thread\n"
    assert [one.fields["thread"] for one in load(tmp_path, yaml, chats=chats).score] == ["t0", "t1"]
    with pytest.raises(UserError, match=r"cluster: row 2 of score has no value in a field 'thread'"):
        load(tmp_path, yaml, chats=[chats[0], {"messages": CHAT}])


def test_numbers_in_json_keep_what_was_typed(tmp_path: Path) -> None:
    rows = '{"text": 1.50, "team": "tech"}\n{"text": 2e3, "team": "billing"}\n'
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text(rows)
    task = load(tmp_path, TRIAGE)
    prompt = choose_prompt(task, "default")
    said = [prompt.render(one.fields).splitlines()[0] for one in task.train]
    assert said == ["Ticket: 1.50", "Ticket: 2e3"]
    assert [one.fields["text"] for one in task.train] == [1.5, 2000]


def test_choices_are_the_text_that_was_written(tmp_path: Path) -> None:
    words = ["2:1", "1:20", "007", "1.50", "1_000", "yes", "on", "true", "0x1F", "2024-01-01", "1e3"]
    choices = ", ".join(f"{label}: {word}" for label, word in zip("abcdefghijk", words, strict=True))
    rows = [{"text": "x", "team": "a"}, {"text": "y", "team": "b"}]
    task = load(tmp_path, TRIAGE.replace("billing: billing, tech: tech", choices), train=rows, dev=rows)
    assert list(task.prompts["default"]["choices"].values()) == words
    assert list(choose_prompt(task, "default").choices.values()) == words
    swapped = ", ".join(f"{word}: {label}" for label, word in zip("abcdefghijk", words, strict=True))
    named: list[dict[str, Any]] = [{"text": "x", "team": "007"}, {"text": "y", "team": True}]
    task = load(tmp_path, TRIAGE.replace("billing: billing, tech: tech", swapped), train=named, dev=named)
    assert list(task.labels) == words
    assert [one.label for one in task.train] == ["007", "true"]


def test_choices_that_are_empty_are_refused(tmp_path: Path) -> None:
    task = load(tmp_path, TRIAGE.replace("tech: tech", "tech: "), train=TICKETS, dev=TICKETS)
    with pytest.raises(UserError, match=r"choices.tech.*must be text"):
        choose_prompt(task, "default")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *[("010", 10), ("0o10", 8), ("0x10", 16), ("1:20", "1:20"), ("1_000", "1_000"), ("1e-4", 1e-4)],
        *[("1.", 1.0), (".5", 0.5), ("-.inf", -math.inf), ("2024-01-01", "2024-01-01")],
        *[("yes", "yes"), ("TRUE", True), ("~", None)],
    ],
)
def test_values_are_read_by_the_core_schema_of_yaml_1_2(tmp_path: Path, written: str, read: Any) -> None:
    (tmp_path / "a.yaml").write_text(f"key: {written}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"key": read}


TALK = [
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And two?"},
    {"role": "assistant", "content": "Six."},
]


def test_all_answers_of_a_chat_are_learned_and_the_last_is_scored(tmp_path: Path) -> None:
    yaml = "name: chats\ndata: {train: train.jsonl, score: dev.jsonl}\nmessages: chat\n"
    rows = [{"chat": TALK}, {"chat": CHAT}]
    task = load(tmp_path, yaml, train=rows, dev=rows)
    learned = [(one.id, one.fields["messages"], one.target) for one in task.train]
    assert learned == [
        ("train-0-turn-3", TALK[:3], "Four."),
        ("train-0", TALK, "Six."),
        ("train-1", CHAT, "Four. "),
    ]
    assert [one.fields["messages"] for one in task.score] == [TALK, CHAT]
    last = load(tmp_path, yaml + "messages_loss: last\n")
    assert [one.id for one in last.train] == ["train-0", "train-1"]
    assert load(tmp_path, yaml + "messages_loss: all\n").train == task.train


def test_tools_and_calls_are_read(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "fern", "near": None}}}
    talk = [
        {"role": "user", "content": "A fern?", "tool_calls": []},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "a plant"},
        {"role": "assistant", "content": "A plant."},
    ]
    tools = [{"type": "function", "function": {"name": "look_up", "strict": None}}]
    yaml = "name: chats\ndata: {train: train.jsonl}\nmessages: chat\n"
    for written in (tools, json.dumps(tools)):
        task = load(tmp_path, yaml, train=[{"chat": talk, "tools": written}])
        fields = task.train[-1].fields
        assert fields["tools"] == [{"type": "function", "function": {"name": "look_up"}}]
        assert fields["messages"][0] == {"role": "user", "content": "A fern?"}
        assert fields["messages"][1]["content"] == ""
        assert fields["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"word": "fern"}
        assert [one.fields["messages"][-1]["role"] for one in task.train] == ["assistant", "assistant"]
    said = {"name": "look_up", "arguments": json.dumps({"word": "fern"})}
    for calls in ([{"type": "function", "function": said}], json.dumps([{"function": said}]), [dict(said)]):
        again: list[Any] = [talk[0], {"role": "assistant", "content": None, "tool_calls": calls}, *talk[2:]]
        [read] = (
            load(tmp_path, yaml, train=[{"chat": again, "tools": tools}])
            .train[-1]
            .fields["messages"][1]["tool_calls"]
        )
        assert read.get("function", read)["arguments"] == {"word": "fern"}, "as an object, in every form"
    with pytest.raises(UserError, match="says nothing that a written answer"):
        load(tmp_path, yaml + "metric: exact_match\n", train=[{"chat": talk[:2], "tools": tools}])
    with pytest.raises(UserError, match="'tools' must be a list"):
        load(tmp_path, yaml, train=[{"chat": talk, "tools": {"name": "look_up"}}])


def test_messages_loss_is_for_chats(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"messages_loss.*for chats"):
        load(tmp_path, TRIAGE + "messages_loss: last\n", train=TICKETS, dev=TICKETS)


def numbered(count: int) -> list[dict[str, str]]:
    return [
        {"text": f"Row {k}", "team": ("billing", "tech")[k % 2], "case": str(k // 4)} for k in range(count)
    ]


def test_one_file_is_enough(tmp_path: Path) -> None:
    yaml = TRIAGE.replace("{train: train.jsonl, score: dev.jsonl}", "train.jsonl")
    task = load(tmp_path, yaml, train=numbered(100))
    assert (len(task.train), len(task.select), len(task.score)) == (81, 9, 10)
    assert [note.split(" are held")[0] for note in task.notes] == [
        "10 of 100 rows of train",
        "9 of 90 rows of train",
    ]
    write_rows(tmp_path / "train.jsonl", numbered(100)[::-1])
    again = load(tmp_path, yaml)
    assert {e.fields["text"] for e in again.score} == {e.fields["text"] for e in task.score}


@pytest.mark.parametrize(
    ("data", "sizes"),
    [("score: 25%", (68, 7, 25)), ("score: 10%, select: 0", (90, 0, 10)), ("select: 50%", (50, 50, 0))],
)
def test_splits_may_be_shares_of_train(tmp_path: Path, data: str, sizes: tuple[int, int, int]) -> None:
    yaml = TRIAGE.replace("score: dev.jsonl", data)
    task = load(tmp_path, yaml, train=numbered(100))
    assert (len(task.train), len(task.select), len(task.score)) == sizes


def test_what_is_held_out_are_whole_clusters(tmp_path: Path) -> None:
    yaml = TRIAGE.replace("score: dev.jsonl", "score: 20%") + "cluster: case\n"
    task = load(tmp_path, yaml, train=numbered(100))
    cases = [{e.fields["case"] for e in split} for split in (task.train, task.select, task.score)]
    assert all(cases)
    assert sum(map(len, cases)) == 25
    assert len(task.score) == 20


def test_share_gpts_turns_are_read_and_what_nobody_answers_is_left_out(tmp_path: Path) -> None:
    asked = [{"from": "system", "value": "Be short."}, {"from": "human", "value": "2 + 2?"}]
    chat = [*asked, {"from": "gpt", "value": "4."}]
    rows = [{"chat": chat}, {"chat": [*chat, {"from": "human", "value": "Thanks."}]}]
    task = load(tmp_path, MESSAGES.replace("train:", "score:"), train=rows)
    for example in task.score:
        assert [turn["role"] for turn in example.fields["messages"]] == ["system", "user", "assistant"]
        assert example.target == "4."
    assert task.notes[0].startswith("Chats that go on behind the assistant's last turn: 1;")


def test_columns_of_any_name_have_one_in_a_template(tmp_path: Path) -> None:
    yaml = TRIAGE.replace("{{ text }}", "{{ Ticket_text }} {{ _2nd }}")
    rows = [{"Ticket text": "It burns.", "2nd": "now", "team": "tech"}]
    task = load(tmp_path, yaml, train=rows, dev=rows)
    assert dict(task.train[0].fields) == {"Ticket_text": "It burns.", "_2nd": "now"}
    rows = [{"a b": "x", "a_b": "y", "team": "tech"}]
    with pytest.raises(UserError, match=r"line 1: two columns are 'a_b' in a template; rename"):
        load(tmp_path, yaml, train=rows, dev=rows)
