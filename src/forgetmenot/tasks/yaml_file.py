"""YAML as people mean it: yes and no are words, and a key that stands twice is a mistake."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from forgetmenot.errors import UserError

_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans (true and false alone), so that labels named yes and no stay words."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping whose keys are all different."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} occurs twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys.

    Raises:
        UserError: The file is missing, not UTF-8, or no YAML mapping; names the line.
    """
    try:
        data = _Loader(path.read_text(encoding="utf-8-sig")).get_single_data()
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
