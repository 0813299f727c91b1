"""Run a config from Python, and look at what a run found."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from forgetmenot.config import RunConfig, differences, load_config, read_resolved
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.record.layout import CONFIG, ENVIRONMENT, PREDICTIONS, REPORT, RESULTS, stage_folder
from forgetmenot.record.result_schema import Cost, Results
from forgetmenot.report.html import write_report
from forgetmenot.report.terminal import LiveTable, print_matrix
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.display import Display
from forgetmenot.runs.loop import Loop
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import Plan, check_trackers, make_plan
from forgetmenot.runs.probing import make_probes
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.results import read_results
from forgetmenot.runs.session import Session, open_session
from forgetmenot.tasks import fingerprint


class Run:
    """A run on disk.

    Attributes:
        path: Its directory.
        results: The content of results.json.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        results = RunDirectory(self.path).read_json(RESULTS)
        if results is None:
            raise UserError(f"{self.path} holds no finished run: there is no results.json.")
        self.results: Results = results

    @property
    def matrix(self) -> pd.DataFrame:
        """The score matrix R: stages × tasks."""
        stages = [stage["name"] for stage in self.results["stages"]]
        return pd.DataFrame(self.results["matrix"], index=stages, columns=self.results["tasks"], dtype=float)

    def summary(self) -> dict[str, Any]:
        """Average performance, backward transfer, forgetting, …: null where undefined, with the reason."""
        return dict(self.results["summary"])

    def predictions(self, stage: int) -> pd.DataFrame:
        """One row for each (task, example) after a stage: gold, predicted, log-likelihoods."""
        name = self.results["stages"][stage]["name"]
        return pd.read_parquet(stage_folder(self.path, name) / PREDICTIONS)

    def report(self) -> Path:
        """Write report.html anew; returns its path."""
        return write_report(self.path)

    def print(self, console: Console | None = None) -> None:
        """Print the matrix and the summary."""
        print_matrix(self.results, console or Console())


def run(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    fresh: bool = False,
    console: Console | None = None,
) -> Run:
    """Train on one task after another, score all of them after each, and report what was forgotten.

    A run that was interrupted goes on from its last finished stage; a finished one is only read; one whose
    list of tasks has grown goes on with the new ones. In processes that a launcher started (`accelerate
    launch`, `torchrun`) all of them call this, and share the work.

    Args:
        config: A config, a path to one, or dotted keys to values; None for the bundled model and suite.
        fresh: Remove what is in the run directory and start anew.
        console: Where to show progress; None shows nothing.

    Raises:
        UserError: If anything that the config names is not there or does not fit.
    """
    config = resolve(config)
    directory = RunDirectory(config.directory)
    with opened(directory, console) as display:
        if not ranks.agreed(lambda: not fresh and is_finished(directory, config)):
            try:
                _go_on(config, directory, display, fresh)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    "The device's memory is full: set training.micro_batch to fewer examples, a smaller "
                    "training.max_length, or training.activation_checkpointing: true. "
                    "Finished stages are kept; the same command goes on from there."
                ) from error
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise UserError(
                    f"The disk of {directory.path} is full: make room, or set checkpoints: last. "
                    "Finished stages are kept; the same command goes on from there."
                ) from error
    return Run(directory.path)


def resolve(config: RunConfig | Mapping[str, Any] | str | Path | None) -> RunConfig:
    """A config out of whatever `run` takes."""
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, Mapping):
        return load_config(None, config)
    return load_config(Path(config) if config is not None else None)


def is_finished(directory: RunDirectory, config: RunConfig) -> bool:
    """Whether the directory holds this run, finished.

    Raises:
        UserError: If it holds another one that this does not go on from.
    """
    path = directory.path / CONFIG
    if not path.is_file():
        return False
    before = read_resolved(path)
    finished = all((directory.path / name).is_file() for name in (RESULTS, REPORT))
    different = differences(before, config)
    if different == ["tasks"] and config.tasks[: len(before.tasks)] == before.tasks:
        return False
    if different:
        raise UserError(
            f"{directory.path} holds a run of another config: {', '.join(different)} differ. "
            "Choose another output, or start anew with --fresh."
        )
    return finished


