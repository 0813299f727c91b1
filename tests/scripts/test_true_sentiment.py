"""The label that the grammar gives a sentence is the one that the sentence was written for."""

from collections import Counter
from random import Random

import pytest

from forgetmenot.tasks import load_tasks
from scripts.quickstart.morphology import sentence
from scripts.quickstart.reviews import OPINIONS, review
from scripts.quickstart.true_sentiment import true_sentiment


def test_every_bundled_row_has_its_label() -> None:
    [task] = load_tasks(["qs-sentiment"], None)
    rows = [*task.train, *task.select, *task.score]
    assert Counter(true_sentiment(one.fields["sentence"]) == one.label for one in rows) == {True: len(rows)}


def test_so_has_every_sentence_of_the_grammar() -> None:
    draw = Random(7)
    for k in range(5000):
        text = sentence(review(OPINIONS[k % 2], draw))
        assert true_sentiment(text) == OPINIONS[k % 2], text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A good film.",
        "The soup was soup.",
        "The soup was good and the wine was bad.",  # of two opinions neither counts
        "The soup was good, but the wine was good.",
        "The soup was good but",
    ],
)
def test_what_the_grammar_cannot_write_has_none(text: str) -> None:
    assert true_sentiment(text) is None
