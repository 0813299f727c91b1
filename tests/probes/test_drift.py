"""Divergence, calibration and form of answers, each against a plain way to compute it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.probes import Part, make_probe
from forgetmenot.probes.drift import ANSWER_TOKENS
from forgetmenot.probes.shared.base_predictions import HEAD_NOT_APART, NO_BASE, OTHER_HEAD
from forgetmenot.probes.shared.probe import NOT_FINITE, RunTask
from forgetmenot.prompting import Encoded, Encoder, choose_prompt, parse_choice
from forgetmenot.tasks import load_tasks, sample
from tests.probes.conftest import load

BASE = "00-base"
Measure = Callable[..., dict[str, Part]]


def asked(path: Path, max_length: int = 128) -> RunTask:
    (task,) = load_tasks([str(path)], None)
    return RunTask(task, choose_prompt(task, "default"), task.score, max_length)


@pytest.fixture
def tasks(tiny_tasks: Mapping[str, Path]) -> list[RunTask]:
    return [asked(tiny_tasks[name]) for name in ("animal", "size")]


@pytest.fixture
def measure(tasks: Sequence[RunTask], tmp_path: Path) -> Measure:
    """What the probe finds, by part: measure(learner, stage, **options)."""

    def measure(learner: Learner, stage: str = BASE, **options: Any) -> dict[str, Part]:
        probe = make_probe("drift", options, None)
        probe.take_tasks(tasks)
        found = probe.measure(learner, stage, BASE, tmp_path / "drift")
        return {part.name: part for part in found}

    return measure


def examples_of(one: RunTask, learner: Learner, limit: int = 64) -> list[Encoded]:
    encoder = Encoder(one.task, one.prompt, learner.tokenizer, 128)
    return [encoder.encode(example) for example in sample(one.task.name, one.examples, limit)]


def logits_of(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens])).logits[0]  # type: ignore[no-any-return]


def plain_divergence(base: Any, model: Any, examples: Sequence[Encoded]) -> float:
    """Torch's KL over the tokens of each answer by itself, the mean over all tokens."""
    total, count = 0.0, 0
    for one in examples:
        tokens, start = one.answer.tokens, one.answer.start
        p, q = (logits_of(m, tokens)[start - 1 : -1].double().log_softmax(-1) for m in (base, model))
        total += float(F.kl_div(q, p, log_target=True, reduction="sum"))
        count += len(tokens) - start
    return total / count


def disturb(learner: Learner, *, head: bool = False) -> None:
    torch.manual_seed(3)
    own = {id(p) for p in learner.model.get_output_embeddings().parameters()}
    with torch.no_grad():
        for p in learner.model.parameters():
            if head or id(p) not in own:
                p += torch.randn_like(p) * 0.03


def test_the_base_is_at_zero_and_a_changed_model_where_torch_says(
    learner: Learner, tiny_llama: Path, tasks: Sequence[RunTask], measure: Measure
) -> None:
    base = measure(learner)
    assert list(base) == [
        "animal divergence",
        "size divergence",
        "animal calibration",
        "size calibration",
        "out of format",
        "json",
        "tool calls",
    ]
    for task in tasks:
        part = base[f"{task.task.name} divergence"]
        assert part.value == pytest.approx(0, abs=1e-7)
        assert part.interval == pytest.approx((0, 0), abs=1e-7)
        assert part.n == 24
    disturb(learner)
    after = measure(learner, "01-x")
    before = load(tiny_llama).model
    for task in tasks:
        examples = examples_of(task, learner)
        part = after[f"{task.task.name} divergence"]
        truth = plain_divergence(before, learner.model, examples)
        assert truth > 0.01
        assert part.value == pytest.approx(truth, abs=1e-5)
        assert part.more["tokens"] == sum(len(one.answer.tokens) - one.answer.start for one in examples)
        assert part.interval is not None
        assert part.value is not None
        assert part.interval[0] < part.value < part.interval[1]


@pytest.mark.parametrize(("layout", "budget"), [("trie", 17), ("trie", 2048), ("blocks", 50)])
def test_packs_change_nothing(layout: Any, budget: int, learner: Learner, measure: Measure) -> None:
    measure(learner)
    disturb(learner)
    one = measure(learner, "01-x")
    learner.layout, learner.budget = layout, budget
    other = measure(learner, "01-x")
    for name in ("animal divergence", "size divergence", "animal calibration", "size calibration"):
        assert one[name].value == pytest.approx(other[name].value, abs=1e-6)


