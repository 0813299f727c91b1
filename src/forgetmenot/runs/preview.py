"""The preview of a run: what it would compute, and about how long it would take, before any training.

Examples, steps and input positions are counted as the run will count them, from the same batches and packs.
Seconds are those of a few real training steps of each stage and of some examples of each question, times the
positions that they stand for.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console

from forgetmenot.config import RunConfig
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.methods import Method, Stage
from forgetmenot.prompting.encoded import Encoded
from forgetmenot.report.preview_tables import print_preview
from forgetmenot.report.screen import Screen
from forgetmenot.runs.api import resolve
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.plan import check_trackers, make_plan
from forgetmenot.runs.receipt_loader import ReceiptLoader

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.runs.session import Session

STEPS = 4
"""Training steps of each stage that are timed, after one that is not."""
EXAMPLES = 64
"""Examples of each question that are timed."""

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
    """

    name: str
    trains_on: tuple[str, ...]
    examples: int
    epochs: int
    steps: int
    computed: int
    without_sharing: int
    seconds: float


@dataclass(frozen=True)
class ScoringWork:
    """What a task costs each time that it is scored.

    Attributes:
        computed: Input positions; 0 for answers that are generated, whose length is not known before.
        seconds: By the model with what a stage adds to it.
        base_seconds: By the untouched base model.
    """

    task: str
    prompt: str
    examples: int
    computed: int
    without_sharing: int
    seconds: float
    base_seconds: float


@dataclass(frozen=True)
class Preview:
    """A run before it runs.

    Attributes:
        stages: What is trained, in order.
        scoring: What is scored after every stage, and before the first.
        memory: Bytes: `peak` of the calibration (of the process on a CPU, of PyTorch's tensors on a GPU), and
            of it `weights`, `gradients` and `optimizer`.
        parameters: Of the model, and `trainable` of them.
        machine: What was found to compute on, and was calibrated: the GPU, or the processor and its threads.
        not_counted: What the estimate leaves out, as sentences.
    """

    directory: Path
    stages: tuple[StageWork, ...]
    scoring: tuple[ScoringWork, ...]
    memory: Mapping[str, int]
    parameters: Mapping[str, int]
    machine: str
    not_counted: tuple[str, ...]

    @property
    def train_s(self) -> list[float]:
        """Seconds of training, stage after stage; 0 for the base, as in timing.json."""
        return [0.0, *(stage.seconds for stage in self.stages)]

    @property
    def eval_s(self) -> list[float]:
        """Seconds of scoring, stage after stage, the base first."""
        after = sum(one.seconds for one in self.scoring)
        return [sum(one.base_seconds for one in self.scoring), *(after for _ in self.stages)]

    @property
    def seconds(self) -> float:
        """All of the training and scoring."""
        return sum(self.train_s) + sum(self.eval_s)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {**asdict(self), "directory": str(self.directory)}
        return plain | {"train_s": self.train_s, "eval_s": self.eval_s, "seconds": self.seconds}

    def print(self, console: Console | None = None) -> None:
        """Print the stages, what is scored, and the estimate."""
        print_preview(self.to_json(), console or Screen())


def preview(config: RunConfig | Mapping[str, Any] | str | Path | None = None) -> Preview:
    """Count what a run would compute, and estimate its time and memory from a short calibration.

    Loads the data and the model as the run will, and trains some steps on a model that is then thrown away:
    nothing is written, and a run that is in the directory is neither read nor changed.

    Args:
        config: What `run` takes.

    Raises:
        UserError: If anything that the config names is not there or does not fit.
    """
    config = resolve(config)
    check_trackers(config)
    RunDirectory(config.directory).check_writable()
    with TemporaryDirectory() as folder:  # receipts are kept where they are issued; here, not for long
        plan = make_plan(config, ReceiptLoader(config, RunDirectory(Path(folder))))
    from forgetmenot.models.adapt import adapt
    from forgetmenot.runs.execution import deterministic
    from forgetmenot.runs.loop import Loop
    from forgetmenot.runs.session import open_session

    session = open_session(config)
    learner = session.learner
    with deterministic():
        loop = Loop(plan, session, RunDirectory(config.directory), Display(Screen(quiet=True)))
        session.examine(loop.first_sequences())
        scored = [one for asked in loop.scored.values() for one in asked]
        base_seconds = [_seconds_to_answer(learner, one) for one in scored]
        learner.model = adapt(learner.model, config.adapter, 1, config.seed)
        stages = tuple(
            _stage_work(session, replace(stage, data={name: loop.data[name] for name in stage.tasks}))
            for stage in plan.stages
        )
        peak = _peak_bytes(learner)  # before the scoring that follows, which needs less
        scoring = tuple(_scoring_work(learner, *pair) for pair in zip(scored, base_seconds, strict=True))
    learning = [p for p in learner.model.parameters() if p.requires_grad]
    bytes_learning = sum(p.nbytes for p in learning)
    return Preview(
        directory=config.directory,
        stages=stages,
        scoring=scoring,
        memory={
            "peak": peak,
            "weights": sum(p.nbytes for p in learner.model.parameters()),
            "gradients": bytes_learning,
            "optimizer": 2 * bytes_learning,  # AdamW's two moments
        },
        parameters={
            "all": session.record["parameters"],
            "trainable": sum(p.numel() for p in learning),
        },
        machine=_machine(session),
        not_counted=tuple(_not_counted(config, plan.method, scored)),
    )


