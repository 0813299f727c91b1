"""The callback within a bare `Trainer`: it disturbs nothing, and what it says is that of a check."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import forgetmenot
from forgetmenot.engine import ranks
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.gate import callback as callback_module
from forgetmenot.gate import watcher as watcher_module
from forgetmenot.gate.callback import ForgettingCallback
from forgetmenot.gate.opened import opened_side
from forgetmenot.gate.panel import answers_of
from forgetmenot.gate.sides import find_side
from forgetmenot.record.predictions import read_predictions
from forgetmenot.report.screen import Screen
from forgetmenot.runs.display import Display
from tests.gate.training import (
    assert_same_training,
    logged,
    model_of,
    settings,
    state_of,
    trainer_of,
)

LOSS = {"text": "text", "metric": "loss"}


@pytest.fixture
def watched(tiny_tasks: dict[str, Path]) -> list[str]:
    return [str(tiny_tasks["animal"]), str(tiny_tasks["size"])]


@pytest.fixture
def texts(make_task: Callable[..., Path]) -> str:
    """Texts that great steps on other ones make much less likely."""
    rows = [{"text": f"{'the ship and the tower stand by the hill ' * 2}{k}"} for k in range(30)]
    return str(make_task("prose", score=rows, **LOSS))


@pytest.mark.parametrize(
    ("lora", "dtype", "more"),
    [
        (True, torch.float32, {}),
        (True, torch.float32, {"bf16": True}),
        (True, torch.bfloat16, {}),
        (False, torch.float32, {"gradient_accumulation_steps": 2}),
        (False, torch.float32, {"bf16": True, "gradient_checkpointing": False}),
        (False, torch.bfloat16, {}),
    ],
    ids=["lora-fp32", "lora-autocast", "lora-bf16", "full-fp32", "full-autocast", "full-bf16"],
)
def test_training_is_the_same_to_the_bit_with_it(
    lora: bool, dtype: torch.dtype, more: dict[str, Any], watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    def trained(watch: bool) -> Any:
        trainer = trainer_of(
            model_of(tiny_llama, lora=lora, dtype=dtype), settings(tmp_path / str(watch), **more), tiny_llama
        )
        if watch:
            ForgettingCallback(watched, every=2, trainer=trainer)
        trainer.train()
        return trainer

    alone = trained(False)
    state, log = state_of(alone), logged(alone)
    assert any(row.get("loss") for row in log)
    with_it = trained(True)
    assert_same_training(with_it, state, log)
    steps = [row["step"] for row in with_it.state.log_history if "forgetting/animal/accuracy" in row]
    assert steps == [0, 2, 4, 6]


@pytest.mark.parametrize("lora", [True, False])
def test_its_answers_are_those_of_a_check_on_the_saved_checkpoints(
    lora: bool, watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(
        model_of(tiny_llama, lora=lora),
        settings(tmp_path, save_strategy="steps", save_steps=3),
        tiny_llama,
    )
    watch = ForgettingCallback(watched, every=3, trainer=trainer)
    trainer.train()
    stages = {"00-base": str(tiny_llama), "01-step-3": "checkpoint-3", "02-step-6": "checkpoint-6"}
    apart = []
    for stage, folder in stages.items():
        here = read_predictions(tmp_path / "forgetting" / "stages" / stage / "predictions.parquet")
        side = find_side(str(tmp_path / folder))
        display = Display(Screen(quiet=True))
        with opened_side(side, TrainingSettings(precision="fp32"), display) as there:
            asked = answers_of(there, watch._watcher.panel.scored(there), display)
        assert list(here) == list(asked) == ["animal", "size"]
        for task, answers in asked.items():
            assert here[task].predicted == answers.predicted
            rows = zip(here[task].log_likelihoods, answers.log_likelihoods, strict=True)
            apart += [abs(a - b) for one, other in rows for a, b in zip(one or [], other or [], strict=True)]
    assert len(apart) == 3 * 24 * (2 + 3)
    assert max(apart) < 1e-4


class _Spy(TrainerCallback):  # type: ignore[misc]
    """Sees what the model is like after the callback's turn."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
        self.seen.append(_traits(model))

    def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
        self.seen.append(_traits(model))


