import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from scripts.quickstart.build_suite import FOLDER, SIZES, TASKS, build, holds_unseen_pair

Rows = list[dict[str, str]]


def read(task: str, split: str) -> Rows:
    lines = (FOLDER / f"{task}-{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def texts(row: dict[str, str]) -> list[str]:
    return [row[name] for name in row if name not in ("id", "label")]


@pytest.mark.parametrize("task", TASKS)
def test_the_generator_gives_the_bundled_files_byte_for_byte(task: str) -> None:
    for split, rows in build(task).items():
        made = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        assert made == (FOLDER / f"{task}-{split}.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", TASKS)
def test_splits_are_apart_and_labels_balanced(task: str) -> None:
    labels = TASKS[task][1]
    seen: dict[str, set[str]] = {}
    for split, size in SIZES.items():
        rows = read(task, split)
        assert Counter(row["label"] for row in rows) == {label: size // len(labels) for label in labels}
        assert len({row["id"] for row in rows}) == size
        said = [text for row in rows for text in texts(row)]
        seen[split] = set(said)
        assert len(seen[split]) == len(said)
    assert not seen["train"] & seen["score"]


@pytest.mark.parametrize("task", TASKS)
def test_some_combinations_of_words_are_kept_for_score(task: str) -> None:
    def unseen(split: str) -> float:
        rows = read(task, split)
        fields = ({name: row[name] for name in row if name not in ("id", "label")} for row in rows)
        return sum(holds_unseen_pair(each) for each in fields) / len(rows)

    assert unseen("train") == 0
    assert unseen("score") == pytest.approx(0.5, abs=0.01)


# What a bag of words may reach at most; a model that reads is above (see the models' cards).
CEILINGS = {"qs-sentiment": 0.76, "qs-paraphrase": 0.66, "qs-acceptability": 0.66, "qs-inference": 0.67}


@pytest.mark.parametrize("task", TASKS)
def test_no_bag_of_words_gives_the_labels_away(task: str) -> None:
    train, score = read(task, "train"), read(task, "score")
    features: dict[str, list[np.ndarray]] = {"train": [], "score": []}
    for field in range(len(texts(train[0]))):
        bag = CountVectorizer(token_pattern=r"\S+", binary=True).fit(texts(row)[field] for row in train)
        for split, rows in (("train", train), ("score", score)):
            features[split].append(bag.transform(texts(row)[field] for row in rows).toarray())
    if len(texts(train[0])) == 2:
        # What the eye sees of two sentences without reading: how many words they share, how long they are.
        for split, rows in (("train", train), ("score", score)):
            words = [[set(text.lower().strip(".").split()) for text in texts(row)] for row in rows]
            features[split].append(
                np.array(
                    [[len(a & b) / len(a | b), len(a - b), len(b - a), "not" in a ^ b] for a, b in words]
                )
            )
    reader = LogisticRegression(max_iter=2000, C=0.3)
    reader.fit(np.hstack(features["train"]), [row["label"] for row in train])
    reached = reader.score(np.hstack(features["score"]), [row["label"] for row in score])
    assert reached < CEILINGS[task]


def test_the_suite_is_small() -> None:
    assert sum(path.stat().st_size for path in Path(FOLDER).glob("*.jsonl")) < 1_500_000
