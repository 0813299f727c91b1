"""Stages as the loop plays them, for tests of methods: training, the state on disk, the next stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import fit
from forgetmenot.methods import Method, Stage, make_method
from forgetmenot.prompting import Encoded
from forgetmenot.runs.method_state import load_method_state, save_method_state

LONG_STEPS = TrainingSettings(batch_size=2, schedule="constant", warmup_ratio=0, weight_decay=0.1)


def learn(
    method: Method,
    learner: Learner,
    number: int,
    task: str,
    examples: list[Encoded],
    further: Mapping[str, list[Encoded]] | None = None,
) -> None:
    """One stage, as the loop does it, with an adapter in place."""
    stage = Stage(number, (task,), data={task: examples}, further=further or {})
    method.adapt(learner, stage)
    method.begin(learner, stage)
    train(method, learner, method.examples(learner, stage))
    method.end(learner, stage)


def train(method: Method, learner: Learner, examples: Any) -> None:
    """Two epochs of long steps, with weight decay."""
    fit(
        learner,
        examples,
        method,
        LONG_STEPS,
        accelerator=Accelerator(cpu=True),
        epochs=2,
        learning_rate=0.01,
        seed=0,
        on_step=lambda step: None,
    )


def through_disk(method: Method, name: str, folder: Path, **options: Any) -> Method:
    """The method as the next stage finds it."""
    save_method_state(method, folder)
    method = make_method(name, options, seed=0)
    load_method_state(method, folder)
    return method


def inputs_alone(learner: Learner, examples: list[Encoded]) -> dict[str, Tensor]:
    """Each linear layer's R Rᵀ, one sequence at a time; those of the head where something is predicted."""
    grams: dict[str, Tensor] = {}
    head = learner.model.get_output_embeddings()
    names: dict[nn.Module, str] = {
        m: name for name, m in learner.model.named_modules() if isinstance(m, nn.Linear)
    }
    for sequence in (one for e in examples for one in (e.answer, *e.candidates)):

        def see(module: nn.Module, inputs: tuple[Tensor, ...], start: int = sequence.start) -> None:
            rows = inputs[0][0, start - 1 if module is head else 0 :].double()
            grams[names[module]] = grams.get(names[module], 0) + rows.T @ rows

        hooks = [module.register_forward_pre_hook(see) for module in names]
        with torch.no_grad():
            learner.model(input_ids=torch.tensor([sequence.tokens[:-1]]))
        for hook in hooks:
            hook.remove()
    return grams
