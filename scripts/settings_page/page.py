"""The page of all settings: a table for each section of a config and a study, each method and probe."""

import re
from collections.abc import Iterable

from forgetmenot.methods import METHODS
from forgetmenot.probes import PROBES
from forgetmenot.reference import run_settings, study_settings
from forgetmenot.report.setting_words import Setting, settings_of

HEAD = """\
# Settings

`fmn run CONFIG.yaml`: keys that the file leaves out have the defaults below, and the command line overrides
the file (`--set training.epochs=2`). An unknown key is an error. Files and folders beside the config are
named relative to it; the run writes all paths into its own `config.yaml` in full. If no config, model or
tasks are named, the config of the bundled job (`src/forgetmenot/quickstart.yaml`) is used.

`fmn list settings` prints the same, `fmn list settings training` a part of it, and in Python
`fmn.known("settings", "training")`. Editors that know YAML's language server complete keys and check values
by the JSON Schemas in `src/forgetmenot/schema/`, which a first line names: `# yaml-language-server:
$schema=PATH/run.schema.json`. `[]` in a key stands for each entry of a list.

Written by `python -m scripts.settings_page` from the classes that check the settings.
"""

LEARNING_RATE = """\
### `training.learning_rate: auto`

It is 2e-4 for LoRA and 1e-5 for full fine-tuning from a hidden size of 2048 on; narrower models get a higher
rate (2e-4 · 2048/width and 1e-5 · (2048/width)²). That rule is our heuristic. It is 1e-2 for soft prompts and
3e-4 for bridges of any width. The rate used is in `environment.json`.
"""

STUDY = """\
# Study files

`fmn study STUDY.yaml` runs every combination of a grid ([Comparing runs](comparing.md)).
"""

METHOD_OPTIONS = """\
# Options of methods

They stand beside the name: `method: {name: ewc, strength: 100}`, or `--method ewc --set method.strength=100`.
Methods that are not here have none. `fmn list methods NAME` says what a method does, and what it needs of the
adapter; [docs/methods.md](methods.md) compares them.
"""

PROBE_OPTIONS = """\
# Options of probes

They stand beside the name: `evaluation: {probes: [{name: drift, limit: 32}]}`. `fmn list probes NAME` says
what a probe measures; [docs/probes.md](probes.md) has more.
"""


def page() -> str:
    """The page as Markdown."""
    run = _sections(run_settings(), "The run")
    at = next(k for k, text in enumerate(run) if text.startswith("## `training`")) + 1
    methods = [(name, settings_of(kind.Options)) for name, kind in METHODS.items()]
    probes = [(name, settings_of(kind.Options)) for name, kind in PROBES.items()]
    parts = [HEAD, *run[:at], LEARNING_RATE, *run[at:], STUDY, *_sections(study_settings(), "The study")]
    parts += [METHOD_OPTIONS, *_options(methods), PROBE_OPTIONS, *_options(probes)]
    return "\n".join(parts)


def _sections(settings: Iterable[Setting], title: str) -> list[str]:
    """A heading, a sentence and a table for each section; what stands in none comes first."""
    tables: dict[str, list[Setting]] = {"": []}
    texts: dict[str, str] = {"": ""}
    for one in settings:
        if one.is_section:
            texts[one.key] = f"{one.text} It is {one.type}."
        section = one.key.rpartition(".")[0].removesuffix("[]")
        if not one.is_section:
            tables.setdefault(section, []).append(one)
    return [
        "\n".join(
            filter(
                None,
                [
                    f"{'###' if '.' in section else '##'} {f'`{section}`' if section else title}\n",
                    _linked(texts[section]) + "\n" if texts[section] else "",
                    _table(rows),
                ],
            )
        )
        for section, rows in tables.items()
    ]


def _options(named: Iterable[tuple[str, list[Setting]]]) -> list[str]:
    return [f"## `{name}`\n\n{_table(settings)}" for name, settings in named if settings]


def _table(settings: Iterable[Setting]) -> str:
    rows = [
        f"| `{one.key}` | {one.type} | {f'`{one.default}`' if one.default else ''} | {_linked(one.text)} |"
        for one in settings
    ]
    return "\n".join(["| key | type | default | |", "|---|---|---|---|", *rows]) + "\n"


def _linked(text: str) -> str:
    """A text as it stands in a cell, with links to the pages that it names."""
    text = text.replace("|", "\\|").replace("docs/settings.md", "below")
    return re.sub(r"docs/([\w-]+)\.md", r"[docs/\1.md](\1.md)", text)
