"""`python -m forgetmenot.worker CONFIG.yaml`: one run of a study, which ends when the study does."""

import os
import signal
import sys
import threading

from forgetmenot.cli import main


def _end_with_the_study() -> None:
    """Wait until the study that holds the other end of stdin is gone, whatever ended it, and go too.

    At once and without a farewell: what a run has on disk is whole at any moment, and a study that is
    started again at once must not find its directories in use.
    """
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written; not by sys.stdin, whose lock outlives main
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    main(["run", sys.argv[1]])
