"""YAML as people mean it: by version 1.2, and a key that stands twice is a mistake."""

import re
from collections.abc import Hashable
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from forgetmenot.errors import UserError

LETTERS = 1_000_000
"""The most in a file; a person writes no longer one."""

PARTS = 100_000
"""The most values, each counted as often as an alias repeats it."""

DEEP = 50
"""The most levels of lists and maps within one another."""

DIGITS = 100
"""The most of a number."""

_TAG = "tag:yaml.org,2002:"
_CORE = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}
"""YAML 1.2's core schema: what a plain scalar is by its text, and the characters that it begins with."""


class _Loader(yaml.SafeLoader):
    """A reader by YAML 1.2: yes, 2:1, 1_000 and dates are text, and 010 is ten."""

    def get_single_node(self) -> yaml.Node | None:
        """Keep what is written in `choices`: labels and words are text, whatever they look like."""
        node = super().get_single_node()
        if node is not None:
            _measure(node)
        _keep_choices(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping whose keys are texts, and all different."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong("a list or a map cannot be a key", key)
            if key.value in seen:
                raise _wrong(f"{key.value!r} occurs twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _wrong(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _measure(node: yaml.Node) -> None:
    """See that it is no larger, no deeper and of no other kinds than a person writes.

    Raises:
        yaml.MarkedYAMLError: If it is.
    """
    sizes: dict[int, int] = {}  # of the nodes that are measured: an alias is the same node again

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if depth > DEEP:
            raise _wrong(f"more than {DEEP} lists and maps stand within one another", node)
        if node.tag.removeprefix(_TAG) not in (*_CORE, "str", "seq", "map"):
            raise _wrong(f"the type {node.tag!r} is not known", node)
        total = 1
        if isinstance(node, yaml.ScalarNode):
            if "\0" in node.value or not _is_unicode(node.value):
                raise _wrong("a text holds a zero or half a character", node)
        else:
            for part in node.value:
                total += sum(size(one, depth + 1) for one in (part if isinstance(part, tuple) else (part,)))
        if total > PARTS:
            raise _wrong(f"more than {PARTS:,} values, as aliases repeat them", node)
        sizes[id(node)] = total
        return total

    size(node, 1)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keep_choices(node: yaml.Node | None) -> None:
    """Make the scalars of every map under a key `choices` text; what is empty stays null."""
    if isinstance(node, yaml.SequenceNode):
        for one in node.value:
            _keep_choices(one)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value == "choices" and isinstance(value, yaml.MappingNode):
            for scalar in (one for pair in value.value for one in pair):
                if isinstance(scalar, yaml.ScalarNode) and scalar.tag != _TAG + "null":
                    scalar.tag = _TAG + "str"
        else:
            _keep_choices(value)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > DIGITS:
        raise _wrong(f"a number has {len(text):,} digits", node)
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


class _Dumper(yaml.SafeDumper):
    """A writer that puts into quotes what YAML 1.1 or 1.2 would not read as text."""


_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _CORE.items():
    _first_letters = ["" if letter == "\0" else letter for letter in _first]
    for _one in (_Loader, _Dumper):
        _one.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first_letters)
_Loader.add_constructor(_TAG + "int", _int)


def parse_yaml(text: str) -> Any:
    """What a text says in YAML.

    Raises:
        yaml.YAMLError: It is none, or more than a person writes.
    """
    if len(text) > LETTERS:
        raise yaml.MarkedYAMLError(problem=f"it has {len(text):,} letters, and {LETTERS:,} are the most")
    try:
        return _Loader(text).get_single_data()
    except RecursionError as error:
        raise yaml.MarkedYAMLError(
            problem=f"more than {DEEP} lists and maps stand within one another"
        ) from error
    except (KeyError, ValueError) as error:  # as in `!!int abc`
        raise yaml.MarkedYAMLError(problem=f"a value does not fit the type before it: {error}") from error


@lru_cache(maxsize=2048)
def _parsed(text: str) -> Any:
    """The same, once for each text: a run reads a task file several times, and 3,000 choices take 1 s."""
    return parse_yaml(text)


def write_yaml(content: Any) -> str:
    """Plain data as YAML, which `parse_yaml` reads as the same."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def why(error: yaml.YAMLError) -> str:
    """What is wrong with a text that is no YAML, in a few words."""
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else None
    return str(problem or str(error).splitlines()[0])


def shortened(text: str, most: int = 60) -> str:
    """A text in quotes, with its end left out where it is long."""
    return repr(text if len(text) <= most else f"{text[:most]}…")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys.

    Raises:
        UserError: The file is missing, not UTF-8, or no YAML mapping; names the line.
    """
    try:
        data = deepcopy(_parsed(path.read_text(encoding="utf-8-sig")))
    except OSError as problem:
        raise UserError(f"The file {path} could not be read: {problem.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The file {path} is not UTF-8; save it as UTF-8.") from None
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise UserError(f"{path}, line {line}: this is not YAML ({why(problem)}).") from None
    except yaml.YAMLError as problem:
        raise UserError(f"{path} is not YAML ({why(problem)}).") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold keys with their values, such as 'name: mine'.")
    return data
