"""Compared prompts as a user sees them: the table in a terminal and the page."""

import io
import re
from typing import Any

from rich.console import Console

from forgetmenot.report.prompt_tables import conclusion, print_prompts, prompts_page


def variant(value: float | None, **behind: Any) -> dict[str, Any]:
    interval = None if value is None else [value - 0.1, value + 0.1]
    blank = {"behind": None, "p_holm": None, "unparsed": None}
    return {"value": value, "interval": interval, **blank, **behind}


def task(**changes: Any) -> dict[str, Any]:
    variants = {
        "default": variant(0.6, behind=0.2, p_holm=0.01),
        "best-of-all": variant(0.8),
        "<plain>": variant(0.75, behind=0.05, p_holm=0.4),
    }
    ranges = {"range": 0.2, "range_by_chance": 0.05, "range_p": 0.0004}
    about = {"metric": "accuracy", "n": 1200, "majority": 0.7, "chosen": "best-of-all", "left_out": {}}
    return {**about, **ranges, "variants": variants, **changes}


def printed(found: dict[str, Any]) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    print_prompts(found, console)
    return console.export_text()


def test_the_verdict_says_how_much_the_prompt_matters() -> None:
    assert conclusion("sst2", task()) == (
        "sst2: best-of-all is best (0.800, n = 1,200); 1 of 2 others are significantly behind. "
        "The prompts range over 0.200, where chance alone would give 0.050 (p < 0.001)."
    )
    assert "None is above chance (0.900)." in conclusion("sst2", task(majority=0.9))
    assert conclusion("sst2", task(chosen=None)) == "sst2: no prompt has a score."
    alone = task(variants={"best-of-all": variant(0.8)}, range=None, range_by_chance=None, range_p=None)
    assert conclusion("sst2", alone) == "sst2: best-of-all is best (0.800, n = 1,200)."


def test_equal_prompts_are_equally_best() -> None:
    variants = {"default": variant(0.8), "plain": variant(0.8, behind=0.0, p_holm=1.0), "low": variant(0.5)}
    tied = task(variants=variants, chosen="default")
    assert conclusion("sst2", tied).startswith(
        "sst2: default and plain are equal and best (0.800, n = 1,200), and default is taken as the first; "
        "0 of 1 others are significantly behind. "
    )
    page = prompts_page({"model": "m", "tasks": {"sst2": tied}})
    assert re.findall(r'class="dot (\w+)" ', page[page.index("<tbody") :]) == ["own", "own", "before"]


def test_the_table_has_the_best_first() -> None:
    said = printed({"model": "m", "tasks": {"sst2": task(left_out={"chat": "the model has no template"})}})
    rows = [line.split() for line in said.splitlines()]
    assert [row[0] for row in rows[1:4]] == ["best-of-all", "<plain>", "default"]
    assert rows[3][1:] == ["0.600", "0.500", "to", "0.700", "0.200", "p", "=", "0.010"]
    assert "unparsed" not in said
    assert "chat was left out: the model has no template." in said


def test_unparsed_answers_have_a_column_where_any_were_written() -> None:
    variants = {
        "default": variant(0.6, unparsed=7, behind=0.1, p_holm=1.0),
        "other": variant(0.7, unparsed=0),
    }
    found = {"model": "m", "tasks": {"sst2": task(variants=variants, chosen="other")}}
    assert "unparsed" in printed(found)
    page = prompts_page(found)
    assert ">Unparsed<" in page
    assert re.search(r"<td>7</td>", page)


def test_the_page_draws_each_variant_and_escapes_its_name() -> None:
    page = prompts_page({"model": "/some/folder/base-4m/", "tasks": {"sst2": task(), "cola": task()}})
    assert page.count("<svg") == 6
    assert page.count('class="majority"') == 6
    assert page.count('class="dot own"') == 2
    assert "<title>base-4m: its prompts</title>" in page
    assert "&lt;plain&gt;" in page
    assert "<plain>" not in page
    missing = prompts_page(
        {"model": "m", "tasks": {"a": task(variants={"default": variant(None)}, chosen=None)}}
    )
    assert "<svg" not in missing
