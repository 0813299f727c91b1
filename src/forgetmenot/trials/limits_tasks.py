"""The tasks of `fmn limits`: cut alike for every condition, mixed for tuning, and asked in context."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.evaluation.scoring import is_graded
from forgetmenot.prompting import Demonstrations, DemonstrationSettings, Prompt, prompts_of
from forgetmenot.prompting.solved_examples import CONTROLS, ExampleFormat
from forgetmenot.record.files import write_text
from forgetmenot.report.wording import listed
from forgetmenot.tasks import Example, Task, digest_of, sample
from forgetmenot.tasks.yaml_file import write_yaml
from forgetmenot.trials.limits_settings import LimitsSettings

DIRECT, SAMPLEGEN = "direct", "samplegen"
REQUEST = "Write solved examples of this task, and then its solution."
WATCHED = 8
"""Test examples on which a SampleGen run watches its loss; no figure is read off them."""


@dataclass(frozen=True)
class Case:
    """A task as every condition sees it.

    Attributes:
        task: With its fields cut, and `score` the test examples.
        prompts: Those that it is tuned in; tests are asked in the first.
        written: How its examples are written in a prompt.
        trained: Whether models are tuned on it.
        shown: What draws the solved examples of each example.
    """

    task: Task
    prompts: tuple[Prompt, ...]
    written: ExampleFormat
    trained: bool
    shown: Demonstrations

    @property
    def name(self) -> str:
        """The task's."""
        return self.task.name

    @property
    def tests(self) -> Sequence[Example]:
        """The test examples."""
        return self.task.score

    @cached_property
    def clusters(self) -> list[str]:
        """What test examples share that are not independent: the task's own field, or all they say."""
        return [
            str(one.fields[self.task.cluster]) if self.task.cluster else digest_of(one).hex()[:16]
            for one in self.tests
        ]

    def asked(self, example: Example, variant: int = 0) -> str:
        """The prompt without examples."""
        return self.prompts[variant % len(self.prompts)].render(example.fields)

    def with_gold(self, example: Example) -> str:
        """Gold examples of the task, and this one to solve."""
        return self.written.in_context(self.shown.before(example), example)


def make_cases(
    tasks: Sequence[Task], held_out: Sequence[str], settings: LimitsSettings, seed: int
) -> list[Case]:
    """Cut tasks alike, and choose their prompts.

    Raises:
        UserError: A task does not choose among labels or lacks a split, none is left to tune on, or so few
            rows are learned in all that one has none.
    """
    names = [task.name for task in tasks]
    for name in held_out:
        if name not in names:
            raise UserError(f"--hold-out: {name!r} is none of the tasks ({', '.join(names)}).")
    if {*held_out} == {*names}:
        raise UserError("--hold-out: it names every task, so that none is left to tune on.")
    if "irrelevant" in settings.controls and len(tasks) < 2:
        raise UserError("controls: irrelevant shows examples of another task, and there is only one.")
    cases = [_case(task, task.name not in held_out, settings, seed) for task in tasks]
    if nothing := [name for name, count in rows_of(cases, settings).items() if not count]:
        raise UserError(
            f"rows: of {settings.rows} rows in all none are of {listed(nothing)}; raise it, or hold these "
            "out (--hold-out)."
        )
    return cases


def _case(task: Task, trained: bool, settings: LimitsSettings, seed: int) -> Case:
    if task.kind != "choice" or is_graded(task):
        raise UserError(
            f"task {task.name!r} does not choose among labels, so that it has no candidates to compare; "
            "leave it out."
        )
    missing = [split for split in ("train", "score") if not getattr(task, split)]
    if missing:
        raise UserError(f"task {task.name!r} has no {listed(missing)} split; leave it out.")
    known = prompts_of(task)
    chosen = [known[name] for name in settings.prompts if name in known] or [known["default"]]
    first = chosen[0]
    prompts = tuple(one for one in chosen if one.choices == first.choices and not one.chat)
    if not prompts:
        raise UserError(f"task {task.name!r}: the prompt {first.name!r} is a chat; name others in `prompts`.")
    fields = tuple(sorted(first.fields, key=first.template.index))
    kept = {*fields, *(name for one in prompts for name in one.fields), *filter(None, [task.cluster])}

    def cut(example: Example) -> Example:
        return replace(
            example,
            fields={
                name: _shortened(str(example.fields[name]), settings.letters)
                if name in first.fields
                else example.fields[name]
                for name in sorted(kept)
            },
        )

    short = replace(
        task,
        train=[cut(one) for one in task.train],
        select=[cut(one) for one in task.select],
        score=[cut(one) for one in sample(task.name, task.score, settings.tests)],
    )
    drawn = DemonstrationSettings(count=settings.examples, draw="each", balanced=settings.balanced, seed=seed)
    written = ExampleFormat(fields, {label: first.choices[label] for label in task.labels})
    return Case(short, prompts, written, trained, Demonstrations(short, drawn))


def _shortened(text: str, letters: int) -> str:
    """A text on one line, cut at a blank."""
    words = " ".join(text.split())
    return words if len(words) <= letters else words[: letters + 1].rpartition(" ")[0] or words[:letters]


def mixture(sizes: Sequence[int], rows: int, cap: int) -> list[int]:
    """How many rows of each task are learned: examples-proportional mixing with a cap.

    r_m = min(e_m, cap) / Σ min(e_n, cap) of the rows (FLAN, Wei et al. 2022, section 2.1, after T5); what
    rounding leaves goes to the largest remainders, and no task gives more than min(e_m, cap).

    Args:
        sizes: Of the tasks' train splits.
        rows: In all.
        cap: See above.
    """
    capped = np.minimum(sizes, cap)
    shares = min(rows, int(capped.sum())) * capped / capped.sum()
    whole = np.floor(shares).astype(int)
    left = round(float(shares.sum())) - int(whole.sum())
    for k in np.argsort(-(shares - whole), kind="stable")[:left]:
        whole[k] += 1
    return [int(count) for count in whole]


