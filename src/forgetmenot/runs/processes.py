"""The same command in several processes on this machine."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from uuid import uuid4

from forgetmenot.errors import UserError

TERMINATED = 128 + signal.SIGTERM
"""The status of a process that ends only since another of its run has, or the launcher said so."""


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ


def check_processes(asked: int) -> None:
    """Check the number of processes against the machine's GPUs, or against what a launcher started.

    Raises:
        UserError: If they do not fit.
    """
    if launched():
        there = int(os.environ.get("WORLD_SIZE", 1))
        if asked != there:
            raise UserError(f"--num-processes {asked}: the launcher started {there}; leave the option out.")
        return
    import torch

    if torch.cuda.is_available() and asked > torch.cuda.device_count():
        raise UserError(f"--num-processes {asked}: this machine has {torch.cuda.device_count()} GPUs.")


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run this program with these arguments in several processes; returns the exit status.

    By torchrun's agent, which `accelerate launch --multi_gpu` starts too: it hands a signal on to all of
    them, and when one fails it ends the others. (`accelerate launch` itself ends with 1 whatever the
    processes ended with; `notebook_launcher` forks, which thread pools and CUDA do not survive.)
    """
    import torch
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    logging.disable()  # the processes say what there is to say
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=uuid4().hex,
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "forgetmenot", *arguments)
    except SignalException as received:
        return 128 + int(received.sigval)
    except ChildFailedError as error:
        return _status([failure.exitcode for failure in error.failures.values()])
    return 0


def _status(codes: Sequence[int]) -> int:
    """One exit status for several: that of the process which ended by itself, else of one that was killed."""
    own = [code for code in codes if code > 0 and code != TERMINATED]
    killed = [-code for code in codes if code < 0 and code != -signal.SIGTERM]
    if own or not killed:
        return next(iter(own), TERMINATED)
    print(
        f"forgetmenot: a process of the run was ended by signal {killed[0]}; "
        "run the same command again to resume from the last finished stage.",
        file=sys.stderr,
    )
    return 128 + killed[0]
