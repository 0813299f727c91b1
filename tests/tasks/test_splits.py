"""Splits do not overlap, do not depend on a run, and say what stands twice."""

import random

from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.tasks.splits import divide
from forgetmenot.tasks.task import Example


def sentences(texts: list[str], split: str = "train") -> list[Example]:
    return [Example(f"{split}-{row}", {"sentence": text}, label="yes") for row, text in enumerate(texts)]


def texts(examples: list[Example]) -> list[str]:
    return [example.fields["sentence"] for example in examples]


@given(st.integers(0, 400), st.integers(1, 400))
def test_select_and_train_are_apart_stable_and_together_the_whole(rows: int, kinds: int) -> None:
    words = [str(row * row % kinds) for row in range(rows)]  # squares repeat unevenly
    train, score = sentences(words), sentences(["s1", "s2"], "score")
    first, again = divide(train, score), divide(train, score)
    assert first == again
    assert sorted(texts([*first.train, *first.select])) == sorted(words)
    ids = [example.id for split in (first.train, first.select, first.score) for example in split]
    assert len(ids) == len(set(ids)) == len(words) + 2
    assert not set(texts(first.train)) & set(texts(first.select))
    assert len(first.select) <= (min(1000, len(words) // 10) if len(words) >= 20 else 0)
    assert first.score == score


def test_sizes_of_select() -> None:
    for rows, wanted in ((19, 0), (20, 2), (999, 99), (10_000, 1000), (20_000, 1000)):
        splits = divide(sentences([str(row) for row in range(rows)]), [])
        assert (len(splits.train), len(splits.select)) == (rows - wanted, wanted)


def test_select_keeps_its_texts_when_rows_move() -> None:
    words = [str(row) for row in range(500)]
    moved = random.Random(0).sample(words, len(words))
    assert moved != words
    first, second = divide(sentences(words), []), divide(sentences(moved), [])
    assert set(texts(first.select)) == set(texts(second.select))


def test_select_is_a_sample_and_not_the_head() -> None:
    splits = divide(sentences([str(row) for row in range(1000)]), [])
    mean = sum(int(text) for text in texts(splits.select)) / 100
    assert 400 < mean < 600


def test_repeats_and_leaks_are_said_and_nothing_is_dropped() -> None:
    train = sentences(["a", "b", "a", "a", "c"])
    splits = divide(train, sentences(["b", "x", "b"], "score"), sentences(["c", "x"], "select"))
    assert splits.train == train
    assert splits.notes == (
        "2 of 5 examples of train repeat an earlier one word for word.",
        "2 of 3 examples of score also occur in train, word for word.",
        "1 of 3 examples of score also occur in select, word for word.",
        "1 of 2 examples of select also occur in train, word for word.",
    )


def test_a_row_name_does_not_make_a_text_another_one() -> None:
    train = [Example(f"train-{row}", {"id": row, "text": "same"}) for row in range(3)]
    assert divide(train, []).notes == ("2 of 3 examples of train repeat an earlier one word for word.",)


def test_a_padded_train_set_never_leaks_into_select() -> None:
    """TRACE pads small sets with repeats up to 5,000 rows."""
    splits = divide(sentences([str(row % 300) for row in range(5000)]), [])
    assert 450 < len(splits.select) <= 500
    assert not set(texts(splits.train)) & set(texts(splits.select))
