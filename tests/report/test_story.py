"""What is told of a forgotten task: only what was measured, each sentence with its number."""

from typing import Any

from forgetmenot.record.results import RunResults
from forgetmenot.report.story import moved, stories
from tests.record.test_results import a_verdict, results

STAGES = ["00-base", "01-a", "02-b", "03-c"]


def layers(rewritten: dict[str, list[int]], count: int = 6) -> dict[str, Any]:
    """A table of the probe for task `a`, in which stages rewrote some layers."""

    def cell(stage: str, layer: int) -> dict[str, float]:
        own = layer in rewritten.get(stage, [])
        return {
            "own change of the stage": 0.5 if own else 0.0,
            "own change of the stage low": 0.4 if own else -0.1,
        }

    numbers = range(1, count + 1)
    return {
        "parts": [f"a layer {k}" for k in numbers],
        "stages": STAGES,
        "values": [[1.0] * count, *[[1.0] * (count - 1) + [0.25]] * 3],
        "intervals": [[None] * count, *[[None] * (count - 1) + [[0.2, 0.3]]] * 3],
        "n": [[100] * count] * 4,
        "more": [[cell(stage, k) for k in numbers] for stage in STAGES],
    }


def drift(value: float | None) -> dict[str, Any]:
    return {
        "parts": ["a divergence"],
        "values": [[0.0], [0.1], [0.2], [value]],
        "intervals": [[None], [None], [None], [[0.7, 0.9]]],
    }


def reading(brought: dict[str, Any], lost: dict[str, Any], **how: Any) -> dict[str, Any]:
    rows = [list(row) for row in results()["matrix"]]
    plain = {"scoring": "likelihood", "normalization": "none", "calibration": "none"}
    return {
        "metric": "accuracy",
        "prompt": {"a": "default"},
        "n": {"a": 400},
        "matrix": [[row[0], None, None] for row in rows],
        **plain,
        "recovery": {"a": {"brought_back": brought, "still_lost": lost}},
        **how,
    }


def headline_reading() -> dict[str, Any]:
    one = reading({}, {})
    del one["recovery"]
    return {**one, "matrix": [list(row) for row in results()["matrix"]]}


def told(**changes: Any) -> list[str]:
    found = stories(RunResults(results(**changes)))
    return [s.replace("\N{NO-BREAK SPACE}", " ") for one in found for s in one.sentences]


def test_without_further_measurements_there_is_no_story() -> None:
    assert told() == []
    assert moved(RunResults(results())) == []


def test_a_task_whose_access_was_lost() -> None:
    shown = reading(
        a_verdict("gained", 0.6, 0.88),
        a_verdict("kept", 0.9, 0.88),
        demonstrations={"a": {"count": 4}},
    )
    said = told(
        readings=[headline_reading(), shown],
        probes={"layers": layers({"02-b": [3], "03-c": [3, 4]}), "drift": drift(0.8)},
    )
    assert said == [
        "a was lost: 0.900 → 0.600, −30.0 points [95 %: −35.0 to −25.0], 400 examples.",
        "On its inputs 02-b rewrote layer 3 and 03-c rewrote layers 3–4; at the end layer 6 is least like "
        "the base, 0.250 (0.200 to 0.300).",
        "Its answers drifted by 0.800 (0.700 to 0.900) nats per token from the base.",
        "4 demonstrations: +28.0 points (+23.0 to +33.0) on a, of −30.0 points since its own stage; that is "
        "all of it within the margin: the access was lost, not the ability.",
        "Advice: the ability is still there (with 4 demonstrations the score of its own stage is reached "
        "within the margin), so a few replayed examples of a are worth trying first: method replay.",
        "Advice: 2 of 6 layers were rewritten, so freezing them may help: method {name: freeze, layers: [2, "
        "3]} (counted from 0).",
    ]


def test_a_task_that_nothing_brings_back() -> None:
    again = reading(
        a_verdict("cannot tell", 0.6, 0.62), a_verdict("forgotten", 0.9, 0.62), realigned={"a": 16}
    )
    said = told(
        readings=[headline_reading(), again],
        probes={"layers": layers({"02-b": [1, 2, 3], "03-c": [4]}), "drift": drift(None)},
    )
    assert "Nothing tried is shown to bring a back (training on 16 examples)." in said
    assert any("none of training on 16 examples is shown to bring anything back" in s for s in said)
    assert said[-1] == (
        "Advice: 4 of 6 layers were rewritten; freezing so many would keep later tasks from being learned."
    )
    assert not any("drifted" in s for s in said)


def test_a_task_of_which_a_part_comes_back() -> None:
    shown = reading(
        a_verdict("gained", 0.6, 0.86),
        a_verdict("cannot tell", 0.9, 0.86),
        demonstrations={"a": {"count": 4}},
    )
    (advice,) = (one for one in told(readings=[headline_reading(), shown]) if "Advice" in one)
    assert advice == (
        "Advice: a part at least is still there: with 4 demonstrations it ends at −4.0 points (−9.0 to "
        "+1.0) from its own stage, which 400 examples do not call all of it. A few replayed examples of a "
        "are worth trying first: method replay."
    )


def test_nothing_is_told_of_tasks_that_were_kept_and_of_stages_that_start_from_the_base() -> None:
    kept = results(probes={"drift": drift(0.8)})
    kept["verdicts"]["own_end"]["a"] = a_verdict("kept", 0.9, 0.9)
    assert stories(RunResults(kept)) == []
    apart = results(probes={"drift": drift(0.8)})
    for stage in apart["stages"]:
        stage["follows"] = False
    assert stories(RunResults(apart)) == []


def test_moved_embeddings_are_told_with_both_intervals() -> None:
    table = {
        "parts": ["stsb", "sts12"],
        "metrics": {"stsb": "Spearman", "sts12": "Spearman"},
        "values": [[0.6, 0.5], [0.5, 0.5], [0.5, 0.5], [0.4, 0.48]],
        "intervals": [[[0.55, 0.65], None], [None, None], [None, None], [[0.35, 0.45], None]],
    }
    assert moved(RunResults(results(probes={"embeddings": table}))) == [
        "Sentence embeddings on stsb, Spearman: 0.600 (0.550 to 0.650) before, 0.400 (0.350 to 0.450) at the "
        "end (−0.200).",
        "Sentence embeddings on sts12, Spearman: 0.500 before, 0.480 at the end (−0.020).",
    ]
