"""A subprocess that ends when its parent does: both ends of it.

The child is `python -m forgetmenot.process run CONFIG.yaml`. The module imports nothing heavy, so that who
only starts processes, as Ray's workers do, stays small.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

GLANCE = 0.1  # seconds between two looks at a process
FAREWELL = 60.0  # seconds in which a process that is told to end may save and do so by itself


@dataclass(frozen=True)
class Job:
    """One run to start.

    Attributes:
        folder: The working directory, to which the other paths are relative.
        config: The run's config.
        log: The file of its output, overwritten each time.
        threads: How many threads it computes with.
    """

    folder: Path
    config: Path
    log: Path
    threads: int


class Process:
    """A run on this machine, which ends when this process does."""

    def __init__(self, job: Job) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads)}
        with (job.folder / job.log).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "forgetmenot.process", "run", str(job.config)],
                cwd=job.folder,
                env=environment,
                stdin=subprocess.PIPE,  # held open; its end tells the run that this process is gone
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C comes by `terminate` alone: a second would cut a save off
            )

    def poll(self) -> int | None:
        """Its exit status, below 0 for the signal that killed it; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Tell it to end, once: it saves where it stands, and a second signal would cut that off."""
        self._process.terminate()

    def farewell(self) -> None:
        """Wait until it has ended, and after a while end it."""
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run_to_the_end(job: Job) -> int:
    """Start a run and wait for it; returns its exit status. Whatever interrupts the wait ends the run."""
    process = Process(job)
    try:
        while (returned := process.poll()) is None:
            time.sleep(GLANCE)  # Ray's wish to end is heard between two of these, and not in a system call
        return returned
    finally:
        process.terminate()
        process.farewell()


def _end_with_the_parent() -> None:
    """Wait until the parent, which holds the other end of stdin, is gone, whatever ended it, and go too.

    At once and without a farewell: what a run has on disk is whole at any moment, and a study that is
    started again at once must not find its directories in use.
    """
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written; not by sys.stdin, whose lock outlives main
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    runpy.run_module("forgetmenot", run_name="__main__", alter_sys=True)