def _go_on(config: RunConfig, directory: RunDirectory, display: Display, fresh: bool) -> None:
    """Take the run to its end and write what follows from it."""
    check_trackers(config)
    receipts = ReceiptLoader(config, directory)
    plan = make_plan(config, receipts)
    for note in plan.notes:
        display.say(note)
    probes = make_probes(config, config.evaluation.probes)
    session = open_session(config, None if fresh else begun_with(directory).get("threads"))
    with deterministic():
        loop = Loop(plan, session, directory, display, probes)
        session.examine(loop.first_sequences())
        if fresh:
            directory.clear()  # not before: a mistake in the config must not cost the run that is there
        _identify(plan, session, directory, display)
        directory.begin(config.to_yaml())
        display.show(_table(loop))
        loop.run()
    described = {
        "model": config.model.name,
        "method": config.method.name,
        "adapter": _adapter(config),
        "seed": config.seed,
        "split": config.evaluation.split,
    }
    if ranks.writes():
        cost = Cost(
            parameters=session.record["parameters"],
            past_data=plan.method.past_data,
            truncated_in_training=loop.truncated,
        )
        results = read_results(directory, plan.rows, loop.scored, described, cost, probes)
        if receipts.receipts:
            results["receipts"] = receipts.described()
        directory.write_json(RESULTS, results)
        write_report(directory.path)
        directory.event("finished")
    ranks.wait()


@contextmanager
def deterministic() -> Iterator[None]:
    """Let PyTorch choose the kernels that always sum in the same order."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _identify(plan: Plan, session: Session, directory: RunDirectory, display: Display) -> None:
    """Hold what this process would compute with against what the run began with, and record it.

    Raises:
        UserError: If they differ, so that going on would mix two runs.
    """
    tasks = {task.name: task for task in (*plan.trained, *plan.scored)}
    identity = {
        **session.identity,
        "tasks": {name: fingerprint(task) for name, task in tasks.items()},
        "prompts": {name: prompt.hash for name, prompt in plan.prompts.items()},
        "stages": {stage.name: list(stage.tasks) for stage in plan.stages},
    }
    before = begun_with(directory) or identity
    for key, value in before.items():
        now: Any = identity.get(key)
        if isinstance(value, dict) and isinstance(now, dict):  # tasks may have come, none may have changed
            now = {name: now.get(name) for name in value}
        if now != value:
            raise UserError(
                f"{directory.path} began with {key} {value!r}; by this command, machine and data "
                f"it is {now!r} now: going on would mix two runs. Put it back, or start anew with --fresh."
            )
    directory.write_json(ENVIRONMENT, {"identity": identity, **session.record})
    if session.learner.layout != "trie":
        not_taken = session.record["guard"]["not_taken"].items()
        why = "; ".join(f"{name}: {reason}" for name, reason in not_taken if name != "writing")
        display.say(f"This model takes {session.learner.layout} batches, not the trie ({why}).")
    if not session.learner.together:
        why = session.record["guard"]["not_taken"]["writing"]
        display.say(f"This model writes answers one at a time, not in batches ({why}).")
    if session.record["dropout_set_to_0"]:
        zeroed = ", ".join(session.record["dropout_set_to_0"])
        display.say(f"The model's own dropout ({zeroed}) is set to 0; that is recorded.")


def _table(loop: Loop) -> LiveTable:
    rows, scored = loop.plan.rows, loop.scored[PREDICTIONS]
    return LiveTable(
        [one.task.name for one in scored],
        [row.name for row in rows],
        {one.task.name: one.task.metric for one in scored},
        trains_on=[row.trains_on for row in rows],
        majority={one.task.name: one.majority for one in scored},
        follows=[row.follows for row in rows],
    )


def _adapter(config: RunConfig) -> str:
    if config.adapter.kind == "full":
        return "full fine-tuning"
    if config.adapter.kind == "prompt":
        return f"soft prompt, {config.adapter.tokens} tokens"
    return f"LoRA, rank {config.adapter.rank}"
