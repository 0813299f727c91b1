"""The page of published numbers, written from the files of the finished measurements."""

import json
from pathlib import Path
from typing import Any

from benchmarks.table import Cells, render
from scripts.published_numbers.agreement import Agreement, agreement
from scripts.published_numbers.rows import Published, Row, Rows

PAGE = Path(__file__).parents[2] / "docs" / "published.md"
NOT_YET = "not yet measured"
ABOUT = """\
# Published numbers

Written by `python -m scripts.published_numbers`, row by row: public benchmarks of real models, measured by
the `general` probe, beside figures that others published, and beside lm-eval's own Hugging Face model. What
is measured stands in `scripts/published_numbers/rows.yaml`.
"""
VALUES = """\
## Beside what others published

Prompts, shots and metrics are lm-eval's; no chat template is applied. Weights and activations have the dtype
of the row: bf16 is the checkpoints' own, and what lm-eval takes by default. The LM head is always fp32. The
interval is Wilson's, of 95 %, over the row's questions; the published figure has one of its own beside it. A
published figure inside ours is in bold. **also**: lm-eval's other metrics of the same answers, in %.
"""
COMPARISONS = """\
## Beside lm-eval's own model

The same questions put to lm-eval's `HFLM` (batches of 8, one padded sequence for each candidate) and to the
`general` probe's model (one trie), with the same weights.

- **Δ nats**: the largest difference of a candidate's log-likelihood, with both sides in fp32; in parentheses
  the largest in parts of the log-likelihood itself.
- **ours − exact**, **HFLM − exact**: the same against `HFLM` computed in fp64, which tells whose rounding
  the difference is.
  On a CPU most of Δ is HFLM's: torch's `log_softmax` sums the exponentials of a vocabulary in fp32 with an
  error of one sign in every token, which the probe's `logsumexp` does not have.
- **Δ metrics**: the largest difference of a metric of one question, by every filter, with both sides in fp32.
- **answers**: how many written answers are equal, letter by letter.
"""
VALUE_COLUMNS = (
    "model", "task", "shots", "metric", "n", "ours, %", "interval, %", "also", "published, %", "what differs",
    "dtype", "machine", "processor s",
)  # fmt: skip
COMPARISON_COLUMNS = (
    "model", "task", "shots", "questions", "log-likelihoods", "Δ nats", "ours − exact", "HFLM − exact",
    "Δ metrics", "answers", "dtype", "machine",
)  # fmt: skip


def page(rows: Rows, results: Path) -> str:
    """The page as Markdown.

    Args:
        rows: What is on it.
        results: The folder with a file for each finished measurement.
    """
    models = "".join(f"- {model.title}: {model.weights}.\n" for model in rows.models.values())
    sources = "".join(f"- [{key}] {text}\n" for key, text in rows.sources.items())
    return "\n".join(
        [
            ABOUT,
            f"{VALUES}\n{models}",
            render([_value_cells(rows, row, results) for row in rows.rows], VALUE_COLUMNS),
            f"Sources:\n\n{sources}",
            *([f"Reading:\n\n{rows.reading}"] if rows.reading else []),
            COMPARISONS,
            render(
                [_comparison_cells(rows, row, results) for row in rows.rows if row.compare],
                COMPARISON_COLUMNS,
            ),
        ]
    )


def _read(results: Path, row: Row, measurement: str) -> dict[str, Any] | None:
    path = results / f"{row.name}.{measurement}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _value_cells(rows: Rows, row: Row, results: Path) -> Cells:
    found = _read(results, row, "value")
    metric = row.metric.partition(",")[0]
    first = (rows.models[row.model].title, f"`{row.task}`", str(row.shots), metric)
    if found is None:
        published = "; ".join(_published(one) for one in row.published)
        return (*first, "", NOT_YET, "", "", published, row.differs, "", "", "")
    low, high = (100 * bound for bound in found["interval"])
    also = {
        name.partition(",")[0] if ",none" in name else name.replace(",", ", "): value
        for name, value in found["metrics"].items()
        if name != row.metric
    }
    return (
        *first,
        f"{found['n']:,}",
        f"{100 * found['value']:.2f}",
        f"{low:.1f}–{high:.1f}",
        "; ".join(f"{name} {100 * value:.2f}" for name, value in also.items()),
        "; ".join(_published(one, inside=low <= one.percent <= high) for one in row.published),
        row.differs,
        found["dtype"],
        found["machine"],
        str(found["processor_seconds"]),
    )


def _published(one: Published, *, inside: bool = False) -> str:
    return f"{f'**{one.percent}**' if inside else one.percent} ({one.how}) [{one.source}]"


def _comparison_cells(rows: Rows, row: Row, results: Path) -> Cells:
    first = (rows.models[row.model].title, f"`{row.task}`", str(row.shots))
    ours, theirs, exact = (_read(results, row, side) for side in ("ours-fp32", "hflm-fp32", "hflm-fp64"))
    if ours is None or theirs is None:
        return (*first, NOT_YET, *[""] * (len(COMPARISON_COLUMNS) - len(first) - 1))
    both = agreement(ours["answers"], theirs["answers"])
    from_exact = [
        _difference(agreement(side["answers"], exact["answers"])) if exact else "" for side in (ours, theirs)
    ]
    return (
        *first,
        str(both.questions),
        str(both.likelihoods or ""),
        _difference(both),
        *from_exact,
        f"{both.metrics:g}",
        f"{both.equal_texts} of {both.texts}" if both.texts else "",
        ours["dtype"],
        ours["machine"],
    )


def _difference(found: Agreement) -> str:
    return f"{found.nats:.1e} ({found.relative:.0e})" if found.likelihoods else ""
