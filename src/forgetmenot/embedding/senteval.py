"""Sentence pairs with graded similarity, from files as SentEval lays them out (Conneau and Kiela 2018).

STS12 to 16 are several files each. A line without a gold score does not count (the greater part of STS16),
and STS13 is without SMT, whose data is not free; both as in SentEval, whose `all` is one correlation over the
pairs of all files together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.tasks import load_tasks
from forgetmenot.tasks.tables import numbered_lines

WHERE = "https://github.com/facebookresearch/SentEval (data/downstream)"

STS: dict[str, tuple[str, ...]] = {
    "sts12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "sts13": ("FNWN", "headlines", "OnWN"),
    "sts14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "sts15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "sts16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
PUBLISHED = (*STS, "stsb-test", "sick-r")
"""The seven sets of the paper's tables, in their order."""
SETS = ("stsb", *PUBLISHED)
"""All that can be named; `stsb` is STS-B's dev split, GLUE's task of that name."""

Row = tuple[str, str, float, str]
"""Two sentences, how similar people found them, and their file."""


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs of one set.

    Attributes:
        name: One of SETS.
        first: A sentence of each pair.
        second: The other one.
        gold: How similar people found them [pairs].
        parts: Of which file each pair is [pairs]; all the same where there is one.
    """

    name: str
    first: list[str]
    second: list[str]
    gold: np.ndarray
    parts: np.ndarray

    def sample(self, limit: int | None) -> "Pairs":
        """So many pairs, evenly spaced over the set; all where there are fewer."""
        if limit is None or limit >= len(self.gold):
            return self
        rows = np.linspace(0, len(self.gold) - 1, limit).round().astype(np.int64)
        first, second = ([texts[k] for k in rows] for texts in (self.first, self.second))
        return Pairs(self.name, first, second, self.gold[rows], self.parts[rows])


def read_pairs(name: str, data_dir: Path | None) -> Pairs:
    """Read a set.

    Args:
        name: One of SETS.
        data_dir: A folder that holds senteval/downstream/, or is downstream/ or its parent; `stsb` is
            read from glue/ where that is there, and from the hub without a folder.

    Raises:
        UserError: The files are not there, or a line is not of their form.
    """
    if name == "stsb":
        return _dev(data_dir)
    folder = _downstream(name, data_dir)
    if name == "stsb-test":
        rows = list(_table(folder / "STS" / "STSBenchmark" / "sts-test.csv", (5, 6, 4)))
    elif name == "sick-r":
        rows = list(_table(folder / "SICK" / "SICK_test_annotated.txt", (1, 2, 3), header=True))
    else:
        place = folder / "STS" / f"{name.upper()}-en-test"
        rows = [row for part in STS[name] for row in _two_files(place, part)]
    return _pairs(name, rows, folder)


def _pairs(name: str, rows: Sequence[Row], place: Path) -> Pairs:
    """A set of rows that were read from files in a folder."""
    if not rows:
        raise UserError(f"The set {name!r} has no pair with a score in {place}; its files are empty.")
    first, second, gold, parts = zip(*rows, strict=True)
    return Pairs(name, list(first), list(second), np.array(gold), np.array(parts))


def has_pairs(name: str, data_dir: Path | None) -> bool:
    """Whether a set's files are there; of `stsb`, which may be downloaded, that is not looked at."""
    if name == "stsb":
        return True
    place = {"stsb-test": "STS/STSBenchmark", "sick-r": "SICK"}.get(name, f"STS/{name.upper()}-en-test")
    return any((folder / place).is_dir() for folder in _candidates(data_dir))


def _dev(data_dir: Path | None) -> Pairs:
    """STS-B's dev split from GLUE; from SentEval's file in a folder that has no glue/."""
    files = [folder / "STS" / "STSBenchmark" / "sts-dev.csv" for folder in _candidates(data_dir)]
    there = [path for path in files if path.is_file()]
    if there and data_dir is not None and not (data_dir / "glue").is_dir():
        return _pairs("stsb", list(_table(there[0], (5, 6, 4))), there[0].parent)
    (task,) = load_tasks(["stsb"], data_dir)
    one, other = ([str(row.fields[key]) for row in task.score] for key in ("sentence1", "sentence2"))
    scores = np.array([float(str(row.target)) for row in task.score])
    return Pairs("stsb", one, other, scores, np.full(len(scores), "dev"))


def _candidates(data_dir: Path | None) -> list[Path]:
    if data_dir is None:
        return []
    return [data_dir / "senteval" / "downstream", data_dir / "downstream", data_dir]


def _downstream(name: str, data_dir: Path | None) -> Path:
    part = "SICK" if name == "sick-r" else "STS"
    for folder in _candidates(data_dir):
        if (folder / part).is_dir():
            return folder
    raise UserError(
        f"The set {name!r} is read from SentEval's files: set data_dir to a folder that holds "
        f"senteval/downstream/{part}/, with the files of {WHERE}."
    )


def _two_files(folder: Path, part: str) -> Iterator[Row]:
    """The pairs of STS.input.PART.txt that have a score in STS.gs.PART.txt."""
    pairs, scores = folder / f"STS.input.{part}.txt", folder / f"STS.gs.{part}.txt"
    lines, golds = _lines(pairs), _lines(scores)
    if len(lines) != len(golds):
        raise UserError(
            f"{scores} has {len(golds):,} lines and {pairs} {len(lines):,}; they must be as many."
        )
    for number, (line, gold) in enumerate(zip(lines, golds, strict=True), 1):
        if gold.strip():
            cells = line.split("\t")
            if len(cells) < 2:
                raise UserError(
                    f"{pairs}, line {number}: two sentences with a tab between them are expected."
                )
            yield cells[0], cells[1], _score(gold, scores, number), part


def _table(path: Path, columns: tuple[int, int, int], *, header: bool = False) -> Iterator[Row]:
    """The pairs of one file with tabs, from the columns of two sentences and their score; quotes are text."""
    for number, line in enumerate(_lines(path), 1):
        cells = line.split("\t")
        if number == 1 and header:
            continue
        if len(cells) <= max(columns):
            raise UserError(
                f"{path}, line {number}: {len(cells)} cells, and {max(columns) + 1} are expected."
            )
        one, other, gold = (cells[column] for column in columns)
        yield one, other, _score(gold, path, number), path.stem


def _lines(path: Path) -> list[str]:
    try:
        return [line.rstrip("\r\n") for _, line in numbered_lines(path)]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); it comes from {WHERE}.") from error


def _score(text: str, path: Path, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{path}, line {number}: the score {text.strip()!r} is no number.")
    return value
