"""TRACE (Wang et al. 2023, arXiv 2310.06762): eight tasks of generated answers, from its own folders.

Prompts, metrics and what is read from an answer follow TRACE's repository (github.com/BeyonderXX/TRACE):
there is no blank between prompt and answer, a long prompt loses its beginning, and answers have at most 512
tokens. The repository cuts answers (its ICL.py) where a new question would begin: those are the stop strings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.metrics import metric_named
from forgetmenot.tasks.rows import BadRowError, Converted, cell, examples
from forgetmenot.tasks.source import Source
from forgetmenot.tasks.splits import divide
from forgetmenot.tasks.tables import Row, read_json
from forgetmenot.tasks.task import Example, Generation, Task

WHERE = "https://github.com/BeyonderXX/TRACE (its README links the data)"
LONGEST = 512
VERSIONS = {
    "500": "LLM-CL-Benchmark_500",
    "1000": "LLM-CL-Benchmark_1000",
    "5000": "LLM-CL-Benchmark_5000",
    "rcl": "LLM-CL-Benchmark_Reasoning",
}
FILES = {"train": "train", "eval": "select", "test": "score"}
PROMPTS: Mapping[str, Mapping[str, Any]] = {
    "default": {"template": "{{ prompt }}", "separator": "", "keep": "end", "cut_answer": True}
}


@dataclass(frozen=True, slots=True)
class TraceTask:
    """A task of TRACE.

    Attributes:
        reasoned: What is read from an answer that holds a rationale too (RCL).
    """

    title: str
    folder: str
    metric: str
    answer: Generation
    reasoned: tuple[str, ...] = ()


def _read(*rules: str, stop: tuple[str, ...] = (), most: int = LONGEST) -> Generation:
    return Generation(most, stop, rules)


_LETTER = ("after-answer", "first-character")

TRACE: dict[str, TraceTask] = {
    "c-stance": TraceTask(
        "C-STANCE: for, against or neutral? (Chinese)",
        "C-STANCE",
        "exact_match",
        _read("strip", most=1),
        _LETTER,
    ),
    "fomc": TraceTask(
        "FOMC: what is the monetary policy stance?", "FOMC", "exact_match", _read("strip", most=1), _LETTER
    ),
    "meetingbank": TraceTask(
        "MeetingBank: a summary of a city council's meeting",
        "MeetingBank",
        "rouge_l",
        _read("strip", stop=("Meeting transcripts",)),
        ("after-answer", "strip"),
    ),
    "py150": TraceTask(
        "Py150: the next line of Python code",
        "Py150",
        "edit_similarity",
        _read("py150-literals", stop=("<EOL>",)),
        ("before-reasoning", "strip", "py150-literals"),
    ),
    "scienceqa": TraceTask(
        "ScienceQA: an answer with its reason",
        "ScienceQA",
        "exact_match",
        _read("first-character", stop=("Question:",)),
        _LETTER,
    ),
    "numglue-cm": TraceTask(
        "NumGLUE: arithmetic that needs common sense",
        "NumGLUE-cm",
        "exact_match",
        _read("strip", stop=("\n",)),
        ("after-answer", "strip"),
    ),
    "numglue-ds": TraceTask(
        "NumGLUE: arithmetic that needs chemistry",
        "NumGLUE-ds",
        "exact_match",
        _read("strip", stop=("\n",)),
        ("after-answer", "strip"),
    ),
    "20minuten": TraceTask(
        "20Minuten: a paragraph in simpler words (German)",
        "20Minuten",
        "sari",
        _read("strip", stop=("Paragraph",)),
        ("after-answer", "strip"),
    ),
    "lima": TraceTask("LIMA: instructions with answers; only trained on", "Lima", "loss", Generation()),
}

_FIRST: tuple[str, ...] = (
    "c-stance",
    "fomc",
    "meetingbank",
    "py150",
    "scienceqa",
    "numglue-cm",
    "numglue-ds",
    "20minuten",
)
_SECOND: tuple[str, ...] = (
    "numglue-cm",
    "numglue-ds",
    "fomc",
    "20minuten",
    "c-stance",
    "py150",
    "meetingbank",
    "scienceqa",
)


def trace_suites() -> dict[str, tuple[str, ...]]:
    """The two published orders, of the data in `data_dir` itself and of each version by name."""
    suites = {"trace": _FIRST, "trace-2": _SECOND}
    for version in VERSIONS:
        suites[f"trace-{version}"] = tuple(f"{name}-{version}" for name in _FIRST)
        suites[f"trace-{version}-2"] = tuple(f"{name}-{version}" for name in _SECOND)
    return suites


def trace_tasks() -> dict[str, str]:
    """One line on each task, without a version and in each."""
    plain = {name: f"TRACE, {task.title}" for name, task in TRACE.items()}
    titles = {"rcl": "with reasoning (RCL)"}
    return plain | {
        f"{name}-{version}": f"{title}; {titles.get(version, f'{version} training examples')}"
        for version in VERSIONS
        for name, title in plain.items()
        if (name, version) != ("lima", "rcl")
    }


def load_trace(name: str, data_dir: Path | None) -> Task:
    """Load a task from its folder's train.json, eval.json and test.json.

    `eval` is what choices are made on, unless it is `test` over again; `test` is scored. A task without
    train.json is only scored.

    Args:
        name: A key of TRACE, perhaps with a version: "fomc-500".
        data_dir: A folder that holds trace/, or is it, or is the folder of one version.

    Raises:
        UserError: No file of the task is found, or more than one version is there and none is named, or a row
            is broken.
    """
    base, version = _parts(name)
    trace = TRACE[base]
    folder = _find(name, trace, version, data_dir)
    reasoned = folder.parent.name == VERSIONS["rcl"]
    found: dict[str, list[Example]] = {}
    for file, split in FILES.items():
        path = folder / f"{file}.json"
        if path.is_file() and (base != "lima" or split == "train"):  # LIMA's other files hold no answers
            found[split] = examples(read_json(path), split, _convert)
    if not found.keys() & {"train", "score"}:
        raise UserError(f"{folder} has neither train.json nor test.json. TRACE's data comes from {WHERE}.")
    notes: tuple[str, ...] = ()
    if "select" in found and _said(found["select"]) == _said(found.get("score")):
        del found["select"]
        notes = ("eval.json and test.json are the same, so there is nothing to make choices on.",)
    splits = divide(found.get("train", []), found.get("score", []), found.get("select", []))
    return Task(
        name=name,
        kind="answer",
        metric=trace.metric,
        train=splits.train,
        select=splits.select,
        score=splits.score,
        prompts=PROMPTS,
        origin=str(folder),
        notes=(*notes, *splits.notes),
        generation=_reasoned(trace) if reasoned else trace.answer,
        source="prompt" if metric_named(trace.metric).reads == "rewrites" else "",
    )


def _reasoned(trace: TraceTask) -> Generation:
    """How an answer with its rationale is written: it has lines, and Py150 gives the answer first."""
    first = "before-reasoning" in trace.reasoned
    stop = ("Reasoning:",) if first else tuple(one for one in trace.answer.stop if one != "\n")
    return Generation(LONGEST, stop, trace.reasoned)


def _said(split: list[Example] | None) -> list[Mapping[str, Any]]:
    return [example.fields for example in split or ()]


def _convert(row: Row) -> Converted:
    prompt, answer = cell(row, "prompt"), cell(row, "answer")
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise BadRowError("'prompt' and 'answer' must be text.")
    if not prompt.strip():
        raise BadRowError("'prompt' is empty.")
    return {"prompt": prompt}, None, answer


def _parts(name: str) -> tuple[str, str | None]:
    for version in VERSIONS:
        if name.endswith(f"-{version}"):
            return name.removesuffix(f"-{version}"), version
    return name, None


def _find(name: str, trace: TraceTask, version: str | None, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UserError(
            f"The task {name!r} is read from files: set data_dir to a folder that holds trace/, the data of "
            f"{WHERE}."
        )
    roots = [data_dir / "trace", data_dir]
    if version is None:
        if (data_dir / trace.folder).is_dir():
            return data_dir / trace.folder
        places = [(v, root / folder / trace.folder) for v, folder in VERSIONS.items() for root in roots]
        there = {v: place for v, place in places if place.is_dir()}
        if len(there) > 1:
            raise UserError(
                f"{data_dir} holds {trace.folder} in more than one version: name the one that you mean, as "
                f"{' or '.join(f'{name}-{v}' for v in there)}, or set data_dir to its folder."
            )
        folders = list(there.values())
    else:
        folders = [root / VERSIONS[version] / trace.folder for root in roots]
        if data_dir.name == VERSIONS[version]:
            folders.append(data_dir / trace.folder)
    for folder in folders:
        if folder.is_dir():
            return folder
    looked = folders or [data_dir / trace.folder, *(root / f for root in roots for f in VERSIONS.values())]
    raise UserError(
        f"No data of {name} under {data_dir}: looked for {', '.join(map(str, looked))}. "
        f"TRACE's data comes from {WHERE}."
    )


SOURCE = Source(trace_tasks(), load_trace, trace_suites())
