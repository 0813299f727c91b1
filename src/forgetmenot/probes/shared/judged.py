"""What judged probes have in common: a judge compares a stage's answers with the base model's."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator

from forgetmenot.engine import ranks
from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.probes.shared.judge import JudgeSettings, make_judge
from forgetmenot.probes.shared.judgements import VERSION, Judgement, Judgements, PairComparison
from forgetmenot.probes.shared.probe import NOT_FINITE, Part, Probe, ProbeOptions
from forgetmenot.probes.shared.prompt_sets import read_prompts
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.record.files import read_lines
from forgetmenot.record.seal import check_file, write_sealed
from forgetmenot.settings import Names, PositiveInt, by_name
from forgetmenot.synthesis.responder import as_tokens

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

Outcome = Literal["win", "tie", "loss", "unparsable"]
SCORES: dict[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
METRIC = "win 1, tie 0.5, loss 0 against the base model"


class JudgedOptions(ProbeOptions):
    """Who judges what."""

    judge: Annotated[JudgeSettings, BeforeValidator(by_name, json_schema_input_type=str | JudgeSettings)]
    """An endpoint {base_url, model, api_key_env, …}, or a model to load here: a name, or {name, …}."""
    prompts: Names = ()
    """TRACE's sets by name, or paths to JSON or JSONL files whose rows have a `prompt`; empty for the probe's
    own."""
    limit: PositiveInt | None = None
    """Take the first so many prompts of each set."""
    max_new_tokens: PositiveInt = 512
    """The most tokens of an answer."""
    chat: bool | None = None
    """Whether prompts are put in the model's chat template; null if it has one."""


class Written(NamedTuple):
    """An answer of the model.

    Attributes:
        answer: Its text; None where its logits were no numbers.
        cut: How many tokens its prompt lost on the left to leave room for it.
    """

    answer: str | None
    cut: int


