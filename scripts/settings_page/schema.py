"""The JSON Schemas of run configs and of study files, by which editors complete keys and check values."""

import re
from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from forgetmenot.config import RunConfig
from forgetmenot.methods import METHODS
from forgetmenot.probes import PROBES
from forgetmenot.report.setting_words import Schema, schema_of
from forgetmenot.studies.config import StudyConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LIST: Schema = {"type": "array", "minItems": 1}


def run_schema() -> Schema:
    """The schema of a run's config, with the options of each method and probe."""
    schema = schema_of(RunConfig)
    named = schema["$defs"]
    for holder, kinds in (("MethodSettings", METHODS), ("NamedSettings", PROBES)):
        options = {name: kind.Options for name, kind in kinds.items()}
        named |= _with_options(named[holder], options)
    return {"$schema": DIALECT, "title": "A run of forgetmenot", **schema}


def study_schema() -> Schema:
    """The schema of a study's file: its base may have dotted keys, and its grid has the values of each."""
    run, schema = run_schema(), schema_of(StudyConfig)
    keys = {key: one for key, one in _dotted(run, run["$defs"]) if key != "output"}
    maps = "|".join(re.escape(key) for key, one in keys.items() if _is_map(one, run["$defs"]))
    base, grid = schema["properties"]["base"], schema["properties"]["grid"]
    base |= {"properties": keys, "patternProperties": {f"^({maps})\\.": {}}, "additionalProperties": False}
    order = {"anyOf": [LIST, {"const": "permutations"}, {"$ref": "#/$defs/RandomOrders"}]}
    grid |= {
        "properties": {key: {**LIST, "items": _as_in_base(key)} for key in keys} | {"order": order},
        "patternProperties": {f"^({maps})\\.": LIST, ",": {**LIST, "items": LIST}},
        "additionalProperties": False,
    }
    random: Schema = {"type": "object", "properties": {"random": {"type": "integer", "minimum": 1}}}
    random |= {"required": ["random"], "additionalProperties": False}
    definitions = {**run["$defs"], **schema.pop("$defs"), "RandomOrders": random}
    return {"$schema": DIALECT, "title": "A study of forgetmenot", "$defs": definitions, **schema}


def _with_options(holder: Schema, options: Mapping[str, type[BaseModel]]) -> Schema:
    """Let a name decide which keys stand beside it; return what the options refer to.

    A name of another package's is taken with any keys.
    """
    found: Schema = {}
    holder["properties"]["name"].pop("examples", None)
    holder["properties"]["name"]["anyOf"] = [{"enum": list(options)}, {"type": "string"}]
    holder["allOf"] = []
    for name, kind in options.items():
        own = schema_of(kind)
        found |= own.pop("$defs", {})
        then = {
            "properties": {"name": {}, **own.get("properties", {})},
            "required": own.get("required", []),
            "additionalProperties": False,
        }
        when = {"properties": {"name": {"const": name}}, "required": ["name"]}
        holder["allOf"].append({"if": when, "then": then})
    return found


def _dotted(schema: Schema, definitions: Schema, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    """Every key of a schema and of its sections, dotted, with what may stand there."""
    for name, one in schema["properties"].items():
        yield prefix + name, one
        for section in _refers_to(one):
            yield from _dotted(definitions[section], definitions, f"{prefix}{name}.")


def _refers_to(schema: Schema) -> list[str]:
    alternatives = [schema, *schema.get("anyOf", [])]
    return [one["$ref"].rpartition("/")[2] for one in alternatives if "$ref" in one]


def _is_map(schema: Schema, definitions: Schema) -> bool:
    """Whether keys may follow that the schema does not name: a map, or a method's options."""
    alternatives = [schema, *schema.get("anyOf", [])]
    open_section = any(definitions[name].get("additionalProperties") is True for name in _refers_to(schema))
    return open_section or any(
        one.get("type") == "object" and one.get("additionalProperties") for one in alternatives
    )


def _as_in_base(key: str) -> Schema:
    return {"$ref": f"#/properties/base/properties/{key}"}
