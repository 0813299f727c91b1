"""The CI examples of docs/ci.md: valid YAML, commands that exist, and jobs that end as they say."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from forgetmenot.arguments import parser

TEXT = (Path(__file__).parents[1] / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
GATE, SERVERS, GITLAB, ACCEPT = BLOCKS
FORGED = """#!/bin/sh
mkdir -p check
[ "$STATUS_TO_GIVE" = 2 ] || echo "## verdict" > check/check.md
exit "$STATUS_TO_GIVE"
"""


def scripts(value: Any) -> Iterator[str]:
    """Every shell script in a workflow, however deep it lies."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("run", "script", "before_script"):
                yield from [inner] if isinstance(inner, str) else inner
            else:
                yield from scripts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scripts(inner)


def commands(block: Any) -> list[list[str]]:
    """The words behind each `fmn` in a workflow."""
    joined = "\n".join(scripts(block)).replace("\\\n", " ")
    found = re.findall(r"^\s*fmn (.*?)(?: \|\| .*)?$", joined, re.MULTILINE)
    return [shlex.split(re.sub(r'"\$\(cat .*?\.txt"?\)"', "MODEL", one)) for one in found]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_command_is_one_of_this_program(block: Any) -> None:
    (words,) = commands(block)
    parsed = parser().parse_args(words)
    assert parsed.verb == "check"
    assert parsed.tuned
    assert parsed.tasks


def test_what_the_jobs_take_up_is_what_a_check_writes() -> None:
    for block in (GATE, GITLAB, ACCEPT):
        assert parser().parse_args(commands(block)[0]).output == "check"
    assert GITLAB["check"]["artifacts"]["reports"]["junit"] == "check/check.xml"
    assert parser().parse_args(commands(GATE)[0]).baseline in str(GATE["jobs"]["check"]["steps"])
    assert parser().parse_args(commands(GITLAB)[0]).baseline in GITLAB["check"]["cache"][1]["paths"]
    assert {*re.findall(r"check/(check\.\w+)", TEXT)} == {"check.md", "check.xml"}


def step(block: Any, name: str) -> str:
    (job,) = block["jobs"].values()
    (found,) = [one["run"] for one in job["steps"] if one.get("name") == name]
    return str(found)


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Run a step as GitHub does, in a checkout with a `fmn` that ends with a given status."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "fmn").write_text(FORGED)
    (tmp_path / "bin" / "fmn").chmod(0o755)
    (tmp_path / "gate").mkdir()
    for name in ("accepted", "original"):
        (tmp_path / "gate" / f"{name}.txt").write_text("models/accepted/v3\n")

    def run(script: str, **variables: str) -> int:
        files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "AGAINST": "accepted", **files, **variables}
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script], cwd=tmp_path, env=environment
        ).returncode

    return run


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (1, 1), (3, 0), (2, 2), (70, 70)])
def test_the_job_ends_as_the_check_does(shell: Any, tmp_path: Path, status: int, ends: int) -> None:
    assert shell(step(GATE, "Check"), STATUS_TO_GIVE=str(status)) == 0
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == f"status={status}\n"
    assert (tmp_path / "GITHUB_STEP_SUMMARY").exists() == (status != 2)
    assert shell(step(GATE, "Verdict"), STATUS=str(status)) == ends
    assert GITLAB["check"]["allow_failure"]["exit_codes"] == [3]


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (1, 0), (3, 0), (2, 2), (70, 70)])
def test_a_person_may_accept_what_the_check_does_not(shell: Any, status: int, ends: int) -> None:
    assert shell(step(ACCEPT, "Check"), STATUS_TO_GIVE=str(status)) == ends


def test_the_figures_of_the_ratchet() -> None:
    from scipy.integrate import quad
    from scipy.stats import norm

    expected, _ = quad(lambda x: x * 10 * norm.pdf(x) * norm.cdf(x) ** 9, -10, 10)
    assert f"{expected:.2f}" == "1.54"
    assert f"{100 * expected * (0.1 / 2 / 400) ** 0.5:.1f}" == "1.7"
    assert "1.7 points above their mean on average (1.54 standard deviations of √(.1 / 2 / 400))" in TEXT
