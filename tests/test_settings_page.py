"""Every setting has a sentence; the page and the schemas of settings are current, and recipes fit them."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.config import RunConfig
from forgetmenot.methods import METHODS
from forgetmenot.probes import PROBES
from forgetmenot.reference import run_settings, study_settings
from forgetmenot.report.setting_words import NEEDED, Setting, settings_of
from forgetmenot.tasks.yaml_file import parse_yaml, read_yaml
from scripts.settings_page.__main__ import ROOT, SCHEMAS, files
from scripts.settings_page.page import LEARNING_RATE

RECIPES = [*sorted((ROOT / "recipes").glob("*.yaml")), ROOT / "src/forgetmenot/quickstart.yaml"]
STUDY: dict[str, dict[str, Any]] = {
    "base": {"method.strength": 1, "training.epochs.sst2": 2},
    "grid": {"seed": [0]},
}


def all_settings() -> list[Setting]:
    kinds = {name: kind.Options for name, kind in METHODS.items()}
    probes = {name: kind.Options for name, kind in PROBES.items()}
    options = [one for name, kind in {**kinds, **probes}.items() for one in settings_of(kind, f"{name}: ")]
    return [*run_settings(), *study_settings(), *options]


def test_a_default_of_several_lines_stands_in_one() -> None:
    """Or it breaks the page's table."""
    settings = all_settings()
    assert [one.key for one in settings if "\n" in one.default] == []
    words = next(one for one in settings if one.key == "self-distillation: after")
    assert words.default.startswith('"\\n\\nNow answer')


def schema_named(path: Path) -> dict[str, Any]:
    """The schema that the first line of a YAML file names, relative to it."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found, f"{path.name} names no schema"
    schema: dict[str, Any] = json.loads((path.parent / found[1]).read_text(encoding="utf-8"))
    return schema


def wrong(schema: dict[str, Any], values: Any) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    errors = jsonschema.Draft202012Validator(schema).iter_errors(values)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors]


def written(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def test_every_key_has_a_sentence_and_a_type() -> None:
    lacking = [one.key for one in all_settings() if not one.text.endswith((".", "`")) or not one.type]
    assert lacking == []
    assert [one.key for one in all_settings() if "a value" in one.type] == []


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_what_is_written_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == files()[path], "run python -m scripts.settings_page"


def test_the_page_has_all_keys_with_the_defaults_that_they_have() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    run = text.split("\n# Study files\n")[0]
    rows = re.findall(r"^\| `([\w.\[\]]+)` \| .*? \| `(.*?)` \| ", run, re.MULTILINE)
    values: dict[str, Any] = {}
    for key, default in rows:
        if "[]" not in key:  # of each entry of a list
            *sections, last = key.split(".")
            section = values
            for name in sections:
                section = section.setdefault(name, {})
            section[last] = parse_yaml(default) if "{model}" not in default else default
    assert RunConfig.model_validate(values) == RunConfig()
    leaves = [one for one in run_settings() if not one.is_section]
    assert len(leaves) == len(rows)
    assert LEARNING_RATE in text


def test_what_must_be_given_is_said() -> None:
    assert next(one for one in study_settings() if one.key == "grid").default == NEEDED


@pytest.mark.parametrize("name", ["run", "study"])
def test_the_schemas_are_schemas(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(written(name))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_fits_the_schema_that_it_names(path: Path) -> None:
    schema = schema_named(path)
    values = read_yaml(path)
    assert ("grid" in values) == (schema == written("study"))
    assert wrong(schema, values) == []


def test_a_resolved_config_fits_the_schema() -> None:
    assert wrong(written("run"), parse_yaml(RunConfig().to_yaml())) == []


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"name": "quickstart", "nme": 1}},
        {"method": {"name": "ewc", "stength": 1}},
        {"method": {"name": "ewc", "strength": -1}},
        {"training": {"epochs": 0}},
        {"training": {"warmup_ratio": 1}},
        {"evaluation": {"scoring": "guess"}},
        {"evaluation": {"probes": [{"name": "drift", "limits": 3}]}},
        {"evaluation": {"margin": 3}},
        {"adapter": {"layers": {"bottom": 3}}},
        {"adaptr": {}},
    ],
)
def test_the_schema_refuses_what_a_run_refuses(values: dict[str, Any]) -> None:
    assert wrong(written("run"), values)


@pytest.mark.parametrize(
    "values",
    [
        {"model": "quickstart", "method": "of-another-package", "demonstrations": 4, "tasks": "a,b"},
        {"method": {"name": "of-another-package", "any": 1}, "training": {"epochs": {"sst2": 3}}},
        {"adapter": {"layers": {"top": 2}}, "training": {"save_every": None}},
        {"adapter": {"kind": "bridge", "augmenting": "quickstart"}},
        {"evaluation": {"probes": ["drift", {"name": "layers", "limit": 30}], "margin": {"sst2": 0.1}}},
        {"evaluation": {"readings": [{"demonstrations": 2}, {"realign": 16}]}},
    ],
)
def test_the_schema_takes_what_a_run_takes(values: dict[str, Any]) -> None:
    RunConfig.model_validate({key: one for key, one in values.items() if key != "method"})
    assert wrong(written("run"), values) == []


def test_the_schema_of_studies_knows_dotted_keys() -> None:
    assert wrong(written("study"), STUDY) == []
    for section, key, value in (
        ("base", "training.epocs", 1),
        ("base", "training.epochs", 0),
        ("grid", "training.epochs", 2),
        ("grid", "training.epochs", [0]),
        ("grid", "sed", [0]),
        ("grid", "order", {"randm": 3}),
    ):
        study = deepcopy(STUDY)
        study[section][key] = value
        assert wrong(written("study"), study), key
