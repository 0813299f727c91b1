"""A benchmark: a task of lm-evaluation-harness that is scored as a column among the tasks.

lm-eval owns prompt, shots, filter and metric; what it asks becomes tokens once, and goes through the trie as
any task's examples do. An answer is right where lm-eval's own metric says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.prompting import Encoded, EncodedExamples, Prompt, RaggedExamples, TokenSequence
from forgetmenot.tasks import Example, Task

if TYPE_CHECKING:
    from forgetmenot.engine.decoding import Decoding
    from forgetmenot.engine.learner import Learner

SHARES = {
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "acc_mutual_info"),
    "generate_until": ("exact_match",),
}
"""lm-eval's metrics that are shares of right answers, by how its tasks are answered."""


@dataclass(frozen=True)
class Question:
    """One document of lm-eval's, and what it asks of it.

    Attributes:
        id: Of the example.
        task: lm-eval's task.
        document: Its row.
        requests: lm-eval's requests, in its own order: one for each choice, or the one to write after.
        choices: What is chosen among; empty where the answer is written.
        labels: What stands for each of them.
        gold: The place of the right choice, the first of several; None where the answer is written.
        target: The right text, where it is written.
    """

    id: str
    task: Any
    document: Mapping[str, Any]
    requests: tuple[Any, ...]
    choices: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    gold: int | None = None
    target: str = ""

    @property
    def is_written(self) -> bool:
        """Whether the model writes the answer."""
        return not self.choices

    def measured(self, responses: Sequence[Any]) -> tuple[str, Any]:
        """lm-eval's first metric of this question under its first filter: the name and the value.

        Args:
            responses: To each request: (log-likelihood, whether it is the greedy text), or a text.
        """
        for request, response in zip(self.requests, responses, strict=True):
            request.resps = [response]
        rule = self.task._filters[0]
        rule.apply(list(self.requests))
        found = self.task.process_results(
            self.document, [request.filtered_resps[rule.name] for request in self.requests]
        )
        name, value = next(iter(found.items()))
        return name, value

    def filtered(self) -> str:
        """What the first filter has read from the text that was measured last."""
        return str(self.requests[0].filtered_resps[self.task._filters[0].name])


@dataclass(frozen=True)
class Benchmark(Task):
    """A task, or a whole group of tasks, of lm-eval's, with the questions that are asked.

    Its labels are the choices where all questions have the same ones, and else their numbers from 1 on.

    Attributes:
        measure: lm-eval's metric, of which the task's own is the share.
        questions: By the example's id.
    """

    measure: str = "acc"
    questions: Mapping[str, Question] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def prompt(self) -> Prompt:
        """lm-eval's prompt; its hash follows from all that is asked."""
        digest = hashlib.sha256()
        for question in self.questions.values():
            digest.update(repr([request.args for request in question.requests]).encode())
        shots = {question.task.get_config("num_fewshot") for question in self.questions.values()}
        name = f"lm-eval {version('lm-eval')}, {' or '.join(map(str, sorted(shots)))} shots"
        return Prompt(name, template=f"{{# {digest.hexdigest()} #}}{{{{ prompt }}}}", separator="")

    @property
    def is_written(self) -> bool:
        """Whether the model writes the answers."""
        return not self.labels

    def decoding(self, learner: Learner) -> Decoding:
        """How answers are written: as the task says, greedily."""
        from forgetmenot.probes.shared.lm_eval_model import LearnerLM

        question = next(iter(self.questions.values()))
        return LearnerLM(learner).decoding(question.requests[0].args[1])

    def encoded(self, learner: Learner, examples: Sequence[Example]) -> EncodedExamples:
        """The tokens of examples, as lm-eval's Hugging Face model makes and cuts them.

        Raises:
            UserError: If the model is shorter than an answer may be.
        """
        try:
            if self.is_written:
                return EncodedExamples.of(self._to_write(learner, examples))
            return RaggedExamples.of(self._to_choose(learner, examples))
        except UserError as error:
            raise UserError(f"Task {self.name}: {error}") from error

    def _to_write(self, learner: Learner, examples: Sequence[Example]) -> list[Encoded]:
        from forgetmenot.probes.shared.lm_eval_model import LearnerLM

        model, decoding = LearnerLM(learner), self.decoding(learner)
        found = []
        for example in examples:
            prompt, cut = model.prompt(self.questions[example.id].requests[0].args[0], decoding)
            gold = model.tok_encode(str(example.target), add_special_tokens=False) or [model.eot_token_id]
            answer = TokenSequence((prompt + tuple(gold))[: model.max_length + 1], len(prompt))
            found.append(Encoded(example.id, (), answer, prompt, None, cut))
        return found

    def _to_choose(self, learner: Learner, examples: Sequence[Example]) -> list[Encoded]:
        from forgetmenot.probes.shared.lm_eval_model import RequestTokens

        requests = [request for example in examples for request in self.questions[example.id].requests]
        tokens: Sequence[Any] = RequestTokens(learner).loglikelihood(requests)
        found, at = [], 0
        for example in examples:
            question = self.questions[example.id]
            own = tokens[at : at + len(question.requests)]
            at += len(own)
            candidates = tuple(sequence for sequence, _ in own)
            first = candidates[0]
            prompt, cut = first.tokens[: first.start], max(lost for _, lost in own)
            answer = candidates[question.gold or 0]
            found.append(Encoded(example.id, candidates, answer, prompt, question.gold, cut))
        return found

    def chosen(self, example: Example, values: Sequence[float]) -> tuple[str | None, list[float]]:
        """The label that is chosen by log-likelihoods, and those of the choices themselves.

        It is the gold label where lm-eval takes the answer for right: of several right choices always the
        same one, and of equal ones the first, as there. It is no label where lm-eval takes the gold one for
        wrong, or a value is not finite.

        Args:
            example: One of the task's.
            values: Of each request, in nats.
        """
        question = self.questions[example.id]
        own = [*values[: len(question.choices)]]
        if not np.all(np.isfinite(values)):
            return None, [float("nan")] * len(own)
        if self._is_right(example, [(value, False) for value in values]):
            return example.label, own
        label = question.labels[_likeliest(self.measure, values, question.choices)]
        return None if label == example.label else label, own

    def written(self, example: Example, text: str, decoding: Decoding) -> str:
        """What lm-eval's filter reads from a text, made the gold text where its metric takes it for right.

        Where it takes for wrong what is the gold text but for blanks, it stands in quotes, blanks and all.
        """
        from forgetmenot.probes.shared.lm_eval_model import written

        question, gold = self.questions[example.id], str(example.target)
        if self._is_right(example, [written(text, decoding)]):
            return gold
        said = question.filtered()
        return repr(said) if said.strip() == gold.strip() else said

    def _is_right(self, example: Example, responses: Sequence[Any]) -> bool:
        value = self.questions[example.id].measured(responses)[1]
        if value not in (0, 1):
            raise UserError(
                f"Task {self.name}: lm-eval gives {example.id} {value!r}, which says "
                "neither right nor wrong; measure it by the probe `general`."
            )
        return bool(value)


def _likeliest(measure: str, values: Sequence[float], choices: Sequence[str]) -> int:
    """The place of the choice that lm-eval takes, the first of equal ones."""
    own = np.array(values[: len(choices)])
    if measure == "acc_norm":
        own = own / [len(choice) for choice in choices]
    if measure == "acc_bytes":
        own = own / [len(choice.encode()) for choice in choices]
    if measure == "acc_mutual_info":
        own = own - values[len(choices) :]
    return int(np.argmax(own))
