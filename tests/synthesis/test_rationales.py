"""Rationales: requested once, checked against the gold answer, and written as TRACE's files are."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.engine.decoding import Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.synthesis.endpoint import Messages
from forgetmenot.synthesis.rationales import ASK, EXPLAIN, write_rationales
from forgetmenot.synthesis.responder import LocalResponder
from forgetmenot.tasks import Example, Generation, Task, load_tasks


class Scripted:
    """Answers what it was told to, last first, and may fall silent after a few."""

    name = "scripted"

    def __init__(self, answers: Sequence[str], most: int = 99) -> None:
        self.answers, self.most = answers, most
        self.asked: list[Messages] = []

    def complete_all(self, conversations: Sequence[Messages]) -> Iterator[tuple[int, str]]:
        for count, k in enumerate(reversed(range(len(conversations)))):
            if count == self.most:
                raise UserError("the endpoint is gone")
            self.asked.append(conversations[k])
            yield k, self.answers[k]


def task_of(metric: str = "exact_match", **targets: str) -> Task:
    examples = [
        Example(name, {"prompt": f"Solve.\nQuestion:\n{name}?\nAnswer:"}, target=target)
        for name, target in targets.items()
    ]
    return Task("sums", "answer", metric, examples, [], [], generation=Generation(64))


def test_a_rationale_is_kept_where_it_leads_to_the_gold_answer(tmp_path: Path) -> None:
    path = tmp_path / "data" / "Sums" / "train.json"
    teacher = Scripted(["One and one.\nAnswer: 2", "It is so.\nAnswer: 5", "It is 4", "Twice 2.\nAnswer:4\n"])
    shown = [("Solve.\n1?", "It is one.\nAnswer:1")]
    written = write_rationales(task_of(a="2", b="3", c="4", d="4"), teacher, path, shown=shown)
    assert (written.kept, written.refused) == (2, 2)
    rows = json.loads(path.read_text())
    assert rows[0] == {
        "prompt": "Solve. Give your reasoning first, and then the answer.\nQuestion:\na?\nReasoning:",
        "answer": "One and one.\nAnswer:2",
    }
    assert [row["answer"] for row in rows] == ["One and one.\nAnswer:2", "Twice 2.\nAnswer:4"]
    assert [turn["role"] for turn in teacher.asked[0]] == ["user", "assistant", "user"]
    assert teacher.asked[-1][-1]["content"].endswith(f"a?\nAnswer:\n\n{ASK}")
    assert not any("2" in str(turns) for turns in teacher.asked)  # the gold answer is not told


def test_what_is_written_loads_as_a_task(tmp_path: Path) -> None:
    folder = tmp_path / "trace" / "LLM-CL-Benchmark_Reasoning" / "NumGLUE-cm"
    write_rationales(task_of(a="2"), Scripted(["One and one.\nAnswer: 2"]), folder / "train.json")
    [task] = load_tasks(["numglue-cm-rcl"], tmp_path)
    assert task.train[0].target == "One and one.\nAnswer:2"


def test_a_free_answer_is_told_and_the_reasoning_alone_is_asked_for(tmp_path: Path) -> None:
    teacher = Scripted(["It is about a vote.", "  "])
    task = task_of("rouge_l", a="A resolution.", b="Another.")
    assert write_rationales(task, teacher, tmp_path / "train.json").kept == 1
    asked = teacher.asked[-1][-1]["content"]
    assert "The answer is:\nA resolution." in asked
    assert asked.endswith(EXPLAIN)
    assert (
        json.loads((tmp_path / "train.json").read_text())[0]["answer"]
        == "It is about a vote.\nAnswer:A resolution."
    )


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    path, task = tmp_path / "train.json", task_of(a="1", b="2", c="3")
    answers = [f"So.\nAnswer:{k}" for k in (1, 2, 3)]
    with pytest.raises(UserError, match="gone"):
        write_rationales(task, Scripted(answers, most=2), path)
    assert not path.exists()
    with (tmp_path / "train.json.asked.jsonl").open("a") as stream:
        stream.write('["a", "torn')
    again = Scripted(answers[:1])
    assert write_rationales(task, again, path).kept == 3
    assert len(again.asked) == 1
    assert write_rationales(task, Scripted([]), path).kept == 3


@pytest.mark.parametrize("chat", [True, False])
def test_a_model_on_this_machine_may_be_the_teacher(chat: bool, tiny_llama: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    if not chat:
        tokenizer.chat_template = None
    learner = Learner(AutoModelForCausalLM.from_pretrained(tiny_llama).eval(), tokenizer, budget=512)
    teacher = LocalResponder("tiny", lambda: learner, Decoding(4))
    found = dict(
        teacher.complete_all([[{"role": "user", "content": "a?"}], [{"role": "user", "content": "b b?"}]])
    )
    assert set(found) == {0, 1}
    asked = (
        tuple(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": "a?"}], add_generation_prompt=True, return_dict=False
            )
        )
        if chat
        else tuple(tokenizer("a?")["input_ids"])
    )
    assert found[0] == learner.generate([asked], 4)[0]
    written = write_rationales(task_of("rouge_l", a="x"), teacher, tmp_path / "train.json")
    assert written.kept + written.refused == 1


def test_a_task_of_another_form_is_refused(tmp_path: Path) -> None:
    choice = Task(
        "mine", "choice", "accuracy", [Example("a", {"text": "b"}, label="x")], [], [], labels=("x", "y")
    )
    with pytest.raises(UserError, match="mine is none"):
        write_rationales(choice, Scripted([]), tmp_path / "train.json")
    with pytest.raises(UserError, match="no training examples"):
        write_rationales(task_of(), Scripted([]), tmp_path / "train.json")
