"""Every kind of task through a whole run, and what is read beside the headline."""

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, GPT2Config

from forgetmenot.errors import UserError
from forgetmenot.runs import api, plan
from forgetmenot.runs.api import Run
from forgetmenot.tasks import Example, Task

Go = Callable[..., Run]
Make = Callable[..., Path]
COUNTS = ("one", "two", "three", "four")


def _answers(count: int) -> list[dict[str, str]]:
    return [{"word": f"{COUNTS[k % 4]} {k}", "reply": f"It is {COUNTS[k % 4]}."} for k in range(count)]


def _read(run: Run, stage: int = -1) -> list[dict[str, Any]]:
    stages = run.results["stages"]
    rows = run.predictions(range(len(stages))[stage]).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("metric", ["exact_match", "rouge_l"])
def test_generated_answers(go: Go, make_task: Make, metric: str) -> None:
    """Trained on one sentence alone, the model writes it."""
    prompts = {"default": {"template": "Say: {{ word }}\nReply:"}}
    rows = [{"word": f"w{k}", "reply": "It is one."} for k in range(16)]
    task = make_task("reply", rows, rows[:6], target="reply", metric=metric, prompts=prompts)
    run = go("one", {"tasks": str(task), "training.epochs": 8})
    assert run.results["metrics"] == {"reply": metric}
    assert run.matrix["reply"].iloc[0] < 0.5
    assert run.results["matrix"][1] == [1.0]
    for row in _read(run):
        assert row["predicted"] == row["gold"] == "It is one."
        assert row["log_likelihoods"] is None


