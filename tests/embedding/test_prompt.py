"""What a model reads of a sentence, against the authors' code."""

import pytest
from pydantic import ValidationError

from forgetmenot.embedding.prompt import DEMONSTRATIONS, EmbeddingSettings, asked, prepared

DEMONSTRATION = ("A jockey riding a horse.", "Equestrian")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A man is dancing", "A man is dancing."),
        ("A man  is\tdancing. ", "A man is dancing."),
        ("Is he dancing?", "Is he dancing."),
        ("He dances!", "He dances!."),  # the authors' list of ends has no exclamation mark
        ('He said "no"', "He said 'no'"),
        ("He said 'no?'", "He said 'no?'"),
        ("", ""),
    ],
)
def test_sentences_are_prepared_as_in_the_authors_code(text: str, wanted: str) -> None:
    assert prepared(text) == wanted


def test_the_template_is_the_codes_or_the_papers() -> None:
    """The authors' run_icl.sh, its underscores read as blanks; and section 3 of the paper."""
    code = EmbeddingSettings(demonstration=DEMONSTRATION)
    paper = EmbeddingSettings(demonstration=DEMONSTRATION, template="paper")
    begin = 'This_sentence_:_"A jockey riding a horse."_means_in_one_word:"Equestrian".'.replace("_", " ")
    assert asked("Hi", code) == f'{begin}This sentence : "Hi." means in one word:"'
    assert asked("Hi", paper) == (
        'This sentence: "A jockey riding a horse." means in one word: "Equestrian". '
        'This sentence: "Hi." means in one word: "'
    )


def test_other_poolings_read_the_sentence_alone() -> None:
    for pooling in ("mean", "last"):
        assert asked('Is  he "in"?', EmbeddingSettings(pooling=pooling)) == 'Is he "in"?'
        with pytest.raises(ValidationError, match=f"which pooling: {pooling} has not"):
            EmbeddingSettings(pooling=pooling, demonstration=DEMONSTRATION)


def test_a_demonstration_may_be_named_as_in_the_paper() -> None:
    assert EmbeddingSettings.model_validate({"demonstration": "opt-2.7b"}).demonstration == DEMONSTRATION
    assert len(DEMONSTRATIONS) == 8
    with pytest.raises(ValidationError, match=r"SENTENCE, WORD.*opt-125m"):
        EmbeddingSettings.model_validate({"demonstration": "opt-175b"})