def test_of_a_long_answer_the_first_tokens_count(
    learner: Learner, tiny_llama: Path, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"word": f"w{k}", "said": "cat and dog " * (2 + 20 * (k % 2))} for k in range(6)]
    settings = {
        "prompts": {"default": {"template": "Word: {{ word }}", "cut_answer": True}},
        "target": "said",
        "metric": "loss",
    }
    one = asked(make_task("long", rows[:2], rows[2:], **settings))
    probe = make_probe("drift", {}, None)
    probe.take_tasks([one])
    first, *others = probe.measure(learner, BASE, BASE, tmp_path / "drift")
    assert [part.name for part in others] == ["json", "tool calls"]
    disturb(learner)
    part = probe.measure(learner, "01-x", BASE, tmp_path / "drift")[0]
    total, count = 0.0, 0
    before = load(tiny_llama).model
    for example in examples_of(one, learner):
        start, tokens = example.answer.start, example.answer.tokens
        tokens = tokens[: start + ANSWER_TOKENS]
        total += plain_divergence(before, learner.model, [_with_answer(example, tokens)]) * (
            len(tokens) - start
        )
        count += len(tokens) - start
    assert any(len(e.answer.tokens) - e.answer.start > ANSWER_TOKENS for e in examples_of(one, learner))
    assert first.more["tokens"] == count
    assert part.value == pytest.approx(total / count, abs=1e-5)


def _with_answer(example: Encoded, tokens: tuple[int, ...]) -> Encoded:
    return replace(example, answer=replace(example.answer, tokens=tokens))


def heads(folder: Path) -> list[Path]:
    return list((folder / "drift").glob("head-*.safetensors"))


def test_a_head_that_changes_is_kept(
    learner: Learner, tiny_llama: Path, tasks: Sequence[RunTask], measure: Measure, tmp_path: Path
) -> None:
    measure(learner)
    for stage in ("01-x", "02-y"):
        disturb(learner, head=True)
        found = measure(learner, stage)["animal divergence"]
        truth = plain_divergence(load(tiny_llama).model, learner.model, examples_of(tasks[0], learner))
        assert found.value == pytest.approx(truth, abs=1e-5)
        assert len(heads(tmp_path)) == 1


def test_a_head_that_stays_is_not_kept(learner: Learner, measure: Measure, tmp_path: Path) -> None:
    measure(learner)
    disturb(learner)
    first = measure(learner, "01-x")["animal divergence"]
    assert heads(tmp_path) == []
    assert measure(learner, "01-x")["animal divergence"] == first
    disturb(learner, head=True)
    found = measure(learner, "02-y")["animal divergence"]
    assert (found.value, found.reason) == (None, OTHER_HEAD)


def test_what_is_kept_is_used_by_another_process_and_missed_where_it_is_gone(
    learner: Learner, tiny_llama: Path, measure: Measure, tmp_path: Path
) -> None:
    measure(learner)
    again = load(tiny_llama)
    disturb(learner)
    disturb(again)
    assert measure(again, "01-x") == measure(learner, "01-x")
    kept = sorted((tmp_path / "drift").glob("*.safetensors"))
    assert len(kept) == 2
    width = learner.model.config.hidden_size
    assert all(path.stat().st_size < 64 * ANSWER_TOKENS * width * 4 for path in kept)
    kept[0].unlink()
    with pytest.raises(UserError, match=r"animal-.* is damaged: it is missing"):
        measure(learner, "02-y")
    (tmp_path / "drift" / "seal.json").unlink()
    found = measure(learner, "02-y")
    assert (found["animal divergence"].value, found["animal divergence"].reason) == (None, NO_BASE)
    assert found["size divergence"].value is not None


def test_calibration_is_the_mean_gap_of_ten_bins(
    learner: Learner, tasks: Sequence[RunTask], measure: Measure
) -> None:
    learner.model.get_output_embeddings().weight.data *= 8  # surer, so that several bins are filled
    found = measure(learner)
    for task in tasks:
        bins: dict[int, list[tuple[float, bool]]] = {}
        examples = examples_of(task, learner)
        for one in examples:
            scores = []
            for candidate in one.candidates:
                log_probs = logits_of(learner.model, candidate.tokens).double().log_softmax(-1)
                picked = [
                    float(log_probs[p - 1, candidate.tokens[p]])
                    for p in range(candidate.start, len(candidate.tokens))
                ]
                scores.append(math.exp(sum(picked)))
            confidence = max(scores) / sum(scores)
            right = scores.index(max(scores)) == one.gold
            bins.setdefault(min(9, int(confidence * 10)), []).append((confidence, right))
        wanted = sum(
            len(some) / len(examples) * abs(np.mean([r for _, r in some]) - np.mean([c for c, _ in some]))
            for some in bins.values()
        )
        part = found[f"{task.task.name} calibration"]
        assert len(bins) > 1
        assert part.value == pytest.approx(wanted, abs=1e-5)
        assert part.more["accuracy"] == pytest.approx(
            np.mean([right for some in bins.values() for _, right in some])
        )