def _stage_work(session: Session, stage: Stage) -> StageWork:
    """Count a stage's plain training, and time some steps of it."""
    from forgetmenot.engine.training import draw_batches, training_positions
    from forgetmenot.runs.loop import epochs_of, stage_seed

    learner, settings = session.learner, session.config.training
    examples = Method().examples(learner, stage)
    epochs, seed = epochs_of(settings, stage), stage_seed(session.config.seed, stage.number)
    learner.model.train()
    counted = training_positions(learner, examples, settings, epochs=epochs, seed=seed)
    batches = list(islice(draw_batches(len(examples), settings.batch_size, 1, seed), 1 + STEPS))
    first, timed = batches[:1], batches[1:] or batches
    _train(session, _examples(examples, first), seed)
    learner.reset_counts()
    seconds = _train(session, _examples(examples, timed), seed)
    return StageWork(
        name=stage.name,
        trains_on=stage.tasks,
        examples=len(examples),
        epochs=epochs,
        steps=-(-len(examples) // settings.batch_size) * epochs,
        **counted,
        seconds=seconds * counted["computed"] / max(1, learner.counts["computed"]),  # none of no examples
    )


def _examples(examples: Sequence[Encoded], batches: Sequence[Sequence[int]]) -> list[Encoded]:
    return [examples[k] for indices in batches for k in indices]


def _train(session: Session, examples: Sequence[Encoded], seed: int) -> float:
    """The seconds of training on examples, plainly."""
    import torch
    from accelerate import Accelerator

    from forgetmenot.engine.precision import rounded_once
    from forgetmenot.engine.training import fit

    learner = session.learner
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    began = time.perf_counter()
    with rounded_once(learner.model, learner.precision):
        fit(
            learner,
            examples,
            Method(),
            session.config.training,
            accelerator=accelerator,
            epochs=1,
            learning_rate=session.learning_rate,
            seed=seed,
            on_step=lambda step: None,
        )
    return time.perf_counter() - began


def _scoring_work(learner: Learner, scored: ScoredTask, base_seconds: float) -> ScoringWork:
    """Count a scored, and time some of it by the model as it stands."""
    arranged = None if scored.generated else scored.arranged(learner)
    return ScoringWork(
        task=scored.task.name,
        prompt=scored.prompt.name,
        examples=len(scored.examples),
        computed=arranged.computed if arranged else 0,
        without_sharing=arranged.without_sharing if arranged else 0,
        seconds=_seconds_to_answer(learner, scored),
        base_seconds=base_seconds,
    )


def _seconds_to_answer(learner: Learner, scored: ScoredTask) -> float:
    """The seconds that a question takes, from some of its examples: by positions where these are known."""
    apart = max(1, len(scored.examples) // EXAMPLES)
    chosen = range(0, len(scored.examples), apart)[:EXAMPLES]
    some = scored.only(chosen)
    learner.reset_counts()
    began = time.perf_counter()
    evaluate(learner, Method(), some)
    seconds = time.perf_counter() - began
    if learner.counts["computed"]:
        return seconds * scored.arranged(learner).computed / learner.counts["computed"]
    return seconds * len(scored.examples) / len(chosen)


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
    if config.adapter.per_stage == "new" and len(config.tasks) > 1:
        sentences.append("The earlier stages' adapters, which every later stage passes through as well.")
    generated = sorted({one.task.name for one in scored if one.generated})
    if generated:
        sentences.append(
            f"That answers to {', '.join(generated)} become shorter or longer as the model learns."
        )
    return sentences
