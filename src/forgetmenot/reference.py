"""What there is to choose from and to set: the lists that `fmn list` prints."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from forgetmenot.errors import UserError, nearest
from forgetmenot.report.screen import Screen
from forgetmenot.report.setting_words import NEEDED, Setting, settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from forgetmenot.methods import Method
    from forgetmenot.metrics import Metric
    from forgetmenot.probes import Probe

T = TypeVar("T")

FEW = 60
"""Names that are more than this are not repeated in a sentence about one that is unknown."""


@dataclass(frozen=True)
class Entry:
    """One thing that there is.

    Attributes:
        name: What it is called.
        text: What it is.
        about: What must be known of it besides, in a few words: of a setting its type and default.
    """

    name: str
    text: str
    about: str = ""


@dataclass(frozen=True)
class Reference:
    """What there is of a kind, or one of them in full.

    Attributes:
        text: What stands before the entries: of a method its docstring, and what it needs.
        entries: The names, or of a method, a probe and the settings the keys.
    """

    text: str
    entries: tuple[Entry, ...]

    def print(self, console: Console | None = None) -> None:
        """Print it: names with a line each in two columns, else one below the other."""
        console = console or Screen()
        if self.text:
            console.print(self.text, highlight=False)
        if not any(one.about for one in self.entries):
            table = Table("name", "", box=None, pad_edge=False)
            for one in self.entries:
                table.add_row(one.name, one.text)
            if self.entries:
                console.print(table)
            return
        for one in self.entries:
            if self.text or one is not self.entries[0]:
                console.print()
            console.print(Text.assemble((one.name, "bold"), f": {one.about}"), highlight=False)
            console.print(Padding(Text(one.text), (0, 0, 0, 4), expand=False), highlight=False)


def known(what: str, name: str | None = None) -> Reference:
    """What there is of a kind: tasks, suites, methods, metrics, models, prompts, probes or settings.

    Args:
        what: Which kind.
        name: One of them, in full; of settings what their keys begin with.

    Raises:
        UserError: If there is no such kind or name, with the nearest.
    """
    if what not in KINDS:
        raise UserError(f"list: there is no list of {what!r}. {nearest(what, KINDS)}")
    return KINDS[what](name)


def run_settings() -> list[Setting]:
    """Every key of a run's config with its default."""
    from forgetmenot.config import RunConfig

    return settings_of(RunConfig, values=RunConfig())


def study_settings() -> list[Setting]:
    """Every key of a study's file, the keys of the config that is its `base` aside."""
    from forgetmenot.studies.config import StudyConfig

    return settings_of(StudyConfig)


def _settings(prefix: str | None) -> Reference:
    both = {"": run_settings(), " (of a study)": study_settings()}
    chosen = [
        _entry(one, of)
        for of, settings in both.items()
        for one in settings
        if one.key.startswith(prefix or "")
    ]
    if not chosen:
        keys = [one.key for settings in both.values() for one in settings]
        ends = [key for key in keys if key.split(".")[-1] == prefix]
        meant = ends[0] if ends else str(prefix)
        raise UserError(
            f"list settings: no key begins with {prefix!r}. {nearest(meant, keys, '`fmn list settings`')}"
        )
    return Reference("", tuple(chosen))


def _entry(setting: Setting, of: str = "") -> Entry:
    default = setting.default if setting.default in ("", NEEDED) else f"default {setting.default}"
    return Entry(setting.key + of, setting.text, f"{setting.type}; {default}" if default else setting.type)


def _methods(name: str | None) -> Reference:
    from forgetmenot.methods import known_methods

    methods = known_methods()
    if name is None:
        return _lines({one: _first_line(kind) for one, kind in methods.items()})
    kind = _named(methods, "methods", name)
    return Reference(
        f"{name}: {_told(kind)}\n\n{_needs_of(kind)}", tuple(map(_entry, settings_of(kind.Options)))
    )


def _needs_of(kind: type[Method]) -> str:
    """What a method needs of the adapter and of the data, and what it keeps."""
    needs = "; ".join(f"{key} {' or '.join(allowed)}" for key, allowed in kind.needs.items())
    said = [
        f"Adapter: {needs}; the first is taken where a config leaves it open." if needs else "Adapter: any.",
        f"Keeps for each task: {kind.keeps}.",
        f"Past tasks' examples: {'needed' if kind.past_data else 'not needed'}.",
    ]
    refused = {
        "weights spread over processes": kind.shards,
        "stages of preferences": kind.preferences,
    }
    if missing := [words for words, works in refused.items() if not works]:
        said.append(f"Does not work with {' or '.join(missing)}.")
    return "\n".join(said)


