"""Equal tuning for the methods of the ledger: four trials each, on tasks that the ledger does not score.

    python -m scripts.tuning draw                              # the trials, into recipes/ledger-select.yaml
    fmn study recipes/ledger-select.yaml …                     # docs/protocol.md has the command whole
    python -m scripts.tuning choose studies/ledger-select-*    # results into docs/protocol.md, choices into
                                                               # recipes/ledger.yaml

A trial is a learning rate and, where a method has one, a strength, both from ranges that stand below. The
first trial of a method has the geometric middle of its ranges, the others are drawn at random. The best
average performance counts; of equals the first.
"""

import argparse
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetmenot.methods import METHODS
from forgetmenot.report.markdown_table import markdown_table
from forgetmenot.report.wording import number, setting

ROOT = Path(__file__).parents[1]
TRIALS_FILE, LEDGER, PAGE = (
    ROOT / "recipes" / "ledger-select.yaml",
    ROOT / "recipes" / "ledger.yaml",
    ROOT / "docs" / "protocol.md",
)
TRIALS, SEED = 4, 20251128
RATE = (3e-4, 3e-3)
FIXED: dict[str, dict[str, Any]] = {
    "replay": {"share": 0.05, "share_in": "tokens"},
    "der++": {"share": 0.05, "share_in": "tokens"},
}
"""Options that are no part of the search."""
STRENGTH: dict[str, tuple[str, float, float] | None] = {
    "sequential": None,
    "joint": None,
    "replay": None,
    "der++": ("alpha", 0.1, 1.0),
    "ewc": ("strength", 1e1, 1e5),
    "lwf": ("strength", 0.1, 10.0),
    "kl": ("strength", 0.01, 1.0),
    "l2-sp": ("strength", 1e-3, 1e-1),
    "ema": ("decay", 0.9, 0.999),
    "weight-averaging": ("share", 0.2, 0.8),
    "o-lora": ("strength", 1.0, 100.0),
    "adapter-per-task": None,
}
"""Each method to its strength and that one's range."""
PAST_DATA = ("joint", "replay", "der++")
BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"
CHOSEN_BEGIN, CHOSEN_END = "    # chosen: begin", "    # chosen: end"


def trials(method: str) -> list[tuple[dict[str, Any], float]]:
    """The options and the learning rate of each trial of a method."""
    draw = random.Random(f"{SEED}/{method}")
    found = []
    for k in range(TRIALS):
        rate = _drawn(*RATE, None if k == 0 else draw)
        options = dict(FIXED.get(method, {}))
        if (searched := STRENGTH[method]) is not None:
            name, low, high = searched
            options[name] = _drawn(low, high, None if k == 0 else draw, far_from_one=name == "decay")
        found.append((options, rate))
    return found


def _drawn(low: float, high: float, draw: random.Random | None, *, far_from_one: bool = False) -> float:
    """A value between two, by its logarithm (or by that of 1 less it); the middle where none is drawn."""
    if far_from_one:
        return round(1 - _drawn(1 - high, 1 - low, draw), 5)
    place = 0.5 if draw is None else draw.random()
    return float(f"{math.exp(math.log(low) + place * (math.log(high) - math.log(low))):.3g}")


def row(method: str, options: Mapping[str, Any], rate: float) -> list[Any]:
    """A row of the grid `method, adapter.per_stage, training.learning_rate`."""
    per_stage = METHODS[method].needs.get("per_stage", ("continue",))[0]
    return [{"name": method, **options} if options else method, per_stage, rate]


def grid_lines(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Rows of a grid as lines of YAML."""
    return [f"    - {json.dumps(one)}" for one in rows]


def recipe() -> str:
    """The study of all trials."""
    head = TRIALS_FILE.read_text(encoding="utf-8").partition("grid:\n")[0]
    rows = [row(method, *trial) for method in STRENGTH for trial in trials(method)]
    grid = ["grid:", '  "method, adapter.per_stage, training.learning_rate":', *grid_lines(rows)]
    return head + "\n".join(grid) + "\n"


def choose(study: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The best trial of each method: its run in study.json.

    Raises:
        SystemExit: A trial has not finished, so that methods would not be tuned alike.
    """
    if failed := [one["run"] for one in study["runs"] if one["failed"]]:
        raise SystemExit(f"{len(failed)} trials have no result: {', '.join(failed)}. Start the study again.")
    best: dict[str, dict[str, Any]] = {}
    for one in study["runs"]:
        method = _name(one)
        if method not in best or _score(one) > _score(best[method]):
            best[method] = one
    return best


def champion(best: Mapping[str, Mapping[str, Any]]) -> str:
    """The method without past data and without task-wise adapters of which the second claim speaks."""
    kept = [name for name in best if name not in (*PAST_DATA, "sequential", "adapter-per-task")]
    return max(kept, key=lambda name: _score(best[name]))


def results_table(study: Mapping[str, Any], best: Mapping[str, Mapping[str, Any]]) -> str:
    """Every trial with its score, the chosen one in bold."""
    rows = [["method", "learning rate", "average performance on `select`"]]
    for one in study["runs"]:
        bold = "**" if best[_name(one)] is one else ""
        rate = one["varies"]["training.learning_rate"]
        rows.append([setting(one["varies"]["method"]), f"{rate:g}", f"{bold}{number(_score(one))}{bold}"])
    return markdown_table(rows)


def _name(run: Mapping[str, Any]) -> str:
    method = run["varies"]["method"]
    return str(method["name"] if isinstance(method, Mapping) else method)


def _score(run: Mapping[str, Any]) -> float:
    return float(run["figures"]["average_performance"])


def replaced(text: str, begin: str, end: str, lines: Sequence[str]) -> str:
    """A text with other lines between two marks.

    Raises:
        SystemExit: The marks are not there.
    """
    pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"The marks {begin} and {end} are not there.")
    return pattern.sub(lambda found: found[1] + "".join(f"{line}\n" for line in lines) + found[2], text)


def write_choices(study: Mapping[str, Any]) -> None:
    """Put the trials into the page, and what was chosen into the ledger's recipe and its second claim."""
    best = choose(study)
    page = PAGE.read_text(encoding="utf-8")
    page = replaced(page, BEGIN.format("trials"), END.format("trials"), [results_table(study, best)])
    PAGE.write_text(page, encoding="utf-8")
    lines = []
    for method, one in best.items():
        options = {k: v for k, v in _options(one).items() if k != "name"}
        lines += grid_lines([row(method, options, one["varies"]["training.learning_rate"])])
    ledger = replaced(LEDGER.read_text(encoding="utf-8"), CHOSEN_BEGIN, CHOSEN_END, lines)
    named = re.sub(r"(&champion )[\w-]+", lambda found: found[1] + champion(best), ledger)
    rate = best["sequential"]["varies"]["training.learning_rate"]
    LEDGER.write_text(
        re.sub(r"(&rate )[\d.e-]+", lambda found: found[1] + str(rate), named), encoding="utf-8"
    )


def _options(run: Mapping[str, Any]) -> Mapping[str, Any]:
    method = run["varies"]["method"]
    return method if isinstance(method, Mapping) else {}


def main() -> None:
    """Draw trials, or choose among them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("draw")
    verbs.add_parser("choose").add_argument("study", type=Path, help="the directory of the study of trials")
    parsed = parser.parse_args()
    if parsed.verb == "draw":
        TRIALS_FILE.write_text(recipe(), encoding="utf-8")
    else:
        write_choices(json.loads((parsed.study / "study.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
