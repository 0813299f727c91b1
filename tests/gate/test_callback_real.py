"""TRL's SFT of a real model with LoRA in fp32, which watches two tasks: a check on its checkpoints agrees.

FMN_REAL_MODELS names the folder that holds smollm2-135m-instruct/; without it the tests are skipped.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from forgetmenot.config import RunConfig
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.gate.callback import ForgettingCallback
from forgetmenot.gate.loaded import Loaded, with_adapter
from forgetmenot.methods import make_method
from forgetmenot.models.settings import ModelSettings
from forgetmenot.record.predictions import read_predictions
from forgetmenot.runs.session import open_session
from tests.gate.training import assert_same_training, logged, state_of

pytestmark = pytest.mark.slow

FOLDER = Path(os.environ.get("FMN_REAL_MODELS", Path.home() / ".cache" / "forgetmenot-models"))
MODEL = FOLDER / "smollm2-135m-instruct"
TASKS = ["qs-sentiment", "qs-paraphrase"]
STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def _model_is_here() -> None:
    if not MODEL.is_dir():
        pytest.skip(f"the real model {MODEL} is not on this machine; FMN_REAL_MODELS names its folder")


def _trained(output: Path, *, watch: bool) -> tuple[Any, ForgettingCallback | None]:
    torch.manual_seed(0)
    rows = [
        {"prompt": f"Ticket {k}: my parcel is {'late' if k % 2 else 'broken'}.\nTeam:", "completion": " mail"}
        for k in range(16)
    ]
    trainer = SFTTrainer(
        str(MODEL),
        args=SFTConfig(
            str(output),
            max_steps=STEPS,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            logging_steps=1,
            save_steps=2,
            bf16=False,
            gradient_checkpointing=True,
            model_init_kwargs={"dtype": "float32"},
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(r=8, lora_dropout=0.1, target_modules="all-linear"),
    )
    callback = ForgettingCallback(TASKS, every=2, trainer=trainer, limit=24) if watch else None
    trainer.train()
    return trainer, callback


def test_training_is_the_same_and_the_checkpoints_answer_as_the_model_did(tmp_path: Path) -> None:
    alone, _ = _trained(tmp_path / "alone", watch=False)
    state, log = state_of(alone), logged(alone)
    with_it, callback = _trained(tmp_path / "watched", watch=True)
    assert_same_training(with_it, state, log)
    assert callback is not None
    apart = {}
    for stage, checkpoint in (("00-base", None), ("01-step-2", 2), ("02-step-4", 4)):
        stages = tmp_path / "watched" / "forgetting" / "stages"
        here = read_predictions(stages / stage / "predictions.parquet")
        training = TrainingSettings(precision="fp32")
        session = open_session(RunConfig(model=ModelSettings(name=str(MODEL)), training=training))
        if checkpoint is not None:
            folder = tmp_path / "watched" / f"checkpoint-{checkpoint}"
            session.learner.model = with_adapter(session.learner.model, folder)
        method = make_method("sequential", {}, 0)
        scored = callback._watcher.panel.scored(Loaded(session, method, {}))
        session.examine(scored[0].first_sequences(), writes=False)
        for one in scored:
            there = evaluate(session.learner, method, one)
            ours = np.array(here[one.task.name].log_likelihoods)
            apart[stage, one.task.name] = float(np.abs(ours - np.array(there.log_likelihoods)).max())
            assert here[one.task.name].predicted == there.predicted
    print(apart)
    assert len(apart) == 3 * len(TASKS)
    assert max(apart.values()) < 1e-4
    moved = [
        np.abs(
            np.array(read_predictions(stages / name / "predictions.parquet")[TASKS[0]].log_likelihoods)
            - np.array(read_predictions(stages / "00-base" / "predictions.parquet")[TASKS[0]].log_likelihoods)
        ).max()
        for name in ("01-step-2", "02-step-4")
    ]
    assert min(moved) > 1e-2  # the adapter has learned, so that the agreement says something
