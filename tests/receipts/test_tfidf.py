"""The embedded small model, against scikit-learn's own pipeline."""

import sys

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from forgetmenot.errors import UserError
from forgetmenot.receipts.fit import classifier_maker
from forgetmenot.receipts.settings import ReceiptSettings
from forgetmenot.receipts.tfidf import TfidfClassifier

WORDS = (("good", "fine", "great"), ("bad", "poor", "dull"), ("odd", "so-so", "plain"))


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_a_pipeline_of_scikit_learns(classes: int) -> None:
    texts = [f"a {word} film, number {k}" for k in range(9) for group in WORDS[:classes] for word in group]
    labels = np.array([c for _ in range(9) for c in range(classes) for _ in range(3)])
    model = TfidfClassifier()
    model.fit([(text,) for text in texts], labels, classes)
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    theirs = make_pipeline(vectors, LogisticRegression(C=10.0, max_iter=1000)).fit(texts, labels)
    asked = ["a good film", "dull dull", "plain and odd", "unheard of", ""]
    found = softmax(model.scores([(text,) for text in asked]), axis=1)
    assert found == pytest.approx(theirs.predict_proba(asked), abs=1e-6)
    weights = theirs[1].coef_.size + theirs[1].intercept_.size
    assert model.parameters == weights + len(vectors.vocabulary_)


def test_it_sees_what_a_pair_has_in_common() -> None:
    draw = np.random.default_rng(0)
    words = [f"w{k}" for k in range(30)]

    def pairs(n: int) -> tuple[list[tuple[str, str]], np.ndarray]:
        same = draw.integers(0, 2, n)
        firsts = [draw.permutation(30)[:4] for _ in range(n)]
        seconds = [
            draw.permutation(one) if s else draw.permutation(30)[:4]
            for one, s in zip(firsts, same, strict=True)
        ]
        text = [
            tuple(" ".join(words[k] for k in one) for one in pair)
            for pair in zip(firsts, seconds, strict=True)
        ]
        return [(one, other) for one, other in text], same

    model = TfidfClassifier()
    model.fit(*pairs(400), 2)
    asked, same = pairs(200)
    assert (model.scores(asked).argmax(1) == same).mean() > 0.9


def test_where_scikit_learn_is_not_installed_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"not installed; pip install 'forgetmenot\[receipts\]'\."):
        classifier_maker(ReceiptSettings(model="tfidf"))
