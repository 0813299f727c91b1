"""The tasks of a check as text, where one of its sides is an endpoint, which tokenizes by itself.

Every side then gets the same words whole, and is read in the same way: by written answers, unless each
endpoint gives the likelihood of a text and no prompt is a chat. The end of an answer is a token, no text; so
losses are those of the text alone, from its second token on where the tokenizer puts none before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.evaluation.readings import Reading, generation_plan, own_reading, scored_split
from forgetmenot.evaluation.scored_task import GenerationPlan, ScoredTask
from forgetmenot.evaluation.scoring import (
    BY_LIKELIHOOD,
    SPARE_TOKENS,
    Choices,
    choose,
    is_graded,
    read_labels,
)
from forgetmenot.evaluation.settings import Asking
from forgetmenot.gate.endpoint import Likelihoods, Server, agreement
from forgetmenot.metrics import metric_named
from forgetmenot.prompting import Encoded, EncodedExamples, Prompt, TokenSequence
from forgetmenot.prompting.texts import Text, as_text, check_choices, gold_place, naming
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.record.predictions import Predictions
from forgetmenot.tasks import Example, Task
from forgetmenot.tasks.answers import extracted
from forgetmenot.tasks.splits import sample

KINDS = ("choice", "answer", "messages", "text")
LEAVE_OUT = "leave the task out with --tasks, or check the model's files instead of an endpoint"

OLLAMA = (
    "Ollama writes every prompt into its template of {}, not only chats, so that it is asked otherwise than "
    "a local side; ask both by --chat, or serve the model with TEMPLATE {{{{ .Prompt }}}}"
)


def asked_alike(
    asking: Asking, tasks: Sequence[Task], servers: Sequence[Server], *, chat: bool
) -> tuple[Asking, list[str]]:
    """How the tasks are asked so that the endpoints can be asked too, and what the user should know of it.

    Args:
        asking: How they would be asked without endpoints.
        tasks: Those of the check.
        servers: The endpoints.
        chat: Whether prompts are put as a user's turn.

    Raises:
        UserError: A task cannot be asked so.
    """
    for task in tasks:
        if task.kind not in KINDS:
            raise UserError(
                f"check: task {task.name!r} ({task.kind}) cannot be put to an endpoint; {LEAVE_OUT}."
            )
    prompts = own_reading(asking, tasks).prompts
    turns = {
        task.name: task.kind == "messages" or (task.kind != "text" and (chat or prompts[task.name].chat))
        for task in tasks
    }
    for server in servers:
        for in_turns in set(turns.values()):
            server.reach(chat=in_turns)
    why = {
        task.name: _no_likelihoods(servers, chat=turns[task.name])
        for task in tasks
        if task.kind == "choice" or metric_named(task.metric).reads == "likelihoods"
    }
    for task in tasks:
        if reason := _refused(task, why.get(task.name, "")):
            raise UserError(f"check: task {task.name!r} {reason}; {LEAVE_OUT}.")
    notes = [f"{one.name} is asked at {one.url}: the hash of its weights is unknown." for one in servers]
    if any(turns.values()):
        notes.append(
            "The endpoint writes chats by its own chat template, which may add a date or a system turn."
        )
    if not all(turns.values()):
        notes += [f"{OLLAMA.format(one.name)}." for one in servers if one.is_ollama]
    reasons = [why[task.name] for task in tasks if task.kind == "choice" and why[task.name]]
    if not reasons:
        return asking, notes
    notes.append(f"Every side is asked by written answers (scoring: generation): {reasons[0]}.")
    return replace(asking, evaluation=asking.evaluation.model_copy(update={"scoring": "generation"})), notes


def _no_likelihoods(servers: Sequence[Server], *, chat: bool) -> str:
    """Why there are no likelihoods; "" where all endpoints give them."""
    if chat:
        return "an endpoint gives no log-probabilities of what stands in a chat"
    silent = [one.name for one in servers if not one.echoes]
    return f"the server of {silent[0]} gives no log-probabilities of prompts" if silent else ""


def _refused(task: Task, why: str) -> str:
    """Why a task cannot be put to an endpoint; "" where it can.

    Args:
        task: The task.
        why: Why there are no likelihoods; "" where there are, or none are needed.
    """
    if why and (task.kind != "choice" or is_graded(task)):
        return f"is scored by {task.metric}, which takes likelihoods, and {why}"
    if any(_calls(example) for example in task.score if task.kind == "messages"):
        return "calls tools, which an endpoint answers in a form of its own"
    return ""


def _calls(example: Example) -> bool:
    turns = example.fields["messages"]
    return bool(example.fields.get("tools")) or any(turn["role"] == "tool" for turn in turns)


@dataclass(frozen=True)
class TextTask(ScoredTask):
    """A task ready to be put to an endpoint.

    Attributes:
        texts: Its examples, in order; `encoded` is empty.
    """

    texts: Sequence[Text] = ()

    def only(self, places: Sequence[int]) -> TextTask:
        """The same with some of its examples."""
        return replace(
            self, examples=[self.examples[k] for k in places], texts=[self.texts[k] for k in places]
        )

    def count(self) -> int:
        """How many times the server is asked."""
        return len(self.texts)


def text_tasks(asking: Asking, reading: Reading, tasks: Sequence[Task]) -> list[TextTask]:
    """The tasks for an endpoint.

    Raises:
        UserError: A prompt does not fit its task or an example.
    """
    found = []
    for task in tasks:
        prompt = reading.prompts[task.name]
        check_choices(task, prompt)
        examples = sample(task.name, scored_split(asking.evaluation, task), asking.evaluation.limit)
        texts = [_text(task, prompt, example) for example in examples]
        one = TextTask(
            task,
            prompt,
            examples,
            EncodedExamples.of([]),
            rule=reading.rule if task.kind == "choice" else BY_LIKELIHOOD,
            generation=generation_plan(asking, task),
            texts=texts,
        )
        found.append(replace(one, generation=_plan(one)))
    return found


def whole(scored: ScoredTask, tokenizer: Any) -> ScoredTask:
    """The task for a local side beside an endpoint: as long answers, and losses of the text alone.

    Raises:
        UserError: A prompt was cut to fit the model, which an endpoint gets whole.
    """
    if scored.encoded.truncated["examples"]:
        raise UserError(
            f"check: task {scored.task.name!r} has prompts with more tokens than the model has positions; "
            "an endpoint gets them whole, so that the sides would be asked different things; leave it out."
        )
    scored = replace(scored, generation=_plan(scored))
    if metric_named(scored.task.metric).reads != "likelihoods":
        return scored
    head = len(tokens_of(tokenizer).head)
    bare = [_bare(one, head, plain=scored.task.kind == "text") for one in scored.encoded]
    return replace(scored, encoded=EncodedExamples.of(bare))


def _text(task: Task, prompt: Prompt, example: Example) -> Text:
    with naming(task, example):
        if task.kind == "messages":
            *turns, last = example.fields["messages"]
            return Text("", [last["content"]], turns)
        if task.kind == "choice":
            gold_place(task, example)
        return as_text(task, prompt, example, example.fields)


def _plan(scored: ScoredTask) -> GenerationPlan | None:
    """How answers are written: of a choice, with room for its longest words whatever the tokens are."""
    if not scored.rule.generates:
        return scored.generation
    words = [scored.prompt.choices[label] for label in scored.task.labels]
    return GenerationPlan(Decoding(max(len(one.encode()) for one in words) + SPARE_TOKENS))


def _bare(one: Encoded, head: int, *, plain: bool) -> Encoded:
    """An encoded answer without its end; a text also without what is put before it by us alone."""
    tokens, start = one.answer.tokens[:-1], one.answer.start
    if plain and not head:
        tokens = tokens[start:]
    return replace(one, answer=TokenSequence(tokens, 1 if plain else start))


def answers(server: Server, scored: TextTask, advance: Callable[[int], None]) -> Predictions:
    """What an endpoint answers to one task; `evaluation.evaluate` for a local model."""
    task, plan = scored.task, scored.generation
    if plan is not None:
        written = server.write(scored.texts, plan.decoding, advance)
        if task.labels:
            return _chosen(scored, read_labels(written, scored.prompt))
        return scored.predictions(
            predicted=[extracted(text, task.generation.extract) for text in written], generated=written
        )
    if task.kind == "text":
        rows = server.likelihoods([text.answers for text in scored.texts], advance)
        return _losses(scored, [(row, 1) for (row,) in rows])
    groups = server.likelihoods([text.whole for text in scored.texts], advance)
    if not task.labels:
        return _losses(scored, [(group[1], _start(scored, group)) for group in groups])
    _check_distinct(scored, groups[0][1:])
    starts = [_start(scored, group) for group in groups]
    raw = np.array(
        [[_sum(row, start) for row in group[1:]] for group, start in zip(groups, starts, strict=True)]
    )
    return _chosen(scored, choose(task, raw, raw))


def _start(scored: ScoredTask, group: Sequence[Likelihoods]) -> int:
    """Where answers begin: up to there the tokens of the prompt and of all its answers agree.

    It is the encoder's rule for local sides. A token that reaches over the end of the prompt is counted with
    the answer.
    """
    start = agreement(group)
    if not start:
        raise UserError(
            f"check: task {scored.task.name!r}: nothing stands before an answer, so that its first token has "
            f"no likelihood at an endpoint; {LEAVE_OUT}."
        )
    return start


def _check_distinct(scored: ScoredTask, rows: Sequence[Likelihoods]) -> None:
    """Refuse candidates of which one begins another: the shorter would always be the likelier."""
    for one, other in combinations(rows, 2):
        if agreement((one, other)) == min(len(one.tokens), len(other.tokens)):
            raise UserError(
                f"check: task {scored.task.name!r}, prompt {scored.prompt.name!r}: the tokens of one choice "
                'begin those of another, so they cannot be compared. Set `end`, such as "\\n", or use other '
                "words."
            )


def _sum(row: Likelihoods, start: int) -> float:
    return sum(value for value in row.values[start:] if value is not None)


def _chosen(scored: ScoredTask, choices: Choices) -> Predictions:
    return scored.predictions(
        predicted=choices.predicted,
        log_likelihoods=choices.log_likelihoods,
        generated=choices.written,
    )


def _losses(scored: ScoredTask, rows: Sequence[tuple[Likelihoods, int]]) -> Predictions:
    for example, (row, start) in zip(scored.examples, rows, strict=True):
        if len(row.tokens) <= start:
            with naming(scored.task, example):
                raise UserError("an endpoint gives its one token no likelihood; leave the row out.")
    return scored.predictions(
        predicted=[None] * len(rows),
        log_likelihoods=[[_sum(row, start)] for row, start in rows],
        tokens=[len(row.tokens) - start for row, start in rows],
    )
