"""The subject of a synthesis: what a task asks, and the prompts that a model is given for it.

SELF-GUIDE has an instruction and a few demonstrations, each one text and its answer. A task of this program
has a template, choices and rows, so here the template with the names of its fields in brackets stands for an
instruction where the task has none. That, and the wording of the request for inputs, are our own; its parts
are the paper's: the instruction, the demonstrations' inputs as good ones, earlier inputs as worse ones, and
for classification the label that the new input is to have.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from forgetmenot.errors import UserError
from forgetmenot.prompting import Prompt
from forgetmenot.prompting.texts import BETWEEN
from forgetmenot.synthesis.endpoint import Messages
from forgetmenot.synthesis.written_form import input_fields, write_input
from forgetmenot.tasks import Example, Task

OPENING = '[input]="'
"""How an input begins in a request for a new one."""
CLOSING = '"\n'
"""How an input ends there."""
ANSWER = "Answer: "
"""Stands before a demonstration's answer within the user's turn of a chat; ours."""


@dataclass(frozen=True)
class Request:
    """What a model is asked to go on from.

    Attributes:
        messages: The turns of a conversation.
        chat: Whether they are put in the model's chat template; else their text stands as it is.
    """

    messages: Messages
    chat: bool


@dataclass(frozen=True)
class Subject:
    """What examples are written for.

    Attributes:
        task: A choice among labels, or a free answer.
        prompt: The prompt of one example of it.
        demonstrations: A few of its examples, solved.
        instruction: What the task asks, in words; empty where the template says it.
    """

    task: Task
    prompt: Prompt
    demonstrations: Sequence[Example]
    instruction: str = ""

    def __post_init__(self) -> None:
        """Refuse what no examples can be written for.

        Raises:
            UserError: The task is of another kind, there are no demonstrations, or one has no answer.
        """
        if self.task.kind not in ("choice", "answer"):
            raise UserError(
                f"task {self.task.name!r} is one of {self.task.kind}; examples are written for tasks with "
                "`label` or `target`."
            )
        if not self.demonstrations:
            raise UserError(
                f"task {self.task.name!r} has no solved examples to learn the form of an input from; give "
                "its train split a few rows."
            )
        for one in self.demonstrations:
            if (one.label if self.task.kind == "choice" else one.target) is None:
                raise UserError(f"the demonstration {one.id!r} of task {self.task.name!r} has no answer.")

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields of an input."""
        return input_fields(self.prompt)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The demonstrations' inputs as text."""
        return tuple(write_input(one, self.fields) for one in self.demonstrations)

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """The demonstrations' answers as text."""
        return tuple(self.answer(one) for one in self.demonstrations)

    def answer(self, example: Example) -> str:
        """An example's answer, a label in the words of the prompt."""
        return self.prompt.choices[str(example.label)] if self.task.kind == "choice" else str(example.target)

    @cached_property
    def guided(self) -> Prompt:
        """The prompt that answers are drawn by, and that is trained and scored: with the demonstrations."""
        return guided_prompt(self.prompt, self.demonstrations, self.answers, self.instruction)

    def ask_for_input(
        self, good: Sequence[str], worse: Sequence[str], words: str | None, *, chat: bool
    ) -> Request:
        """The request for one new input.

        What all requests share stands first, so that it is computed once.

        Args:
            good: The demonstrations' inputs.
            worse: Inputs that were written before.
            words: The words of the label that the input is to have; None for a free answer.
            chat: Whether the model is asked in its chat template; else the last line opens the input.
        """
        label = "" if words is None else f' to which the right answer is "{words}"'
        text = "\n\n".join(
            [
                f"Task:\n{self._in_words}",
                "Good inputs for this task. Keep strictly to their form:",
                *(f'{OPENING}{one}"' for one in good),
                "More inputs. Their form and content may be wrong:",
                *([f'{OPENING}{one}"' for one in worse] or ["none yet"]),
                f"Write one new input for this task{label}, unlike those above and in the form of the good "
                "ones. Give the input alone.",
            ]
        )
        return Request([{"role": "user", "content": text if chat else f"{text}\n\n{OPENING}"}], chat)

    def ask_for_output(self, example: Example) -> Request:
        """The request for the answer to an input."""
        return asked_by(self.guided, example)

    @cached_property
    def _in_words(self) -> str:
        """The instruction, and what the template says beside it."""
        shown = self.prompt.render({name: f"[{name}]" for name in self.fields})
        choices = ""
        if self.task.kind == "choice":
            choices = f"\nThe answer is one of: {', '.join(self.prompt.choices.values())}"
        if self.instruction:
            return f"{self.instruction}{choices}"
        return f"Given the input, answer this:\n{shown}{choices}"


def asked_by(prompt: Prompt, example: Example) -> Request:
    """A prompt's request for the answer to an example."""
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    return Request([*system, {"role": "user", "content": prompt.render(example.fields)}], prompt.chat)


def guided_prompt(
    prompt: Prompt, shown: Sequence[Example], answers: Sequence[str], instruction: str = ""
) -> Prompt:
    """The prompt of one example with solved examples before it, written out in its template.

    Where the template begins with the instruction, that is written once.

    Args:
        prompt: Of one example.
        shown: The solved examples.
        answers: Their answers.
        instruction: What stands first.
    """
    once = prompt.template.removeprefix(instruction).lstrip("\n") if instruction else prompt.template
    one = replace(prompt, template=once)
    before_answer = f"\n{ANSWER}" if prompt.chat else prompt.separator
    solved = [
        one.render(example.fields) + before_answer + answer
        for example, answer in zip(shown, answers, strict=True)
    ]
    head = [_literal(text) for text in ([instruction] if instruction else []) + solved]
    truncate = tuple(sorted(prompt.fields)) if prompt.truncate is None else prompt.truncate
    return replace(prompt, template=BETWEEN.join([*head, once]), truncate=truncate, demonstrations=None)


def _literal(text: str) -> str:
    """A text as Jinja that writes it."""
    if not any(mark in text for mark in ("{{", "{%", "{#")):
        return text
    if re.search(r"\{%[-+]?\s*endraw", text):
        return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"
    return f"{{% raw %}}{text}{{% endraw %}}"


def cleaned(text: str, *, chat: bool) -> str:
    """A written input without the marks around it that a request shows; ours.

    Args:
        text: As it was written.
        chat: Whether the model was to open the input itself.
    """
    found = text.lstrip() if chat else text
    opened = not chat or found.startswith((OPENING, '"'))
    if chat:
        found = found.removeprefix(OPENING).removeprefix('"')
    if opened:
        found = found.partition(CLOSING)[0]
        found = found[:-1] if found.endswith('"') else found
    return found
