"""The preview of a run: what it would compute, and about how long it would take, before any training.

Examples, steps and input positions are counted as the run will count them, from the same batches and packs.
Seconds are those of a few packs, times the positions that they stand for (`runs/calibration.py`). Stages that
the directory holds already take none, nor do states of frozen layers that the cache holds.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console

from forgetmenot.config import RunConfig
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import Method, Stage
from forgetmenot.prompting.encoded import Encoded
from forgetmenot.record.layout import BASE
from forgetmenot.report.beforehand import AtHand, can_be_shown
from forgetmenot.report.preview_tables import print_preview
from forgetmenot.report.screen import Screen
from forgetmenot.runs.api import is_begun, resolve
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.display import Display
from forgetmenot.runs.ownership import check_ours
from forgetmenot.runs.plan import check_trackers, make_plan
from forgetmenot.runs.probing import make_probes
from forgetmenot.runs.receipt_loader import ReceiptLoader

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.runs.frozen_layers import FrozenPlan
    from forgetmenot.runs.session import Session

BESIDE = {
    "examples": "the examples that it adds",
    "begin": "what it computes before a stage",
    "loss": "its own loss, and passes of other models for it",
    "penalty": "its penalty",
    "gradients": "what it does to gradients",
    "stepped": "what it does after a step",
    "end": "what it computes after a stage",
    "route": "how it routes questions",
}
"""What a method that overrides a hook adds to plain training."""


@dataclass(frozen=True)
class StageWork:
    """What a stage trains.

    Attributes:
        examples: Of its own tasks.
        computed: Input positions that go through the model, all epochs together.
        without_sharing: How many they would be one sequence at a time.
        done: Whether the directory holds it already, so that it takes no time.
    """

    name: str
    trains_on: tuple[str, ...]
    examples: int
    epochs: int
    steps: int
    computed: int
    without_sharing: int
    seconds: float
    done: bool


@dataclass(frozen=True)
class ScoringWork:
    """What a task costs each time that it is scored.

    Attributes:
        computed: Input positions; 0 for answers that are generated, whose length is not known before.
    """

    task: str
    prompt: str
    examples: int
    computed: int
    without_sharing: int
    seconds: float


@dataclass(frozen=True)
class FrozenWork:
    """What the layers that never learn give.

    Attributes:
        states: How many, one for each token prefix.
        missing: Those that the cache does not hold.
        bytes: What they take on disk.
        why_not: Why nothing is kept, and every pass computes all layers; empty where it is.
        seconds: To compute those that are missing.
    """

    states: int = 0
    missing: int = 0
    bytes: int = 0
    why_not: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Preview:
    """A run before it runs.

    Attributes:
        stages: What is trained, in order.
        scoring: What is scored after every stage, and before the first.
        base_done: Whether the directory holds the base's scores already.
        frozen: What the layers that never learn give; None where all learn.
        memory: Bytes: `peak` of the calibration (of the process on a CPU, of PyTorch's tensors on a GPU), and
            of it `weights`, `gradients` and `optimizer`.
        parameters: Of the model, and `trainable` of them.
        machine: What was found to compute on, and was calibrated: the GPU, or the processor and its threads.
        not_counted: What the estimate leaves out, as sentences.
        at_hand: What each task will be judged on.
    """

    directory: Path
    stages: tuple[StageWork, ...]
    scoring: tuple[ScoringWork, ...]
    base_done: bool
    frozen: FrozenWork | None
    memory: Mapping[str, int]
    parameters: Mapping[str, int]
    machine: str
    not_counted: tuple[str, ...]
    at_hand: tuple[AtHand, ...]

    @property
    def train_s(self) -> list[float]:
        """Seconds of training, stage after stage; 0 for the base, as in timing.json."""
        return [0.0, *(stage.seconds for stage in self.stages)]

    @property
    def eval_s(self) -> list[float]:
        """Seconds of scoring, stage after stage, the base first."""
        once = sum(one.seconds for one in self.scoring)
        return [0.0 if done else once for done in (self.base_done, *(stage.done for stage in self.stages))]

    @property
    def seconds(self) -> float:
        """All of the training and scoring that is left."""
        below = self.frozen.seconds if self.frozen is not None else 0.0
        return sum(self.train_s) + sum(self.eval_s) + below

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {**asdict(self), "directory": str(self.directory)}
        plain |= {
            "at_hand": [one.to_json() for one in self.at_hand],
            "can_be_shown": can_be_shown(self.at_hand),
        }
        return plain | {"train_s": self.train_s, "eval_s": self.eval_s, "seconds": self.seconds}

    def print(self, console: Console | None = None) -> None:
        """Print the stages, what is scored, and the estimate."""
        print_preview(self.to_json(), console or Screen())


def preview(config: RunConfig | Mapping[str, Any] | str | Path | None = None) -> Preview:
    """Count what a run would compute, and estimate its time and memory from a short calibration.

    Loads the data and the model as the run will, and trains on a few packs with a model that is then thrown
    away: nothing is written. Of a run that is in the directory only is read which stages are finished.

    Args:
        config: What `run` takes.

    Raises:
        UserError: If anything that the config names is not there or does not fit.
    """
    config = resolve(config)
    check_trackers(config)
    RunDirectory(config.directory).check_writable()
    check_ours(config.directory, "run")
    with TemporaryDirectory() as folder:  # receipts are kept where they are issued; here, not for long
        plan = make_plan(config, ReceiptLoader(config, RunDirectory(Path(folder))))
    make_probes(plan, config.evaluation.probes)  # what they need is here, or a sentence says what is not
    from forgetmenot.models.layers import first_learning
    from forgetmenot.runs.calibration import calibrate
    from forgetmenot.runs.execution import deterministic
    from forgetmenot.runs.frozen_layers import FrozenPlan, plan_frozen
    from forgetmenot.runs.loop import Loop
    from forgetmenot.runs.session import open_session

    directory = RunDirectory(config.directory)
    there = is_begun(directory, config)
    session = open_session(config, begun_with(directory).get("threads") if there else None)
    learner = session.learner
    with deterministic():
        loop = Loop(plan, session, directory, Display(Screen(quiet=True)))
        scored = [one for asked in loop.scored.values() for one in asked]
        session.examine(loop.first_sequences(), writes=any(one.generated for one in scored))
        stages = [replace(one, data={name: loop.data[name] for name in one.tasks}) for one in plan.stages]
        examples = [Method().examples(learner, stage) for stage in stages]
        frozen = None
        if first_learning(learner.model, config.adapter.layers):
            frozen = plan_frozen(session, loop.sequences())
        kept = frozen if isinstance(frozen, FrozenPlan) else None
        rates = calibrate(session, examples, scored, kept)
    learner.model.train()  # what is counted of each stage depends on it
    learning = [p for p in learner.model.parameters() if p.requires_grad]
    beside = plan.method.learns_beside(learner)
    bytes_learning = sum(p.nbytes for p in learning) + sum(4 * p.numel() for p in beside)  # those in fp32
    return Preview(
        directory=config.directory,
        stages=tuple(
            _stage_work(session, stage, data, rate, rates.step, there and directory.is_committed(stage.name))
            for stage, data, rate in zip(stages, examples, rates.trained, strict=True)
        ),
        scoring=tuple(_scoring_work(learner, *pair) for pair in zip(scored, rates.scored, strict=True)),
        base_done=there and directory.is_committed(BASE),
        frozen=_frozen_work(frozen, rates.below),
        memory={
            "peak": _peak_bytes(learner),
            "weights": sum(p.nbytes for p in learner.model.parameters()),
            "gradients": bytes_learning,
            "optimizer": 2 * bytes_learning,  # AdamW's two moments
        },
        parameters={
            "all": session.record["parameters"],
            "trainable": sum(p.numel() for p in (*learning, *beside)),
        },
        machine=_machine(session),
        not_counted=tuple(_not_counted(config, plan.method, scored)),
        at_hand=tuple(loop.at_hand),
    )


def _stage_work(
    session: Session, stage: Stage, examples: Sequence[Encoded], rate: float, step: float, done: bool
) -> StageWork:
    """Count a stage's plain training."""
    from forgetmenot.engine.training import training_positions
    from forgetmenot.runs.stage_training import epochs_of, stage_seed

    learner, settings = session.learner, session.config.training
    epochs, seed = epochs_of(settings, stage), stage_seed(session.config.seed, stage.number)
    counted = training_positions(learner, examples, settings, epochs=epochs, seed=seed)
    steps = -(-len(examples) // settings.batch_size) * epochs
    return StageWork(
        name=stage.name,
        trains_on=stage.tasks,
        examples=len(examples),
        epochs=epochs,
        steps=steps,
        **counted,
        seconds=0.0 if done else rate * counted["computed"] + step * steps,
        done=done,
    )


def _scoring_work(learner: Learner, scored: ScoredTask, rate: float) -> ScoringWork:
    """Count a question."""
    arranged = None if scored.generated else scored.arranged(learner)
    return ScoringWork(
        task=scored.task.name,
        prompt=scored.prompt.name,
        examples=len(scored.examples),
        computed=arranged.computed if arranged else 0,
        without_sharing=arranged.without_sharing if arranged else 0,
        seconds=rate * (arranged.computed if arranged else len(scored.examples)),
    )


def _frozen_work(plan: FrozenPlan | str | None, rate: float) -> FrozenWork | None:
    if plan is None or isinstance(plan, str):
        return plan if plan is None else FrozenWork(why_not=plan)
    return FrozenWork(plan.count, plan.missing, plan.size, seconds=rate * plan.missing)


def _peak_bytes(learner: Learner) -> int:
    """The most memory that was held so far."""
    import torch

    if learner.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _machine(session: Session) -> str:
    identity = session.identity
    if identity["device"] != "cpu":
        return f"{identity['device']}, {identity['precision']}"
    return f"{session.record['machine']}, {identity['threads']} threads, {identity['precision']}"


def _not_counted(config: RunConfig, method: Method, scored: Sequence[ScoredTask]) -> list[str]:
    """What the estimate leaves out."""
    sentences = ["Reading data and weights, writing stages, and the report."]
    beside = [
        what for hook, what in BESIDE.items() if getattr(type(method), hook) is not getattr(Method, hook)
    ]
    if beside:
        sentences.append(f"What method {config.method.name} adds to plain training: {', '.join(beside)}.")
    if probes := [one.name for one in config.evaluation.probes]:
        sentences.append(f"What the probes measure at each moment: {', '.join(probes)}.")
    if realigned := sum(len(one.realign) for one in scored):
        sentences.append(
            f"The training on {realigned:,} examples before tasks are asked realigned, each time."
        )
    if config.adapter.per_stage == "new" and len(config.tasks) > 1:
        sentences.append("The earlier stages' adapters, which every later stage passes through as well.")
    generated = sorted({one.task.name for one in scored if one.generated})
    if generated:
        sentences.append(
            f"That answers to {', '.join(generated)} become shorter or longer as the model learns."
        )
    return sentences
