"""What small runs do under kills, signals, full disks and damaged files: the table of docs/reliability.md.

    python -m scripts.reliability [--attacks kills signals disks damages] [--methods ewc …] [--most N]
                                  [--work DIR] [--write]

Each finished case is a line of JSON in DIR/cases.jsonl; the same command goes on with those that are missing,
and a case whose line is removed is played again. The lines are of one state of src/: another one wants
another DIR. With --write the tables of all lines go into docs/reliability.md. On a machine at rest a case
takes about five seconds, and there are some 20,000: --most takes so many of each row, evenly spread.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Before torch is imported: the same sums everywhere, and no thread that a fork would lose.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from forgetmenot.methods import METHODS
from scripts.attacks import damages, disks, kills, signals
from scripts.attacks.child import warm
from scripts.attacks.ground import Case, Ground, spread

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
MARKS = "<!-- reliability: begin -->", "<!-- reliability: end -->"
SOURCE = Path(__file__).parent.parent / "src"
WRONG = {
    "lost": "results lost",
    "silent": "numbers changed in silence",
    "bugs": "exits 70",
    "tracebacks": "raw tracebacks",
    "odd": "otherwise wrong",
}
SEEN = {
    "kills": "505 faults: nothing lost, nothing changed",
    "signals": "302: nothing lost; 1 traceback with exit 0",
    "disks": "176: nothing lost; 124 exits 70, 8 otherwise wrong",
    "damages": "about 800: 13 changed in silence, 78 exits 70, of a half-finished run alone",
}
"""What the same attacks, made by hand, did to commit 57e5b43."""

SHOWN = 40
"""How many wrong ends are told below the tables."""

Line = Mapping[str, Any]


def played(cases: Iterator[list[Case]], most: int | None, path: Path) -> Iterator[Line]:
    """Play the cases that have no line yet, and write their lines.

    Args:
        cases: Those of one setting at a time.
        most: How many of a setting; None for all.
        path: The file of lines.

    Yields:
        Each new line.
    """
    done = {(line["attack"], line["setting"], line["name"]) for line in lines(path)}
    for setting in cases:
        for case in spread(setting, most):
            if case.key not in done:
                outcome = case.play()
                line = {"attack": case.attack, "setting": case.setting, "name": case.name, "of": case.of}
                line |= asdict(outcome)
                with path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                yield line


def lines(path: Path) -> list[Line]:
    """The lines there are."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def table(found: Sequence[Line]) -> Iterator[str]:
    """The tables of lines, as Markdown: by attack, by setting, and what was wrong."""
    yield f"| attack | faults | {' | '.join(WRONG.values())} | by hand at 57e5b43 |"
    yield "|---" * (3 + len(WRONG)) + "|"
    by_attack = _by(found, lambda line: line["attack"])
    for attack in (one for one in SEEN if one in by_attack):
        yield f"| {attack} | {len(by_attack[attack]):,} | {_counts(by_attack[attack])} | {SEEN[attack]} |"
    yield ""
    yield f"| attack | setting | faults | {' | '.join(WRONG.values())} |"
    yield "|---" * (3 + len(WRONG)) + "|"
    for (attack, setting), some in _by(found, lambda line: (line["attack"], line["setting"])).items():
        of = some[-1]["of"]
        count = f"{len(some):,}" if len(some) >= of else f"{len(some):,} of {of:,}"
        yield f"| {attack} | {setting} | {count} | {_counts(some)} |"
    told = [
        f"- {line['attack']}, {line['setting']}, {line['name']}: {WRONG[kind]}: {_plain(line[kind][0])}"
        for line in found
        for kind in WRONG
        if line[kind]
    ]
    if told:
        yield ""
        yield "What was wrong:"
        yield ""
        yield from told[:SHOWN]
        if len(told) > SHOWN:
            yield f"- and {len(told) - SHOWN:,} more, each in a line of cases.jsonl."


def _by(found: Sequence[Line], key: Callable[[Line], Any]) -> dict[Any, list[Line]]:
    groups: dict[Any, list[Line]] = defaultdict(list)
    for line in found:
        groups[key(line)].append(line)
    return groups


def _counts(some: Sequence[Line]) -> str:
    return " | ".join(f"{sum(bool(line[kind]) for line in some):,}" for kind in WRONG)


def _plain(text: str) -> str:
    """A sentence without the folders that it was said in."""
    return re.sub(r"/\S*/(?=now\b|forgetmenot-)", "", text)[:200]


def source() -> str:
    """The state of src/: its last commit, and whether it was changed since."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments, "--", str(SOURCE)]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=SOURCE).stdout.strip()

    return git("log", "-1", "--format=%h") + (" with changes" if git("status", "--porcelain") else "")


def main() -> None:
    """Play what the command line asks, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--attacks", nargs="+", choices=SEEN, default=list(SEEN))
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="that are killed; default: all")
    parser.add_argument("--most", type=int, help="cases of each setting; default: all")
    parser.add_argument("--work", type=Path, default=Path("runs/reliability"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    ground = Ground(given.work)
    ground.work.mkdir(parents=True, exist_ok=True)
    os.environ["FORGETMENOT_CACHE"] = str(ground.work / "cache")
    os.environ["TMPDIR"] = tempfile.tempdir = str(ground.work / "temporary")
    Path(tempfile.tempdir).mkdir(exist_ok=True)
    state, noted = source(), ground.work / "source.txt"
    if noted.exists() and noted.read_text("utf-8") != state:
        sys.exit(f"{given.work} is of src/ at {noted.read_text('utf-8')}, and this is {state}: name another.")
    noted.write_text(state, encoding="utf-8")
    warm()
    attacks = {
        "kills": lambda: kills.cases(ground, given.methods),
        "signals": lambda: signals.cases(ground),
        "disks": lambda: disks.cases(ground),
        "damages": lambda: damages.cases(ground),
    }
    path = ground.work / "cases.jsonl"
    for attack in given.attacks:
        for line in played(attacks[attack](), given.most, path):
            wrong = [f"{WRONG[kind]}: {told}" for kind in WRONG for told in line[kind]]
            print(line["attack"], line["setting"], line["name"], "; ".join(wrong) or "right", flush=True)
    written = [f"Of src/ at {state}.", "", *table(lines(path))]
    print("\n".join(written))
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = re.split(f"{MARKS[0]}.*{MARKS[1]}", page, maxsplit=1, flags=re.DOTALL)
        PAGE.write_text("\n".join([before + MARKS[0], *written, MARKS[1] + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
