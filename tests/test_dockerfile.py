"""The Dockerfile: what it copies is there and reaches it, what it starts is a command of the package.

Its stages are those of tests/test_wheel.py: build a wheel, install it elsewhere, run.
"""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def of(instruction: str) -> list[str]:
    """What stands behind each instruction of a kind."""
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{instruction} ")]


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    kept = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    sources = [
        source for line in of("COPY") if not line.startswith("--from") for source in shlex.split(line)[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, one) for one in kept), f".dockerignore leaves out {source}"


def test_the_wheel_needs_nothing_that_is_not_copied() -> None:
    copied = {source for line in of("COPY") for source in shlex.split(line)[:-1]}
    assert {PROJECT["readme"], *PROJECT["license-files"], "src"} <= copied


def test_it_starts_the_command_of_the_package() -> None:
    [entry], [given] = (json.loads(one) for one in of("ENTRYPOINT")), (json.loads(one) for one in of("CMD"))
    assert entry[0] in PROJECT["scripts"]
    assert given == ["--help"]


def test_python_is_one_that_the_package_takes() -> None:
    [version] = [one.partition("=")[2] for one in of("ARG") if one.startswith("PYTHON=")]
    least = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, version.split("."))) >= tuple(map(int, least.split(".")))


def test_torch_comes_first_from_the_index_that_is_given() -> None:
    torch, package = [line for line in of("RUN") if line.startswith("pip install")]
    assert torch.endswith(" torch")
    assert '${TORCH_INDEX:+--index-url "$TORCH_INDEX"}' in torch
    assert "/wheels/" in package
