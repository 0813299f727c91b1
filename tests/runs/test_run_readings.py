"""Readings beside a run's own: other prompts, demonstrations and ways of scoring."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.config import load_config
from forgetmenot.errors import UserError
from forgetmenot.metrics import metric_named
from forgetmenot.runs.api import Run, run
from forgetmenot.runs.plan import make_plan
from forgetmenot.runs.rescore import rescore

Go = Callable[..., Run]
SMALL = {"evaluation.limit": 8, "training.limit": 16}
READINGS: list[dict[str, Any]] = [
    {"prompt": "terse"},
    {"scoring": "generation"},
    {"demonstrations": 4, "normalization": "bytes"},
    {"calibration": "contextual", "normalization": "unconditional"},
    {"prompt": "terse", "scoring": "generation", "demonstrations": {"count": 2, "draw": "each"}},
]
NAMES = ["terse", "generation", "4-shot-bytes", "unconditional-contextual", "terse-2-shot-each-generation"]


@pytest.fixture(scope="module")
def several(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two tasks with five readings beside its own."""
    output = str(tmp_path_factory.mktemp("runs") / "several")
    tasks = tiny["tasks"][:2]
    return run({**tiny, **SMALL, "tasks": tasks, "evaluation.readings": READINGS, "output": output})


def test_a_reading_records_how_it_was_asked(several: Run) -> None:
    own, *others = several.results["readings"]
    assert (own["scoring"], own["normalization"], own["calibration"]) == ("likelihood", "none", "none")
    assert own["demonstrations"] == {}
    assert "unparsed" not in own
    asked = [(r["scoring"], r["normalization"], r["calibration"]) for r in others]
    assert asked == [
        ("likelihood", "none", "none"),
        ("generation", "none", "none"),
        ("likelihood", "bytes", "none"),
        ("likelihood", "unconditional", "contextual"),
        ("generation", "none", "none"),
    ]
    assert [set(r["prompt"].values()) for r in others] == [
        {name} for name in ("terse", "default", "default", "default", "terse")
    ]
    shown = others[2]["demonstrations"]["colour"]
    assert (shown["count"], shown["draw"], shown["balanced"], shown["seed"]) == (4, "fixed", True, 0)
    assert all(one.startswith("train-") for one in shown["ids"])
    assert len(shown["ids"]) == 4
    assert others[4]["demonstrations"]["colour"]["ids"] is None
    assert others[2]["prompt_hash"] != own["prompt_hash"]


def test_each_has_its_predictions_and_what_was_written(several: Run) -> None:
    for name in NAMES:
        rows = parquet.read_table(several.path / f"stages/02-colour/predictions-{name}.parquet").to_pylist()
        assert len(rows) == 16
        written = "generation" in name
        assert all((row["generated"] is not None) == written for row in rows)
        assert all((row["log_likelihoods"] is None) == written for row in rows)


def test_unparsed_answers_are_wrong_and_counted(several: Run) -> None:
    reading = several.results["readings"][2]
    for stage, (scores, unparsed) in zip(
        several.results["stages"], zip(reading["matrix"], reading["unparsed"], strict=True), strict=True
    ):
        table = parquet.read_table(several.path / f"stages/{stage['name']}/predictions-generation.parquet")
        for task, value, count in zip(several.results["tasks"], scores, unparsed, strict=True):
            rows = [row for row in table.to_pylist() if row["task"] == task]
            assert count == sum(row["predicted"] is None for row in rows)
            assert value == pytest.approx(np.mean([row["predicted"] == row["gold"] for row in rows]))
        cells = json.loads((several.path / f"stages/{stage['name']}/scores.json").read_text())
        of_cell = [cell["unparsed"] for cell in cells if "unparsed" in cell]
        assert of_cell[:2] == unparsed
    assert sum(filter(None, reading["unparsed"][0])) > 0, "a random model writes nonsense"


def test_a_reading_put_to_the_saved_stages_gives_what_the_run_gave(several: Run) -> None:
    for number, settings in ((3, READINGS[2]), (5, READINGS[4])):
        path, found = rescore(several.path, settings=settings)
        reading: dict[str, Any] = {**found}
        there = several.results["readings"][number]
        assert {key: reading[key] for key in there} == there
        assert path.name.startswith(NAMES[number - 1])


def test_the_report_says_how_a_reading_was_asked(several: Run) -> None:
    page = (several.path / "report.html").read_text()
    for words in ("by generation", "by likelihood / bytes, 4 demonstrations", "no label, at the end"):
        assert words in page


