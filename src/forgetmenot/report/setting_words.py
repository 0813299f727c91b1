"""Settings in words: each key's type, default and sentence, read from the class that validates it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from forgetmenot.settings import MOST

NEEDED = "needed"
"""What stands for the default of a key that has none."""

MANY = 8
"""Names that are more than this are not listed where the type is told."""

Schema = dict[str, Any]
BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


@dataclass(frozen=True)
class Setting:
    """A key of settings, as people read of it.

    Attributes:
        key: Its dotted path; `[]` stands behind a key that holds a list of sections.
        type: What may stand there: "a whole number above 0 or `auto`".
        default: What stands there where nothing does, as in YAML; empty for a section, and `needed` where
            something must stand there.
        text: What it is, in a sentence or two.
        is_section: Whether keys of its own follow.
    """

    key: str
    type: str
    default: str
    text: str
    is_section: bool = False


def settings_of(kind: type[BaseModel], prefix: str = "", values: BaseModel | None = None) -> list[Setting]:
    """Every key of a class of settings, those of its sections behind each.

    Args:
        kind: The class.
        prefix: What the keys begin with: "training.".
        values: An instance whose values are the defaults; by default those of the class.
    """
    schema = schema_of(kind)
    return list(_rows(kind, schema, schema.get("$defs", {}), prefix, values))


def schema_of(kind: type[BaseModel]) -> Schema:
    """The JSON Schema of a class of settings, with the sentences as descriptions and no invented titles."""
    return _tidy(kind.model_json_schema(schema_generator=_Untitled))


def type_in_words(schema: Schema) -> str:
    """What a value may be, for people: "`auto`, a number above 0 or `null`"."""
    return _either(_parts(schema))


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _tidy(schema: Schema) -> Schema:
    """The same with JSON Schema's own names for bounds, sentences in one line, and no titles of classes."""
    found: Schema = {}
    for key, value in schema.items():
        if key in BOUNDS:
            if value <= MOST:
                found[BOUNDS[key]] = value
        elif key in ("properties", "$defs"):
            found[key] = {name: _tidy(one) for name, one in value.items()}
        elif key in ("anyOf", "oneOf", "prefixItems"):
            found[key] = [_tidy(one) for one in value]
        elif key in ("items", "additionalProperties", "propertyNames") and isinstance(value, dict):
            found[key] = _tidy(value)
        elif key == "description":
            found[key] = " ".join(value.split())
        elif not (
            (key == "title" and "properties" in schema)
            or (key in ("maximum", "exclusiveMaximum") and value >= MOST)
        ):
            found[key] = value
    return found


def _rows(
    kind: type[BaseModel], schema: Schema, definitions: Schema, prefix: str, values: BaseModel | None
) -> Iterator[Setting]:
    for name, field in kind.model_fields.items():
        value = _default(field) if values is None else getattr(values, name)
        sections, within = _sections(field.annotation), value if isinstance(value, BaseModel) else None
        key = prefix + name
        yield Setting(
            key,
            type_in_words(schema["properties"][name]),
            "" if within is not None else _as_yaml(value),
            " ".join((field.description or "").split()),
            bool(sections),
        )
        for section in sections:
            several = "[]" if get_origin(field.annotation) in (list, tuple) else ""
            inner = definitions[section.__name__]
            yield from _rows(section, inner, definitions, f"{key}{several}.", within)


def _default(field: FieldInfo) -> Any:
    return NEEDED if field.is_required() else field.get_default(call_default_factory=True)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The classes of settings in a type, but for those that take any key (a probe's name and options)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = [one for part in get_args(annotation) for one in _sections(part)]
    return [one for one in found if one.model_config.get("extra") != "allow"]


def _as_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_as_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if "\n" in text else text


def _parts(schema: Schema, several: bool = False) -> list[str]:
    """What a value may be, one by one; of `several` values in the plural."""
    if alternatives := schema.get("anyOf", schema.get("oneOf")):
        parts = [part for one in alternatives for part in _parts(one, several)]
        if parts[:2] == ["a text", "a list of texts"]:
            parts[:2] = ["a name", "a list of names"]
        if {"a section of keys", "a text"} <= set(parts):
            parts[parts.index("a text")] = "a name"
        return list(dict.fromkeys(parts))
    if "const" in schema or "enum" in schema:
        return [f"`{_as_yaml(one)}`" for one in schema.get("enum", [schema.get("const")])]
    if "$ref" in schema:
        return ["sections of keys" if several else "a section of keys"]
    kind = schema.get("type")
    if kind == "boolean":
        return ["`true`", "`false`"]
    if kind == "null":
        return ["`null`"]
    if kind == "string":
        names = schema.get("examples", [])
        if names and len(names) <= MANY:
            return [*(f"`{name}`" for name in names), "the name of another"]
        word = "name" if names else "text"
        return [f"{word}s" if several else schema.get("title", f"a {word}")]
    if kind in ("integer", "number"):
        word = "whole number" if kind == "integer" else "number"
        return [f"{word}s{_bounds(schema)}" if several else f"a {word}{_bounds(schema)}"]
    if kind == "array":
        if "prefixItems" in schema:
            return [f"a list of {len(schema['prefixItems'])} texts"]
        return [f"a list of {_either(_parts(schema.get('items', {}), several=True))}"]
    if kind == "object" and "propertyNames" in schema:
        names, held = type_in_words(schema["propertyNames"]), type_in_words(schema["additionalProperties"])
        return [f"a map from {names} to {held}"]
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return [f"a map to {_either(_parts(schema['additionalProperties'], several=True))}"]
    return ["a map" if kind == "object" else "values" if several else "a value"]


def _bounds(schema: Schema) -> str:
    """What a number must keep to: " above 0 and at most 1"."""
    words = {
        "exclusiveMinimum": " above {}",
        "minimum": " from {} on",
        "exclusiveMaximum": " below {}",
        "maximum": " at most {}",
    }
    said = " and".join(text.format(f"{schema[key]:,}") for key, text in words.items() if key in schema)
    return said.replace(" on and at most ", " to ").replace(" on and below", " to below")


def _either(parts: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
