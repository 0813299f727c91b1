"""Held-out receipts: no small model predicts an example that it was fitted on."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.metrics.metric import Floats
from forgetmenot.receipts.calibration import fitted_temperature, log_softmax
from forgetmenot.receipts.classifier import Classifier, Labels, Texts

SEED = 20250403  # fixed, whatever the seed of a run: all runs over the same data get the same receipts


@dataclass(frozen=True)
class Labelled:
    """Examples to learn from, or to calibrate on: their texts, and the index [n] of each one's label."""

    texts: Sequence[Texts]
    labels: Labels
    names: Sequence[str]


@dataclass(frozen=True)
class HeldOut:
    """What the small models answer.

    Attributes:
        probabilities: For each group that was asked, calibrated probabilities [n, classes].
        temperature: Of the model fitted on the whole of train.
        parameters: How many numbers that model has learned.
        fits: How many models were fitted.
    """

    probabilities: Mapping[str, Floats]
    temperature: float
    parameters: int
    fits: int


def answer_held_out(
    make: Callable[[], Classifier],
    train: Labelled,
    select: Labelled,
    asked: Mapping[str, Sequence[Texts]],
    folds: int,
) -> HeldOut:
    """Fit small models on train and answer groups of examples, each by a model that never saw its text.

    An example of the group "train" whose text occurs in `train` is answered by the model of its fold, fitted
    on the other folds; copies of a text are in one fold, and labels are spread evenly over the folds. All
    else is answered by the model of the whole of train. Texts of `select` or of another group are left
    out of train. Each model is fitted, calibrated on `select` (temperature 1 where that is empty), asked, and
    let go.

    Args:
        make: A new model.
        train: What the models are fitted on.
        select: What their temperatures are fitted on.
        asked: The splits to answer, by name.
        folds: How many parts train is divided into.

    Raises:
        UserError: A label has too few texts in train for every model to see it.
    """
    keys = [_key(texts) for texts in train.texts]
    fold_of = _dealt(keys, train.labels, folds)
    others = [group for split, group in asked.items() if split != "train"]
    elsewhere = {_key(texts) for group in (select.texts, *others) for texts in group}
    by_model: dict[int | None, list[tuple[str, int]]] = defaultdict(list)
    by_model[None] = []  # the whole model is always fitted: its temperature and size are reported
    for split, group in asked.items():
        for row, texts in enumerate(group):
            fold = fold_of.get(_key(texts)) if split == "train" else None
            by_model[fold].append((split, row))

    found = {split: np.zeros((len(group), len(train.names))) for split, group in asked.items()}
    temperature, parameters = 1.0, 0
    for fold, rows in by_model.items():
        kept = [
            row
            for row, key in enumerate(keys)
            if key not in elsewhere and (fold is None or fold_of[key] != fold)
        ]
        _check_labels(train, kept)
        model = make()
        model.fit([train.texts[row] for row in kept], train.labels[kept], len(train.names))
        own = 1.0
        if len(select.texts):
            own = fitted_temperature(model.scores(select.texts), select.labels)
        if fold is None:
            temperature, parameters = own, model.parameters
        if rows:
            scores = model.scores([asked[split][row] for split, row in rows])
            for (split, row), values in zip(rows, np.exp(log_softmax(scores / own)), strict=True):
                found[split][row] = values
    return HeldOut(found, temperature, parameters, len(by_model))


def _check_labels(train: Labelled, kept: Sequence[int]) -> None:
    missing = set(range(len(train.names))) - set(train.labels[kept].tolist())
    if missing:
        raise UserError(
            f"the label {train.names[min(missing)]!r} has too few different texts in train for a receipt: "
            "each needs two or more, beside those that select and score repeat."
        )


def _key(texts: Texts) -> Texts:
    """What makes two examples one text: case and blanks do not count."""
    return tuple(" ".join(text.casefold().split()) for text in texts)


def _dealt(keys: Sequence[Texts], labels: Labels, folds: int) -> dict[Texts, int]:
    """Each text's fold: the texts of a label are shuffled and dealt in turn."""
    first: dict[Texts, int] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        first.setdefault(key, label)
    texts = list(first)
    shuffled = [texts[row] for row in np.random.default_rng(SEED).permutation(len(texts)).tolist()]
    by_label = sorted(shuffled, key=lambda key: first[key])  # stable: shuffled within each label
    return {key: turn % folds for turn, key in enumerate(by_label)}
