"""Aligning a model anew on a few examples of a task, to see whether it had lost the task or the way to it.

"Spurious Forgetting in Continual Learning of Language Models" (Zheng et al., ICLR 2025, arXiv 2501.13453)
finds that much of what seems forgotten comes back after a little training on the old task, which could not
teach it: what was lost is the alignment of the answers, not the knowledge. How little is our choice: passes
and batch below, at the run's own learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from forgetmenot.errors import UserError
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import Method

if TYPE_CHECKING:
    from forgetmenot.runs.session import Session

PASSES, BATCH = 4, 4


def check_realign(method: Method, name: str) -> None:
    """Refuse a method that answers with several parts: there is no single model to align.

    Raises:
        UserError: It is such a method.
    """
    if type(method).route is not Method.route:
        raise UserError(
            f"evaluation.readings: realign: the method {name} answers each prompt by a part of its own, and "
            "no single model can be aligned; leave realign out."
        )


@contextmanager
def realigned(session: Session, scored: ScoredTask) -> Iterator[None]:
    """Answer as after a short training on the task's `realign` examples; then with the weights as before.

    What learns is what the kind of adapter lets learn, whatever the method has frozen or merged and whether
    this process has trained the stage or read it from disk: the whole adapter, of several the last, or all
    weights from the first layer that learns. Where the training diverges, the weights are no numbers, so that
    the cells are empty and say why.
    """
    if not len(scored.realign):
        yield
        return
    from accelerate import Accelerator

    from forgetmenot.engine.learner import copy_weights
    from forgetmenot.engine.training import DivergedError, fit
    from forgetmenot.models.adapt import kind_of

    learner, config = session.learner, session.config
    kind, flags = kind_of(config.adapter), {p: p.requires_grad for p in learner.model.parameters()}
    bare = not kind.is_in(learner.model)  # the base model, or a stage that has merged its adapter
    learner.model.requires_grad_(False)
    go_on = config.adapter.model_copy(update={"per_stage": "continue"})
    learner.model = kind.adapt(learner.model, go_on, 1, config.seed)
    before = learner.snapshot()
    try:
        if not learner.log_likelihoods([one.answer for one in scored.realign]).isfinite().all():
            yield  # a diverged model learns nothing, and its cells say why they are empty
            return
        try:
            fit(
                learner,
                scored.realign,
                Method(),
                config.training.model_copy(update={"batch_size": BATCH}),
                accelerator=Accelerator(cpu=learner.device.type == "cpu"),
                epochs=PASSES,
                learning_rate=session.learning_rate,
                seed=config.seed,
                on_step=lambda step: None,
            )
        except DivergedError:
            copy_weights(learner.trainable(), {name: p * math.nan for name, p in before.items()})
        yield
    finally:
        if not bare:
            copy_weights(learner.trainable(), before)
        elif hasattr(learner.model, "unload"):  # of PEFT: the weights below were not touched
            learner.model = learner.model.unload()
        else:  # nothing but a base is bare of prompts and bridges
            session.to_base()
        for parameter, learns in flags.items():
            parameter.requires_grad_(learns)
