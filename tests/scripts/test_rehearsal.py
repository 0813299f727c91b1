"""What is counted of written examples: their own text, copies of training rows, and variety."""

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from forgetmenot.receipts.tfidf import TfidfClassifier
from scripts.rehearsal import RUN_OF_WORDS, Known, distinct, runs_of_words

ROWS = sorted(["A dull film from start to end.", "A fine film.", "Nobody laughed."])
KNOWN = Known("Review: ", "\nSentiment:", ROWS, ["bad", "good"], TfidfClassifier())


def test_a_body_is_what_the_prompt_has_of_its_own() -> None:
    assert KNOWN.body("<s>Review: A fine film.\nSentiment:") == "A fine film."
    assert KNOWN.body("<s>Review: A fine film") == "A fine film"


def test_a_row_is_found_whole_and_cut_and_no_other() -> None:
    """The training texts are cut to fit, and so is what comes back of them."""
    assert KNOWN.has("A fine film.")
    assert KNOWN.has("A dull film from")
    assert not KNOWN.has("A fine film. It is long.")
    assert not KNOWN.has("laughed.")
    assert not KNOWN.has("")


def test_runs_of_words_pass_over_case_and_marks() -> None:
    words = "one two three four five six seven eight nine"
    found = runs_of_words(words)
    assert len(found) == 9 - RUN_OF_WORDS + 1
    assert runs_of_words("Zero: " + words.title().replace(" ", ", ")) > found
    assert runs_of_words("one two three") == set()


def test_distinct_pairs_by_hand() -> None:
    assert distinct(["a b a b", "a b"]) == pytest.approx(2 / 4)  # ab, ba, ab, and ab
    assert distinct(["a"]) == 0
