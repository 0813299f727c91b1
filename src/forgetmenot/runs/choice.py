"""How a choice among labels is read off the model: by likelihood, refined or not, or by what it writes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forgetmenot.engine import Learner
from forgetmenot.errors import UserError
from forgetmenot.prompting import EncodedExamples, Prompt, TokenSequence, lm_eval_prefix, parse_choice
from forgetmenot.tasks import Example, Task

if TYPE_CHECKING:
    from forgetmenot.runs.evaluate import Question

Floats = NDArray[np.float64]

NUMERIC = ("spearman", "pearson")
CONTENT_FREE = "N/A"
ROOM = 16  # tokens that a written answer may have beyond the longest choice; ours


@dataclass(frozen=True)
class Way:
    """How the choices of a reading are read: see `EvaluationSettings`."""

    scoring: str = "likelihood"
    normalization: str = "none"
    calibration: str = "none"

    def __str__(self) -> str:
        refined = [("normalization", self.normalization), ("calibration", self.calibration)]
        return ", ".join(
            [f"scoring: {self.scoring}", *(f"{key}: {one}" for key, one in refined if one != "none")]
        )

    def check(self, task: Task, prompt: Prompt, where: str) -> None:
        """Refuse what this way cannot read.

        Raises:
            UserError: The task or its prompt does not fit; the sentence begins with the key `where`.
        """
        if self.scoring == "generation" and task.metric in NUMERIC:
            raise UserError(
                f"{where}: scoring: generation reads labels, and task {task.name!r} is scored by "
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
                        f"the field {name!r} of task {task.name!r} is no text ({value!r}); use prior."
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


BY_LIKELIHOOD = Way()


def _any(task: Task) -> Example:
    """An example of a task, whichever of its splits has one."""
    return (task.score or task.select or task.train)[0]


def read_choices(
    learner: Learner, question: "Question", advance: Any = None
) -> tuple[list[str | None], list[list[float] | None], list[str | None]]:
    """What is predicted for each example, its candidates' log-likelihoods, and what the model wrote.

    The log-likelihoods are the model's own, in nats, whatever refines the choice among them. What is
    predicted is a label, or a number for a graded choice: the mean of the labels' values under the
    candidates' probabilities. It is None where a written answer names no label.
    """
    nothing: list[Any] = [None] * len(question.encoded)
    labels = question.task.labels
    if question.way.scoring == "generation":
        written = _write(learner, question, advance)
        return [parse_choice(text, question.prompt.choices) for text in written], nothing, [*written]
    values = learner.log_likelihoods(question.arranged(learner), advance).numpy()
    raw = values.reshape(len(question.encoded), len(labels))
    scores = _normalized(learner, question, question.encoded, raw)
    if question.way.calibration != "none":
        reference = np.stack(learner.score(question.reference))
        scores = calibrated(scores, _normalized(learner, question, question.reference, reference))
    if question.task.metric in NUMERIC:
        numbers = np.array([float(label) for label in labels])
        return [repr(float(row @ numbers)) for row in np.exp(_log_softmax(scores))], [*raw.tolist()], nothing
    return [labels[int(row.argmax())] for row in scores], [*raw.tolist()], nothing


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


def _normalized(learner: Learner, question: "Question", encoded: EncodedExamples, raw: Floats) -> Floats:
    """Free log-likelihoods [examples, candidates] from what the length or the mere words of a candidate do.

    `tokens`: divided by how many are predicted. `bytes`: by those of the words in UTF-8, without the
    separator, as lm-eval's `acc_bytes`. `unconditional`: less the log-likelihood of the
    same tokens behind the prefix token alone, as lm-eval's `acc_mutual_info` (Brown et al. 2020, section
    2.4, with no context in place of "Answer:").
    """
    kind = question.way.normalization
    if kind == "none":
        return raw
    lengths: Floats
    if kind == "bytes":
        prompt = question.prompt
        texts = [prompt.choices[label] + prompt.end for label in question.task.labels]
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


def _write(learner: Learner, question: "Question", advance: Any) -> list[str]:
    """What the model writes after each prompt, greedily."""
    longest = max(len(one.tokens) - one.start for example in question.encoded for one in example.candidates)
    prompts = [example.prompt for example in question.encoded]
    return [text.strip() for text in learner.generate(prompts, longest + ROOM, advance)]


def _log_softmax(scores: Floats) -> Floats:
    normalized: Floats = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return normalized
