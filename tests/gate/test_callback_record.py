"""What the callback leaves on disk, and training that is resumed."""

import json
import shutil
from pathlib import Path

import pytest

from forgetmenot.errors import UserError
from forgetmenot.gate.callback import ForgettingCallback
from forgetmenot.record.predictions import read_predictions
from forgetmenot.report.html import write_report
from tests.gate.training import (
    model_of,
    settings,
    trainer_of,
)


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
    assert "The base model asked twice" in html
    assert "The run in numbers" not in html  # whose figures are of learned tasks
    assert write_report(watch.path).read_text() == html  # as `fmn report` does


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


def test_a_best_model_that_is_loaded_at_the_end_is_asked_last(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    arguments = settings(
        tmp_path,
        max_steps=4,
        learning_rate=0.3,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
    )
    rows = [{"input_ids": [k, k + 1, k + 2], "labels": [k, k + 1, k + 2]} for k in range(8)]
    trainer = trainer_of(model_of(tiny_llama, lora=False), arguments, tiny_llama, eval_dataset=rows)
    watch = ForgettingCallback(watched, every=1, trainer=trainer)
    trainer.train()
    best = trainer.state.best_global_step
    assert best != 4
    assert watch.path is not None
    stages = sorted(folder.name for folder in (watch.path / "stages").iterdir())
    assert stages[-1] == f"05-best-step-{best}"
    asked = [read_predictions(watch.path / "stages" / stages[k] / "predictions.parquet") for k in (best, 5)]
    assert asked[0]["size"].log_likelihoods == asked[1]["size"].log_likelihoods
