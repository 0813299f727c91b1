"""The tasks of Super-NaturalInstructions that SELF-GUIDE searches its parameters on, and holds out.

Wang et al. 2022 (arXiv 2204.07705) made the tasks, Zhao et al. 2024 (arXiv 2407.12874) chose these; which of
them are searched and which held out is from their `find_one_params.py`. A file is one task: a definition,
solved examples, and instances. The labels are those of the official `utils/tasks.py`. The split is our own:
at most SCORED instances, a fifth of a smaller task, drawn by text, are scored and the rest is learned.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.tasks.rows import Converted, examples, label_in, plain
from forgetmenot.tasks.source import Source
from forgetmenot.tasks.splits import divide, hold_out
from forgetmenot.tasks.tables import Row, Table, read_json
from forgetmenot.tasks.task import Generation, Task

SCORED = 500
WHERE = "https://github.com/allenai/natural-instructions (tasks/)"
PREFIX = "super-ni-"


@dataclass(frozen=True, slots=True)
class SuperNi:
    """What a task asks, and its labels; none where the answer is free."""

    title: str
    labels: tuple[str, ...] = ()


_NLI = ("Contradiction", "Neutral", "Entailment")

SUPER_NI: dict[int, SuperNi] = {
    36: SuperNi("QASC: write a fact that is related to a topic"),
    39: SuperNi("QASC: which words do two sentences share?"),
    121: SuperNi("ZEST: change a question"),
    190: SuperNi("SNLI: does a sentence entail another?", ("E", "C", "N")),
    199: SuperNi("MNLI: do two sentences agree or disagree at all?", ("no", "yes")),
    200: SuperNi("MNLI: which of three sentences is entailed?", ("1", "2", "3")),
    281: SuperNi("Points of correspondence: what do three sentences share?"),
    284: SuperNi("IMDB: is a film review positive?", ("positive", "negative")),
    329: SuperNi("GAP: whom does a pronoun mean?", ("A", "B", "Neither")),
    346: SuperNi("HybridQA: is a word's part of speech right?", ("True", "False")),
    738: SuperNi("Perspectrum: does a perspective support a claim?", ("support", "undermine")),
    937: SuperNi("Defeasible NLI: is a norm strengthened?", ("strengthener", "weakener")),
    1195: SuperNi("Disfl-QA: make a question fluent"),
    1345: SuperNi("QQP: put a question in other words"),
    1385: SuperNi("ANLI, round 1: is a sentence entailed?", _NLI),
    1386: SuperNi("ANLI, round 2: is a sentence entailed?", _NLI),
    1516: SuperNi("IMPPRES: is a sentence entailed?", ("positive", "negated", "neutral")),
    1529: SuperNi("SciTail: does a text entail a fact?", ("entails", "neutral")),
    1562: SuperNi("ZEST: change a question about parks or dogs"),
    1612: SuperNi("SICK: is a sentence entailed?", ("0", "1", "2")),
    1615: SuperNi("SICK: how are two sentences related?", ("B_contradicts_A", "B_entails_A", "B_neutral_A")),
    1622: SuperNi("Disfl-QA: make a question fluent"),
}

SUITES = {
    "self-guide-classification-search": (190, 199, 200, 738, 937, 1385, 1386),
    "self-guide-classification": (1615, 284, 329, 346, 1516, 1529, 1612),
    "self-guide-generation-search": (39, 36, 1195, 121),
    "self-guide-generation": (281, 1622, 1345, 1562),
}


def load_super_ni(name: str, data_dir: Path | None) -> Task:
    """Load a task from its own file, `task<number>_….json`.

    Args:
        name: As "super-ni-190".
        data_dir: A folder that holds super-ni/, or is it.

    Raises:
        UserError: The file is not found, or is not of that form.
    """
    number = int(name.removeprefix(PREFIX))
    path, labels = _find(name, number, data_dir), SUPER_NI[number].labels
    table = read_json(path)
    about: Row = next((row for _, row in table.rows), {"definition": "", "examples": []})
    definition = str(about["definition"]).strip()

    def convert(row: Row) -> Converted:
        answer = plain(row["output"]).strip()
        if labels:
            return {"input": row["input"]}, label_in({"output": answer}, "output", labels), None
        return {"input": row["input"]}, None, answer

    instances = examples(table, "instance", convert)
    solved = Table(f"{path}, Positive Examples", (), list(enumerate(about["examples"], 1)), "example")
    shown = examples(solved, "demonstration", convert)
    known = {example.fields["input"] for example in shown}
    others = [example for example in instances if example.fields["input"] not in known]
    train, score = hold_out(others, min(SCORED, len(others) // 5))
    splits = divide(train, score)
    notes = [f"{len(score):,} of its {len(others):,} instances, drawn by a fixed seed, are scored."]
    if left_out := len(instances) - len(others):
        notes.append(f"{left_out:,} instances are among its solved examples, and are left out.")
    return Task(
        name=name,
        kind="choice" if labels else "answer",
        metric="accuracy" if labels else "edit_similarity",
        train=splits.train,
        select=splits.select,
        score=splits.score,
        labels=labels,
        further_metrics=() if labels else ("rouge_l", "exact_match"),
        prompts={"default": _prompt(definition, labels)},
        origin=str(path),
        notes=(*notes, *splits.notes),
        generation=Generation(max_new_tokens=128, stop=("\n",)),
        instruction=definition,
        demonstrations=tuple(shown),
    )


def _prompt(definition: str, labels: tuple[str, ...]) -> dict[str, Any]:
    text = definition
    if any(mark in text for mark in ("{{", "{%", "{#")):
        text = f"{{% raw %}}{text}{{% endraw %}}"
    prompt: dict[str, Any] = {"template": f"{text}\n\nInput: {{{{ input }}}}\nOutput:"}
    return {**prompt, "choices": {label: label for label in labels}} if labels else prompt


def _find(name: str, number: int, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UserError(
            f"The task {name!r} is read from files: set data_dir to a folder that holds super-ni/, with the "
            f"files of {WHERE}."
        )
    for folder in (data_dir / "super-ni", data_dir):
        for path in sorted(folder.glob(f"task{number:03d}_*.json")):
            return path
    raise UserError(
        f"No file task{number:03d}_*.json under {data_dir / 'super-ni'} or {data_dir}; it comes from {WHERE}."
    )


SOURCE = Source(
    titles={f"{PREFIX}{number}": f"Super-NI {task.title}" for number, task in SUPER_NI.items()},
    load=load_super_ni,
    suites={name: tuple(f"{PREFIX}{n}" for n in numbers) for name, numbers in SUITES.items()},
)