def test_by_hand_through_transformers(several: Run, tiny_llama: Path) -> None:
    """The base model's unconditional, contextual reading, one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    labels = ["blue", "red"]

    def score(prompt: str, answer: str) -> float:
        given = tokenizer(prompt)["input_ids"] or [tokenizer.eos_token_id]
        tail = tokenizer(answer)["input_ids"]
        log_probs = model(torch.tensor([given + tail])).logits[0].double().log_softmax(-1)
        return float(sum(log_probs[len(given) + i - 1, token] for i, token in enumerate(tail)))

    def refined(word: str) -> np.ndarray:
        raw = [score(f"Word: {word}\nKind:", f" {one}") - score("", f" {one}") for one in labels]
        return np.array(raw) - float(np.logaddexp.reduce(raw))

    with torch.no_grad():
        path = several.path / "stages/00-base/predictions-unconditional-contextual.parquet"
        rows = [row for row in parquet.read_table(path).to_pylist() if row["task"] == "colour"]
        for row in rows:
            word = row["prompt_text"].removeprefix("word: ")
            scores = refined(word) - refined("N/A")
            assert row["predicted"] == labels[int(scores.argmax())]
            alone = [score(f"Word: {word}\nKind:", f" {one}") for one in labels]
            assert row["log_likelihoods"] == pytest.approx(alone, abs=1e-4)


# --- demonstrations in the run's own reading


def test_a_run_trains_and_scores_with_demonstrations(go: Go, tiny: dict[str, Any]) -> None:
    settings = {**SMALL, "tasks": tiny["tasks"][:2], "demonstrations": {"count": 2, "seed": 3}}
    found = go("shown", settings)
    own = found.results["readings"][0]
    assert own["demonstrations"]["animal"]["count"] == 2
    assert own["demonstrations"]["animal"]["seed"] == 3
    again: dict[str, Any] = {**rescore(found.path)[1]}
    assert {key: again[key] for key in own} == own
    plain = go("plain", {**SMALL, "tasks": tiny["tasks"][:2]})
    computed = [r.results["cost"]["positions"]["01-animal"]["training"] for r in (found, plain)]
    assert computed[0]["without_sharing"] > computed[1]["without_sharing"] * 2, "it trains on longer prompts"
    saved = computed[0]["computed"] / computed[0]["without_sharing"]
    assert saved < computed[1]["computed"] / computed[1]["without_sharing"], "their head is shared"
    # Without training a reading of the base model is the in-context baseline: the same prompt, the same row.
    beside = go(
        "beside",
        {
            **SMALL,
            "tasks": tiny["tasks"][:2],
            "evaluation.readings": [{"demonstrations": {"count": 2, "seed": 3}}],
        },
    )
    assert beside.results["readings"][1]["matrix"][0] == own["matrix"][0]


def test_readings_of_a_longer_list_of_tasks(go: Go, tiny: dict[str, Any], same: Callable[..., None]) -> None:
    settings = {**SMALL, "evaluation.readings": [{"scoring": "generation"}], "evaluation.prompts": ["terse"]}
    go("grown", {**settings, "tasks": tiny["tasks"][:1]})
    grown = go("grown", {**settings, "tasks": tiny["tasks"][:2]})
    same(grown, go("whole", {**settings, "tasks": tiny["tasks"][:2]}))


# --- what else is scored


def test_other_kinds_are_asked_by_another_prompt_and_not_by_another_scoring(
    go: Go, tiny: dict[str, Any], make_task: Callable[..., Path]
) -> None:
    rows = [{"q": f"{k} + 1", "a": f"{k + 1}"} for k in range(30)]
    prompts = {"default": {"template": "{{ q }} ="}, "terse": {"template": "{{ q }}"}}
    sums = make_task("sums", rows[:20], rows[20:], target="a", prompts=prompts)
    readings = [{"scoring": "generation"}, {"demonstrations": {"count": {"sums": 2}}}]
    found = go("mixed", {**SMALL, "tasks": [*tiny["tasks"][:1], str(sums)], "evaluation.readings": readings})
    own, written, shown = found.results["readings"]
    assert own["metric"] == {"animal": "accuracy", "sums": "exact_match"}
    assert [row[1] for row in written["matrix"]] == [None] * 3
    assert written["prompt"] == {"animal": "default"}
    assert set(shown["demonstrations"]) == {"sums"}
    assert [row[0] for row in shown["matrix"]] == [row[0] for row in own["matrix"]]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            {"evaluation.readings": [{"scorin": "generation"}]},
            r"evaluation\.readings\.0\.scorin: .*'scoring'",
        ),
        ({"evaluation.readings": [{}]}, r"evaluation\.readings\.0: give a setting that differs"),
        ({"evaluation.readings": [{"prompt": "ters"}]}, r"no prompt 'ters'"),
        (
            {"evaluation.readings": [{"prompt": "terse"}], "evaluation.prompts": ["terse"]},
            r"evaluation\.readings\.0: there is a reading 'terse' already",
        ),
        (
            {"evaluation.scoring": "generation", "evaluation.calibration": "prior"},
            r"evaluation: normalization and calibration are for scoring: likelihood",
        ),
        (
            {"evaluation.calibration": "contextual", "demonstrations": {"count": 2, "draw": "each"}},
            r"evaluation: calibration: contextual needs the same demonstrations",
        ),
        ({"evaluation.readings": [{"demonstrations": 99}]}, r"too few examples of '...' in train for 99"),
        ({"demonstrations.count": {"animals": 2}}, r"demonstrations\.count: this run has no task 'animals'"),
    ],
)
def test_what_cannot_be_asked_is_said(tiny: dict[str, Any], overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_plan(load_config(None, {**tiny, **overrides}))


def test_a_reading_leaves_out_tasks_without_its_prompt_and_says_so(
    tiny: dict[str, Any], make_task: Callable[..., Path]
) -> None:
    rows = [{"n": f"n{k}", "kind": "ab"[k % 2]} for k in range(12)]
    default = {"default": {"template": "{{ n }}", "choices": {"a": "a", "b": "b"}}}
    plain = make_task("plain", rows, rows, label="kind", prompts=default)
    config = {**tiny, "tasks": [tiny["tasks"][0], str(plain)], "evaluation.prompts": ["terse"]}
    plan = make_plan(load_config(None, config))
    assert list(plan.readings[1].prompts) == ["animal"]
    assert "plain: it has no such prompt, so the reading terse leaves it out." in plan.notes
    with pytest.raises(UserError, match=r"task 'plain' has no prompt 'terse'"):
        make_plan(load_config(None, {**config, "tasks": [str(plain)]}))


def test_more_realigning_than_a_stage_learns_is_said(tiny: dict[str, Any]) -> None:
    config = {**tiny, "training.limit": 8, "evaluation.readings": [{"realign": 8}, {"realign": 9}]}
    said = [note for note in make_plan(load_config(None, config)).notes if "may be learned anew" in note]
    assert len(said) == 3
    assert "the reading realigned-9 trains on 9 examples and the task's stage on 8" in said[0]


def test_a_watched_task_with_rows_to_learn_is_not_said_to_have_none(tiny: dict[str, Any]) -> None:
    first, second, *_ = tiny["tasks"]
    plan = make_plan(load_config(None, {**tiny, "tasks": [first], "evaluation.also_score": [second]}))
    assert not [note for note in plan.notes if "no train split" in note]


def test_a_task_that_a_way_does_not_fit_is_named(
    tiny: dict[str, Any], make_word_task: Callable[..., Path], make_task: Callable[..., Path]
) -> None:
    small = make_word_task("animal", 12, 8)
    with pytest.raises(
        UserError, match=r"calibration: prior is estimated on `select`, and task 'animal' has"
    ):
        make_plan(load_config(None, {**tiny, "tasks": [str(small)], "evaluation.calibration": "prior"}))
    texts = make_task("texts", [{"t": "one"}], [{"t": "two"}], text="t")
    with pytest.raises(UserError, match=r"scoring: generation is for classification tasks"):
        make_plan(load_config(None, {**tiny, "tasks": [str(texts)], "evaluation.scoring": "generation"}))
    choices = {"a": "a", "b": "b"}
    rows = [{"n": k, "kind": "ab"[k % 2]} for k in range(6)]
    numbers = make_task(
        "numbers", rows, rows, label="kind", prompts={"default": {"template": "{{ n }}", "choices": choices}}
    )
    with pytest.raises(UserError, match=r"the field 'n' of task 'numbers' is not text \(0\)"):
        make_plan(
            load_config(None, {**tiny, "tasks": [str(numbers)], "evaluation.calibration": "contextual"})
        )


def test_the_majority_stays_beside_a_run_whose_answers_are_written(go: Go, tiny: dict[str, Any]) -> None:
    found = go("written", {**SMALL, "tasks": tiny["tasks"][:2], "evaluation.scoring": "generation"})
    assert found.results["readings"][0]["scoring"] == "generation"
    gold = [
        row["gold"]
        for row in parquet.read_table(found.path / "stages/00-base/predictions.parquet").to_pylist()
        if row["task"] == "animal"
    ]
    index = [sorted(set(gold)).index(one) for one in gold]
    assert found.results["majority"]["animal"] == metric_named("accuracy").chance_level(np.array(index))
    assert found.matrix.map(lambda value: 0 <= value <= 1).to_numpy().all()
    assert "animal" in (found.path / "report.html").read_text()
