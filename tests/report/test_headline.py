"""Tests of the headline: every loss first, with its numbers, and nothing kept that was not shown to be."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.metrics import MatrixRow
from forgetmenot.record.assemble import assemble
from forgetmenot.record.predictions import Predictions
from forgetmenot.record.result_schema import Cost
from forgetmenot.record.results import RunResults
from forgetmenot.report.headline import headline
from tests.record.test_results import a_verdict, results
from tests.record.written_runs import DESCRIBED, asked

LEARNED = "a (0.500 → 0.900), b (0.500 → 0.850) and c (0.400 → 0.700)"
DECISIONS = ("kept", "gained", "forgotten", "cannot tell")


def told(content: dict[str, Any]) -> list[str]:
    return [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in headline(RunResults(content))]


def test_the_headline_leads_with_what_was_forgotten() -> None:
    """A task may be forgotten since its own stage and yet have gained against the base: both are said."""
    assert told(results()) == [
        "tiny forgot a (0.900 → 0.600, −30.0 points [95 %: −35.0 to −25.0], 400 examples; still better than "
        "the base model’s 0.500) since its own stage.",
        f"Trained on a, b and c in turn, it learned {LEARNED}.",
        "Kept: b since its own stage.",
    ]


def test_a_loss_against_the_base_comes_before_one_since_the_own_stage() -> None:
    changed = results()
    changed["verdicts"]["base_end"]["b"] = a_verdict("forgotten", 0.5, 0.4)
    changed["verdicts"]["own_end"]["b"] = a_verdict("forgotten", 0.85, 0.4)
    first, second, *_ = told(changed)
    assert first == (
        "tiny lost b (0.500 → 0.400, −10.0 points [95 %: −15.0 to −5.0], 400 examples; 0.850 right after its "
        "own stage) against the base model."
    )
    assert second.startswith("It forgot a (0.900 → 0.600")


def test_many_losses_are_all_named_and_the_worst_have_numbers() -> None:
    tasks = [f"t{i}" for i in range(7)]
    lost = {task: a_verdict("forgotten", 0.9, 0.8 - i / 10) for i, task in enumerate(tasks)}
    (first, *_) = told(
        results(
            tasks=tasks,
            stages=[{"name": "00-base", "trains_on": []}, {"name": "01-x", "trains_on": []}],
            matrix=[[0.9] * 7, [0.8 - i / 10 for i in range(7)]],
            metrics=dict.fromkeys(tasks, "accuracy"),
            verdicts={"base_end": lost},
        )
    )
    assert re.findall(r"t\d", first) == ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]
    assert first.count("points") == 4
    assert first.endswith("against the base model, on 400 examples each.")


def test_nothing_lost_is_said_only_where_it_is_shown() -> None:
    changed = results()
    changed["verdicts"]["own_end"]["a"] = a_verdict("kept", 0.9, 0.9)
    assert told(changed)[0] == "tiny lost nothing beyond the margins."
    changed["verdicts"]["own_end"]["a"] = a_verdict("cannot tell", 0.9, 0.85, n=60, units=60, needed=400)
    sentences = told(changed)
    assert sentences[0] == "tiny shows no loss, and none can be ruled out on a."
    open_ = "a since its own stage (0.900 → 0.850, −5.0 points) with 60 examples (about 400 would do)"
    assert f"Cannot tell: {open_}." in sentences


def test_what_was_lowered_within_the_margin_is_kept_and_said() -> None:
    changed = results()
    changed["verdicts"]["own_end"]["b"] = a_verdict("kept", 0.85, 0.84, lower_within_margin=True)
    assert told(changed)[-1] == "Kept: b since its own stage (lower, within 3 points)."


def test_what_was_not_learned_is_said() -> None:
    (*_, learned, _) = told(results(not_learned=["c"]))
    assert learned.endswith(
        "it learned a (0.500 → 0.900) and b (0.500 → 0.850) and did not rise above chance on c."
    )
    changed = results(not_learned=["a", "b", "c"])
    assert "did not rise above chance on any of them." in told(changed)[1]
    changed = results()
    changed["verdicts"]["base_own"]["c"] = a_verdict("cannot tell", 0.4, 0.45, needed=2000)
    doubtful = "c (0.400 → 0.450, +5.0 points) with 400 examples (about 2,000 would do)"
    assert f"Cannot tell whether it learned {doubtful}." in told(changed)
    reason = "Fewer than 10 examples say too little of how they vary."
    changed["verdicts"]["base_own"]["c"] = a_verdict("cannot tell", 0.4, 0.6, n=6, units=6, reason=reason)
    doubtful = "c (0.400 → 0.600, +20.0 points; fewer than 10 examples say too little of how they vary)"
    assert f"Cannot tell whether it learned {doubtful}." in told(changed)


def test_joint_and_single() -> None:
    joint = results(
        stages=[{"name": "00-base", "trains_on": []}, {"name": "01-joint", "trains_on": ["a", "b", "c"]}],
        matrix=[[0.5, 0.5, 0.4], [0.9, 0.85, 0.7]],
    )
    joint["verdicts"].pop("own_end")
    assert told(joint) == [f"Trained on a, b and c at once, tiny learned {LEARNED}."]
    apart = results(stages=[{**stage, "follows": False} for stage in results()["stages"]])
    apart["verdicts"] = {"base_own": apart["verdicts"]["base_own"]}
    assert told(apart)[0].startswith(
        "Trained on each of a, b and c from the base model, tiny learned a (0.500 → 0.9"
    )
    apart["verdicts"]["base_own"]["b"] = a_verdict("forgotten", 0.5, 0.3)
    assert told(apart)[0].startswith("tiny lost b (0.500 → 0.300")


def test_a_task_that_was_only_watched_gains_without_training() -> None:
    watched = results(
        stages=[{**s, "trains_on": [t for t in s["trains_on"] if t != "b"]} for s in results()["stages"]]
    )
    for pair in ("own_end", "base_own"):
        watched["verdicts"][pair].pop("b")
    assert "It gained on b (0.500 → 0.840) without training on it." in told(watched)


@pytest.mark.parametrize(
    ("rehearsed", "said"),
    [
        ({"02-b": 0, "03-c": 0}, "No example of an earlier task was rehearsed in any stage."),
        ({"02-b": 4, "03-c": 0}, "No example of an earlier task was rehearsed in 03-c."),
        ({"02-b": 4, "03-c": 4}, None),
    ],
)
def test_a_rehearsal_without_examples_is_said(rehearsed: dict[str, int], said: str | None) -> None:
    content = results()
    before = told(content)
    content["cost"] = {"rehearsed": rehearsed}
    assert told(content) == before + [said] * (said is not None)


def test_a_run_without_verdicts_claims_nothing() -> None:
    old = results()
    del old["verdicts"]
    text = " ".join(told(old))
    assert "a (0.500 → 0.900; 0.900 → 0.600 since its own stage)" in text
    assert text.endswith("Whether anything was lost is not judged: this results.json has no verdicts.")
    assert not re.search(r"kept|forg(o|e)t\b|lost [a-z] ", text.lower().replace("forgetmenot", ""))


def test_a_run_that_is_still_going() -> None:
    assert told(results(matrix=results()["matrix"][:2])) == [
        "Trained on a, tiny moved on a (0.500 → 0.900).",
        "2 of 4 stages are done; what was lost is judged after the last.",
    ]
    assert told(results(matrix=results()["matrix"][:1])) == ["tiny has been scored and not trained yet."]


def test_a_missing_score_is_said() -> None:
    changed = results()
    nothing = {"difference": None, "interval": None, "n": 0, "reason": "The second model has no score on it."}
    changed["verdicts"]["own_end"]["b"] = {**a_verdict("cannot tell", 0.85), **nothing, "after": None}
    assert "Cannot tell: b since its own stage (no score after)." in told(changed)


@given(st.data())
def test_every_forgotten_task_is_named_before_anything_else(data: st.DataObject) -> None:
    tasks = [f"task{i:02d}" for i in range(data.draw(st.integers(1, 9)))]
    trained = [task for task in tasks if data.draw(st.booleans())]
    base_end, own_end, base_own = ({}, {}, {})
    decision = st.sampled_from(DECISIONS)
    change = st.floats(-0.4, 0.4)
    for task in tasks:
        base_end[task] = a_verdict(data.draw(decision), 0.5, 0.5 + data.draw(change))
    for k, task in enumerate(trained):
        base_own[task] = a_verdict(data.draw(decision), 0.5, 0.5 + data.draw(change))
        if k < len(trained) - 1:
            own_end[task] = a_verdict(data.draw(decision), 0.5, 0.5 + data.draw(change))
    stages = [{"name": "00-base", "trains_on": []}, *({"name": f"0-{t}", "trains_on": [t]} for t in trained)]
    if not trained:
        stages.append({"name": "01-x", "trains_on": []})
    content = results(
        tasks=tasks,
        stages=stages,
        matrix=[[0.5] * len(tasks)] * len(stages),
        metrics=dict.fromkeys(tasks, "accuracy"),
        not_learned=[task for task in trained if data.draw(st.booleans())],
        verdicts={"base_end": base_end, "own_end": own_end, "base_own": base_own},
    )
    named = list(dict.fromkeys(re.findall(r"task\d\d", " ".join(told(content)))))
    forgotten = {
        task
        for task in tasks
        for pair in (base_end, own_end)
        if pair.get(task, {}).get("decision") == "forgotten"
    }
    assert set(named[: len(forgotten)]) == forgotten
    from_base = {task for task in tasks if base_end[task]["decision"] == "forgotten"}
    assert set(named[: len(from_base)]) == from_base


def a_run(**columns: tuple[str, list[Any]]) -> dict[str, Any]:
    """results.json of one stage that trains on `news`, from each column's metric and answers."""
    rows = [MatrixRow("00-base"), MatrixRow("01-news", ("news",))]
    found: Any = assemble(
        rows,
        [[asked(task, (metric,), answers) for task, (metric, answers) in columns.items()]],
        {**DESCRIBED, "model": "tiny"},
        Cost(),
    )
    return dict(found)