def _probes(name: str | None) -> Reference:
    from forgetmenot.probes import known_probes

    probes = known_probes()
    if name is None:
        return _lines({one: _first_line(kind) for one, kind in probes.items()})
    kind = _named(probes, "probes", name)
    return Reference(f"{name}: {_told(kind)}", tuple(map(_entry, settings_of(kind.Options))))


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _told(kind: type[Method] | type[Probe]) -> str:
    """A class's docstring, and that of its file, where papers and equations stand."""
    texts = (inspect.cleandoc(one.__doc__ or "") for one in (kind, sys.modules[kind.__module__]))
    paragraphs = "\n\n".join(filter(None, texts)).split("\n\n")
    return "\n\n".join(map(_flowing, paragraphs))


def _flowing(paragraph: str) -> str:
    """A paragraph with a line for each item of its lists, for the screen to break; a formula as it stands."""
    if paragraph.startswith(" "):
        return paragraph
    return re.sub(r"\n(?!- |\d+\. ) *", " ", paragraph)


def _metrics(name: str | None) -> Reference:
    from forgetmenot.metrics import known_metrics

    metrics = known_metrics()
    chosen = metrics if name is None else {name: _named(metrics, "metrics", name)}
    text = "" if name is None else _metric_in_full(chosen[name])
    about = {one: f"{metric.formula.title}; {metric.unit}; {metric.test}" for one, metric in chosen.items()}
    return Reference(
        text, tuple(Entry(one, chosen[one].formula.meaning, line) for one, line in about.items() if not text)
    )


def _metric_in_full(metric: Metric) -> str:
    chance = "none" if metric.chance is None else str(metric.chance)
    if metric.chance == "majority":
        chance = "what the most frequent label scores"
    rows = {
        "Formula": metric.formula.formula,
        "Source": metric.formula.source,
        "Unit": f"{metric.unit}, {metric.direction} is better",
        "Test": metric.test,
        "Chance level": chance,
        "Margin": f"{metric.margin:g} (a smaller drop counts as none) unless `evaluation.margin` is set",
        "Task files": f"of {', '.join(metric.kinds)}" if metric.kinds else "none may name it",
    }
    lines = "\n".join(f"{row}: {value}." for row, value in rows.items())
    return f"{metric.name}: {metric.formula.title}. {metric.formula.meaning}\n\n{lines}"


def _tasks(name: str | None) -> Reference:
    from forgetmenot.tasks import known_tasks

    return _lines(known_tasks(), "tasks", name)


def _suites(name: str | None) -> Reference:
    from forgetmenot.tasks import known_suites

    return _lines({suite: ", ".join(tasks) for suite, tasks in known_suites().items()}, "suites", name)


def _models(name: str | None) -> Reference:
    from forgetmenot.models.settings import BUNDLED

    bundled = dict.fromkeys(BUNDLED, "Bundled: a small Llama that knows the words of the bundled tasks")
    any_other = {"…": "any causal language model: a hub id, a directory, a .gguf file"}
    return _lines({**bundled, **any_other}, "models", name)


def _prompts(name: str | None) -> Reference:
    from forgetmenot.prompting import known_prompts

    return _lines({task: ", ".join(variants) for task, variants in known_prompts().items()}, "prompts", name)


def _lines(lines: Mapping[str, str], what: str = "", name: str | None = None) -> Reference:
    """All names with a line each, or one of them."""
    chosen = lines if name is None else {name: _named(lines, what, name)}
    return Reference("", tuple(Entry(one, line) for one, line in chosen.items()))


def _named(there: Mapping[str, T], what: str, name: str) -> T:
    if name not in there:
        shown_by = None if len(there) <= FEW else f"`fmn list {what}`"
        raise UserError(f"list {what}: there is no {name!r}. {nearest(name, there, shown_by)}")
    return there[name]


KINDS: Mapping[str, Callable[[str | None], Reference]] = {
    "tasks": _tasks,
    "suites": _suites,
    "methods": _methods,
    "metrics": _metrics,
    "models": _models,
    "prompts": _prompts,
    "probes": _probes,
    "settings": _settings,
}
