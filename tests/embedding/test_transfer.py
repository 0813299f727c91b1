"""Transfer against scikit-learn's logistic regression, and the demonstrations that are searched."""

from pathlib import Path

import numpy as np
import pytest

from forgetmenot.embedding.demonstrations import read_candidates, search
from forgetmenot.embedding.prompt import DEMONSTRATIONS, EmbeddingSettings
from forgetmenot.embedding.senteval import Pairs
from forgetmenot.embedding.similarity import NOT_FINITE, cosines_of
from forgetmenot.embedding.transfer import (
    TransferSet,
    classify,
    features,
    logistic_regression,
    read_transfer,
    transfer,
)
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.metrics.correlation import spearman


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_the_minimum_is_scikit_learns(penalty: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
    draw = np.random.default_rng(0)
    x = 5 * draw.normal(size=(120, 7)) + 1
    labels = (x[:, 0] + draw.normal(scale=6, size=120) > 1).astype(np.int64)
    found = logistic_regression(x, labels, penalty)
    other = linear_model.LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000)
    other.fit(x, labels)
    np.testing.assert_allclose(found, [*other.coef_[0], other.intercept_[0]], rtol=2e-3, atol=1e-4)


def test_pairs_are_seen_by_difference_and_product() -> None:
    one, other = np.array([[1.0, -2.0]]), np.array([[3.0, 5.0]])
    assert features(one, other).tolist() == [[2, 7, 3, -10]]
    assert features(one).tolist() == [[1, -2]]


def test_what_can_be_separated_is_and_chance_is_chance() -> None:
    draw = np.random.default_rng(1)
    labels = draw.integers(2, size=300)
    rows = TransferSet("sst2", [("",)] * 300, labels, 200)
    noise = draw.normal(size=(300, 5))
    found = classify(rows, np.c_[noise, 3.0 * labels])
    assert (found.value, found.n, found.trained) == (1, 100, 200)
    assert found.interval is not None
    assert found.interval[0] < 1
    chance = classify(rows, noise).value
    assert chance is not None
    assert 0.3 < chance < 0.7


def test_vectors_that_are_no_numbers_have_no_accuracy() -> None:
    rows = TransferSet("sst2", [("",)] * 30, np.arange(30) % 2, 20)
    x = np.random.default_rng(2).normal(size=(30, 4))
    x[25, 1] = np.nan
    found = classify(rows, x)
    assert (found.value, found.interval, found.n, found.reason) == (None, None, 10, NOT_FINITE)
    assert found.to_json()["interval"] is None


def test_mrpc_is_read_and_classified(shared: Path, learner: Learner) -> None:
    learner.model.config.max_position_embeddings = 512
    rows = read_transfer("mrpc", shared / "data", limit=40)
    assert (rows.trained, len(rows.labels), len(rows.texts[0])) == (40, 80, 2)
    found = transfer(learner, rows, EmbeddingSettings())
    assert (found.name, found.n) == ("mrpc", 40)
    assert found.value is not None
    assert 0.3 < found.value <= 1
    with pytest.raises(UserError, match=r"5 training rows of each label"):
        read_transfer("sst2", shared / "data", limit=6)


def test_the_best_demonstration_on_dev_comes_first(learner: Learner) -> None:
    texts = ["A cat", "red sea", "A dog sat", "hound", "blue", "it is"]
    dev = Pairs("stsb", texts, texts[::-1], np.arange(6.0), np.array(["dev"] * 6))
    candidates = [("A man is smoking.", "Smoking"), ("meat from a deer.", "Venison"), ("It rains.", "Rain")]
    found = search(learner, candidates, dev, EmbeddingSettings())
    for candidate, value in found:
        settings = EmbeddingSettings(demonstration=candidate)
        assert value == spearman(cosines_of(learner, [dev], settings)[0], dev.gold)
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)
    assert {candidate for candidate, _ in found} == set(candidates)


def test_candidates_are_the_papers_or_a_files(tmp_path: Path) -> None:
    assert read_candidates("paper") == list(DEMONSTRATIONS.values())
    file = tmp_path / "candidates.jsonl"
    row = '{"sentence": "It rains.", "word": "Rain"}\n'
    file.write_text(row * 2)
    assert read_candidates(file) == [("It rains.", "Rain")]
    file.write_text(row + '{"sentence": "It rains."}\n')
    with pytest.raises(UserError, match="line 2: a demonstration has a `sentence` and a `word`"):
        read_candidates(file)
    with pytest.raises(UserError, match=r"there is no file 'nowhere.csv'"):
        read_candidates("nowhere.csv")