def answers(right: int, n: int, turned: int = 0) -> Predictions:
    """So many right answers of n, beginning at example `turned`."""
    ids, gold = [str(k) for k in range(n)], ["no", "yes"] * (n // 2)
    other = {"no": "yes", "yes": "no"}
    said = [one if turned <= k < turned + right else other[one] for k, one in enumerate(gold)]
    return Predictions(ids, gold, list(said), [[-1.0, -1.0]] * n, labels=("no", "yes"))


def texts(losses: Any) -> Predictions:
    """Texts of ten tokens with these losses per token."""
    n = len(losses)
    rows: list[list[float] | None] = [[-10.0 * float(loss)] for loss in losses]
    return Predictions([str(k) for k in range(n)], [""] * n, [None] * n, rows, [10] * n)


def test_a_corpus_that_was_only_watched_is_named_first() -> None:
    """From perplexity 41 to 112, 60 of 60 texts worse, while another task was learned."""
    generator = np.random.default_rng(0)
    before = np.log(41) + 0.3 * generator.standard_normal(60)
    after = before + np.log(112 / 41) + 0.05 * generator.standard_normal(60)
    assert (after > before).all()
    content = a_run(
        news=("accuracy", [answers(30, 60), answers(55, 60)]), corpus=("loss", [texts(before), texts(after)])
    )
    first, second = told(content)
    assert re.match(
        r"tiny lost corpus \(perplexity 4\d(\.\d)? → 1\d\d, \+1\.0\d\d nats per token \[95 %: .*\], "
        r"60 examples\) against the base model\.$",
        first,
    )
    assert second.startswith("Trained on news, it learned news (0.500 → 0.917)")


def test_a_drop_that_few_examples_cannot_settle_is_not_kept() -> None:
    """.600 → .483 with 60 examples."""
    content = a_run(
        news=("accuracy", [answers(30, 60), answers(55, 60)]),
        old=("accuracy", [answers(36, 60), answers(29, 60, turned=12)]),
    )
    assert content["verdicts"]["base_end"]["old"]["decision"] == "cannot tell"
    text = " ".join(told(content))
    assert re.search(
        r"Cannot tell: old \(0\.600 → 0\.483, −11\.7 points\) with 60 examples \(about \d+ would do\)", text
    )
    assert "Kept" not in text


def test_a_sure_but_small_loss_in_nats_is_kept() -> None:
    """−3.563 → −3.592 nats, significant and within the margin of 0.05."""
    generator = np.random.default_rng(1)
    before = 3.563 + 0.4 * generator.standard_normal(300)
    content = a_run(
        news=("accuracy", [answers(30, 60), answers(55, 60)]),
        chat=("loss", [texts(before), texts(before + 0.029 + 0.02 * generator.standard_normal(300))]),
    )
    verdict = content["verdicts"]["base_end"]["chat"]
    assert verdict["p_holm"] < 0.01
    assert told(content)[-1] == "Kept: chat (higher, within 0.05 nats per token)."


@pytest.mark.parametrize("name", ["{It}", "{task}", "<b>"])
def test_a_task_may_be_called_anything(name: str) -> None:
    content = a_run(
        news=("accuracy", [answers(30, 60), answers(55, 60)]),
        **{name: ("accuracy", [answers(60, 60), answers(9, 60)])},
    )
    assert told(content)[0].startswith(f"tiny lost {name} (1.000 → 0.150")
