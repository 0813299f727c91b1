"""A task: a data set with prompts and a metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "select", "score"]
Kind = Literal["choice", "answer", "messages", "text", "preference", "benchmark"]

PAIR = ("chosen", "rejected")
"""The two answers of a preference, in the order of its labels."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task.

    Attributes:
        id: Unique within its task and stable between runs: the file's split and the row, as "train-17".
        fields: What a template may read. For `messages` the list of turns is under "messages", for
            `text` the text under "text", for `preference` the two answers under "chosen" and "rejected".
        label: The gold label's name, for `choice`; one of the task's labels.
        target: The gold answer as text, for `answer`; the gold number for a graded `choice` (STS-B).
        place: The file and the row that it was read from, for what is wrong with it.
    """

    id: str
    fields: Mapping[str, Any]
    label: str | None = None
    target: str | float | None = None
    place: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Generation:
    r"""How a free answer is written, and what is read from it.

    Attributes:
        max_new_tokens: Where an answer that has not ended is cut.
        stop: Strings that end an answer and are no part of it, as "\n".
        extract: The names of the rules that are applied in turn; see `forgetmenot.tasks.answers`.
    """

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    extract: tuple[str, ...] = ("strip",)


@dataclass(frozen=True)
class Task:
    """A data set with a question and a way to score an answer.

    Attributes:
        kind: How it is answered: `choice` among labels, free `answer`, the last assistant turn of
            `messages`, plain `text` (a language-model loss), or a `preference` of one answer over another.
            A `benchmark` is lm-evaluation-harness's, which says how it is asked; it is never trained.
        labels: The label names of a `choice`, in the order of the data set's own numbers; PAIR of a
            `preference`, whose gold label is always the first.
        metric: The name of the headline metric, and `further_metrics` those read beside it.
        train: What is learned; `select` is carved from it and everything is chosen there; `score` is what
            the score matrix is measured on. `train` or `score` may be empty, not both.
        prompts: Prompt variants that came with the task (a user's own task file), as plain data.
        origin: Where the rows came from (a folder, a file, a hub id with its revision), for the record.
        notes: Messages for the user: repeats, leaks, rows left out.
        generation: How free answers are written and read.
        source: The field that an answer is compared with besides the gold text (SARI).
        cluster: The field that examples share which are not independent, such as the passage that several
            questions are on; intervals and tests draw them together. Rows that repeat are a cluster anyway.
        instruction: What the task asks, in words, apart from its prompts; for writing examples of it.
        demonstrations: Solved examples that came with the task and are in none of its splits.
    """

    name: str
    kind: Kind
    metric: str
    train: Sequence[Example]
    select: Sequence[Example]
    score: Sequence[Example]
    labels: tuple[str, ...] = ()
    further_metrics: tuple[str, ...] = ()
    prompts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origin: str = ""
    notes: tuple[str, ...] = ()
    generation: Generation = Generation()
    source: str = ""
    cluster: str = ""
    instruction: str = ""
    demonstrations: Sequence[Example] = ()
