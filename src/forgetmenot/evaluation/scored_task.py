"""A task ready for scoring: its examples, their prompt and tokens, and how answers are scored."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from forgetmenot.engine.decoding import Decoding
from forgetmenot.evaluation.scoring import BY_LIKELIHOOD, ScoringRule, is_graded
from forgetmenot.metrics import MatrixRow, metric_named
from forgetmenot.prompting import EncodedExamples, Prompt, TokenSequence
from forgetmenot.record.assemble import AskedTask
from forgetmenot.record.predictions import Predictions
from forgetmenot.report.beforehand import AtHand
from forgetmenot.tasks import Example, Task, digest_of
from forgetmenot.tasks.answers import extracted

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.engine.pack import Arrangement


@dataclass(frozen=True)
class GenerationPlan:
    """How a task's answers are generated.

    Attributes:
        seed: What each answer's own seed comes from, where answers are drawn.
        margins: Whether each token's margin is kept.
        batch_positions: The most positions in a batch; None for what suits the device.
        by_vllm: Whether vLLM writes.
    """

    decoding: Decoding
    seed: int = 0
    margins: bool = False
    batch_positions: int | None = None
    by_vllm: bool = False


@dataclass(frozen=True)
class ScoredTask:
    """A task ready for scoring.

    Attributes:
        examples: Those that are scored.
        encoded: Their tokens, in the same order.
        rule: How a choice among labels is scored.
        reference: What calibration looks at.
        generation: How free answers are generated; None where none are. Of a choice that is read off a
            written answer: how that is written, where it is not left to the words of the labels.
        realign: Training examples on which the model is aligned anew before it is asked; see
            `forgetmenot.runs.realign`.
    """

    task: Task
    prompt: Prompt
    examples: Sequence[Example]
    encoded: EncodedExamples
    rule: ScoringRule = BY_LIKELIHOOD
    reference: EncodedExamples = field(default_factory=lambda: EncodedExamples.of([]))
    generation: GenerationPlan | None = None
    realign: EncodedExamples = field(default_factory=lambda: EncodedExamples.of([]))
    _arranged: "dict[tuple[int, int], Arrangement]" = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def only(self, places: Sequence[int]) -> "ScoredTask":
        """The same with some of its examples."""
        return replace(
            self,
            examples=[self.examples[k] for k in places],
            encoded=self.encoded.only(places),
        )

    def count(self) -> int:
        """How many sequences the model scores."""
        return len(self.encoded) if self.generated else self.encoded.sequence_count

    @property
    def sequences(self) -> list[TokenSequence]:
        """All candidates, or all answers, example after example."""
        return [s for one in self.encoded for s in one.sequences]

    def first_sequences(self, examples: int = 32) -> list[TokenSequence]:
        """Those of the first examples: what the guard looks at."""
        return [s for one in self.encoded[:examples] for s in one.sequences]

    def arranged(self, learner: "Learner") -> "Arrangement":
        """The sequences laid out for the model; kept, for every stage asks them again.

        Behind a soft prompt of another length, and in smaller packs, they are laid out again. It costs as
        much memory as the tokens.
        """
        behind = (len(learner.soft_tokens), learner.budget)
        if behind not in self._arranged:
            self._arranged.clear()
            self._arranged[behind] = learner.arrange(self.sequences)
        return self._arranged[behind]

    @property
    def generated(self) -> bool:
        """Whether the model writes its answers."""
        return self.generation is not None or self.rule.generates

    @property
    def metrics(self) -> tuple[str, ...]:
        """The task's headline metric, then those read beside it."""
        return (self.task.metric, *self.task.further_metrics)

    @property
    def gold(self) -> list[str]:
        """What is right: a label, a number, or what is read from the gold text by the rules for answers."""
        if not self.task.labels:
            return [self._gold_text(example) for example in self.examples]
        if is_graded(self.task):
            return [repr(float(example.target or 0.0)) for example in self.examples]
        return [str(example.label) for example in self.examples]

    @property
    def majority(self) -> float | None:
        """The score of answering without looking; None where that has no meaning."""
        metric = metric_named(self.task.metric)
        if metric.reads == "labels":
            return metric.chance_level([self.task.labels.index(label) for label in self.gold])
        return metric.chance_level(self.gold)

    @property
    def clusters(self) -> list[str | None]:
        """What examples share that are not independent: the task's `cluster` field, or all they say."""
        if self.task.cluster:
            return [str(example.fields[self.task.cluster]) for example in self.examples]
        digests = [digest_of(example).hex()[:16] for example in self.examples]
        counts = Counter(digests)
        return [digest if counts[digest] > 1 else None for digest in digests]

    @cached_property
    def data(self) -> str:
        """Sixteen hexadecimal digits of what is asked and what is right, beside the prompt's words."""
        sources = [
            example.fields.get(self.task.source) if self.task.source else "" for example in self.examples
        ]
        rows = zip(self.examples, self.gold, self.clusters, sources, strict=True)
        digest = hashlib.sha256(repr((self.task.labels, self.task.generation.extract)).encode())
        for example, gold, cluster, source in rows:
            digest.update(repr((example.id, digest_of(example), gold, cluster, source)).encode())
        return digest.hexdigest()[:16]

    @property
    def independent(self) -> int:
        """How many of the examples are independent: those of a cluster count once."""
        shared = self.clusters
        return shared.count(None) + len({*shared} - {None})

    def at_hand(self, margin: float) -> AtHand:
        """What it will be judged on, by a margin."""
        return AtHand(self.task.name, self.task.metric, len(self.examples), self.independent, margin)

    def predictions(self, **columns: Any) -> Predictions:
        """Predictions for these examples, with all that does not depend on the model filled in."""
        return Predictions(
            ids=[example.id for example in self.examples],
            gold=self.gold,
            prompt_text=[_readable(example) for example in self.examples],
            source=[str(example.fields[self.task.source]) for example in self.examples]
            if self.task.source
            else [],
            cluster=self.clusters,
            labels=self.task.labels,
            **columns,
        )

    def begins(self, rows: Sequence[MatrixRow]) -> int:
        """The number of the first stage after the base that is asked; 0 for all.

        Where the model is aligned anew before it is asked, that is the task's own: before, there is nothing
        that could be brought back.
        """
        own = (i for i, row in enumerate(rows) if len(self.realign) and self.task.name in row.trains_on)
        return next(own, 0)

    def asked(self, answers: Sequence[Predictions | None], rows: Sequence[MatrixRow]) -> AskedTask:
        """What results.json needs to know, with the answers after each stage."""
        shown = self.prompt.demonstrations
        written = None
        if self.generation is not None:
            written = {**asdict(self.generation.decoding), "extract": self.task.generation.extract}
        return AskedTask(
            task=self.task.name,
            metrics=self.metrics,
            prompt=self.prompt.name,
            prompt_hash=self.prompt.hash,
            answers=answers,
            scoring=asdict(self.rule) if self.task.kind == "choice" else None,
            generation=written,
            demonstrations=shown.to_json() if shown else None,
            choices=self.prompt.choices,
            written=self.rule.generates,
            truncated=self.encoded.truncated,
            realigned=len(self.realign),
            begins=self.begins(rows),
        )

    @property
    def described(self) -> dict[str, Any]:
        """How a choice is read or an answer written, and what is shown before it, as a stage records it."""
        shown = self.prompt.demonstrations
        written = {"generation": asdict(self.generation.decoding)} if self.generation else {}
        realigned = {"realigned": len(self.realign)} if len(self.realign) else {}
        shown_json = shown.to_json() if shown else None
        return {**asdict(self.rule), **written, **realigned, "demonstrations": shown_json}

    def _gold_text(self, example: Example) -> str:
        gold = "" if example.target is None else str(example.target)
        return gold if self.generation is None else extracted(gold, self.task.generation.extract)


def _readable(example: Example) -> str:
    """An example's fields for people to read."""
    if "messages" in example.fields:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in example.fields["messages"][:-1])
    return "\n".join(f"{name}: {value}" for name, value in example.fields.items())