def _traits(model: Any) -> Any:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        [module.training for module in model.modules()],
        [len(getattr(module, kind)) for module in model.modules() for kind in hooks],
        [getattr(vars(module).get("forward"), "__qualname__", None) for module in model.modules()],
        [(p.requires_grad, p.dtype, p.grad is None) for p in model.parameters()],
        model.config.to_dict(),
        model.config._attn_implementation,
        [getattr(module, "gradient_checkpointing", None) for module in model.modules()],
        [getattr(module, "merged_adapters", None) for module in model.modules()],
    )


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(
    kernel: str, watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traits(watch: bool, fail: bool = False) -> list[Any]:
        model = model_of(tiny_llama)
        model.set_attn_implementation(kernel)
        spy = _Spy()
        trainer = trainer_of(model, settings(tmp_path, bf16=True), tiny_llama)
        if watch:
            ForgettingCallback(watched, every=1, trainer=trainer)
        if fail:
            monkeypatch.setattr(watcher_module, "evaluate", _failing_later())
        trainer.add_callback(spy)
        addresses = [p.data_ptr() for p in model.parameters()]
        model.base_model.model.model.layers[0].eval()  # a mode of its own
        trainer.train()
        assert [p.data_ptr() for p in model.parameters()] == addresses
        return spy.seen

    undisturbed = traits(False)
    assert traits(True) == undisturbed
    with pytest.warns(UserWarning, match="has no score"):
        assert traits(True, fail=True) == undisturbed


def _failing_later(task: str = "size") -> Callable[..., Any]:
    """An evaluation that runs out of memory on a task from the second time on, within the engine."""
    asked: list[str] = []

    def failing(learner: Any, method: Any, scored: Any, *more: Any) -> Any:
        asked.append(scored.task.name)
        if scored.task.name == task and asked.count(task) > 1:
            with learner._computing():
                learner.model.eval()
                raise torch.OutOfMemoryError(f"no room for {len(asked)} bytes\nand so on")
        return evaluate(learner, method, scored, *more)

    return failing


def test_a_failure_in_the_middle_is_said_once_and_leaves_a_null_cell(
    watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "evaluate", _failing_later())
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
    ForgettingCallback(watched, every=2, trainer=trainer)
    with pytest.warns(UserWarning, match="has no score") as warned:
        trainer.train()
    said = [str(one.message) for one in warned if "ForgettingCallback" in str(one.message)]
    assert len(said) == 1
    assert "size has no score at step 2, and training goes on (OutOfMemoryError: no room" in said[0]
    results = json.loads((tmp_path / "forgetting" / "results.json").read_text())
    assert [[cell is None for cell in row] for row in results["matrix"]] == [[False, False]] + 3 * [
        [False, True]
    ]
    reasons = [gap["reason"] for gap in results["readings"][0]["missing"]]
    assert len(reasons) == 3
    assert all(reason.startswith("OutOfMemoryError: no room for") for reason in reasons)
    assert results["verdicts"]["base_end"]["size"]["decision"] == "cannot tell"
    rows = [row for row in trainer.state.log_history if "forgetting/animal/accuracy" in row]
    assert [row.get("forgetting/missing") for row in rows] == [None, 1, 1, 1]
    assert not any("forgetting/size/accuracy" in row for row in rows[1:])


def test_a_base_that_cannot_be_asked_ends_the_training_before_it_begins(
    watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(watcher_module, "evaluate", failing)
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
    ForgettingCallback(watched, every=2, trainer=trainer)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_page_that_cannot_be_written_does_not_lose_the_model(
    watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any) -> Path:
        raise OSError("no space left on device")

    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path, max_steps=1), tiny_llama)
    watch = ForgettingCallback(watched, every=2, trainer=trainer)
    with monkeypatch.context() as patch:
        patch.setattr(ForgettingCallback, "write_report", full)
        with pytest.warns(UserWarning, match="no space left"):
            assert trainer.train().global_step == 1
    assert watch.write_report() == tmp_path / "forgetting" / "report.html"


