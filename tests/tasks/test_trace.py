"""TRACE's own files: versions, gaps, leaks, and what is read from real answers."""

import json
from pathlib import Path

import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import choose_prompt
from forgetmenot.tasks import expand, known_suites, load_tasks
from forgetmenot.tasks.answers import extracted
from forgetmenot.tasks.trace import TRACE, VERSIONS

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (SHARED / "trace").is_dir(), reason="the files are not here")


def write(folder: Path, **splits: list[tuple[str, str]]) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        content = [{"prompt": prompt, "answer": answer} for prompt, answer in rows]
        (folder / f"{split}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def test_the_three_files_are_the_three_splits_and_the_prompt_is_put_as_it_stands(tmp_path: Path) -> None:
    folder = tmp_path / "trace" / VERSIONS["500"] / "FOMC"
    write(folder, train=[("a\nStance:", "A"), ("b\nStance:", "")], eval=[("c", "B")], test=[("d", "C")])
    [task] = load_tasks(["fomc-500"], tmp_path)
    assert [len(split) for split in (task.train, task.select, task.score)] == [2, 1, 1]
    assert (task.train[1].target, task.score[0].target) == ("", "C")
    prompt = choose_prompt(task, "default")
    assert prompt.render(task.train[0].fields) == "a\nStance:"
    assert (prompt.separator, prompt.keep, prompt.cut_answer) == ("", "end", True)


def test_a_bare_name_takes_the_folder_given_or_the_only_version_there(tmp_path: Path) -> None:
    small, large = (tmp_path / "trace" / VERSIONS[size] for size in ("500", "5000"))
    write(small / "FOMC", train=[("a", "A")], test=[("d", "C")])
    for given in (tmp_path, tmp_path / "trace", small):
        assert load_tasks(["fomc"], given)[0].origin == str(small / "FOMC")
    write(large / "FOMC", train=[("b", "A")], test=[("d", "C")])
    with pytest.raises(UserError, match="name the one that you mean, as fomc-500 or fomc-5000"):
        load_tasks(["fomc"], tmp_path)
    for given in (tmp_path, tmp_path / "trace", large):
        assert load_tasks(["fomc-5000"], given)[0].origin == str(large / "FOMC")


def test_a_task_without_train_is_scored_alone_and_lima_is_learned_alone(tmp_path: Path) -> None:
    write(tmp_path / "MeetingBank", eval=[("c", "B")], test=[("d", "C")])
    write(tmp_path / "Lima", train=[("a", "b")], eval=[("c", "")], test=[("c", "")])
    meetings, lima = load_tasks(["meetingbank", "lima"], tmp_path)
    assert [len(split) for split in (meetings.train, meetings.select, meetings.score)] == [0, 1, 1]
    assert [len(split) for split in (lima.train, lima.select, lima.score)] == [1, 0, 0]


def test_nothing_is_chosen_on_what_is_scored_and_leaks_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "FOMC", train=[("a", "A"), ("a", "A"), ("d", "C")], eval=[("d", "C")], test=[("d", "C")])
    [task] = load_tasks(["fomc"], tmp_path)
    assert task.select == []
    assert len(task.train) == 3
    assert task.notes == (
        "eval.json and test.json are the same, so there is nothing to make choices on.",
        "1 of 3 examples of train repeat an earlier one word for word.",
        "1 of 1 examples of score also occur in train, word for word.",
    )


def test_what_is_missing_or_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set data_dir to a folder that holds trace/"):
        load_tasks(["fomc"], None)
    with pytest.raises(UserError, match=r"No data of fomc-1000 under .*_1000/FOMC"):
        load_tasks(["fomc-1000"], tmp_path)
    write(tmp_path / "FOMC", train=[("a", "A"), ("  ", "B")])
    with pytest.raises(UserError, match=r"train.json, row 2: 'prompt' is empty"):
        load_tasks(["fomc"], tmp_path)


def test_the_suites_are_the_published_orders_in_every_version() -> None:
    assert len(known_suites()["trace"]) == 8
    assert set(known_suites()["trace-2"]) == set(known_suites()["trace"]) == set(TRACE) - {"lima"}
    for version in VERSIONS:
        for order in ("", "-2"):
            names = expand([f"trace-{version}{order}"])
            assert names == [f"{name}-{version}" for name in known_suites()[f"trace{order}"]]


PLAIN = {
    "c-stance-500": ["B", "A"],
    "scienceqa-500": ["B", "B"],
    "numglue-cm-500": ["6", "Friday"],
    # "…http_status_code or <NUM_LIT:200> )"
    "py150-500": [") ", "return build_response ( path , data , http_status_code or 200 )"],
}


@needs_data
@pytest.mark.parametrize("name", PLAIN)
def test_rules_on_the_first_real_answers(name: str) -> None:
    [task] = load_tasks([name], SHARED)
    read = [extracted(str(example.target), task.generation.extract) for example in task.score[:2]]
    assert read == PLAIN[name]


