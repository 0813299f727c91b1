"""The protocol of a probe: a measurement beside the tasks, on the base model and after each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from forgetmenot.errors import UserError, nearest
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.settings import Settings
from forgetmenot.tasks import Example, Task

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class ProbeOptions(Settings):
    """The settings of a probe: the keys beside `name` in an entry of `evaluation.probes`."""


NOT_FINITE = "the model's numbers are not finite (nan or infinite)"
"""Why there is no value where a model has diverged or its weights are broken."""


@dataclass(frozen=True)
class Part:
    """One number of a probe, and what it depends on.

    Attributes:
        name: What was measured: a benchmark, a set of prompts, a layer.
        value: None where it could not be measured; `reason` then says why.
        metric: What the value is.
        n: Over how many examples it was taken.
        interval: Of 95 %, where there is one.
        more: Other numbers of the same measurement: further metrics, counts.
    """

    name: str
    value: float | None
    metric: str
    n: int
    interval: tuple[float, float] | None = None
    reason: str = ""
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunTask:
    """A task as a run asks it.

    Attributes:
        task: The task.
        prompt: How the run puts it to the model, with its demonstrations.
        examples: Those of the split that is scored.
        max_length: The most tokens of a prompt with its answer; the model may have fewer positions.
    """

    task: Task
    prompt: Prompt
    examples: Sequence[Example]
    max_length: int


class Probe:
    """Measures a model: a class with one method, and the options that a config gives it.

    It acts through the learner and sees neither the method nor the run; its own files it keeps in the folder
    that `measure` gets. Of several processes all call `measure`, and it computes by the learner alone.

    Attributes:
        delta: What the mean change of its parts against the base model is called; empty where such a mean
            says nothing.
        notes: Sentences for the user on what it leaves out, said before anything is computed.
    """

    Options: ClassVar[type[ProbeOptions]] = ProbeOptions
    delta: ClassVar[str] = ""

    def __init__(self, options: Any, data_dir: Path | None) -> None:
        """Take the options, and check what can be checked before hours are spent.

        Args:
            options: An instance of `Options`.
            data_dir: The folder of public data; None for the hub.

        Raises:
            UserError: If something that it needs is not there.
        """
        self.options, self.data_dir = options, data_dir
        self.notes: list[str] = []

    def take_tasks(self, tasks: Sequence[RunTask]) -> None:
        """Get the tasks that the run scores, before any model is loaded; by default they are of no use.

        Raises:
            UserError: If something that it needs is not among them.
        """

    @property
    def made_with(self) -> str:
        """What its numbers depend on beside the options, such as another package's version."""
        return ""

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """Measure the model as it stands.

        Args:
            learner: The model after a stage, answering as its method answers.
            stage: The stage's name.
            base: The name of the stage of the untouched base model, which is measured first.
            folder: Of the probe's own, over all stages of a run; it may not be there yet.
        """
        raise NotImplementedError


def chosen_tasks(tasks: Sequence[RunTask], names: Sequence[str], probe: str) -> list[RunTask]:
    """Those of a run's tasks that a probe's option `tasks` names, or all of them.

    Raises:
        UserError: If it names another.
    """
    by_name = {one.task.name: one for one in tasks}
    for name in names:
        if name not in by_name:
            raise UserError(
                f"evaluation.probes.{probe}.tasks: this run scores no task {name!r}. "
                f"{nearest(name, by_name)} evaluation.also_score adds tasks that are only scored."
            )
    return [by_name[name] for name in names or by_name]
