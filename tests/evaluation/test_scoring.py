"""The ways to read a choice, against computations by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.scoring import (
    SCORINGS,
    Choices,
    ScoringRule,
    by_generation,
    by_likelihood,
    calibrated,
)
from forgetmenot.metrics import measure
from forgetmenot.prompting import EncodedExamples, Encoder, Prompt, TokenSequence
from forgetmenot.record.predictions import score
from forgetmenot.tasks import Example, Task

CHOICES = {"bad": "bad", "good": "really good"}  # " bad" and " really good": 3 and 11 bytes of words
PROMPT = Prompt("default", "Word: {{ word }}\nKind:", CHOICES)


def example(k: int, word: str, label: str) -> Example:
    return Example(f"score-{k}", {"word": word}, label=label)


EXAMPLES = [example(0, "cat", "good"), example(1, "dog", "bad"), example(2, "ant", "good")]
TASK = Task("mine", "choice", "accuracy", EXAMPLES, EXAMPLES, EXAMPLES, labels=tuple(CHOICES))
RAW = np.array([[-3.0, -8.0], [-2.0, -9.0], [-4.0, -9.0]])


class Told:
    """A learner that answers what it is told to: a table for candidates by their example and place."""

    def __init__(self, tokenizer: Any, table: Any, alone: dict[int, float] | None = None) -> None:
        self.tokenizer, self.table, self.alone = tokenizer, np.asarray(table), alone or {}
        self.asked: list[Sequence[TokenSequence]] = []
        self.soft_tokens: tuple[int, ...] = ()
        self.budget = 1024

    def arrange(self, sequences: Sequence[TokenSequence]) -> Any:
        return SimpleNamespace(sequences=len(sequences))

    def log_likelihoods(self, sequences: Any, advance: Any = None) -> torch.Tensor:
        if isinstance(sequences, list):  # the answers alone, by their length
            self.asked.append(sequences)
            return torch.tensor([self.alone[len(one.tokens) - one.start] for one in sequences])
        return torch.tensor(self.table.ravel())

    def score(self, examples: EncodedExamples) -> list[np.ndarray]:
        return [np.asarray(self.table[k % len(self.table)][::-1]) for k in range(len(examples))]

    def write(
        self, prompts: Sequence[tuple[int, ...]], decoding: Decoding, advance: Any = None
    ) -> list[Answer]:
        self.room = decoding.max_new_tokens
        return [Answer(text, ()) for text in (" really good, said all", "bad\nWord: dog", "no idea")]


def asked(tokenizer: Any, rule: ScoringRule, task: Task = TASK, prompt: Prompt = PROMPT) -> ScoredTask:
    encoder = Encoder(task, prompt, tokenizer, 100)
    reference = encoder.encode_all(rule.reference(task, prompt))
    return ScoredTask(task, prompt, task.score, encoder.encode_all(task.score), rule, reference)


def predicted(tokenizer: Any, rule: ScoringRule, table: Any = RAW, **learner: Any) -> list[str | None]:
    found = by_likelihood(Told(tokenizer, table, **learner), asked(tokenizer, rule))  # type: ignore[arg-type]
    assert np.array(found.log_likelihoods) == pytest.approx(np.asarray(table)), (
        "the log-likelihoods stay the model's own"
    )
    assert found.written == [None] * len(EXAMPLES)
    return found.predicted


def test_the_likeliest_candidate_is_the_answer(tiny_tokenizer: Any) -> None:
    assert predicted(tiny_tokenizer, ScoringRule()) == ["bad", "bad", "bad"]


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("rule", [ScoringRule(), ScoringRule(normalization="bytes")], ids=str)
def test_a_tie_is_no_answer_whichever_comes_first(rule: ScoringRule, tiny_tokenizer: Any) -> None:
    bad, good = (3.0, 11.0) if rule.normalization == "bytes" else (1.0, 1.0)
    table = [[-2 * bad, -2 * good], [-2 * bad, -3 * good], [-3 * bad, -2 * good]]
    assert predicted(tiny_tokenizer, rule, table) == [None, "bad", "good"]


@pytest.mark.parametrize("wrong", [[NAN, NAN], [NAN, -1.0], [-INF, -1.0], [-1.0, -INF], [INF, -1.0]])
def test_what_is_no_number_has_no_score(wrong: list[float], tiny_tokenizer: Any) -> None:
    scored = asked(tiny_tokenizer, ScoringRule())
    table = [wrong, *RAW[1:].tolist()]
    found = by_likelihood(Told(tiny_tokenizer, table), scored)  # type: ignore[arg-type]
    assert found.predicted[1:] == ["bad", "bad"]
    there = scored.predictions(
        predicted=found.predicted, log_likelihoods=found.log_likelihoods, generated=found.written
    )
    measured = score("accuracy", there)
    assert (measured.value, measured.n) == (None, 3)
    assert "not finite (nan or infinite) on 1 of 3 examples" in str(measured.reason)
    assert there.right("accuracy") is None


def test_a_calibration_that_is_no_number_leaves_no_score(tiny_tokenizer: Any) -> None:
    class Broken(Told):
        def score(self, examples: EncodedExamples) -> list[np.ndarray]:
            return [np.array([-1.0, NAN])] * len(examples)

    scored = asked(tiny_tokenizer, ScoringRule(calibration="contextual"))
    found = by_likelihood(Broken(tiny_tokenizer, RAW), scored)  # type: ignore[arg-type]
    there = scored.predictions(
        predicted=found.predicted, log_likelihoods=found.log_likelihoods, generated=found.written
    )
    assert "on 3 of 3 examples" in str(score("accuracy", there).reason)


def test_by_bytes_of_the_words(tiny_tokenizer: Any) -> None:
    """−3/3 < −8/11; −2/3 > −9/11; −4/3 < −9/11."""
    assert predicted(tiny_tokenizer, ScoringRule(normalization="bytes")) == ["good", "bad", "good"]


def test_by_tokens_of_the_answer(tiny_tokenizer: Any) -> None:
    first = asked(tiny_tokenizer, ScoringRule()).encoded[0]
    bad, good = (len(one.tokens) - one.start for one in first.candidates)
    assert bad < good
    table = np.array([[-1.0 * bad, -0.9 * good], [-1.0 * bad, -1.1 * good], [-0.5 * bad, -0.4 * good]])
    assert predicted(tiny_tokenizer, ScoringRule(normalization="tokens"), table) == ["good", "bad", "good"]


def test_less_what_the_words_have_by_themselves(tiny_tokenizer: Any) -> None:
    """−3 − (−1) < −8 − (−7); −2 − (−1) > −9 − (−7); −4 − (−1) < −9 − (−7)."""
    scored = asked(tiny_tokenizer, ScoringRule(normalization="unconditional"))
    bad, good = (len(one.tokens) - one.start for one in scored.encoded[0].candidates)
    learner = Told(tiny_tokenizer, RAW, {bad: -1.0, good: -7.0})
    found = by_likelihood(learner, scored).predicted  # type: ignore[arg-type]
    assert found == ["good", "bad", "good"]
    (sequences,) = learner.asked
    eos = tiny_tokenizer.eos_token_id  # lm-eval's prefix token where there is no BOS
    assert {one.tokens[: one.start] for one in sequences} == {(eos,)}
    texts = {tiny_tokenizer.decode(one.tokens[one.start :]) for one in sequences}
    assert texts == {" bad", " really good"}


def softmax(row: Sequence[float]) -> list[float]:
    weights = [math.exp(value) for value in row]
    return [weight / sum(weights) for weight in weights]


def test_calibration_divides_by_the_references_probabilities() -> None:
    """Zhao et al. 2021: q ∝ p / p_cf; with several, by their mean."""
    scores, reference = [[-1.0, -2.0], [0.5, 0.1]], [[-0.2, -3.0], [-2.0, -1.0]]
    for rows in (reference[:1], reference):
        prior = np.mean([softmax(row) for row in rows], axis=0)
        for row, log_q in zip(scores, calibrated(np.array(scores), np.array(rows)), strict=True):
            weights = [p / prior[k] for k, p in enumerate(softmax(row))]
            assert np.exp(log_q) == pytest.approx([weight / sum(weights) for weight in weights])


def test_calibration_survives_what_underflows() -> None:
    far = calibrated(np.array([[-1.0, -2.0]]), np.array([[0.0, -2000.0]]))
    assert far[0, 1] == pytest.approx(0.0)
    assert far[0, 0] == pytest.approx(-1999.0)


@pytest.mark.parametrize("calibration", ["contextual", "prior"])
def test_what_calibration_looks_at(tiny_tokenizer: Any, calibration: str) -> None:
    """Told.score turns the table round: the reference prefers `good` as the answers prefer `bad`."""
    rule = ScoringRule(calibration=calibration)
    scored = asked(tiny_tokenizer, rule)
    texts = [tiny_tokenizer.decode(one.prompt) for one in scored.reference]
    if calibration == "contextual":
        assert texts == ["Word: N/A\nKind:"]
        prior = np.array(softmax(RAW[0][::-1]))
    else:
        assert texts == [f"Word: {one.fields['word']}\nKind:" for one in TASK.select]
        prior = np.mean([softmax(row[::-1]) for row in RAW], axis=0)
    found = by_likelihood(Told(tiny_tokenizer, RAW), scored).predicted  # type: ignore[arg-type]
    assert found == [TASK.labels[int(np.argmax(softmax(row) / prior))] for row in RAW]


def test_a_graded_choice_is_the_mean_under_the_calibrated_probabilities(tiny_tokenizer: Any) -> None:
    labels = {"1": "one", "4": "four"}
    examples = [replace(one, label="4", target=3.7) for one in EXAMPLES]
    task = Task("mine", "choice", "spearman", examples, examples, examples, labels=tuple(labels))
    prompt = replace(PROMPT, choices=labels)
    for rule, prior in (
        (ScoringRule(), [1.0, 1.0]),
        (ScoringRule(calibration="contextual"), softmax(RAW[0][::-1])),
    ):
        scored = asked(tiny_tokenizer, rule, task, prompt)
        found = by_likelihood(Told(tiny_tokenizer, RAW), scored).predicted  # type: ignore[arg-type]
        for value, row in zip(found, RAW, strict=True):
            weights = [p / prior[k] for k, p in enumerate(softmax(row))]
            assert float(str(value)) == pytest.approx((weights[0] + 4 * weights[1]) / sum(weights))


def test_what_is_written_is_parsed_and_counted(tiny_tokenizer: Any) -> None:
    scored = asked(tiny_tokenizer, ScoringRule(scoring="generation"))
    learner = Told(tiny_tokenizer, RAW)
    found = by_generation(learner, scored)  # type: ignore[arg-type]
    assert found.predicted == ["good", "bad", None]
    assert found.log_likelihoods == [None, None, None]
    assert found.written == ["really good, said all", "bad\nWord: dog", "no idea"]
    longest = max(len(c.tokens) - c.start for one in scored.encoded for c in one.candidates)
    assert learner.room == longest + 16
    assert scored.count() == 3
    answers = scored.predictions(predicted=found.predicted, generated=found.written)
    assert answers.unparsed == 1
    # An answer that names no label is wrong: 2 of 3; and no positive: precision 1, recall 1/2.
    assert score("accuracy", answers).value == pytest.approx(2 / 3)
    assert score("f1", answers).value == pytest.approx(2 / 3)


def test_self_guide_reads_the_same_text_by_its_last_label(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = ["not really good but bad", "bad\nWord: a really good dog", "Really Good"]
    monkeypatch.setattr(
        "forgetmenot.evaluation.scoring.by_generation",
        lambda learner, asked, advance: Choices([None] * 3, [None] * 3, list(written)),
    )
    scored = asked(tiny_tokenizer, ScoringRule(scoring="last-label"))
    found = SCORINGS["last-label"].read(Told(tiny_tokenizer, RAW), scored, None)  # type: ignore[arg-type]
    assert found.predicted == ["bad", "good", None]
    assert found.written == written


def test_matthews_takes_no_label_for_a_class_of_its_own() -> None:
    from sklearn.metrics import matthews_corrcoef

    gold, given = np.array([0, 1, 1, 0, 1]), np.array([0, 1, -1, 1, 1])
    assert measure("matthews", gold, given).value == pytest.approx(matthews_corrcoef(gold, given))
