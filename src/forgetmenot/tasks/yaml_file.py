"""YAML as people mean it: by version 1.2, and a key that stands twice is a mistake."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from forgetmenot.errors import UserError

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
        _keep_choices(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping whose keys are all different."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} occurs twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


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
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _CORE.items():
    _first_letters = ["" if letter == "\0" else letter for letter in _first]
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first_letters)
_Loader.add_constructor(_TAG + "int", _int)


def parse_yaml(text: str) -> Any:
    """What a text says in YAML.

    Raises:
        yaml.YAMLError: It is none.
    """
    return _Loader(text).get_single_data()


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys.

    Raises:
        UserError: The file is missing, not UTF-8, or no YAML mapping; names the line.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise UserError(f"The file {path} could not be read: {problem.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The file {path} is not UTF-8; save it as UTF-8.") from None
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise UserError(f"{path}, line {line}: this is not YAML ({problem.problem}).") from None
    except yaml.YAMLError as problem:
        raise UserError(f"{path} is not YAML ({str(problem).splitlines()[0]}).") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold keys with their values, such as 'name: mine'.")
    return data