def rows_of(cases: Sequence[Case], settings: LimitsSettings) -> dict[str, int]:
    """The training rows of each task that is not held out."""
    trained = [one for one in cases if one.trained]
    counts = mixture([len(one.task.train) for one in trained], settings.rows, settings.cap)
    return dict(zip([one.name for one in trained], counts, strict=True))


def write_training(
    cases: Sequence[Case], settings: LimitsSettings, seed: int, folder: Path
) -> dict[str, int]:
    """Write the task files that the two models are tuned on; a held-out task has no rows to learn.

    Returns:
        The training rows of each task.
    """
    of_task = rows_of(cases, settings)
    for case in cases:
        draw = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
        places = draw.permutation(len(case.task.train))[: of_task.get(case.name, 0)]
        rows = [case.task.train[k] for k in places.tolist()]
        variants = draw.integers(len(case.prompts), size=len(rows)).tolist()
        _write_direct(case, rows, variants, folder / DIRECT)
        if settings.samplegen:
            _write_samplegen(case, rows, variants, folder / SAMPLEGEN)
    return {case.name: of_task.get(case.name, 0) for case in cases}


def _write_direct(case: Case, rows: Sequence[Example], variants: Sequence[int], folder: Path) -> None:
    splits = {
        "train": [_direct_row(case, one, v) for one, v in zip(rows, variants, strict=True)],
        "select": [_direct_row(case, one) for one in case.task.select[:WATCHED] if rows],
        "score": [
            {**_direct_row(case, one), "cluster": cluster}
            for one, cluster in zip(case.tests, case.clusters, strict=True)
        ],
    }
    prompt = {"template": "{{ text }}", "separator": case.prompts[0].separator, "keep": "end"}
    about = {
        "label": "label",
        "metric": "accuracy",
        "cluster": "cluster",
        "prompts": {"default": {**prompt, "choices": dict(case.written.choices)}},
    }
    _write_task(folder, case.name, DIRECT, splits, about)


def _direct_row(case: Case, example: Example, variant: int = 0) -> dict[str, Any]:
    return {"text": case.asked(example, variant), "label": example.label, "cluster": example.id}


def _write_samplegen(case: Case, rows: Sequence[Example], variants: Sequence[int], folder: Path) -> None:
    splits = {
        "train": [_samplegen_row(case, one, v) for one, v in zip(rows, variants, strict=True)],
        "select": [_samplegen_row(case, one) for one in case.task.select[:WATCHED] if rows],
        "score": [_samplegen_row(case, one) for one in case.tests[:WATCHED]],
    }
    prompt = {"template": "{{ text }}", "separator": "\n", "keep": "end"}
    _write_task(
        folder,
        case.name,
        SAMPLEGEN,
        splits,
        {"target": "target", "metric": "loss", "prompts": {"default": prompt}},
    )


def _samplegen_row(case: Case, example: Example, variant: int = 0) -> dict[str, Any]:
    target = case.written.learned(case.shown.before(example), example)
    return {"text": requested(case, example, variant), "target": target}


def requested(case: Case, example: Example, variant: int = 0) -> str:
    """The prompt of a SampleGen model."""
    return f"{case.asked(example, variant)}\n{REQUEST}"


def task_path(folder: Path, task: str, kind: str) -> Path:
    """The task file of a task for one of the two models."""
    return folder / kind / f"{task}.yaml"


def file_task(task: str, kind: str) -> str:
    """The name that a task has in that file."""
    return f"{task}-{kind}"


def _write_task(
    folder: Path,
    name: str,
    kind: str,
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    about: Mapping[str, Any],
) -> None:
    filled = {split: rows for split, rows in splits.items() if rows}
    for split, rows in filled.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / f"{name}-{split}.jsonl", lines)
    data = {split: f"{name}-{split}.jsonl" for split in filled}
    write_text(folder / f"{name}.yaml", write_yaml({"name": file_task(name, kind), "data": data, **about}))


def in_context_texts(cases: Sequence[Case], control: str | None = None) -> Iterator[tuple[Case, list[str]]]:
    """The prompts of each task's tests with gold examples in them, as they are or as a control has them."""
    for k, case in enumerate(cases):
        written = case.written if control is None else CONTROLS[control](case.written)
        other = unlike(case, [*cases[k + 1 :], *cases[:k]]) if control == "irrelevant" else case
        shown_as = other.written if control == "irrelevant" else written
        yield case, [written.in_context(other.shown.before(one), one, shown_as) for one in case.tests]


def unlike(case: Case, others: Sequence[Case]) -> Case:
    """The first other task that has none of a task's answers, or else the first."""
    words = {*case.written.choices.values()}
    return next((one for one in others if words.isdisjoint(one.written.choices.values())), others[0])


def asked_so(case: Case, texts: Sequence[str]) -> tuple[Task, Prompt]:
    """A task whose tests are asked by these texts, and its prompt; of a text too long the end stays.

    Args:
        case: The task.
        texts: One for each test.
    """
    tests = [
        replace(one, fields={"text": text, "cluster": cluster})
        for one, text, cluster in zip(case.tests, texts, case.clusters, strict=True)
    ]
    prompt = Prompt("default", "{{ text }}", case.written.choices, keep="end")
    return replace(case.task, train=(), select=(), score=tests, cluster="cluster"), prompt