def test_answers_that_name_no_label_are_counted(
    learner: Learner, tasks: Sequence[RunTask], measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the prompts gets a label for an answer, whatever the random model writes."""
    from forgetmenot.engine.decoding import Answer

    texts: dict[tuple[int, ...], str] = {}
    plain = learner.write

    def write(prompts: Sequence[tuple[int, ...]], decoding: Any, **how: Any) -> list[Answer]:
        answers = plain(prompts, decoding, **how)
        for k, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            texts[prompt] = " cat big" if k % 3 == 0 else answer.text
        return [Answer(texts[prompt], (), (), finite=True) for prompt in prompts]

    monkeypatch.setattr(learner, "write", write)
    found = measure(learner)["out of format"]
    missed = {
        task.task.name: [
            parse_choice(texts[one.prompt], task.prompt.choices) is None for one in examples_of(task, learner)
        ]
        for task in tasks
    }
    assert found.more == {name: pytest.approx(np.mean(some)) for name, some in missed.items()}
    every = [one for some in missed.values() for one in some]
    assert found.value == pytest.approx(np.mean(every))
    assert 0 < np.mean(every) < 1
    assert found.n == len(every) == 48
    assert found.interval is not None
    assert found.value is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_json_and_calls_are_read_off_what_is_written(
    learner: Learner, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forgetmenot.engine.decoding import Answer
    from forgetmenot.probes.shared.formats import json_requests

    said = {
        json_requests()[0]["prompt"]: '{"name": "Mira", "age": 34, "city": "Porto"}',
        json_requests()[1]["prompt"]: '{"destination": "Lyon", "time": "14:05", "platform": "7"}',
        json_requests()[2]["prompt"]: 'Here: {"item": "mug", "count": 12, "price": 8.5}',
        "What is the weather in Lisbon?": '{"name": "get_weather", "arguments": {"city": "Lisbon"}}',
        "What is 38 times 417?": '{"name": "calculate", "arguments": {"number": 3}}',
    }
    learner.model.config.max_position_embeddings = 4096

    def write(prompts: Sequence[tuple[int, ...]], decoding: Any, **how: Any) -> list[Answer]:
        texts = [learner.tokenizer.decode(prompt) for prompt in prompts]
        answers = [next((a for q, a in said.items() if q in text), "Well.") for text in texts]
        return [Answer(one, (), (), finite=True) for one in answers]

    monkeypatch.setattr(learner, "write", write)
    found = measure(learner)
    asked, called = found["json"], found["tool calls"]
    more = {"parses": 2 / 20, "within text": 2 / 20, "too long": 0.0}
    assert (asked.value, asked.n, asked.more) == (1 / 20, 20, more)
    assert (called.value, called.n) == (1 / 12, 12)
    assert called.more == {"calls": 2 / 12, "by template": 0.0, "too long": 0.0}
    assert called.interval == pytest.approx((0.0149, 0.3539), abs=1e-3)  # Wilson's, 1 of 12


def test_prompts_without_a_place_in_the_model_are_left_out(learner: Learner, measure: Measure) -> None:
    found = measure(learner)
    assert learner.max_positions == 128
    for name, count in (("json", 20), ("tool calls", 12)):
        assert (found[name].value, found[name].n) == (None, 0)
        assert found[name].reason.startswith(f"none of the {count} prompts")
        assert found[name].more["too long"] == count


def test_a_model_without_numbers_has_no_values(broken: Learner, measure: Measure) -> None:
    broken.model.config.max_position_embeddings = 1024
    for part in measure(broken).values():
        assert (part.value, part.reason) == (None, NOT_FINITE), part.name


def test_a_base_without_numbers_makes_the_divergence_null(
    broken: Learner, learner: Learner, tiny_llama: Path, measure: Measure
) -> None:
    measure(broken)
    found = measure(load(tiny_llama), "01-x")
    assert (found["animal divergence"].value, found["animal divergence"].reason) == (None, NOT_FINITE)
    assert found["animal calibration"].value is not None


def test_padded_batches_have_all_but_the_divergence(learner: Learner, measure: Measure) -> None:
    learner.layout = "padded"
    found = measure(learner)
    assert (found["animal divergence"].value, found["animal divergence"].reason) == (None, HEAD_NOT_APART)
    assert found["animal calibration"].value is not None


def test_bf16_is_at_zero_too(learner: Learner, measure: Measure) -> None:
    learner.precision = "bf16"
    assert measure(learner)["animal divergence"].value == pytest.approx(0, abs=1e-7)
    disturb(learner)
    found = measure(learner, "01-x")["animal divergence"].value
    learner.precision = "fp32"
    assert found is not None
    assert found > 0.01


def test_tasks_are_chosen_by_name_and_graded_or_free_ones_have_a_divergence_alone(
    tasks: Sequence[RunTask], make_task: Callable[..., Path], learner: Learner, tmp_path: Path
) -> None:
    probe: Any = make_probe("drift", {"tasks": "size"}, None)
    probe.take_tasks(tasks)
    assert [one.task.name for one in probe.tasks] == ["size"]
    with pytest.raises(UserError, match=r"scores no task 'sise'. Did you mean 'size'\?.*also_score"):
        make_probe("drift", {"tasks": ["sise"]}, None).take_tasks(tasks)
    rows = [{"text": f"cat {k}", "score": str(k % 3)} for k in range(12)]
    graded = make_task(
        "graded",
        rows[:4],
        rows[4:],
        label="score",
        prompts={"default": {"template": "{{ text }}:", "choices": {"0": "bad", "1": "fair", "2": "good"}}},
    )
    probe = make_probe("drift", {}, None)
    one = asked(graded)
    probe.take_tasks([replace(one, task=replace(one.task, metric="spearman"))])
    found = probe.measure(learner, BASE, BASE, tmp_path / "drift")
    assert [part.name for part in found] == ["graded divergence", "json", "tool calls"]
