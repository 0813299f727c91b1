"""Rationales for the training data of RCL: a teacher writes them, and the gold answer checks them.

TRACE (Wang et al. 2023, arXiv 2310.06762, section on RCL) has GPT-4 write a rationale for every training
item from three that experts wrote, and keeps those whose answer is the gold one. It does not say how the
answer of a summary is compared: a task whose answers are not right or wrong has its gold answer shown to the
teacher here, who gives the reasoning alone. That, and the wording of the request, are our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.metrics import metric_named
from forgetmenot.record.files import append_line, read_lines, write_json
from forgetmenot.synthesis.endpoint import Messages
from forgetmenot.synthesis.responder import Responder
from forgetmenot.tasks import Example, Task
from forgetmenot.tasks.answers import extracted

ASK = "Give your reasoning first, and then the answer on a line of its own that begins with 'Answer:'."
EXPLAIN = "Give the reasoning that leads to this answer, in a few sentences, without the answer itself."
READ = ("after-answer", "strip")


@dataclass(frozen=True)
class RationaleCounts:
    """What came of it.

    Attributes:
        kept: Examples whose rationale was kept.
        refused: Examples whose rationale led to another answer, or to none.
    """

    kept: int
    refused: int


def write_rationales(
    task: Task,
    teacher: Responder,
    path: Path,
    *,
    shown: Sequence[tuple[str, str]] = (),
    limit: int | None = None,
) -> RationaleCounts:
    """Ask a teacher for a rationale of each training example, and write those that hold as TRACE's files are.

    What was requested before is not requested again: answers are saved in a file beside `path`.

    Args:
        task: A task of kind `answer` with one text field that is the prompt, as TRACE's.
        teacher: Who writes.
        path: The train.json that is written: a list of {"prompt", "answer"}, the answer being the rationale,
            "Answer:", and the gold answer.
        shown: Pairs of a prompt and its rationale with answer, written by hand, shown before each.
        limit: At most so many examples, the first ones.

    Raises:
        UserError: If the task is of another form.
    """
    examples = list(task.train)[:limit]
    if task.kind != "answer" or not all("prompt" in example.fields for example in examples):
        raise UserError(
            f"Rationales are written for tasks with a field 'prompt' and a free answer; {task.name} is none."
        )
    if not examples:
        raise UserError(f"{task.name} has no training examples to write rationales for.")
    verifies = metric_named(task.metric).correct is not None
    log = path.with_name(f"{path.name}.asked.jsonl")
    asked: dict[str, str] = dict(read_lines(log))
    missing = [example for example in examples if example.id not in asked]
    conversations = [_request(example, shown, verifies=verifies) for example in missing]
    for number, text in teacher.complete_all(conversations):
        asked[missing[number].id] = text
        append_line(log, [missing[number].id, text])
    rows = []
    for example in examples:
        reasoning = _reasoning(task, example, asked[example.id], verifies=verifies)
        if reasoning:
            prompt = _asking(str(example.fields["prompt"]))
            rows.append({"prompt": prompt, "answer": f"{reasoning}\nAnswer:{example.target}"})
    write_json(path, rows)
    return RationaleCounts(len(rows), len(examples) - len(rows))


def _request(example: Example, shown: Sequence[tuple[str, str]], *, verifies: bool) -> Messages:
    prompt = str(example.fields["prompt"])
    if not verifies:
        question = f"{prompt}\n\nThe answer is:\n{example.target}\n\n{EXPLAIN}"
        return [*_turns(shown), {"role": "user", "content": question}]
    return [*_turns(shown), {"role": "user", "content": f"{prompt}\n\n{ASK}"}]


def _turns(shown: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for pair in shown
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]


def _reasoning(task: Task, example: Example, text: str, *, verifies: bool) -> str:
    """The rationale in a teacher's answer; empty where it does not lead to the gold answer."""
    if not verifies:
        return text.strip()
    answer = extracted(text, READ)
    if answer == text.strip():  # no answer is marked
        return ""
    read = (extracted(one, task.generation.extract) for one in (answer, str(example.target)))
    found, gold = read
    return text[: text.rindex(answer)].rsplit("Answer", 1)[0].strip() if found == gold and answer else ""


def _asking(prompt: str) -> str:
    """TRACE's wording for a prompt that wants reasons: a sentence behind its first line, and another cue."""
    first, *rest = prompt.split("\n")
    whole = "\n".join([f"{first} Give your reasoning first, and then the answer.", *rest])
    head, _, cue = whole.rpartition("\n")
    return f"{head}\nReasoning:" if cue.endswith(":") and head else f"{whole}\nReasoning:"
