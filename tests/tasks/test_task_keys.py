"""The tables of docs/tasks.md name what a task file may hold: no key, metric or rule more or less."""

import re
from pathlib import Path

import pytest

from forgetmenot.metrics import known_metrics
from forgetmenot.prompting import variants
from forgetmenot.tasks import custom
from forgetmenot.tasks.answers import RULES
from forgetmenot.tasks.task import Generation

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of the table under a heading, by the key in its first."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {first.strip("`"): rest for first, *rest in cells}


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("The file", custom._TaskFile.model_fields),
        ("`data`", custom._Data.model_fields),
        ("`generation`", custom._Generation.model_fields),
        ("A variant of `prompts`", variants._KEYS),
    ],
)
def test_every_key_has_a_row(heading: str, known: object) -> None:
    assert isinstance(known, dict | tuple)
    assert sorted(rows(heading)) == sorted(known)


def test_every_metric_of_a_kind_that_a_file_can_be_and_every_rule_is_named() -> None:
    metrics = {name for name, metric in known_metrics().items() if metric.kinds}
    assert set(re.findall(r"`(\w+)`", rows("The file")["metric"][0])) == metrics
    rules = set(re.findall(r"`([\w-]+)`", rows("`generation`")["extract"][0]))
    assert rules == set(RULES)
    assert rows("`generation`")["max_new_tokens"][1].startswith(str(Generation().max_new_tokens))
    assert rows("`generation`")["extract"][1].startswith(f"`{Generation().extract[0]}`")


def test_what_is_left_out_is_scored_as_the_page_says() -> None:
    defaults = dict.fromkeys(metric for _, metric in custom.KINDS.values())
    assert list(dict.fromkeys(re.findall(r"`(\w+)`", rows("The file")["metric"][1]))) == list(defaults)
