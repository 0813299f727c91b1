"""Scoring of a classification example: the likelihood of its candidates, or parsed text.

A way of scoring is a function from a learner and the examples to `Choices`; `SCORINGS` has it by the name
that `evaluation.scoring` takes. Likelihoods may be normalised by length and calibrated (`ScoringRule`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.metrics import metric_named
from forgetmenot.metrics.metric import Floats
from forgetmenot.prompting import (
    EncodedExamples,
    Prompt,
    TokenSequence,
    last_choice,
    lm_eval_prefix,
    parse_choice,
)
from forgetmenot.tasks import Example, Task

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.engine.pack import Arrangement


CONTENT_FREE = "N/A"
SPARE_TOKENS = 16  # that a written answer may have beyond the longest choice; our own choice


@dataclass(frozen=True)
class ScoringRule:
    """How the choices of a reading are scored: see `EvaluationSettings`."""

    scoring: str = "likelihood"
    normalization: str = "none"
    calibration: str = "none"

    @property
    def generates(self) -> bool:
        """Whether labels are read off what the model writes."""
        return SCORINGS[self.scoring].generates

    def __str__(self) -> str:
        refined = [("normalization", self.normalization), ("calibration", self.calibration)]
        return ", ".join(
            [f"scoring: {self.scoring}", *(f"{key}: {one}" for key, one in refined if one != "none")]
        )

    def check(self, task: Task, prompt: Prompt, where: str) -> None:
        """Refuse what this rule cannot score.

        Raises:
            UserError: The task or its prompt does not fit; the sentence begins with the key `where`.
        """
        if self.generates and is_graded(task):
            raise UserError(
                f"{where}: scoring: {self.scoring} reads labels, and task {task.name!r} is scored by "
                f"{task.metric}; leave the task out, or use likelihood."
            )
        if self.calibration == "prior" and not task.select:
            raise UserError(
                f"{where}: calibration: prior is estimated on `select`, and task {task.name!r} has none; "
                "use contextual, or none."
            )
        if self.calibration == "contextual":
            shown = prompt.demonstrations
            if shown is not None and shown.settings.draw == "each":
                raise UserError(
                    f"{where}: calibration: contextual needs the same demonstrations before every example; "
                    "set demonstrations.draw: fixed, or use prior."
                )
            for name in sorted(prompt.fields):
                if not isinstance(value := _any(task).fields.get(name, ""), str):
                    raise UserError(
                        f"{where}: calibration: contextual puts {CONTENT_FREE!r} in place of each field, and "
                        f"the field {name!r} of task {task.name!r} is not text ({value!r}); use prior."
                    )

    def reference(self, task: Task, prompt: Prompt) -> Sequence[Example]:
        """The examples that calibration looks at; none where there is no calibration."""
        if self.calibration == "prior":
            return task.select
        if self.calibration == "contextual":
            empty = dict.fromkeys(prompt.fields, CONTENT_FREE)
            first = _any(task)
            return [replace(first, id="content-free", fields={**first.fields, **empty})]
        return ()


BY_LIKELIHOOD = ScoringRule()


class Written(Protocol):
    """What says how an answer is written; `GenerationPlan` is one."""

    @property
    def decoding(self) -> Decoding:
        """Its length, and what ends it."""
        ...


class Asked(Protocol):
    """What a way of scoring is told of a task; `ScoredTask` is one."""

    @property
    def task(self) -> Task:
        """The task, with its labels."""
        ...

    @property
    def prompt(self) -> Prompt:
        """Its prompt, with the words of each label."""
        ...

    @property
    def encoded(self) -> EncodedExamples:
        """The examples as tokens: prompt and candidates."""
        ...

    @property
    def reference(self) -> EncodedExamples:
        """What calibration looks at."""
        ...

    @property
    def rule(self) -> ScoringRule:
        """The rule that the way of scoring belongs to."""
        ...

    @property
    def generation(self) -> "Written | None":
        """How long written answers are, where that is not left to the words of the labels."""
        ...

    def arranged(self, learner: "Learner") -> "Arrangement":
        """All candidates laid out for the model."""
        ...


@dataclass(frozen=True)
class Choices:
    """What was chosen, one entry for each example.

    Attributes:
        predicted: A label, or a number for a graded choice: the mean of the labels' values under the
            candidates' probabilities. None where a written answer names no label, or two candidates are
            equally the likeliest.
        log_likelihoods: The candidates', the model's own, in nats, whatever refines the choice among them;
            nan where one of them, or what refines it, is not finite.
        written: What the model wrote; None where it has no numbers to write by.
    """

    predicted: list[str | None]
    log_likelihoods: list[list[float] | None]
    written: list[str | None]


@dataclass(frozen=True)
class Scoring:
    """A way of scoring.

    Attributes:
        read: From a learner, the examples, and a function that is told how many examples are done.
        generates: Whether it reads what the model writes; else it compares candidates, which may be
            normalised and calibrated, and graded.
    """

    read: Callable[["Learner", Asked, Any], Choices]
    generates: bool


def by_likelihood(learner: "Learner", asked: Asked, advance: Any = None) -> Choices:
    """Take the likeliest candidate, as the rule normalises and calibrates their likelihoods.

    None is taken where two are equally likely, so that their order decides nothing.
    """
    labels = asked.task.labels
    values = learner.log_likelihoods(asked.arranged(learner), advance).numpy()
    raw = values.reshape(len(asked.encoded), len(labels))
    scores = _normalized(learner, asked, asked.encoded, raw)
    if asked.rule.calibration != "none":
        reference = np.stack(learner.score(asked.reference))
        scores = calibrated(scores, _normalized(learner, asked, asked.reference, reference))
    return choose(asked.task, raw, scores)


def choose(task: Task, raw: Floats, scores: Floats) -> Choices:
    """What is chosen by the candidates' scores; see `Choices`.

    Args:
        task: With its labels.
        raw: The candidates' log-likelihoods, in nats [examples, candidates].
        scores: The same, as they are normalised and calibrated [examples, candidates].
    """
    labels = task.labels
    finite = ~np.any(~np.isfinite(scores), axis=1)
    raw = np.where(finite[:, None], raw, np.nan)
    predicted: list[str | None]
    if is_graded(task):
        numbers = np.array([float(label) for label in labels])
        means = np.exp(_log_softmax(scores)) @ numbers
        predicted = [repr(float(mean)) if known else None for mean, known in zip(means, finite, strict=True)]
    else:
        predicted = [None if k is None else labels[k] for k in likeliest(scores)]
    return Choices(predicted, [*raw.tolist()], [None] * len(predicted))


def by_generation(learner: "Learner", asked: Asked, advance: Any = None) -> Choices:
    """Let the model write, greedily, and read a label off the text."""
    if asked.generation is None:
        longest = max(len(one.tokens) - one.start for example in asked.encoded for one in example.candidates)
        decoding = Decoding(longest + SPARE_TOKENS)
    else:
        decoding = asked.generation.decoding
    prompts = [example.prompt for example in asked.encoded]
    answers = learner.write(prompts, decoding, advance=advance)
    return read_labels([answer.text if answer.finite else None for answer in answers], asked.prompt)


def by_last_label(learner: "Learner", asked: Asked, advance: Any = None) -> Choices:
    """Let the model write, greedily, and take the label that the text names last, as SELF-GUIDE does."""
    found = by_generation(learner, asked, advance)
    read = [None if text is None else last_choice(text, asked.prompt.choices) for text in found.written]
    return replace(found, predicted=read)


def read_labels(texts: Sequence[str | None], prompt: Prompt) -> Choices:
    """The labels that written answers name; None for a text is an answer that has no numbers behind it."""
    written = [None if text is None else text.strip() for text in texts]
    predicted = [None if text is None else parse_choice(text, prompt.choices) for text in written]
    return Choices(predicted, [None] * len(written), written)


def likeliest(scores: Floats) -> list[int | None]:
    """The place of each row's one maximum [examples, candidates]; None where several share it, or of nan."""
    shared = (scores == scores.max(axis=1, keepdims=True)).sum(axis=1)
    places = scores.argmax(axis=1)
    return [int(place) if count == 1 else None for place, count in zip(places, shared, strict=True)]


