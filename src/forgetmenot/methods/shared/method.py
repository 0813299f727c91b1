"""The protocol of a method: the hooks that the continual loop calls, each with a default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from forgetmenot.errors import UserError
from forgetmenot.models.settings import AdapterSettings, used_by
from forgetmenot.prompting.encoded import Encoded
from forgetmenot.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.batches import Batches, Shuffled
    from forgetmenot.engine.learner import Learner
    from forgetmenot.prompting.wording import Wording


class Options(Settings):
    """The settings of a method: the keys beside `name` under `method` in a config."""


@dataclass(frozen=True)
class Stage:
    """One training episode.

    Attributes:
        number: From 1; stage 0 is the untouched base model.
        tasks: The names of the tasks that it trains on.
        label: What it is called; the task's name where there is one task.
        data: Each of these tasks' training examples; filled by the loop before the hooks see the stage.
        sources: The names of tasks that have no stage of their own, whose examples the stage may use besides.
        further: Their training examples; filled by the loop too.
        wordings: How examples of each task and source are written; filled by the loop too.
    """

    number: int
    tasks: tuple[str, ...]
    label: str = ""
    data: Mapping[str, Sequence[Encoded]] = field(default_factory=dict, repr=False, compare=False)
    sources: tuple[str, ...] = ()
    further: Mapping[str, Sequence[Encoded]] = field(default_factory=dict, repr=False, compare=False)
    wordings: Mapping[str, Wording] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The stage's name and folder: "01-sst2"."""
        return f"{self.number:02d}-{self.label or self.tasks[0]}"


class Method:
    """A way of learning the next task without losing the last ones.

    The class itself is plain sequential fine-tuning; a method overrides the hooks that it needs. It acts
    through `learner` and sees examples, losses and parameters, never files, devices or ranks. A method that
    draws at random owns its generator, so that it never shifts the others' streams.

    Attributes:
        notes: Messages for the user, such as a shortfall; the loop says and clears them after `examples`
            and after `end`.
        rehearsed: What of `examples` is of earlier tasks, by task; the loop writes it down for people.
    """

    Options: ClassVar[type[Options]] = Options
    keeps: ClassVar[str] = "nothing"
    """What it stores for each task beside the weights, in a few words: "a copy of the weights"."""
    past_data: ClassVar[bool] = False
    """Whether it needs examples of tasks that it has learned before."""
    rehearses: ClassVar[bool] = False
    """Whether examples of earlier tasks are among those that its later stages train on; the run counts
    them."""
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The adapter settings that it works with, {"per_stage": ("new", "merge")}: the first of them is taken
    where a config leaves the setting open, if it has a meaning with the kind of adapter."""
    shards: ClassVar[bool] = True
    """Whether it works with weights that are spread over processes (FSDP): none does that copies, averages or
    takes gradients of them."""
    preferences: ClassVar[bool] = True
    """Whether it takes stages of preferences: not if past gradients or losses mean something to it, which it
    takes of answers."""
    weighs: ClassVar[bool] = False
    """Whether a loss of its own multiplies each example's terms by `engine.objectives.weights`, so that it
    can be a mean over examples (`training.loss_average`)."""
    not_one_model: ClassVar[str] = ""
    """Why no stage of it can be exported as one model: what it does instead, and a full stop; or empty."""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        self.options: Any = options if options is not None else self.Options()
        self.seed = seed
        self.notes: list[str] = []
        self.rehearsed: Mapping[str, Sequence[Encoded]] = {}

    def check(self, adapter: AdapterSettings) -> None:
        """Refuse, before anything is loaded, adapter settings that it cannot work with.

        Raises:
            UserError: If one is none of `needs`.
        """
        for key, allowed in self.needs.items():
            if (
                key in ("kind", *used_by(adapter.kind).keys)
                and (value := getattr(adapter, key)) not in allowed
            ):
                raise UserError(f"adapter.{key}: this method works with {' or '.join(allowed)}, not {value}.")

    def check_model(self, learner: Learner) -> None:
        """Refuse, before anything is scored, options that the model has no place for.

        Raises:
            UserError: If one names what it does not have.
        """

    def stages(self, tasks: Sequence[str]) -> list[Stage]:
        """The episodes; the default is one for each task, in order."""
        return [Stage(number, (task,)) for number, task in enumerate(tasks, start=1)]

    def start(self, stage: Stage) -> Literal["previous", "base"]:
        """Which weights a stage begins with."""
        return "previous"

    def follows(self, stage: Stage) -> bool:
        """Whether the model after a stage builds on the one before; where none does, nothing transfers."""
        return self.start(stage) == "previous"

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Choose what learns, after the configured adapter is in place: freeze, or add parameters."""

    def learns_beside(self, learner: Learner) -> Sequence[Tensor]:
        """What `adapt` lets learn beside the adapter, for the preview, which does not adapt."""
        return ()

    def examples(self, learner: Learner, stage: Stage) -> Sequence[Encoded]:
        """What the stage trains on; the default is its own tasks' examples."""
        if len(stage.data) == 1:
            return next(iter(stage.data.values()))  # as it lies: a list of it would take ten times the memory
        return [example for examples in stage.data.values() for example in examples]

    def batches(self, stage: Stage, examples: Sequence[Encoded], shuffled: Shuffled) -> Batches:
        """In which order these come; the default is another permutation in each epoch."""
        return shuffled

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Before training: a teacher, anchors, memories."""

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """A sum over answer tokens; the default is the negative log-likelihood of the answers.

        Each example's terms times its weight, for a method that `weighs`. Over the pairs of a stage of
        preferences; a method that has a loss of its own takes none of these.
        """
        from forgetmenot.engine.objectives import batch_loss

        return batch_loss(learner, batch)

    def penalty(self, learner: Learner) -> Tensor | None:
        """Added once per optimizer step, on weights; None adds nothing."""
        return None

    def gradients(self, learner: Learner) -> None:
        """After backward, before the step: projections of the gradients."""

    def stepped(self, learner: Learner) -> None:
        """After each optimizer step: moving averages."""

    def end(self, learner: Learner, stage: Stage) -> None:
        """After training: importances, merging, choosing what to remember."""

    @contextmanager
    def answering(self, learner: Learner) -> Iterator[None]:
        """Context around every evaluation: other weights, merged adapters."""
        yield

    def route(self, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Sequence[str] | None:
        """Which of its parts answers each prompt, named by its task; None where the same answers all."""
        return None

    @contextmanager
    def routed(self, learner: Learner, part: str) -> Iterator[None]:
        """Context around the evaluation of what `route` sent to one part."""
        yield

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs beside the weights: tensors and plain data only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""

    def training_state(self) -> dict[str, Any]:
        """All of its own that the steps of a stage change: tensors and plain data only.

        A stage that was interrupted begins as ever (`adapt`, `examples`, `begin`) and then takes this up:
        what follows from its beginning alone, such as a teacher that stays the same, is no part of it.
        """
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `training_state` gave."""
