"""The search for a demonstration: each candidate is tried on STS-B's dev split, and the best one is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from forgetmenot.embedding.prompt import DEMONSTRATIONS, EmbeddingSettings
from forgetmenot.embedding.senteval import Pairs
from forgetmenot.embedding.similarity import cosines_of, similarity
from forgetmenot.errors import UserError
from forgetmenot.tasks.files import read_table

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

PAPER = "paper"
"""Stands for the eight candidates that were best for one of the paper's models."""


def read_candidates(source: str | Path) -> list[tuple[str, str]]:
    """Read candidates from a file of rows with `sentence` and `word`; `paper` has the paper's eight.

    Raises:
        UserError: The file cannot be read, or a row lacks one of the two.
    """
    if str(source) == PAPER:
        return list(DEMONSTRATIONS.values())
    if not Path(source).is_file():
        raise UserError(f"--demonstrations: there is no file {str(source)!r}; give one, or {PAPER!r}.")
    table = read_table(Path(source))
    found = []
    for number, row in table.rows:
        pair = row.get("sentence"), row.get("word")
        if not all(isinstance(part, str) and part.strip() for part in pair):
            raise UserError(f"{table.at(number)}: a demonstration has a `sentence` and a `word`.")
        found.append((str(pair[0]), str(pair[1])))
    if not found:
        raise UserError(f"{source} holds no demonstration.")
    return list(dict.fromkeys(found))


def search(
    learner: Learner,
    candidates: list[tuple[str, str]],
    dev: Pairs,
    settings: EmbeddingSettings,
    advance: Callable[[int], None] | None = None,
) -> list[tuple[tuple[str, str], float]]:
    """Each candidate with its correlation on the dev split, the best first; of equal ones the earlier.

    Raises:
        UserError: None of them has a correlation.
    """
    found = []
    for candidate in candidates:
        tried = settings.model_copy(update={"demonstration": candidate})
        one = similarity(dev, cosines_of(learner, [dev], tried, advance)[0], resamples=0)
        if one.value is not None:
            found.append((candidate, one.value))
    if not found:
        raise UserError("--demonstrations: with none of them has STS-B's dev split a correlation.")
    return sorted(found, key=lambda pair: -pair[1])
