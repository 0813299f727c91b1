"""Which label a written answer names."""

import pytest

from forgetmenot.prompting import last_choice, parse_choice

SENTIMENT = {"neg": "negative", "pos": "positive"}
ACCEPTABLE = {"0": "unacceptable", "1": "acceptable"}
NLI = {"e": "yes", "n": "it is not possible to tell", "c": "no"}
NUMBERS = {"zero": "0", "three": "3", "thirty": "30"}
MARKED = {"a": "(a)", "b": "C++"}


@pytest.mark.parametrize(
    ("text", "choices", "label"),
    [
        ("positive", SENTIMENT, "pos"),
        (" Positive.\n\nReview: a dull film\nSentiment: negative", SENTIMENT, "pos"),
        ("\n\n  NEGATIVE", SENTIMENT, "neg"),
        ('"**positive**"', SENTIMENT, "pos"),
        ("positive, though others are negative", SENTIMENT, "pos"),
        ("The sentiment of this review is positive.", SENTIMENT, "pos"),
        ("I think it is positive. Yes, positive.", SENTIMENT, "pos"),
        ("It is not positive", SENTIMENT, None),
        ("It isn't a positive one", SENTIMENT, None),
        ("This is either positive or negative", SENTIMENT, None),
        ("positively charming", SENTIMENT, None),
        ("", SENTIMENT, None),
        (" \n ", SENTIMENT, None),
        ("I cannot say.\npositive", SENTIMENT, None),
        ("good", SENTIMENT, None),
        ("unacceptable", ACCEPTABLE, "0"),
        ("acceptable", ACCEPTABLE, "1"),
        ("It's acceptable English.", ACCEPTABLE, "1"),
        ("not acceptable", ACCEPTABLE, None),
        ("It is not possible to tell.", NLI, "n"),
        ("no", NLI, "c"),
        ("No, it is not possible to tell", NLI, "c"),
        ("nobody knows", NLI, None),
        ("It is impossible to know", NLI, None),
        ("3", NUMBERS, "three"),
        ("30", NUMBERS, "thirty"),
        ("3.", NUMBERS, "three"),
        ("3.5", NUMBERS, None),
        ("rating: 3 of 5", NUMBERS, "three"),
        ("(a) is right", MARKED, "a"),
        ("c++", MARKED, "b"),
    ],
)
def test_parsing(text: str, choices: dict[str, str], label: str | None) -> None:
    assert parse_choice(text, choices) == label


@pytest.mark.parametrize("choices", [SENTIMENT, ACCEPTABLE, NLI, NUMBERS, MARKED])
def test_every_choice_names_itself(choices: dict[str, str]) -> None:
    for label, words in choices.items():
        for written in (words, f" {words}", words.upper(), f"Answer: {words}", f"{words}\nand more"):
            assert parse_choice(written, choices) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("neutral", "n"),
        ("It is not neutral but it entails it.", "e"),
        ("entails, or rather: neutral", "n"),
        ("entailsneutral", "n"),  # within words too
        ("Neutral", None),  # letter by letter
        ("", None),
        ("entails fully", "f"),  # of two that begin together the longer
    ],
)
def test_self_guide_reads_the_label_that_stands_last(text: str, label: str | None) -> None:
    assert last_choice(text, {"e": "entails", "n": "neutral", "f": "entails fully"}) == label
