"""What `fmn limits` says of its figures, in sentences and tables."""

from typing import Any

import pytest

from forgetmenot.report.limits_tables import conclusions, limits_markdown


def correlation(measure: str, interval: list[float] | None, **named: Any) -> dict[str, Any]:
    return {
        "model": "models/a",
        "over": "all",
        "of": "direct",
        "with": "gold",
        "measure": measure,
        "coefficient": "spearman",
        "n": 9,
        "value": 0.5,
        "interval": interval,
        "leave_one_out": [0.4, 0.6],
        "hinges_on": "cola",
        "reason": "",
        "ceiling": 0.9,
        **named,
    }


def figures(accuracy: float, majority: float) -> dict[str, Any]:
    interval = [accuracy - 0.1, accuracy + 0.1]
    return {"accuracy": accuracy, "accuracy_interval": interval, "majority": majority, "margin": -0.25}


@pytest.fixture
def found() -> dict[str, Any]:
    task = {condition: figures(0.7, 0.5) for condition in ("base", "gold", "direct")}
    difference = {"difference": 0.2, "interval": [0.1, 0.3], "p": 0.01, "p_holm": 0.02}
    model = {
        "model": "models/a",
        "scores": {"sst2": task, "cola": task},
        "differences": {"sst2": difference, "cola": difference},
        "solved": {"base": [], "gold": ["cola"], "direct": ["sst2", "cola"]},
        "truncated": {"gold": {"cola": {"examples": 3, "tokens": 40}}},
        "written": {},
    }
    return {
        "tasks": {"sst2": {"trained": True}, "cola": {"trained": False}},
        "models": [model],
        "correlations": [
            correlation("accuracy", [0.1, 0.8]),
            correlation("above_majority", [-0.2, 0.8]),
            correlation("margin", [0.2, 0.9]),
        ],
        "paper_interval": [0.3, 0.97],
    }


def test_the_interval_and_what_it_hinges_on_are_said(found: dict[str, Any]) -> None:
    said = conclusions(found)
    assert said[0] == "Tuned on sst2. Held out: cola."
    assert (
        "a, 9 tasks, accuracy: Spearman 0.500 of tuned with in-context (95% interval 0.100 to 0.800; without "
        "one task 0.400 to 0.600, hinging on cola)."
    ) in said
    assert any("above majority" in one and one.endswith("There may be none.") for one in said)
    assert any(".851, would have the interval 0.300 to 0.970" in one for one in said)


def test_a_correlation_that_chance_levels_may_make_is_said(found: dict[str, Any]) -> None:
    assert any("levels of chance alone" in one for one in conclusions(found))
    found["correlations"][1]["interval"] = [0.1, 0.8]
    assert not any("levels of chance" in one for one in conclusions(found))
    found["correlations"][0]["interval"] = found["correlations"][1]["interval"] = [-0.1, 0.8]
    assert not any("levels of chance" in one for one in conclusions(found))


def test_tasks_that_only_tuning_solves_are_named(found: dict[str, Any]) -> None:
    [sentence] = [one for one in conclusions(found) if "when tuned directly and not" in one]
    assert sentence.endswith("on sst2.")


def test_prompts_that_were_cut_are_said(found: dict[str, Any]) -> None:
    assert any("lost their beginning, 3 of cola" in one for one in conclusions(found))


def test_what_has_no_correlation_has_a_reason(found: dict[str, Any]) -> None:
    found["correlations"] = [correlation("margin", None, value=None, reason="fewer than two tasks")]
    assert any(
        "no correlation of tuned with in-context, for fewer than two" in one for one in conclusions(found)
    )


def test_the_page_has_every_table(found: dict[str, Any]) -> None:
    page = limits_markdown(found)
    assert "| sst2 | 0.500 | 0.700 (0.600 to 0.800) −0.250 |" in page
    assert "| a | sst2 | +0.200 | 0.100 to 0.300 | p = 0.020 |" in page
    assert "cola (held out)" in page
    assert "SampleGen models wrote" not in page
    found["models"][0]["written"] = {"sst2": {"n": 8, "ended": 5}}
    assert "| a | sst2 | 8 | 5 |" in limits_markdown(found)
