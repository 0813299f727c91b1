"""SELF-GUIDE measured: few shots, own rows in context, own rows learned, and as many real rows learned.

    python -m scripts.self_guide MODEL OUT --data-dir D --tasks sst2,agnews,super-ni-1615 [--write]

Each task is synthesized and trained as `fmn synthesize --train` does it, and once more on as many real rows
of each label. The first three are scored on the same real rows, the last on rows of its own, since a sample
is drawn by the task's name. With --write the tables go into docs/synthesis.md; every number there is read
from the runs' results.json.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetmenot.config import load_config
from forgetmenot.record.files import write_json, write_text
from forgetmenot.report.screen import Screen
from forgetmenot.runs.api import Run, run
from forgetmenot.synthesis.data_set import IN_CONTEXT
from forgetmenot.tasks import digest_of, load_tasks
from forgetmenot.tasks.yaml_file import parse_yaml, write_yaml
from forgetmenot.trials.synthesis_folder import CONFIG, TASK
from forgetmenot.trials.synthesize import synthesize

PAGE = Path(__file__).parents[1] / "docs" / "synthesis.md"
BEGIN, END = "<!-- measured: {} -->", "<!-- end -->"
RULES: dict[str, str | None] = {"last-label": "last-label", "likelihood": "likelihood"}


@dataclass(frozen=True)
class Measured:
    """One task's funnel and runs.

    Attributes:
        found: The content of synthesis.json.
        own: The run on the model's own rows.
        real: The run on as many real rows.
        seconds: Of synthesis and fine-tune; None where they were cut off and taken up again.
    """

    found: dict[str, Any]
    own: Run
    real: Run
    seconds: float | None


def measure(model: str, task: str, out: Path, settings: Mapping[str, Any], **named: Any) -> Measured:
    """Synthesize, train on that, and train on as many real rows."""
    console, whole, clock = Screen(), not out.exists(), out / "seconds.json"
    began = time.monotonic()
    written = synthesize(model, task, out, settings=settings, train=True, console=console, **named)
    assert written.run is not None
    if whole:
        write_json(clock, time.monotonic() - began)
    seconds = json.loads(clock.read_text(encoding="utf-8")) if clock.exists() else None
    real = run(load_config(_real(task, out, written.found, named), {}), console=console)
    return Measured(written.found, written.run, real, seconds)


def _real(name: str, out: Path, found: Mapping[str, Any], named: Mapping[str, Any]) -> Path:
    """The config of a run on as many real rows of each label, none of them a demonstration."""
    folder = named.get("data_dir")
    [task] = load_tasks([name], None if folder is None else Path(folder))
    content = parse_yaml((out / TASK).read_text(encoding="utf-8"))
    column = content.get("label") or content["target"]
    fields = next(iter(json.loads(line) for line in (out / "train.jsonl").read_text().splitlines())).keys()
    shown = {one["id"] for one in found["demonstrations"]}
    pool = [one for one in task.train if one.id not in shown]
    random.Random(found["seed"]).shuffle(pool)
    wanted = Counter(found["labels"]) or Counter({None: found["rows"]})
    rows, said = [], set()
    for one in pool:
        if wanted[one.label] > 0 and (digest := digest_of(one)) not in said:
            wanted[one.label] -= 1
            said.add(digest)
            values = {**one.fields, column: one.target if one.label is None else one.label}
            rows.append({field: values[field] for field in fields})
    write_text(out / "real.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    content["data"]["train"], content["name"] = "real.jsonl", content["name"].replace("self-guide", "real")
    write_text(out / "real.yaml", write_yaml(content))
    config = parse_yaml((out / CONFIG).read_text(encoding="utf-8"))
    config["tasks"], config["output"] = ["real.yaml"], str(out / "real-run")
    write_text(out / "real-run.yaml", write_yaml(config))
    return out / "real-run.yaml"


def cell(ran: Run, stage: int, prompt: str, rule: str | None) -> str:
    """A score with its 95 % interval; the rule is None for free answers."""
    results: Any = ran.results
    for reading in results["readings"]:
        [asked] = reading["prompt"].values()
        if asked == prompt and rule in (reading["scoring"], None):
            value, interval = reading["matrix"][stage][0], reading["intervals"][stage][0]
            return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
    return "none"


def against(measured: Measured) -> str:
    """How far the fine-tuned model lies above few shots, by the headline's rule."""
    results: Any = measured.own.results
    [found] = results["verdicts"]["base_own"].values()
    low, high = found["interval"]
    return (
        f"Fine-tuned on its own rows less few shots, paired over {found['n']:,} examples: "
        f"{100 * found['difference']:+.1f} points (95 % {100 * low:+.1f} to {100 * high:+.1f}; "
        f"{found['test']}, p = {found['p']:.2g})."
    )


def in_words(name: str, measured: Measured) -> str:
    """A task's section."""
    found = measured.found
    rules = RULES if found["kind"] == "choice" else {found["read_by"]: None}
    arms = {
        f"{len(found['demonstrations'])} shots": (measured.own, 0, "default"),
        f"the same and {found['in_context']} own rows in context": (measured.own, 0, IN_CONTEXT),
        f"fine-tuned on {found['rows']} own rows": (measured.own, 1, "default"),
        f"fine-tuned on {found['rows']} real rows": (measured.real, 1, "default"),
    }
    results: Any = measured.own.results
    chance = next(iter(results["majority"].values()))
    lines = [f"### {name}", "", f"| | {' | '.join(rules)} |", "|---|" + "---|" * len(rules)]
    lines += [
        f"| {arm} | {' | '.join(cell(*where, rule) for rule in rules.values())} |"
        for arm, where in arms.items()
    ]
    lines += ["", f"{against(measured)} Chance level: {chance:.3f}." if chance else against(measured), ""]
    for step in found["funnel"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in step["dropped"].items() if n) or "nothing"
        lines.append(f"- {step['name']}: {step['entered']:,} → {step['left']:,} (dropped: {reasons})")
    if found["as_asked"] is not None:
        lines.append(
            f"- Inputs that were answered with the label that was asked for: {found['as_asked']:.0%}"
        )
    if measured.seconds is not None:
        lines.append(f"- Synthesis and fine-tune with its scores: {measured.seconds / 60:.0f} min")
    return "\n".join(lines) + "\n"


def write(sections: Sequence[str], what: str) -> None:
    """Put sections into the page, where it has a place of that name."""
    begin = BEGIN.format(what)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(END)[2]
    write_text(PAGE, f"{before}{begin}\n\n{chr(10).join(sections)}\n{END}{after}")


def main() -> None:
    """Measure the tasks that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--tasks", default="sst2,agnews,super-ni-1615")
    parser.add_argument("--demonstrations", default="", help="task=N,… where it is not 3")
    parser.add_argument("--write", action="store_true", help="write docs/synthesis.md")
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    given = parser.parse_args()
    settings = {key: parse_yaml(value) for key, _, value in (one.partition("=") for one in given.set)}
    counts = dict(one.split("=") for one in given.demonstrations.split(",") if one)
    sections = []
    for task in given.tasks.split(","):
        found = measure(
            given.model,
            task,
            given.out / task,
            settings,
            data_dir=given.data_dir,
            demonstrations=int(counts.get(task, 3)),
        )
        sections.append(in_words(task, found))
        print(sections[-1])
    if given.write:
        write(sections, "real")


if __name__ == "__main__":
    main()
