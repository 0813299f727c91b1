"""The launcher of a study: each run in a separate process, on this machine or wherever Ray finds room.

A process of its own costs the seconds that it takes to import torch. In return a run that crashes, leaks or
is killed for its memory takes nothing with it, its thread count is its own, and it is the same run anywhere.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from forgetmenot import signals
from forgetmenot.errors import UserError
from forgetmenot.process import FAREWELL, Job, Process, run_to_the_end
from forgetmenot.studies.config import Resources

DONE, MISTAKE, BUG = 0, 2, 70
THREADS = "OMP_NUM_THREADS"
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that somebody sends, a person, a scheduler or the kernel; others are of a fault in the program."""


class Started(Protocol):
    """A run on its way."""

    def poll(self) -> int | None:
        """Its exit status, below 0 for the signal that killed it; None while it runs."""
        ...

    def terminate(self) -> None:
        """Tell it to end, which it does when it has saved where it stands."""
        ...

    def farewell(self) -> None:
        """Wait until it has ended, for a while."""
        ...


@dataclass(frozen=True)
class Place:
    """Where runs are started.

    Attributes:
        slots: How many there may be at a time.
        threads: How many each has.
        start: Start one.
        why: What the number of threads is from.
    """

    slots: int
    threads: int
    start: Callable[[Job], Started]
    why: str = "resources.cpus"


@contextmanager
def this_machine(resources: Resources, workers: int) -> Iterator[Place]:
    """A number of runs at a time on this machine.

    Each has the threads of `resources.cpus`, else of OMP_NUM_THREADS, else an equal share of the cores.

    Raises:
        UserError: GPUs are asked for, or OMP_NUM_THREADS is no number.
    """
    if resources.gpus is not None:
        raise UserError("resources.gpus: only Ray assigns GPUs to runs; add --ray, or leave it out.")
    threads, why = threads_of(resources, workers, cores_here())
    yield Place(workers, threads, Process, why)


def threads_of(resources: Resources, workers: int, cores: int) -> tuple[int, str]:
    """How many threads each run has, and what that is from.

    Args:
        resources: Of each run.
        workers: Runs at a time on a machine.
        cores: Of the machine.

    Raises:
        UserError: OMP_NUM_THREADS is no number.
    """
    if given := threads_given(resources):
        return given
    return max(1, cores // workers), f"{cores} cores shared by {workers}" if workers > 1 else "all cores"


def threads_given(resources: Resources) -> tuple[int, str] | None:
    """How many threads each run has where somebody says so, and who.

    Raises:
        UserError: OMP_NUM_THREADS is no number.
    """
    if resources.cpus:
        return resources.cpus, "resources.cpus"
    if wanted := os.environ.get(THREADS, "").partition(",")[0].strip():  # a list is of nested levels
        if not wanted.isdecimal() or not int(wanted):
            raise UserError(f"{THREADS}: {wanted!r} is no number of threads; set another, or unset it.")
        return int(wanted), THREADS
    return None


@contextmanager
def ray_cluster(resources: Resources, workers: int, address: str | None) -> Iterator[Place]:
    """As many runs at a time as a Ray cluster has room for; its nodes must share the study's file system.

    Args:
        resources: What each run reserves. Unless given: OMP_NUM_THREADS, or a `workers`-th of the cores of
            the smallest node, and one GPU where there are any.
        workers: Runs at a time on each node.
        address: Of a running cluster; None starts Ray on this machine, for as long as the study takes.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--ray: Ray is not installed; pip install 'forgetmenot[ray]', or leave it out."
        ) from error

    try:
        _connect(ray, address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        cpus, why = threads_of(resources, workers, int(min(node["CPU"] for node in nodes)))
        gpus = resources.gpus if resources.gpus is not None else float(any(n.get("GPU") for n in nodes))
        slots = sum(_room(node, cpus, gpus) for node in nodes)
        if not slots:
            raise UserError(f"resources: no node has {cpus} CPUs and {gpus:g} GPUs for a run.")
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(run_to_the_end)
        with signals.listening():  # in place of Ray's handlers, which abort this process
            yield Place(slots, cpus, lambda job: _RayTask(job, remote.remote(job)), why)
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    """Reach a cluster, or start one of this machine; its metering of usage stays off unless asked for."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address, **quiet)
        else:  # nothing travels through its object store, whose default is 30 % of the memory
            store = 100 << 20
            ray.init(
                "local", num_cpus=cores_here(), include_dashboard=False, object_store_memory=store, **quiet
            )
    except Exception as error:  # Ray raises bare ones where it does not start in time
        where = (
            f"--ray-address: Ray cannot be reached at {address!r}" if address else "--ray: it cannot start"
        )
        raise UserError(f"{where} ({str(error).strip().splitlines()[0]}).") from error


def status_and_sentence(returned: int, log: Path) -> tuple[int, str | None]:
    """A run's exit status, 2 or 70 if it failed, and the sentence that says why."""
    if returned == DONE:
        return DONE, None
    said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    own = [line.partition(": ")[2] for line in said if line.startswith("forgetmenot: ")]
    if returned in (MISTAKE, BUG) and own:
        return returned, own[-1]
    number = -returned if returned < 0 else returned - 128
    if number in FROM_OUTSIDE:
        full = "; the machine's memory may be full" if number == signal.SIGKILL else ""
        return MISTAKE, (
            f"It was ended by {signal.Signals(number).name}{full}. Start the study again to go on with it. "
            f"What it said: {log}"
        )
    if returned < 0:
        return BUG, f"It was killed by {signal.Signals(number).name}. What it said: {log}"
    return BUG, f"It ended with status {returned}. What it said: {log}"


class _RayTask:
    """A run that Ray has started, or will when there is room."""

    def __init__(self, job: Job, reference: Any) -> None:
        self._job, self._reference = job, reference

    def poll(self) -> int | None:
        """Its exit status, below 0 for the signal that killed it; None while it runs."""
        import ray

        ready, _ = ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return int(ray.get(self._reference))
        except ray.exceptions.RayError as error:  # no node could start it, or its node is gone for good
            reason = str(error).strip().splitlines()[-1]
            (self._job.folder / self._job.log).write_text(
                f"forgetmenot: Ray could not run it: {reason}\n", encoding="utf-8"
            )
            return BUG

    def terminate(self) -> None:
        """Tell it to end."""
        import ray

        ray.cancel(self._reference)

    def farewell(self) -> None:
        """Wait until it has ended: with Ray its worker goes, and takes at once what has not saved yet."""
        import ray

        ray.wait([self._reference], timeout=FAREWELL)


def _room(node: dict[str, float], cpus: int, gpus: float) -> int:
    """How many runs fit on a node."""
    most = int(node["CPU"] // cpus)
    return min(most, int(node.get("GPU", 0) // gpus)) if gpus else most


def cores_here() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
