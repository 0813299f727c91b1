"""CITATION.cff names the version and the licence that the package has."""

from pathlib import Path

import forgetmenot
from forgetmenot.tasks.yaml_file import read_yaml

ROOT = Path(__file__).parents[1]


def test_it_is_of_this_version_and_licence() -> None:
    cited = read_yaml(ROOT / "CITATION.cff")
    assert {"cff-version", "title", "message", "authors"} <= cited.keys()
    assert cited["version"] == forgetmenot.__version__
    assert f'license = "{cited["license"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