def test_it_stops_when_a_task_is_forgotten(
    texts: str, watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(model_of(tiny_llama, lora=False), settings(tmp_path, learning_rate=0.3), tiny_llama)
    watch = ForgettingCallback([texts, *watched], every=2, trainer=trainer, stop=True)
    with pytest.warns(UserWarning, match=r"training stops at step \d, since it has forgotten prose \("):
        trainer.train()
    assert trainer.state.global_step < 6
    assert watch.verdicts["prose"]["decision"] == "forgotten"
    last = [row for row in trainer.state.log_history if "forgetting/forgotten" in row][-1]
    assert last["forgetting/forgotten"] == 1
    assert last["forgetting/prose/difference"] > 0  # a loss, as people write it
    first = trainer.state.log_history[0]
    assert last["forgetting/prose/loss"] == pytest.approx(
        first["forgetting/prose/loss"] + last["forgetting/prose/difference"]
    )


def test_it_marks_the_last_checkpoint_at_which_nothing_is_forgotten(
    texts: str, tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(
        model_of(tiny_llama, lora=False),
        settings(
            tmp_path, save_strategy="steps", save_steps=1, save_total_limit=1, max_steps=4, learning_rate=0.3
        ),
        tiny_llama,
    )
    watch = ForgettingCallback(texts, every=100, trainer=trainer, best=True)
    trainer.train()
    assert watch.verdicts["prose"]["decision"] == "forgotten"
    counts = {
        row["step"]: row["forgetting/forgotten"]
        for row in trainer.state.log_history
        if "forgetting/forgotten" in row
    }
    best = max(step for step, count in counts.items() if not count)
    assert best < 4
    assert trainer.state.best_global_step == best
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    assert (tmp_path / f"checkpoint-{best}").is_dir()
    if best < 3:
        assert not (tmp_path / "checkpoint-3").exists()
    results = json.loads((tmp_path / "forgetting" / "results.json").read_text())
    assert [stage["name"] for stage in results["stages"]] == [
        "00-base",
        *(f"0{k}-step-{k}" for k in (1, 2, 3, 4)),
    ]


class _SavesLate(TrainerCallback):  # type: ignore[misc]
    """Has a checkpoint saved after the callback's turn."""

    def __init__(self) -> None:
        self.marked: list[str | None] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.marked.append(state.best_model_checkpoint)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_save = state.global_step == 2
        return control


def test_it_marks_a_checkpoint_that_another_callback_saves(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    arguments = settings(tmp_path, save_strategy="epoch", max_steps=3, learning_rate=0.0)
    trainer = trainer_of(model_of(tiny_llama), arguments, tiny_llama)
    ForgettingCallback(watched, every=100, trainer=trainer, best=True)
    late = _SavesLate()
    trainer.add_callback(late)
    trainer.train()
    assert late.marked == [None, None, str(tmp_path / "checkpoint-2")]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-3")


def test_a_resumed_training_ends_in_the_same_results(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    def train(resume: str | None) -> None:
        trainer = trainer_of(
            model_of(tiny_llama), settings(tmp_path, save_strategy="steps", save_steps=3), tiny_llama
        )
        ForgettingCallback(watched, every=1, trainer=trainer)
        trainer.train(resume_from_checkpoint=resume)

    train(None)
    page = tmp_path / "forgetting"
    results = (page / "results.json").read_bytes()
    train(str(tmp_path / "checkpoint-3"))
    assert (page / "results.json").read_bytes() == results
    shutil.rmtree(page)
    with pytest.raises(UserError, match=r"resumed at step 3, and .* holds no answers"):
        train(str(tmp_path / "checkpoint-3"))


def test_a_resumed_training_that_asks_something_else_is_refused(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    def train(tasks: list[str], resume: str | None) -> None:
        arguments = settings(tmp_path, save_strategy="steps", save_steps=3)
        trainer = trainer_of(model_of(tiny_llama), arguments, tiny_llama)
        ForgettingCallback(tasks, every=3, trainer=trainer)
        trainer.train(resume_from_checkpoint=resume)

    train(watched, None)
    with pytest.raises(UserError, match="answers to other tasks"):
        train(watched[:1], str(tmp_path / "checkpoint-3"))


def test_the_page_is_that_of_a_run_whose_stages_train_on_no_task(
    watched: list[str], texts: str, tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path, num_train_epochs=1), tiny_llama)
    watch = ForgettingCallback([*watched, texts], every=4, output=tmp_path / "page").add_to(trainer)
    trainer.train()
    assert watch.path == tmp_path / "page"
    results = json.loads((watch.path / "results.json").read_text())
    assert results["tasks"] == ["animal", "size", "prose"]
    assert [stage["trains_on"] for stage in results["stages"]] == [[], [], []]
    assert [stage["name"] for stage in results["stages"]] == ["00-base", "01-step-4", "02-step-6"]
    assert (results["method"], results["adapter"], results["seed"]) == ("Trainer", "LoRA, rank 4", 1)
    verdicts = results["verdicts"]["base_end"]
    assert verdicts == watch.verdicts
    assert results["asked_again"]["animal"]["n"] == 24
    assert results["cost"]["positions"]["01-step-4"]["scoring"]["computed"] > 0
    environment = json.loads((watch.path / "environment.json").read_text())
    assert environment["identity"]["layout"] == "trie"
    html = (watch.path / "report.html").read_text()
    assert "step-4" in html
    loaded = forgetmenot.gate.watch_record.write_report(watch.path)  # type: ignore[attr-defined]
    assert loaded.read_text() == html


def test_without_a_trainer_values_are_kept_in_the_trainers_state(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    watch = ForgettingCallback(watched, every=3)
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama, callbacks=[watch])
    trainer.train()
    rows = [row for row in trainer.state.log_history if "forgetting/size/accuracy" in row]
    assert [row["step"] for row in rows] == [0, 3, 6]
    assert watch.path == tmp_path / "forgetting"


def test_a_second_training_replaces_the_page_and_nothing_else_does(
    watched: list[str], tiny_llama: Path, tmp_path: Path, furnished: Path
) -> None:
    for every in (2, 3):
        trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
        ForgettingCallback(watched, every=every, trainer=trainer)
        trainer.train()
    results = json.loads((tmp_path / "forgetting" / "results.json").read_text())
    assert [stage["name"] for stage in results["stages"]] == ["00-base", "01-step-3", "02-step-6"]
    with pytest.raises(UserError, match=r"holds config.yaml of something else"):
        ForgettingCallback(watched, every=2, trainer=trainer, output=furnished / "done")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"every": 0}, "every is a number of optimizer steps, 1 or more, not 0"),
        ({"every": 2.5}, "every is a number of optimizer steps"),
        ({"tasks": "sst9"}, "There is no task or suite 'sst9'"),
        ({"tasks": []}, "name at least one task"),
        ({"tasks": "no/such.yaml"}, "no/such.yaml"),
        ({"data_dir": "no-such-folder"}, "there is no folder 'no-such-folder'"),
        ({"limit": 0}, "limit"),
        ({"margin": 1.5}, "margin"),
        ({"margin": {"sst2": 0.1}}, "margin: there is no task or metric 'sst2'"),
        ({"prompt": "sonnet"}, "sonnet"),
        ({"max_length": 0}, "max_length"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_a_wrong_setting_is_said_at_once(wrong: dict[str, Any], sentence: str, watched: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        ForgettingCallback(**{"tasks": watched, "every": 1, **wrong})
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_task_without_examples_to_score_is_refused_beside_others(
    watched: list[str], make_word_task: Callable[..., Path]
) -> None:
    only_learned = str(make_word_task("colour", 4, 0))
    with pytest.raises(UserError, match="colour has no score split"):
        ForgettingCallback([*watched, only_learned], every=1)
    with pytest.raises(UserError, match=r"none of .* has a score split"):
        ForgettingCallback(only_learned, every=1)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "save_strategy='no' saves none"),
        ({"save_strategy": "steps", "metric_for_best_model": "loss"}, "leave one out"),
    ],
)
def test_a_best_checkpoint_that_the_trainer_chooses_itself_is_refused(
    more: dict[str, Any], sentence: str, watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path, **more), tiny_llama)
    with pytest.raises(UserError, match=sentence):
        ForgettingCallback(watched, every=1, trainer=trainer, best=True)


