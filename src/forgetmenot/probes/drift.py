"""The `drift` probe: how far the model has moved from the base, and whether its answers keep their form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from forgetmenot.engine.decoding import Decoding
from forgetmenot.metrics import metric_named
from forgetmenot.metrics.overrides import calibration_error
from forgetmenot.metrics.resampling import percentiles, wilson
from forgetmenot.probes.shared import formats
from forgetmenot.probes.shared.base_predictions import Base
from forgetmenot.probes.shared.probe import NOT_FINITE, Part, Probe, ProbeOptions, RunTask, chosen_tasks
from forgetmenot.prompting import EncodedExamples, TokenSequence, encode_cached, parse_choice
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.settings import Names, PositiveInt
from forgetmenot.tasks import sample

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

ANSWER_TOKENS = 64
"""Of each answer so many tokens are compared, so that what is kept of the base is bounded."""
SPARE_TOKENS = 16
"""That a written answer may have beyond the task's longest choice, as with `scoring: generation`."""
FORMAT_TOKENS = 128
"""The most tokens of an answer in JSON, and of the call of a tool."""
RESAMPLES = 1000
SEED = 20250904

DIVERGENCE = "KL(base ‖ model), nats per answer token"
CALIBRATION = "expected calibration error, 10 bins"
UNFORMED = "share of written answers that name no label"
VALID = "share of valid answers"


class DriftOptions(ProbeOptions):
    """On what the model is held against its base."""

    tasks: Names = ()
    """Names of tasks that the run scores; empty for all of them."""
    limit: PositiveInt = 64
    """Take a fixed random sample of so many examples of each task."""


class Drift(Probe):
    """Drift: the divergence from the base on the run's tasks, calibration, and the form of written answers.

    *Divergence*, a part for each task: KL(base ‖ model) over the whole vocabulary, the mean over the answers'
    tokens. A token's distribution follows the prompt and the gold answer's tokens before it; of an answer the
    first 64 count, its end among them, and of plain text the first 64. The prompt's own tokens do not count.
    Shenfeld, Pari and Agrawal (arXiv 2509.04259, "RL's Razor") find that this divergence on the new task's
    inputs predicts how much is forgotten of others. They follow answers that the model draws, we follow the
    given ones: that is the same at an answer's first token, and not at later ones.

    *Calibration*, for each task that chooses among labels: the expected calibration error of the likeliest
    label's probability among the candidates (Guo et al. 2017, arXiv 1706.04599, eq. 3), from the candidates'
    plain likelihoods. *Out of format*: of what is written greedily to the prompts of all these tasks, the
    share that names no label. *JSON* and *tool calls*: the share of valid answers to prompts of our own; see
    `forgetmenot.probes.shared.formats`. Parts go up and down for different reasons, so there is no delta.

    The base's last hidden states are kept in the probe's folder, in fp32: for each task at most
    limit × 64 × width numbers. So is its LM head, until a later stage turns out to have the same.
    """

    Options = DriftOptions

    def __init__(self, options: DriftOptions, data_dir: Path | None) -> None:
        super().__init__(options, data_dir)
        self.tasks: list[RunTask] = []

    @property
    def made_with(self) -> str:
        """The version of the bundled prompts."""
        return f"prompts for JSON and tools, version {formats.VERSION}"

    def take_tasks(self, tasks: Sequence[RunTask]) -> None:
        """Choose among the run's tasks.

        Raises:
            UserError: If the options name another.
        """
        self.tasks = chosen_tasks(tasks, self.options.tasks, "drift")

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """The divergences, the calibration errors, and three shares of answers."""
        encoded = {one.task.name: self._encoded(learner, one) for one in self.tasks}
        choices = [one for one in self.tasks if _chooses(one)]
        with learner.progress("drift", len(self.tasks) + len(choices) + 3) as advance:
            parts = []
            reference = Base(folder, learner)
            if stage == base:
                reference.keep({name: _answers(some) for name, some in encoded.items()})
            for name, some in encoded.items():
                parts.append(_divergence(name, _answers(some), learner, reference))
                advance(1)
            for one in choices:
                parts.append(_calibration(one.task.name, encoded[one.task.name], learner))
                advance(1)
            if choices:
                parts.append(_out_of_format(choices, encoded, learner))
            advance(1)
            for ask in (_json, _tool_calls):
                parts.append(ask(learner))
                advance(1)
            if stage != base:
                reference.keep_no_head()
        return parts

    def _encoded(self, learner: Learner, one: RunTask) -> EncodedExamples:
        longest = min(one.max_length, learner.max_positions or one.max_length)
        examples = sample(one.task.name, one.examples, self.options.limit)
        return encode_cached(one.task, one.prompt, learner.tokenizer, longest, examples)


def _chooses(one: RunTask) -> bool:
    """Whether a task chooses among labels that are no numbers."""
    return one.task.kind == "choice" and metric_named(one.task.metric).reads == "labels"


def _answers(encoded: EncodedExamples) -> list[TokenSequence]:
    """The beginning of each answer, behind its prompt."""
    answers = [one.answer for one in encoded]
    return [TokenSequence(one.tokens[: one.start + ANSWER_TOKENS], one.start) for one in answers]


