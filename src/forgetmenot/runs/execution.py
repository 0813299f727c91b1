"""The execution of a plan: the model loaded, every stage trained and scored, the results written."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from forgetmenot.config import settings_hash
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.probes import Probe
from forgetmenot.record.layout import BASE, ENVIRONMENT, PREDICTIONS, RESULTS
from forgetmenot.record.result_schema import Cost
from forgetmenot.record.seal import unsealed
from forgetmenot.report.beforehand import can_be_shown
from forgetmenot.report.html import write_report
from forgetmenot.report.terminal import LiveTable
from forgetmenot.runs.directory import RunDirectory, begun_with
from forgetmenot.runs.display import Display
from forgetmenot.runs.frozen_layers import keep_frozen
from forgetmenot.runs.loop import Loop
from forgetmenot.runs.plan import Plan
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.results import read_results
from forgetmenot.runs.session import Session, open_session
from forgetmenot.tasks import fingerprint


def carry_out(
    plan: Plan,
    receipts: ReceiptLoader,
    probes: Mapping[str, Probe],
    directory: RunDirectory,
    display: Display,
    *,
    fresh: bool,
) -> None:
    """Continue a run from the state of its directory to its end, and write its results.

    Args:
        plan: What the run's config amounts to.
        receipts: What loaded the plan's tasks.
        probes: By name, ready to measure.
        directory: The run's, locked.
        display: Where to show progress.
        fresh: Remove what is in the directory first.

    Raises:
        UserError: If something does not fit the model, or the directory was created with other settings.
    """
    config = plan.config
    if not fresh:
        directory.check([row.name for row in plan.rows])
        if sentence := unsealed(directory.path):
            display.say(sentence)
    session = open_session(config, None if fresh else begun_with(directory).get("threads"))
    display.say(session.in_words)
    with deterministic():
        loop = Loop(plan, session, directory, display, probes)
        session.examine(loop.first_sequences())
        keep_frozen(session, loop.sequences(), display)
        if fresh:
            directory.clear()  # not before: a mistake in the config must not cost the run that is there
        _identify(plan, session, directory, display)
        directory.begin(config.to_yaml())
        for sentence in can_be_shown(loop.at_hand):
            display.say(sentence)
        display.show(_table(loop))
        loop.run()
    described = {
        "model": config.model.title,
        "method": config.method.name,
        "adapter": config.adapter.in_words,
        "seed": config.seed,
        "split": config.evaluation.split,
        "margins": config.evaluation.margins,
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
    """Let PyTorch choose the kernels that always sum in the same order.

    It would also fill all that it allocates, for programs that read what nobody has written; that takes time,
    and no kernel of ours reads such memory.
    """
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]


def _identify(plan: Plan, session: Session, directory: RunDirectory, display: Display) -> None:
    """Check what this process would compute with against what the run began with, and record it.

    Raises:
        UserError: If they differ, so that resuming would mix two runs.
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
                f"{directory.path} was created with {key} {value!r}; now it would be {now!r}. Resuming would "
                "mix two runs. Restore the command, machine or data, or start over with --fresh."
            )
    _record(session, directory, display, identity)
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


def _record(session: Session, directory: RunDirectory, display: Display, identity: Mapping[str, Any]) -> None:
    """Write environment.json; what finished stages were computed with stays in it, under "earlier"."""
    before = ranks.agreed(lambda: directory.read_json(ENVIRONMENT)) or {}
    earlier = list(before.get("earlier", ()))
    then, now = ({key: one.get(key) for key in ("versions", "machine")} for one in (before, session.record))
    stages = [name for name in (BASE, *identity["stages"]) if directory.is_committed(name)]
    if before and then != now and stages:
        earlier.append({"stages_until": stages[-1], **then})
        display.say(
            f"Stages up to {stages[-1]} were computed with {_other(then, now)}; further ones are with "
            "what is here now. Their numbers may differ in the last bits from those of one machine."
        )
    if not before and stages:
        display.say(
            f"{directory.path / ENVIRONMENT} is missing: that the finished stages are of the same data, "
            "model and machine cannot be checked."
        )
    written = {
        "identity": identity,
        "settings": settings_hash(session.config),
        **session.record,
        **({"earlier": earlier} if earlier else {}),
    }
    directory.write_json(ENVIRONMENT, written)


def _other(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What was another then: packages with their versions, and the machine."""
    versions = dict(then["versions"] or {})
    other = [f"{name} {one}" for name, one in versions.items() if now["versions"].get(name) != one]
    if then["machine"] != now["machine"]:
        other.append(f"on {then['machine']}")
    return ", ".join(other) or "other packages"


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
