"""No small model answers what it was fitted on, whatever repeats there are."""

from collections.abc import Sequence

import numpy as np
import pytest

from forgetmenot.errors import UserError
from forgetmenot.metrics.metric import Floats
from forgetmenot.receipts.calibration import fitted_temperature, log_softmax
from forgetmenot.receipts.classifier import Labels, Texts
from forgetmenot.receipts.held_out import Labelled, answer_held_out

NAMES = ("no", "yes")


class Memory:
    """Knows every text that it was fitted on by heart, case and blanks aside, and nothing else."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.asked: list[str] = []
        self.fitted: list[str] = []

    def fit(self, texts: Sequence[Texts], labels: Labels, classes: int) -> None:
        self.fitted = [" ".join(one).casefold().strip() for one in texts]
        self.known = dict(zip(self.fitted, labels.tolist(), strict=True))

    def scores(self, texts: Sequence[Texts]) -> Floats:
        self.asked += [" ".join(one).casefold().strip() for one in texts]
        found = np.zeros((len(texts), 2))
        for row, one in enumerate(texts):
            if (key := " ".join(one).casefold().strip()) in self.known:
                found[row, self.known[key]] = 10.0
        return found

    @property
    def parameters(self) -> int:
        return len(self.known)


class Made(list[Memory]):
    """Makes memories and keeps them."""

    def __call__(self) -> Memory:
        self.append(Memory())
        return self[-1]


def labelled(texts: Sequence[str], labels: Sequence[int]) -> Labelled:
    return Labelled([(one,) for one in texts], np.array(labels, dtype=np.int64), NAMES)


def one_each(texts: Sequence[str]) -> list[Texts]:
    return [(one,) for one in texts]


def right(probabilities: Floats, labels: Sequence[int]) -> float:
    return float((probabilities.argmax(1) == np.array(labels)).mean())


def test_a_memory_is_no_better_than_chance_on_random_labels() -> None:
    labels = np.random.default_rng(0).integers(0, 2, 2000).tolist()
    train = labelled([f"text {k}" for k in range(2000)], labels)
    memory = Memory()
    memory.fit(train.texts, train.labels, 2)
    assert right(memory.scores(train.texts), labels) == 1.0  # in fold
    found = answer_held_out(Memory, train, labelled([], []), {"train": train.texts}, 5)
    assert (found.probabilities["train"] == 0.5).all()  # it knows none of them


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_no_model_is_asked_or_calibrated_on_what_it_was_fitted_on(folds: int) -> None:
    texts = [f"text {k % 40}" for k in range(60)] + ["Text 1", "text  2 "]  # copies, and nearly copies
    train = labelled(texts, [k % 2 for k in range(62)])
    select = labelled(["text 3", "select 1", "select 2"], [0, 1, 1])
    asked = {
        "train": [*train.texts, ("of another task",)],
        "select": one_each(["text 4", "select 1", "select 2"]),
        "score": one_each(["TEXT 5", "score 1", "score 2"]),
    }
    made = Made()
    answer_held_out(made, train, select, asked, folds)
    assert len(made) == folds + 1
    for memory in made:
        assert not {one.replace("  ", " ") for one in memory.asked} & {
            one.replace("  ", " ") for one in memory.fitted
        }
    kept = {one.replace("  ", " ") for one in made[0].fitted}
    assert kept == {f"text {k}" for k in range(40)} - {"text 3", "text 4", "text 5"}


def test_every_example_is_answered_once_and_in_its_place() -> None:
    class Reader(Memory):
        """Says what a text says of itself."""

        def scores(self, texts: Sequence[Texts]) -> Floats:
            return np.array([[0.0, float(one[0].split()[1])] for one in texts])

    train = labelled([f"text {k / 100}" for k in range(100)], [k % 2 for k in range(100)])
    asked = {"train": train.texts, "select": [], "score": one_each(["a 0.25", "b -3"])}
    found = answer_held_out(Reader, train, labelled([], []), asked, 5)
    for split, texts in asked.items():
        expected = [1 / (1 + np.exp(-float(one[0].split()[1]))) for one in texts]
        assert found.probabilities[split][:, 1] == pytest.approx(expected)
    assert found.temperature == 1.0
    assert found.fits == 6


def test_folds_are_of_like_size_and_hold_labels_alike() -> None:
    made = Made()
    train = labelled([f"text {k}" for k in range(100)], [int(k < 20) for k in range(100)])
    answer_held_out(made, train, labelled([], []), {"train": train.texts}, 5)
    for memory in made[1:]:
        assert len(memory.fitted) == 80
        assert sum(memory.known.values()) == 16


def test_each_model_is_calibrated_on_select_and_on_nothing_else() -> None:
    class Sure(Memory):
        def scores(self, texts: Sequence[Texts]) -> Floats:
            return np.array(
                [[0.0, len(self.fitted) / 10 * (1 if one[0][-1] in "13579" else -1)] for one in texts]
            )

    train = labelled([f"text {k}" for k in range(40)], [k % 2 for k in range(40)])
    select = labelled([f"select {k}" for k in range(10)], [k % 2 for k in range(9)] + [0])
    asked = {"train": train.texts, "score": one_each(["score 1"])}
    found = answer_held_out(Sure, train, select, asked, 4)
    sure = np.array([[0.0, 4.0 if k % 2 else -4.0] for k in range(10)])
    assert found.temperature == pytest.approx(fitted_temperature(sure, select.labels))
    # Scores that differ by a factor alone are the same once calibrated: nine tenths, as on select.
    confident = np.exp(log_softmax(sure / found.temperature)).max(1)
    assert confident == pytest.approx(0.9, abs=1e-4)
    assert found.probabilities["train"].max(1) == pytest.approx(0.9, abs=1e-4)
    assert found.probabilities["score"].max(1) == pytest.approx(0.9, abs=1e-4)


def test_the_same_data_gives_the_same_folds() -> None:
    train = labelled([f"text {k}" for k in range(50)], [k % 2 for k in range(50)])
    one, other = Made(), Made()
    for made in (one, other):
        answer_held_out(made, train, labelled([], []), {"train": train.texts}, 3)
    assert [memory.fitted for memory in one] == [memory.fitted for memory in other]


def test_a_label_that_a_model_would_not_see_is_said() -> None:
    train = labelled(["a", "b", "c", "d"], [0, 0, 0, 1])
    with pytest.raises(
        UserError, match=r"the label 'yes' has too few different texts in train for a receipt"
    ):
        answer_held_out(Memory, train, labelled([], []), {"train": train.texts}, 2)
    with pytest.raises(UserError, match="'yes'"):  # its one text is asked
        answer_held_out(Memory, train, labelled([], []), {"score": one_each(["d"])}, 2)
