"""An example as text, before any tokenizer: the prompt, what is shown before it, and what may follow."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from forgetmenot.errors import UserError, nearest
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.tasks.task import PAIR, Example, Task

BETWEEN = "\n\n"  # a blank line, between demonstrations and before the example to answer


@dataclass(frozen=True, slots=True)
class Text:
    """An example as it is put to a model.

    Attributes:
        prompt: What an answer follows; empty before a plain text, and where it is a conversation.
        answers: What may follow, with the separator in front: a choice's candidates in the order of the
            labels, a preference's two answers, the target, or a plain text itself.
        turns: In a chat, the conversation that is to be answered, each turn with "role" and "content".
    """

    prompt: str
    answers: Sequence[str]
    turns: Sequence[Mapping[str, Any]] = ()

    @property
    def whole(self) -> list[str]:
        """The prompt, and then each whole text, prompt and answer, that may come of it."""
        return [self.prompt, *(self.prompt + answer for answer in self.answers)]


def as_text(task: Task, prompt: Prompt, example: Example, fields: Mapping[str, Any]) -> Text:
    """Write an example of any kind but `messages`, which is a conversation already.

    Args:
        task: Whose example it is.
        prompt: How it is put.
        example: The example, with its answers.
        fields: Its fields, perhaps cut.

    Raises:
        UserError: The prompt cannot be rendered, or there is no target.
    """
    question = prompt.render(fields)
    if task.kind == "text":
        return Text("", [question])
    answers = [prompt.separator + answer for answer in _answers(task, prompt, example)]
    shown = _shown(task, prompt, example)
    if not prompt.chat:
        solved = [asked + prompt.separator + answer for asked, answer in shown]
        return Text(BETWEEN.join([*solved, question]), answers)
    turns = [] if prompt.system is None else [_turn("system", prompt.system)]
    for asked, answer in shown:
        turns += [_turn("user", asked), _turn("assistant", answer)]
    return Text("", answers, [*turns, _turn("user", question)])


def gold_place(task: Task, example: Example) -> int:
    """The place of an example's label among the task's.

    Raises:
        UserError: It is none of them.
    """
    if example.label not in task.labels:
        labels = ", ".join(task.labels)
        raise UserError(f"its label is {example.label!r}, which is not one of: {labels}.")
    return task.labels.index(example.label)


def check_choices(task: Task, prompt: Prompt) -> None:
    """See that a prompt has words for each label of a task, and for no other.

    Raises:
        UserError: It has not; the sentence names task and prompt.
    """
    where = f"task {task.name!r}, prompt {prompt.name!r}"
    if not prompt.eos and task.kind != "answer":
        raise UserError(f"{where}: `eos` is for free answers; leave it out.")
    if task.kind != "choice":
        if prompt.choices or prompt.end:
            raise UserError(
                f"{where}: `choices` and `end` are for tasks that choose among labels; leave them out."
            )
        return
    if prompt.cut_answer:
        raise UserError(f"{where}: `cut_answer` is for free answers; leave it out.")
    for label in task.labels:
        if label not in prompt.choices:
            raise UserError(f"{where}: the label {label!r} has no choice. Add it to `choices`.")
    for label in prompt.choices:
        if label not in task.labels:
            raise UserError(
                f"{where}: `choices` has {label!r}, which is no label. {nearest(label, task.labels)}"
            )


@contextmanager
def naming(task: Task, example: Example) -> Iterator[None]:
    """Put the names of task, example and row before what is wrong with it."""
    try:
        yield
    except UserError as error:
        place = f" ({example.place})" if example.place else ""
        raise UserError(f"task {task.name!r}, example {example.id!r}{place}: {error}") from error


def _shown(task: Task, prompt: Prompt, example: Example) -> list[tuple[str, str]]:
    """The prompt and the answer of each demonstration of an example."""
    if prompt.demonstrations is None:
        return []
    shown = []
    for one in prompt.demonstrations.before(example):
        is_choice = task.kind == "choice"
        answer = prompt.choices[str(one.label)] if is_choice else _answers(task, prompt, one)[0]
        shown.append((prompt.render(one.fields), answer))
    return shown


def _answers(task: Task, prompt: Prompt, example: Example) -> list[str]:
    if task.kind == "choice":
        return [prompt.choices[label] + prompt.end for label in task.labels]
    if task.kind == "preference":
        return [str(example.fields[name]) for name in PAIR]
    if example.target is None:
        raise UserError("there is no target to learn or to compare with.")
    return [str(example.target)]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