def _divergence(name: str, sequences: Sequence[TokenSequence], learner: Learner, reference: Base) -> Part:
    title, n = f"{name} divergence", len(sequences)
    found = reference.of(name, sequences)
    if isinstance(found, str):
        return Part(title, None, DIVERGENCE, n, reason=found)
    values = learner.divergences(sequences, *found).numpy()
    if not np.isfinite(values).all():
        return Part(title, None, DIVERGENCE, n, reason=NOT_FINITE)
    counts = np.array([len(one.tokens) - one.start for one in sequences])
    sums = np.add.reduceat(values, np.cumsum(counts) - counts)
    drawn = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    interval = percentiles(sums[drawn].sum(1) / counts[drawn].sum(1), 0.95, n)
    tokens = int(counts.sum())
    return Part(title, float(sums.sum() / tokens), DIVERGENCE, n, interval, more={"tokens": float(tokens)})


def _calibration(name: str, encoded: EncodedExamples, learner: Learner) -> Part:
    title, n = f"{name} calibration", len(encoded)
    scores = np.stack(learner.score(encoded))
    if not np.isfinite(scores).all():
        return Part(title, None, CALIBRATION, n, reason=NOT_FINITE)
    shares = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
    confidence = shares.max(1)
    first = (shares == confidence[:, None]).sum(1) == 1  # of candidates that are equally likely none is right
    right = first & (shares.argmax(1) == encoded.arrays["gold"])
    more = {"accuracy": float(right.mean()), "confidence": float(confidence.mean())}
    return Part(title, calibration_error(confidence, right), CALIBRATION, n, more=more)


def _out_of_format(
    tasks: Sequence[RunTask], encoded: Mapping[str, EncodedExamples], learner: Learner
) -> Part:
    counts: dict[str, tuple[int, int]] = {}
    for one in tasks:
        some = encoded[one.task.name]
        longest = max(len(c.tokens) - c.start for example in some for c in example.candidates)
        answers = learner.write([example.prompt for example in some], Decoding(longest + SPARE_TOKENS))
        if not all(answer.finite for answer in answers):
            return Part("out of format", None, UNFORMED, len(some), reason=NOT_FINITE)
        named = [parse_choice(answer.text, one.prompt.choices) for answer in answers]
        counts[one.task.name] = named.count(None), len(named)
    unnamed, n = (sum(column) for column in zip(*counts.values(), strict=True))
    more = {name: count / size for name, (count, size) in counts.items()}
    return Part("out of format", unnamed / n, UNFORMED, n, wilson(unnamed, n), more=more)


class _Request(NamedTuple):
    """A request, and what an answer to it shows: whether it is `valid`, and other things by name."""

    tokens: tuple[int, ...]
    read: Callable[[str], dict[str, bool]]


def _json(learner: Learner) -> Part:
    tokens = tokens_of(learner.tokenizer)

    def reader(schema: Mapping[str, Any]) -> Callable[[str], dict[str, bool]]:
        def read(text: str) -> dict[str, bool]:
            within = any(formats.fits(value, schema) for value in formats.values_in(text))
            try:
                value = formats.json_in(text, whole=tokens.has_chat_template)
            except ValueError:
                return {"valid": False, "parses": False, "within text": within}
            return {"valid": formats.fits(value, schema), "parses": True, "within text": within}

        return read

    requests = [
        _Request(formats.ask_for_json(tokens, one), reader(one["schema"])) for one in formats.json_requests()
    ]
    return _valid("json", requests, learner)


def _tool_calls(learner: Learner) -> Part:
    tokens = tokens_of(learner.tokenizer)

    def reader(tools: Sequence[Mapping[str, Any]], native: bool) -> Callable[[str], dict[str, bool]]:
        def read(text: str) -> dict[str, bool]:
            calls = formats.calls_in(text)
            return {"valid": formats.is_call(calls, tools), "calls": bool(calls), "by template": native}

        return read

    asked = [(formats.ask_for_call(tokens, one), one["tools"]) for one in formats.tool_requests()]
    return _valid("tool calls", [_Request(ids, reader(tools, own)) for (ids, own), tools in asked], learner)


def _valid(name: str, requests: Sequence[_Request], learner: Learner) -> Part:
    """The share of requests with a valid answer, and the shares of what else is read off the answers."""
    longest = (learner.max_positions or math.inf) - len(learner.soft_tokens) - FORMAT_TOKENS
    fitting = [one for one in requests if len(one.tokens) <= longest]
    more = {"too long": float(len(requests) - len(fitting))}
    if not fitting:
        reason = (
            f"none of the {len(requests)} prompts, with an answer of {FORMAT_TOKENS} tokens, fits the model"
        )
        return Part(name, None, VALID, 0, reason=reason, more=more)
    answers = learner.write([one.tokens for one in fitting], Decoding(FORMAT_TOKENS))
    if not all(answer.finite for answer in answers):
        return Part(name, None, VALID, len(fitting), reason=NOT_FINITE, more=more)
    found = [one.read(answer.text) for one, answer in zip(fitting, answers, strict=True)]
    n, counts = len(fitting), {key: sum(one[key] for one in found) for key in found[0]}
    valid = counts.pop("valid")
    more = {**{key: count / n for key, count in counts.items()}, **more}
    return Part(name, valid / n, VALID, n, wilson(valid, n), more=more)