@pytest.mark.parametrize(
    ("rules", "text", "read"),
    [
        (
            ("py150-literals",),
            "f ( <NUM_LIT> , '<STR_LIT>' , '<STR_LIT:a\nb>' , <NUM_LIT:7> )",
            "f ( 0 , '' , 'a\nb' , 7 )",
        ),
        (("first-character",), "\n B\nThere are four", "B"),
        (("first-character",), "  ", ""),
        (("after-answer", "strip"), "It falls.\nAnswer: 12", "12"),
        (("after-answer",), "所以反对。\n回答：B", "B"),
        (("after-answer", "strip"), "Answer:3\nAnswer:4", "3\nAnswer:4"),
        (("after-answer", "strip"), "just 12", "just 12"),
        (("before-reasoning", "strip"), "x = 1 \nReasoning:It is", "x = 1"),
        (("strip",), "", ""),
    ],
)
def test_rules(rules: tuple[str, ...], text: str, read: str) -> None:
    assert extracted(text, rules) == read


@needs_data
def test_every_rationale_of_the_real_data_leads_to_an_answer_of_the_tasks_form() -> None:
    tasks = {task.name.removesuffix("-rcl"): task for task in load_tasks(["trace-rcl"], SHARED)}
    for name, task in tasks.items():
        for example in task.train:
            text = str(example.target)
            answer = extracted(text, task.generation.extract)
            assert answer
            assert len(answer) < len(text)
            if name in ("c-stance", "fomc"):
                assert answer in {"A", "B", "C"}
            if name == "scienceqa":
                assert answer in set("ABCDE")
            if name.startswith("numglue"):
                assert len(answer) < 30
                assert text.endswith(answer)
            assert "Reasoning:" not in answer
        for example in task.score:  # gold without a rationale stays what it is
            if name not in ("py150", "meetingbank", "20minuten"):
                assert extracted(str(example.target), task.generation.extract) == example.target
    first = tasks["py150"].train[0]
    assert extracted(str(first.target), tasks["py150"].generation.extract) == (
        'blueprint = Blueprint ( "" , __name__ )'
    )
    assert extracted(str(tasks["meetingbank"].train[0].target), ("after-answer", "strip")).startswith(
        "A resolution approving a proposed Business Incentive Fund (BIF) contract"
    )


@needs_data
def test_the_real_500_set() -> None:
    tasks = {task.name: task for task in load_tasks(["trace-500"], SHARED)}
    assert {name: len(task.train) for name, task in tasks.items() if len(task.train) != 500} == {
        "meetingbank-500": 0
    }
    assert {len(task.score) for task in tasks.values()} == {100, 81}
    assert any("244 of 500" in note for note in tasks["numglue-cm-500"].notes)


def test_super_natural_instructions_are_rows(tmp_path: Path) -> None:
    task = {
        "Definition": ["Say the colour.", "In one word."],
        "Positive Examples": [{"input": "sky", "output": "blue", "explanation": "It is."}],
        "Negative Examples": [],
        "Instances": [
            {"id": f"t-{k}", "input": f"thing {k}", "output": ["red", "crimson"]} for k in range(30)
        ],
    }
    (tmp_path / "task001.json").write_text(json.dumps(task, indent=4))
    (tmp_path / "task.yaml").write_text(
        "name: colours\ndata: {train: task001.json}\ntarget: output\nmetric: rouge_l\n"
        'prompts: {default: {template: "{{ definition }}\\n{{ input }}"}}\n'
        'generation: {max_new_tokens: 5, stop: ["\\n"], extract: [strip, first-character]}\n'
    )
    [loaded] = load_tasks([str(tmp_path / "task.yaml")], None)
    first = next(e for e in (*loaded.train, *loaded.select) if e.fields["id"] == "t-0")
    assert first.target == "red"
    assert first.fields["definition"] == "Say the colour.\nIn one word."
    assert first.fields["examples"][0]["output"] == "blue"
    assert first.fields["outputs"] == ["red", "crimson"]
    assert loaded.generation.stop == ("\n",)
    assert loaded.generation.extract == ("strip", "first-character")

    task["Instances"][3] = {"input": "x", "output": []}  # type: ignore[index]
    (tmp_path / "task001.json").write_text(json.dumps(task))
    with pytest.raises(UserError, match="instance 4: it needs an input and an output"):
        load_tasks([str(tmp_path / "task.yaml")], None)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("generation: {extract: [strp]}", "no rule 'strp'. Did you mean 'strip'"),
        ("generation: {stops: [a]}", "unknown. Did you mean 'stop'"),
        ('generation: {stop: [""]}', "an empty string"),
        ("metric: sari", "needs the key 'source'"),
        ("source: text", "has no use for the key 'source'"),
    ],
)
def test_generation_settings_of_ones_own_are_checked(line: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "to": "b"}\n')
    prompts = 'prompts: {default: {template: "{{ text }}"}}'
    (tmp_path / "task.yaml").write_text(
        f"name: t\ndata: {{score: rows.jsonl}}\ntarget: to\n{prompts}\n{line}\n"
    )
    with pytest.raises(UserError) as error:
        load_tasks([str(tmp_path / "task.yaml")], None)
    assert sentence in str(error.value)
