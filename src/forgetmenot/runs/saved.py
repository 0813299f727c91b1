"""The saved stages of a run, opened again: its model, with the same layout and threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forgetmenot.config import RunConfig
from forgetmenot.methods import Method
from forgetmenot.record.layout import BASE
from forgetmenot.record.seal import unsealed
from forgetmenot.report.wording import listed
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.display import Display
from forgetmenot.runs.plan import Plan
from forgetmenot.tasks import fingerprint

if TYPE_CHECKING:
    from forgetmenot.runs.session import Session


def open_saved(directory: RunDirectory, config: RunConfig, display: Display | None = None) -> Session:
    """The model of a run, computing as the run began; the display shows what takes long.

    Raises:
        UserError: The model is not to be had, or is another than the run began with.
    """
    from forgetmenot.runs.session import check_base, open_session

    begun = begun_with(directory)
    if display is not None and (sentence := unsealed(directory.path)):
        display.say(sentence)
    session = open_session(at_its_revision(config, begun), begun.get("threads"))
    if "model_revision" in begun:
        check_base(config, begun["model_revision"], session.identity["model_revision"])
    if display is not None:
        session.learner.progress = display.progress
    return session


def other_than_begun(begun: Mapping[str, Any], plan: Plan) -> str | None:
    """What of a run's own tasks and prompts is another now than when it began, in words; None if nothing is.

    Args:
        begun: The run's identity.
        plan: The plan that its config amounts to now.
    """
    tasks, prompts = begun.get("tasks", {}), begun.get("prompts", {})
    other = [
        f"the data of {task.name}"
        for task in {task.name: task for task in (*plan.trained, *plan.scored)}.values()
        if tasks.get(task.name, "") not in ("", fingerprint(task))
    ]
    other += [
        f"the prompt of {name}"
        for name, prompt in plan.prompts.items()
        if prompts.get(name, "") not in ("", prompt.hash)
    ]
    return listed(other) if other else None


def at_its_revision(config: RunConfig, begun: Mapping[str, Any]) -> RunConfig:
    """A hub's model at the commit that the run began with, wherever its branch is now."""
    model = config.model
    if "model_revision" not in begun or not model.on_hub:
        return config
    pinned = model.model_copy(update={"revision": begun["model_revision"]})
    return config.model_copy(update={"model": pinned})


def take_up(
    directory: RunDirectory, session: Session, method: Method, stage: str, *, trainable: bool = False
) -> bool:
    """Go to the weights of a stage, and to what the method knew then; whether they are still there."""
    from forgetmenot.models.weights import has_weights
    from forgetmenot.runs.method_state import load_method_state

    if stage == BASE:
        session.to_base()
    elif has_weights(directory.stage(stage)):
        session.to_stage(directory.stage(stage), trainable=trainable)
        load_method_state(method, directory.stage(stage))
    else:
        return False
    return True