SCORINGS: dict[str, Scoring] = {
    "likelihood": Scoring(by_likelihood, generates=False),
    "generation": Scoring(by_generation, generates=True),
    "last-label": Scoring(by_last_label, generates=True),
}


def is_graded(task: Task) -> bool:
    """Whether a task's labels are numbers, and its answers the mean of them."""
    return metric_named(task.metric).reads == "numbers"


def calibrated(scores: Floats, reference: Floats) -> Floats:
    """Divide out of each example's candidates' probabilities those of the reference, and normalize again.

    Contextual calibration (Zhao et al. 2021, arXiv 2102.09690: W = diag(p_cf)⁻¹, b = 0) where the reference
    is one content-free example; the paper averages over three such inputs, ours is "N/A" alone. With real
    examples it is batch calibration (Zhou et al. 2024, arXiv 2309.17249), which needs no labels, here with
    `select` for the batch.

    Args:
        scores: Of the candidates, up to a constant for each example the logarithms of their probabilities
            [examples, candidates].
        reference: The same of the examples that the candidates' prior is read off [references, candidates].

    Returns:
        The logarithms of the calibrated probabilities [examples, candidates].
    """
    prior = np.logaddexp.reduce(_log_softmax(reference), axis=0) - np.log(len(reference))
    return _log_softmax(_log_softmax(scores) - prior)


def _normalized(learner: "Learner", asked: Asked, encoded: EncodedExamples, raw: Floats) -> Floats:
    """Free log-likelihoods [examples, candidates] from what the length or the mere words of a candidate do.

    `tokens`: divided by how many are predicted. `bytes`: by those of the words in UTF-8, without the
    separator, as lm-eval's `acc_bytes`. `unconditional`: minus the log-likelihood of the same tokens behind
    the prefix token alone, as lm-eval's `acc_mutual_info` (Brown et al. 2020, section 2.4, with no context in
    place of "Answer:").
    """
    kind = asked.rule.normalization
    if kind == "none":
        return raw
    lengths: Floats
    if kind == "bytes":
        prompt = asked.prompt
        texts = [prompt.choices[label] + prompt.end for label in asked.task.labels]
        lengths = np.array([len(text.encode()) for text in texts], dtype=np.float64)
        return raw / lengths
    answers = [[one.tokens[one.start :] for one in example.candidates] for example in encoded]
    if kind == "tokens":
        lengths = np.array([[len(answer) for answer in row] for row in answers], dtype=np.float64)
        return raw / lengths
    prefix = lm_eval_prefix(learner.tokenizer)
    distinct = sorted({answer for row in answers for answer in row})
    alone = learner.log_likelihoods([TokenSequence(prefix + one, len(prefix)) for one in distinct])
    found = dict(zip(distinct, alone.tolist(), strict=True))
    words: Floats = np.array([[found[answer] for answer in row] for row in answers])
    return raw - words


def _any(task: Task) -> Example:
    """An example of a task, whichever of its splits has one."""
    return (task.score or task.select or task.train)[0]


def _log_softmax(scores: Floats) -> Floats:
    normalized: Floats = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return normalized