class Judged(Probe):
    """Pairwise judging of a stage's answers against the base model's, each pair in both orders.

    As TRACE (arXiv 2310.06762): greedy answers, verdicts [[A]], [[B]], [[C]], and each pair judged twice with
    the answers swapped. The score is our own, since TRACE states none: an answer wins or loses
    where both orders say so, and ties otherwise; a part is the mean of 1 for a win, 0.5 for a tie and 0 for a
    loss; the base model is 0.5 against itself, so that the delta is the mean − 0.5. Equal answers tie without
    being judged. A pair with a reply that has no verdict is counted as unparsable and is in no mean.
    """

    Options = JudgedOptions
    criterion: ClassVar[str]
    sets: ClassVar[tuple[str, ...]]

    def __init__(self, options: JudgedOptions, data_dir: Path | None) -> None:
        super().__init__(options, data_dir)
        names = options.prompts or self.sets
        self.prompts = {Path(name).stem: read_prompts(name, data_dir)[: options.limit] for name in names}
        if len(self.prompts) < len(names):
            raise UserError(f"prompts: two of {', '.join(names)} have the same name.")
        self.judge = make_judge(options.judge)

    @property
    def made_with(self) -> str:
        """The judge, and the version of its instructions."""
        return f"judge {self.judge.name}, instructions {VERSION}"

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """A part for each set of prompts."""
        written = self._written(learner, stage, folder)
        if any(one.answer is None for one in written):
            return self._no_parts()
        if stage == base:
            return [
                Part(name, 0.5, METRIC, here.stop - here.start, more={"truncated": _cut(written[here])})
                for name, here in self._places()
            ]
        reference = self._written(learner, base, folder)
        if any(one.answer is None for one in reference):
            return self._no_parts()
        return ranks.agreed(lambda: self._judge(written, reference, folder))

    def _judge(self, written: list[Written], reference: list[Written], folder: Path) -> list[Part]:
        """By the writer alone."""
        pairs = [
            (request, own.answer or "", base.answer or "")
            for request, own, base in zip(self._requests(), written, reference, strict=True)
        ]
        differ = [pair for pair in pairs if pair[1] != pair[2]]
        shown = [
            PairComparison(self.criterion, request, *order)
            for request, own, base in differ
            for order in ((own, base), (base, own))
        ]
        verdicts = Judgements(folder / "verdicts.jsonl").of(self.judge, shown)
        judged = iter([outcome(*verdicts[k : k + 2]) for k in range(0, len(verdicts), 2)])
        outcomes: list[Outcome] = ["tie" if own == base else next(judged) for _, own, base in pairs]
        parts = []
        for name, here in self._places():
            identical = sum(own == base for _, own, base in pairs[here])
            beside = {"identical": float(identical), "truncated": _cut(written[here])}
            parts.append(_part(name, outcomes[here], beside))
        return parts

    def _no_parts(self) -> list[Part]:
        return [Part(name, None, METRIC, 0, reason=NOT_FINITE) for name in self.prompts]

    def _requests(self) -> list[str]:
        return [prompt for prompts in self.prompts.values() for prompt in prompts]

    def _places(self) -> list[tuple[str, slice]]:
        """Where each set's prompts stand among all."""
        bounds = pairwise(accumulate([0, *map(len, self.prompts.values())]))
        return [(name, slice(*bound)) for name, bound in zip(self.prompts, bounds, strict=True)]

    def _written(self, learner: Learner, stage: str, folder: Path) -> list[Written]:
        """What the model wrote after a stage; written once, and read from then on."""
        path = folder / f"answers-{self._hash()}-{stage}.jsonl"
        there = ranks.agreed(lambda: _read(path))
        if there is not None:
            return there
        written = self._write(learner)
        if ranks.writes():
            rows = [
                {"prompt": request, **one._asdict()}
                for request, one in zip(self._requests(), written, strict=True)
            ]
            write_sealed(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return written

    def _write(self, learner: Learner) -> list[Written]:
        tokens, options = tokens_of(learner.tokenizer), self.options
        prompts = [
            as_tokens(tokens, [{"role": "user", "content": request}], chat=options.chat)
            for request in self._requests()
        ]
        positions = learner.max_positions
        if positions is not None:
            room = positions - options.max_new_tokens
            if room < 1:
                raise UserError(
                    f"max_new_tokens: {options.max_new_tokens} is too many, since this model has {positions} "
                    "positions; set fewer."
                )
            cut = [max(0, len(prompt) - room) for prompt in prompts]
            prompts = [prompt[-room:] for prompt in prompts]
        else:
            cut = [0] * len(prompts)
        with learner.progress("answers", len(prompts)) as advance:
            answers = learner.write(prompts, Decoding(options.max_new_tokens), advance=advance)
        return [
            Written(answer.text.strip() if answer.finite else None, tokens)
            for answer, tokens in zip(answers, cut, strict=True)
        ]

    def _hash(self) -> str:
        """What the answers depend on beside the weights."""
        content = [self._requests(), self.options.max_new_tokens, self.options.chat]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def outcome(forward: Judgement | None, swapped: Judgement | None) -> Outcome:
    """What two verdicts say of the answer that was A in the first and B in the second."""
    if forward is None or swapped is None:
        return "unparsable"
    if (forward, swapped) == ("A", "B"):
        return "win"
    if (forward, swapped) == ("B", "A"):
        return "loss"
    return "tie"


def _part(name: str, outcomes: Sequence[Outcome], beside: dict[str, float]) -> Part:
    """The mean score of one set's outcomes, and their counts."""
    counts = Counter(outcomes)
    more = {one: float(counts[one]) for one in ("win", "tie", "loss", "unparsable")} | beside
    scores = [SCORES[one] for one in outcomes if one != "unparsable"]
    if not scores:
        reason = f"none of the judge's replies to {len(outcomes)} pairs has a verdict in both orders"
        return Part(name, None, METRIC, 0, reason=reason, more=more)
    mean = float(np.mean(scores))
    interval = None
    if len(scores) > 1:
        half = 1.96 * float(np.std(scores, ddof=1)) / math.sqrt(len(scores))
        interval = (max(0.0, mean - half), min(1.0, mean + half))
    return Part(name, mean, METRIC, len(scores), interval, more=more)


def _cut(written: Sequence[Written]) -> float:
    """How many prompts were cut."""
    return float(sum(one.cut > 0 for one in written))


def _read(path: Path) -> list[Written] | None:
    check_file(path)
    if not path.is_file():
        return None
    return read_lines(path, _as_written)


def _as_written(row: dict[str, Any]) -> Written:
    return Written(row["answer"], row["cut"])
