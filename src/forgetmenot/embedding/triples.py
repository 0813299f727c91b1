"""Triples for contrastive tuning: a premise, a sentence that it entails, and one that it contradicts.

PromptEOL was tuned on SimCSE's file of SNLI and MNLI triples (nli_for_simcse.csv; Gao et al. 2021, arXiv
2104.08821), where the contradiction is the hard negative. Such a file is read, and MNLI itself: there a
premise gives one triple, of the first hypothesis of each label. Super-NaturalInstructions' SNLI task
(task190) gives none: in the copy that SELF-GUIDE's authors published no hypothesis is entailed.
"""

from collections.abc import Sequence
from pathlib import Path

from forgetmenot.errors import UserError, nearest
from forgetmenot.tasks import Example, load_tasks
from forgetmenot.tasks.files import read_table

Triple = tuple[str, str, str]
"""Premise, entailed hypothesis, contradicted hypothesis."""

MNLI = {"mnli": ("train", "select"), "mnli-dev": ("score",)}
"""The splits of MNLI by the name of a source. `mnli-dev` is dev_matched: a model that is tuned on it says
nothing of MNLI any more."""
COLUMNS = ("sent0", "sent1", "hard_neg")


def read_triples(sources: Sequence[str], data_dir: Path | None) -> list[Triple]:
    """Read the triples of sources, in their order.

    Args:
        sources: `mnli`, `mnli-dev`, or a file with the columns of SimCSE's: sent0, sent1, hard_neg.
        data_dir: Where MNLI is; None for the hub.

    Raises:
        UserError: A source is unknown, cannot be read, or has no triple.
    """
    found: list[Triple] = []
    for source in sources:
        triples = _of_mnli(source, data_dir) if source in MNLI else _of_file(source)
        if not triples:
            raise UserError(f"sources: {source} has no premise with an entailed and a contradicted sentence.")
        found += triples
    return list(dict.fromkeys(found))


def _of_mnli(source: str, data_dir: Path | None) -> list[Triple]:
    """One triple of each premise that has a hypothesis of both labels."""
    (task,) = load_tasks(["mnli"], data_dir)
    by_premise: dict[str, dict[str, str]] = {}
    rows: list[Example] = [row for split in MNLI[source] for row in getattr(task, split)]
    for row in rows:
        premise, hypothesis = (str(row.fields[key]).strip() for key in ("premise", "hypothesis"))
        by_premise.setdefault(premise, {}).setdefault(str(row.label), hypothesis)
    return [
        (premise, one["entailment"], one["contradiction"])
        for premise, one in by_premise.items()
        if one.keys() >= {"entailment", "contradiction"}
    ]


def _of_file(source: str) -> list[Triple]:
    path = Path(source)
    if not path.is_file():
        raise UserError(
            f"sources: {source!r} is neither {' nor '.join(MNLI)} nor a file. {nearest(source, MNLI)}"
        )
    table = read_table(path)
    found = []
    for number, row in table.rows:
        cells = [row.get(column) for column in COLUMNS]
        if not all(isinstance(cell, str) and cell.strip() for cell in cells):
            raise UserError(f"{table.at(number)}: a triple has a {', a '.join(COLUMNS)}, none of them empty.")
        found.append((str(cells[0]), str(cells[1]), str(cells[2])))
    return found
