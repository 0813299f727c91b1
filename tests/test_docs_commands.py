"""The commands and the Python of docs and recipes are such as there are: verbs, flags, keys, names."""

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forgetmenot
from forgetmenot.arguments import parser
from forgetmenot.config import RunConfig, load_config
from forgetmenot.settings import Settings
from forgetmenot.studies.config import load_study
from forgetmenot.synthesis.general import GeneralSettings
from forgetmenot.synthesis.settings import SynthesisSettings
from forgetmenot.trials.embed import MeasureSettings
from forgetmenot.trials.limits_settings import limits_settings
from forgetmenot.trials.tune_embeddings import TuneSettings
from forgetmenot.verbs import _settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (*PAGES, *RECIPES)}
OWN: dict[str, tuple[type[Settings], ...]] = {
    "embed": (MeasureSettings, TuneSettings),
    "synthesize": (SynthesisSettings, GeneralSettings),
}
"""The classes of the settings that a verb has beside a config's."""
PROGRAM = re.compile(r"^(?:[A-Z_]+=\S+ )*(fmn|forgetmenot|python -m \w[\w.]*)\b")


def commands(text: str, *, recipe: bool) -> Iterator[list[str]]:
    """The words of each command: in blocks of shell, in indented lines, in the comments of a recipe."""
    if recipe:
        text = "\n".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
        blocks = [text]
    else:
        blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
        blocks.append("\n".join(re.findall(r"^ {4}(.*)$", text, re.MULTILINE)))
    for block in blocks:
        named: dict[str, str] = {}
        joined = re.sub(r"\\\n\s*", " ", block)
        for name, value in re.findall(r'^([A-Z]+)="([^"]*)"$', joined, re.MULTILINE):
            named[name] = value
        lines = iter(joined.splitlines())
        for line in lines:
            if not PROGRAM.match(line) or "…" in line or "COMMAND" in line:
                continue
            line = re.sub(r"\s+#\s.*$", "", line)
            while line.count("'") % 2:  # a value over several lines
                line += " " + next(lines)
            for name, value in named.items():
                line = re.sub(rf"\${name}\b", value, line)
            yield shlex.split(line.partition(" > ")[0])


FOUND = [
    pytest.param(words, id=f"{page}: {' '.join(words)}"[:120])
    for page, text in TEXTS.items()
    for words in commands(text, recipe=page.endswith(".yaml"))
]


def test_they_are_found() -> None:
    assert len(FOUND) > 120
    assert len(SNIPPETS) > 5
    assert {"README.md", "docs/check.md", "recipes/ledger.yaml"} <= {
        str(one.id).split(":")[0] for one in FOUND
    }


@pytest.mark.parametrize("words", FOUND)
def test_a_command_is_one_that_there_is(words: list[str]) -> None:
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "python":
        assert importlib.util.find_spec(words[2]) is not None or (ROOT / words[2].replace(".", "/")).exists()
        return
    if "..." in words[-1]:
        words = [one.removesuffix("...") for one in words]
    parsed: Any = parser().parse_args([re.sub(r"^N$", "3", one) for one in words[1:]])
    check_keys(parsed)


def check_keys(parsed: Any) -> None:
    """See that what is set are keys; their values may be placeholders of a reader's own."""
    given = _settings(getattr(parsed, "set", []))
    file = str(getattr(parsed, "config", None) or getattr(parsed, "study", ""))
    assert not file.startswith("recipes/") or (ROOT / file).is_file()
    if parsed.verb == "run":
        here = {k: {"top": 1} if isinstance(v, dict) and "auto" in v else v for k, v in given.items()}
        load_config(None, {"tasks": "quickstart", "method": parsed.method or "sequential", **here})
    elif parsed.verb == "limits":
        limits_settings(given)
    elif parsed.verb == "study" and str(parsed.study).startswith("recipes/"):
        load_study(ROOT / parsed.study, given)
    else:
        known = {name.split(".")[0] for name in given}
        own = {name for kind in OWN.get(parsed.verb, ()) for name in kind.model_fields}
        assert known <= {*RunConfig.model_fields} | own, known


SNIPPETS = [
    pytest.param(block, id=f"{page}: {block.splitlines()[0]}"[:100])
    for page, text in TEXTS.items()
    for block in re.findall(r"```(?:python|py)\n(.*?)```", text, re.DOTALL)
]


@pytest.mark.parametrize("block", SNIPPETS)
def test_what_python_calls_of_the_package_is_there(block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="fmn" | "forgetmenot"), attr=name):
                assert hasattr(forgetmenot, name), name
            case ast.ImportFrom(module=str(room), names=names) if room.startswith("forgetmenot"):
                module = importlib.import_module(room)
                for one in names:
                    assert hasattr(module, one.name), f"{room}.{one.name}"
