"""Write the bundled four-task suite: `python -m scripts.quickstart.build_suite`.

Every label is equally frequent. No sentence of `score` stands in `train`; beyond that, of all pairs of long
words one in forty is kept out of `train` altogether, and half of `score` holds such an unseen pair.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import combinations, cycle, islice
from pathlib import Path
from random import Random
from zlib import crc32

from scripts.quickstart import judgements, reviews, world
from scripts.quickstart.morphology import sentence

SEED = 20261
SIZES = {"train": 1920, "score": 360}
FOLDER = Path(__file__).resolve().parents[2] / "src" / "forgetmenot" / "tasks" / "quickstart"

Fields = dict[str, str]


def sentiment(label: str, rng: Random) -> Fields | None:
    """Return a review that holds the opinion."""
    return {"sentence": sentence(reviews.review(reviews.OPINIONS[label == "positive"], rng))}


def paraphrase(label: str, rng: Random) -> Fields | None:
    """Return two sentences of one meaning, or of two that look more or less alike."""
    one = world.meaning(rng)
    two = one if label == "equivalent" else world.unlike(one, rng)
    if two is None:
        return None
    said = {"sentence1": sentence(one.say(rng)), "sentence2": sentence(two.say(rng))}
    return said if said["sentence1"] != said["sentence2"] else None


def acceptability(label: str, rng: Random) -> Fields | None:
    """Return a sentence with a fault of grammar or without."""
    return {"sentence": sentence(judgements.pair(rng)[label == "unacceptable"])}


def inference(label: str, rng: Random) -> Fields | None:
    """Return a premise and a hypothesis that follows from it, contradicts it, or neither."""
    premise = world.meaning(rng)
    relations: dict[str, world.Relation] = {name: name for name in world.RELATIONS}
    hypothesis = world.related(premise, relations[label], rng)
    if hypothesis is None:
        return None
    return {"premise": sentence(premise.say(rng)), "hypothesis": sentence(hypothesis.say(rng))}


TASKS: dict[str, tuple[Callable[[str, Random], Fields | None], tuple[str, ...]]] = {
    "qs-sentiment": (sentiment, ("negative", "positive")),
    "qs-paraphrase": (paraphrase, ("not_equivalent", "equivalent")),
    "qs-acceptability": (acceptability, ("unacceptable", "acceptable")),
    "qs-inference": (inference, ("entailment", "neutral", "contradiction")),
}


def build(task: str) -> dict[str, list[Fields]]:
    """Return the rows of a task's `score` and `train`, the same each time."""
    make, labels = TASKS[task]
    rng = Random(f"{SEED} {task}")
    reserved: set[str] = set()
    splits: dict[str, list[Fields]] = {}
    for split in ("score", "train"):
        wanted = cycle([True, False]) if split == "score" else cycle([False])
        rows = _rows(make, labels, wanted, reserved, rng)
        splits[split] = [{"id": f"{split}-{i}", **row} for i, row in enumerate(islice(rows, SIZES[split]))]
    return splits


def holds_unseen_pair(fields: Fields) -> bool:
    """Whether two long words stand together that never do so in `train`."""
    said = " ".join(text.lower().strip(".?") for text in fields.values())
    words = {word for word in said.split() if len(word) > 4}
    return any(crc32(" ".join(two).encode()) % 40 == 0 for two in combinations(sorted(words), 2))


def _rows(
    make: Callable[[str, Random], Fields | None],
    labels: tuple[str, ...],
    unseen: Iterator[bool],
    reserved: set[str],
    rng: Random,
) -> Iterator[Fields]:
    """Yield rows without end, labels in a random order of each round, none of whose sentences is reserved."""
    while True:
        hold_unseen = next(unseen)
        for label in rng.sample(labels, len(labels)):
            while True:
                fields = make(label, rng)
                if (
                    fields
                    and holds_unseen_pair(fields) == hold_unseen
                    and reserved.isdisjoint(fields.values())
                ):
                    break
            reserved.update(fields.values())
            yield {**fields, "label": label}


def main() -> None:
    """Write the eight files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        for split, rows in build(task).items():
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / f"{task}-{split}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