def test_an_answer_ends_where_the_positions_do(
    go: Go, make_task: Make, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """GPT-2 looks positions up in a table: past its end there is nothing to look up."""
    config = GPT2Config(vocab_size=len(tiny_tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer.save_pretrained(tmp_path / "gpt2")
    rows = [{"word": f"w{k} " + "x" * length, "reply": "one"} for k, length in enumerate((1, 20, 20, 30) * 5)]
    prompts = {"default": {"template": "Say: {{ word }}\nReply:"}}
    task = str(make_task("reply", rows, rows, target="reply", prompts=prompts))
    run = go("one", {"model": str(tmp_path / "gpt2"), "tasks": task})
    assert len(_read(run, 0)) == 20
    assert all(row["predicted"] is not None for row in _read(run, 0))


def test_the_loss_of_an_answer(go: Go, make_task: Make) -> None:
    prompts = {"default": {"template": "Say: {{ word }}\nReply:"}}
    task = make_task("reply", _answers(40), _answers(9), target="reply", metric="loss", prompts=prompts)
    run = go("one", {"tasks": str(task)})
    _check_loss(run, 9)


def test_the_loss_of_conversations(go: Go, make_task: Make) -> None:
    rows = [
        {"turns": [{"role": "user", "content": row["word"]}, {"role": "assistant", "content": row["reply"]}]}
        for row in _answers(49)
    ]
    run = go("one", {"tasks": str(make_task("chat", rows[:40], rows[40:], messages="turns"))})
    _check_loss(run, 9)
    assert {row["gold"] for row in _read(run)} <= {f"It is {count}." for count in COUNTS}
    assert _read(run)[0]["prompt_text"].startswith("user: ")


def test_the_loss_of_text(go: Go, make_task: Make) -> None:
    rows = [{"body": f"{row['word']}. {row['reply']}"} for row in _answers(49)]
    run = go("one", {"tasks": str(make_task("prose", rows[:40], rows[40:], text="body"))})
    _check_loss(run, 9)


def _check_loss(run: Run, count: int) -> None:
    """The mean over tokens of the log-likelihood in nats: a uniform guess among 300 has -log(300)."""
    before, after = run.matrix.iloc[:, 0]
    assert before < after < 0
    assert before == pytest.approx(-math.log(300), abs=1.5)
    for stage, value in ((0, before), (1, after)):
        rows = _read(run, stage)
        assert len(rows) == count
        total = sum(row["log_likelihoods"][0] for row in rows)
        assert value == pytest.approx(total / sum(row["tokens"] for row in rows))
    assert run.summary()["average_performance"] == pytest.approx(after)


def test_conversations_need_a_chat_template(
    go: Go, make_task: Make, tiny_llama: Path, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    model = tmp_path / "no-chat"
    shutil.copytree(tiny_llama, model, ignore=shutil.ignore_patterns("*.jinja"))
    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    plain.save_pretrained(model)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    task = make_task("chat", [{"turns": turns}] * 20, [{"turns": turns}], messages="turns")
    with pytest.raises(UserError, match=r"task 'chat' .* no chat template"):
        go("one", {"model": str(model), "tasks": str(task)})


def test_graded_choices_are_read_by_their_expectation(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    """As STS-B: labels are numbers, the answer is the expectation over them, gold is a number between."""
    labels = ("0", "1", "2", "3")

    def examples(split: str, count: int) -> list[Example]:
        return [
            Example(
                f"{split}-{k}", {"word": f"grade {k % 4} {k}"}, labels[k % 4], (k % 4) + 0.1 * (k % 3) / 3
            )
            for k in range(count)
        ]

    prompts = {"default": {"template": "{{ word }}:", "choices": {label: label for label in labels}}}
    task = Task(
        "grade", "choice", "spearman", examples("train", 40), [], examples("score", 24),
        labels, ("pearson",), prompts,
    )  # fmt: skip
    monkeypatch.setattr(api, "make_plan", lambda config, _: plan.make_plan(config, lambda *_: [task]))
    monkeypatch.setattr(plan, "expand", lambda names: ["grade"])
    monkeypatch.setattr(plan, "check_tasks", lambda names: None)
    run = go("one", {"tasks": "grade"})
    for stage in (0, 1):
        rows = _read(run, stage)
        scores = np.array([row["log_likelihoods"] for row in rows])
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        predicted = np.array([float(row["predicted"]) for row in rows])
        assert predicted == pytest.approx(shares @ np.arange(4.0))
        gold = [float(row["gold"]) for row in rows]
        expected = spearmanr(gold, predicted).statistic
        assert run.results["matrix"][stage][0] == pytest.approx(expected)
    assert [reading["metric"] for reading in run.results["readings"]] == ["spearman", "pearson"]
    assert run.results["majority"] == {"grade": None}


def test_tasks_with_one_split(go: Go, tiny_tasks: Mapping[str, Path], make_word_task: Make) -> None:
    learned = make_word_task("size", 40, 0)
    scored = make_word_task("colour", 0, 24)
    run = go("one", {"tasks": [str(path) for path in (tiny_tasks["animal"], learned, scored)]})
    assert run.results["tasks"] == ["animal", "colour"]
    assert [stage["trains_on"] for stage in run.results["stages"]] == [[], ["animal"], ["size"]]
    assert np.array(run.results["matrix"]).shape == (3, 2)
    assert run.results["readings"][0]["missing"] == []


def test_what_is_scored_besides_is_never_trained_on(
    go: Go, tiny_tasks: Mapping[str, Path], finished: Run
) -> None:
    animal, colour, size = (str(path) for path in tiny_tasks.values())
    run = go("one", {"tasks": [animal, colour], "evaluation.also_score": [size]})
    assert run.results["tasks"] == ["animal", "colour", "size"]
    assert run.results["matrix"] == finished.results["matrix"][:3]
    assert [stage["trains_on"] for stage in run.results["stages"]] == [[], ["animal"], ["colour"]]
    own = np.array(run.results["matrix"])[2, :2]
    assert run.summary()["average_performance"] == pytest.approx(own.mean())


def test_nothing_to_learn_or_to_score_is_refused(go: Go, make_word_task: Make) -> None:
    with pytest.raises(UserError, match="none of colour has a train split"):
        go("one", {"tasks": str(make_word_task("colour", 0, 24))})
    with pytest.raises(UserError, match=r"none of size has a score split\. .*evaluation.split=select"):
        go("one", {"tasks": str(make_word_task("size", 24, 0))})


def test_further_prompts_are_further_readings(go: Go, finished: Run) -> None:
    run = go("one", {"evaluation.prompts": ["terse"]})
    terse = go("terse", {"prompt": "terse"})
    headline, beside = run.results["readings"]
    assert headline["matrix"] == run.results["matrix"] == finished.results["matrix"]
    assert set(headline["prompt"].values()) == {"default"}
    assert set(beside["prompt"].values()) == {"terse"}
    assert beside["prompt_hash"] == terse.results["readings"][0]["prompt_hash"]
    assert beside["matrix"][0] == terse.results["matrix"][0]  # the base; later ones learned another prompt
    assert beside["matrix"] != headline["matrix"]
    assert (run.path / "stages/02-colour/predictions-terse.parquet").is_file()


def test_prompts_may_differ_by_task(go: Go, finished: Run) -> None:
    run = go("one", {"prompt": {"colour": "terse"}, "training.limit": 8})
    assert run.results["readings"][0]["prompt"] == {"animal": "default", "colour": "terse", "size": "default"}
    base = [run.results["matrix"][0], finished.results["matrix"][0]]
    assert base[0][0] == base[1][0]
    assert base[0][2] == base[1][2]


def test_what_is_cut_to_fit_is_counted(go: Go, make_task: Make) -> None:
    """One row of the eight that are scored and two of the sixteen that are learned are too long."""
    rows = [{"word": f"{COUNTS[k % 4]} {k}" * (20 if k in (3, 20, 21) else 1)} for k in range(24)]
    for k, row in enumerate(rows):
        row["kind"] = "odd" if k % 2 else "even"
    prompts = {"default": {"template": "{{ word }}:", "choices": {"odd": "odd", "even": "even"}}}
    task = make_task("parity", rows[8:], rows[:8], label="kind", prompts=prompts)
    run = go("one", {"tasks": str(task), "training.max_length": 40})
    cut = run.results["readings"][0]["truncated"]["parity"]
    assert cut["examples"] == 1
    assert cut["tokens"] > 20
    (cell,) = json.loads((run.path / "stages/00-base/scores.json").read_text())
    assert cell["truncated"] == cut
    assert run.results["cost"]["truncated_in_training"]["parity"]["examples"] == 2


def test_what_cannot_be_cut_is_refused_before_anything_is_trained(go: Go) -> None:
    with pytest.raises(UserError, match=r"task 'animal', example 'score-0' .*line 1.*max_length is 5"):
        go("one", {"training.max_length": 5})


def test_a_run_that_generates_asks_its_base_again(go: Go, make_task: Make) -> None:
    """In fp32 and so small a model nothing changes; that is kept, and said by the report."""
    prompts = {"default": {"template": "Say: {{ word }}\nReply:"}}
    task = make_task("reply", _answers(16), _answers(9), target="reply", prompts=prompts)
    run = go("one", {"tasks": str(task)})
    assert run.results["asked_again"] == {"reply": {"n": 9, "different": 0, "flipped": 0}}
    assert "0 of 9 examples of reply otherwise" in " ".join(run.report().read_text().split())


def test_rows_that_repeat_are_drawn_together(go: Go, make_word_task: Make) -> None:
    """Twenty-four copies of two rows are two examples, and a test knows it."""
    repeated, other = make_word_task("animal"), make_word_task("colour")
    rows = repeated.with_name("animal-score.jsonl")
    two = rows.read_text().splitlines(keepends=True)[:2]
    rows.write_text("".join(two * 12))
    run = go("one", {"tasks": [str(repeated), str(other), str(make_word_task("size"))], "training.limit": 8})
    kept = run.predictions(0).query("task == 'animal'")
    assert kept["cluster"].nunique() == 2
    assert run.results["significance"]["animal"]["test"] == "clustered bootstrap"
    assert run.results["significance"]["colour"]["test"] == "exact McNemar"


def test_a_gold_text_without_a_word_is_a_cell_without_a_score(
    tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    rows = [{"word": "rose", "kind": "red"}, {"word": "sea", "kind": "…"}] * 4
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndata: {train: rows.jsonl, score: rows.jsonl}\ntarget: kind\nmetric: rouge_l\n"
        "generation: {max_new_tokens: 4}\nprompts: {default: {template: '{{ word }} is'}}\n"
    )
    tasks = [tiny["tasks"][0], str(tmp_path / "mine.yaml")]
    run = api.run({**tiny, "tasks": tasks, "training.limit": 8, "output": str(tmp_path / "out")})
    assert [row[1] for row in run.results["matrix"]] == [None] * 3
    reasons = [one["reason"] for one in run.results["readings"][0]["missing"] if one["task"] == "mine"]
    assert len(reasons) == 3
    assert all("no word of a-z" in reason for reason in reasons)
