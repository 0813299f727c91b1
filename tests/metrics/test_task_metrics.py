"""Task metrics against scikit-learn, SciPy and rouge-score, plain and resampled."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats
from sklearn import metrics as sklearn_metrics

from forgetmenot.errors import UserError
from forgetmenot.metrics import FORMULAS, METRICS, measure

ORACLES: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": sklearn_metrics.f1_score,
    "matthews": sklearn_metrics.matthews_corrcoef,
    "spearman": lambda gold, predicted: stats.spearmanr(gold, predicted).statistic,
    "pearson": lambda gold, predicted: stats.pearsonr(gold, predicted).statistic,
}


def random_answers(name: str, generator: np.random.Generator, n: int) -> tuple[Any, Any]:
    if name in ("spearman", "pearson"):
        graded = generator.integers(0, 6, n) / 2  # many ties
        return graded, graded + generator.integers(-2, 3, n)
    labels = 2 if name == "f1" else 3
    gold = generator.integers(0, labels, n)
    return gold, np.where(generator.random(n) < 0.6, gold, generator.integers(0, labels, n))


@pytest.mark.parametrize("name", ORACLES)
def test_scores_equal_the_oracle(name: str) -> None:
    generator = np.random.default_rng(1)
    for n in (5, 20, 200):
        for _ in range(10):
            gold, predicted = random_answers(name, generator, n)
            gold[:2], predicted[:2] = (0, 1), (0, 1)  # nothing constant
            measured = measure(name, gold, predicted)
            assert measured.n == n
            assert measured.value == pytest.approx(ORACLES[name](gold, predicted), abs=1e-12)


@pytest.mark.parametrize("name", ORACLES)
def test_counted_scores_equal_the_oracle_on_the_repeated_examples(name: str) -> None:
    generator = np.random.default_rng(2)
    metric = METRICS[name]
    for _ in range(10):
        gold, one = random_answers(name, generator, 40)
        other = random_answers(name, generator, 40)[1]
        counts = generator.integers(0, 4, size=(3, 40)).astype(np.float64)
        scores = metric.aggregate(metric.terms(gold, [one, other]), counts)
        assert scores.shape == (3, 2)
        for b, times in enumerate(counts.astype(int)):
            for s, predicted in enumerate((one, other)):
                expected = ORACLES[name](np.repeat(gold, times), np.repeat(predicted, times))
                assert scores[b, s] == pytest.approx(expected, abs=1e-12)


def test_positive_class_of_f1_is_the_second_label() -> None:
    gold, predicted = [1, 1, 0, 0], [1, 0, 0, 0]
    assert measure("f1", gold, predicted).value == pytest.approx(2 / 3)
    assert measure("f1", [1 - g for g in gold], [1 - p for p in predicted]).value == pytest.approx(0.8)


def test_f1_refuses_a_third_label() -> None:
    with pytest.raises(UserError, match="two labels"):
        measure("f1", [0, 1, 2], [0, 1, 1])


def test_a_constant_answer_has_matthews_0_as_in_scikit_learn() -> None:
    assert measure("matthews", [0, 1, 1], [1, 1, 1]).value == 0.0
    assert sklearn_metrics.matthews_corrcoef([0, 1, 1], [1, 1, 1]) == 0.0
    assert measure("matthews", [1, 1], [1, 1]).value == 0.0


@pytest.mark.parametrize(
    ("name", "gold", "predicted", "reason"),
    [
        ("spearman", [1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "constant"),
        ("pearson", [0.1, 0.1, 0.1], [1.0, 2.0, 3.0], "constant"),
        ("pearson", [1.0, 2.0, 3.0], [1.0, float("nan"), 3.0], "not finite"),
        ("f1", [0, 0], [0, 0], "positive"),
        ("loss", None, [(float("-inf"), 3.0), (-1.0, 2.0)], "not finite"),
        ("loss", None, [(0.0, 0.0)], "no token"),
        ("accuracy", [], [], "no examples"),
    ],
)
def test_an_undefined_score_is_none_with_its_reason(
    name: str, gold: Any, predicted: Any, reason: str
) -> None:
    measured = measure(name, gold, predicted)
    assert measured.value is None
    assert measured.reason is not None
    assert reason in measured.reason
    assert measured.n == len(predicted)


def test_loss_is_the_mean_log_probability_over_all_tokens() -> None:
    # 2 nats over 4 tokens and 7 over 2: by token 9/6, not the mean of 0.5 and 3.5.
    assert measure("loss", None, [(-2.0, 4), (-7.0, 2)]).value == pytest.approx(-1.5)
    assert not METRICS["loss"].bounded


def test_exact_match_looks_past_blanks_around_the_answer_only() -> None:
    assert measure("exact_match", ["a b", "c", "d"], [" a b\n", "C", "d e"]).value == pytest.approx(1 / 3)


def test_rouge_l_is_the_mean_f_measure_of_rouge_score() -> None:
    gold = ["the cat sat on the mat", "a b c", "nothing alike"]
    predicted = ["the cat lay on a mat", "c b a", ""]
    scorer = RougeScorer(["rougeL"])
    pairs = zip(gold, predicted, strict=True)
    expected = [scorer.score(g, p)["rougeL"].fmeasure for g, p in pairs]
    assert measure("rouge_l", gold, predicted).value == pytest.approx(np.mean(expected))
    assert measure("rouge_l", ["a b c d"], ["a c"]).value == pytest.approx(2 / 3)  # P = 1, R = 1/2


@pytest.mark.parametrize(
    ("metric", "wordless"),
    [("rouge_l", "今天天气很好"), ("rouge_l", "…"), ("rouge_l_unicode", "…"), ("rouge_l_unicode", " ")],
)
def test_a_gold_text_without_a_word_makes_no_score(metric: str, wordless: str) -> None:
    found = measure(metric, [wordless, "a 3"], [wordless, "a 3"])
    assert found.value is None
    assert "a gold text has no" in str(found.reason)


@pytest.mark.parametrize(
    ("gold", "predicted", "score"),
    [
        ("今天天气很好", "今天天气很好", 1.0),
        ("他买了3个苹果", "他买了个苹果", 2 * 6 / (7 + 6)),  # a character a word, and a run of digits
        ("Привет мир", "привет, МИР!", 1.0),
        ("Глава 5", "Глава 6", 0.5),
        ("Über größere Äpfel", "ber gr ere pfel", 0.0),
        ("नमस्ते दुनिया", "नमस्ते", 2 / 3),  # vowel signs are part of a word
        ("สวัสดี", "สวัสดี", 1.0),
        ("e\u0301te\u0301", "\u00e9t\u00e9", 1.0),  # composed or not
        ("word", "!", 0.0),
    ],
)
def test_rouge_l_of_every_script_by_hand(gold: str, predicted: str, score: float) -> None:
    assert measure("rouge_l_unicode", [gold], [predicted]).value == pytest.approx(score)


def test_rouge_l_of_every_script_is_rouge_l_on_plain_english() -> None:
    gold, predicted = ["The cat sat on 3 mats.", "a b c d"], ["the CAT lay on 3 mats", "a c"]
    assert measure("rouge_l_unicode", gold, predicted) == measure("rouge_l", gold, predicted)


def test_f1_counts_an_answer_without_a_label_as_wrong_whatever_is_gold() -> None:
    # TP 1; -1 on gold 0 is a false positive, -1 on gold 1 a false negative: 2 / (2 + 1 + 1).
    assert measure("f1", [1, 0, 1, 0], [1, -1, -1, 0]).value == pytest.approx(0.5)
    # Naming none of the labels is never better than naming the wrong one.
    assert measure("f1", [1, 0, 0], [1, -1, -1]).value == measure("f1", [1, 0, 0], [1, 1, 1]).value


def test_the_chance_level_is_the_score_of_the_most_frequent_label() -> None:
    gold = [0, 1, 1, 1, 2]
    assert METRICS["accuracy"].chance_level(gold) == pytest.approx(0.6)
    assert METRICS["matthews"].chance_level(gold) == 0.0
    assert METRICS["f1"].chance_level([0, 1, 1]) == pytest.approx(
        sklearn_metrics.f1_score([0, 1, 1], [1, 1, 1])
    )
    assert METRICS["exact_match"].chance_level(["x", "y", "y"]) == pytest.approx(2 / 3)
    for graded in ("spearman", "pearson", "rouge_l", "loss"):
        assert METRICS[graded].chance_level(["1", "2"]) is None
    assert METRICS["preference"].chance_level([0, 0, 0]) == 0.5, "one label in all is no answer: a coin is"


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'accuracy'"):
        measure("acuracy", [0], [0])


@pytest.mark.parametrize(
    ("name", "gold", "predicted"),
    [
        ("accuracy", [0, 1], [0, 1, 1]),
        ("accuracy", [0, 1], [0.0, 1.0]),
        ("spearman", [0.0, 1.0], [0.0]),
        ("exact_match", ["a"], ["a", "b"]),
        ("exact_match", [1], ["1"]),
        ("loss", None, [1.0, 2.0, 3.0]),
    ],
)
def test_answers_that_do_not_fit_are_refused(name: str, gold: Any, predicted: Any) -> None:
    with pytest.raises(ValueError, match=r"fit|must be|takes"):
        measure(name, gold, predicted)


def test_scores_are_plain_floats_and_every_metric_has_its_formula() -> None:
    assert type(measure("accuracy", [0, 1], [0, 0]).value) is float
    assert type(METRICS["accuracy"].chance_level([0, 1])) is float
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.formula is FORMULAS[name]
