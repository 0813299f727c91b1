"""What the callback refuses before any training, each in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

import forgetmenot
from forgetmenot.errors import UserError
from forgetmenot.gate import callback as callback_module
from forgetmenot.gate.callback import ForgettingCallback
from tests.gate.training import (
    model_of,
    settings,
    trainer_of,
)


def test_soft_prompts_and_models_without_a_head_are_refused(
    watched: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    from peft import PromptTuningConfig, get_peft_model

    prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    soft = get_peft_model(model_of(tiny_llama, lora=False), prompt)
    headless = AutoModel.from_pretrained(tiny_llama)
    for model, sentence in ((soft, "is a soft prompt"), (headless, "is no causal language model")):
        trainer = trainer_of(model, settings(tmp_path), tiny_llama)
        with pytest.raises(UserError, match=sentence):
            ForgettingCallback(watched, every=1, trainer=trainer)


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
    with pytest.raises(UserError, match="colour has no score split"):
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
    trainer.processing_class.chat_template = None
    with pytest.raises(UserError, match="chat=True, and the tokenizer has no chat template"):
        ForgettingCallback(watched, every=1, trainer=trainer, chat=True)
    trainer.processing_class = None
    with pytest.raises(UserError, match="the trainer has no tokenizer"):
        ForgettingCallback(watched, every=1, trainer=trainer)
    with pytest.raises(UserError, match="nothing was asked yet"):
        ForgettingCallback(watched, every=1).write_report()
    assert callback_module.ForgettingCallback is forgetmenot.ForgettingCallback