def test_a_trainer_that_it_cannot_watch_is_refused(
    watched: list[str], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
    for kind, said in ((DistributedType.FSDP, "FSDP"), (DistributedType.DEEPSPEED, "DeepSpeed")):
        with monkeypatch.context() as patch:
            for state in (PartialState, AcceleratorState):
                patch.setitem(state._shared_state, "distributed_type", kind)
            with pytest.raises(UserError, match=f"trained with {said}, which shards its weights"):
                ForgettingCallback(watched, every=1, trainer=trainer)
    trainer.processing_class = None
    with pytest.raises(UserError, match="the trainer has no tokenizer"):
        ForgettingCallback(watched, every=1, trainer=trainer)
    with pytest.raises(UserError, match="nothing was asked yet"):
        ForgettingCallback(watched, every=1).write_report()
    assert callback_module.ForgettingCallback is forgetmenot.ForgettingCallback


@pytest.mark.slow
def test_of_two_processes_one_asks_and_both_obey(
    texts: str,
    watched: list[str],
    tiny_llama: Path,
    tmp_path: Path,
    in_processes: Callable[..., list[Any]],
) -> None:
    def train(watch: bool) -> Any:
        arguments = settings(tmp_path / str(watch), learning_rate=0.3)
        trainer = trainer_of(model_of(tiny_llama, lora=False), arguments, tiny_llama)
        callback = None
        if watch:
            callback = ForgettingCallback([texts, *watched], every=2, trainer=trainer, stop=True)
        trainer.train()
        assert ranks.world_size() == 2
        ended = [row for row in trainer.state.log_history if "forgetting/forgotten" in row]
        return (
            trainer.state.global_step,
            ended,
            callback.verdicts if callback else {},
            trainer.model.state_dict(),
        )

    with_it = in_processes(lambda: train(True))
    alone = in_processes(lambda: train(False))
    (steps, ended, verdicts, _), (others, other_ended, other_verdicts, _) = with_it
    assert steps == others < 6
    assert ended == other_ended
    assert ended[-1]["forgetting/forgotten"] == 1
    assert verdicts == other_verdicts
    assert alone[0][0] == 6
    assert (tmp_path / "True" / "forgetting" / "report.html").is_file()


@pytest.mark.slow
def test_in_two_processes_training_is_the_same_to_the_bit_and_a_failing_base_ends_both(
    watched: list[str], tiny_llama: Path, tmp_path: Path, in_processes: Callable[..., list[Any]]
) -> None:
    def train(watch: bool, fail: str = "") -> Any:
        trainer = trainer_of(model_of(tiny_llama), settings(tmp_path / str(watch)), tiny_llama)
        if watch:
            ForgettingCallback(watched, every=2, trainer=trainer)
        if not fail:
            trainer.train()
            return state_of(trainer)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watcher_module, "evaluate", _failing_later())
            if fail == "base":
                patch.setattr(watcher_module, "evaluate", _failing)
                with pytest.raises(UserError, match="the base cannot be asked"):
                    trainer.train()
                return None
            trainer.train()
            return state_of(trainer)

    with_it, alone = in_processes(lambda: train(True)), in_processes(lambda: train(False))
    failing = in_processes(lambda: train(True, "later"))
    assert in_processes(lambda: train(True, "base")) == [None, None]
    for one, other, third in zip(with_it, alone, failing, strict=True):
        assert one.keys() == other.keys()
        assert all(
            torch.equal(one[name], other[name]) and torch.equal(one[name], third[name]) for name in one
        )


def _failing(*_: Any) -> Any:
    raise torch.OutOfMemoryError("no room")
