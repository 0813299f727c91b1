"""`python -m forgetmenot`, and the commands `forgetmenot` and `fmn`."""

import signal

from forgetmenot import signals


def main() -> None:
    """Answer signals, then import the command line and run it."""
    signals.leave_at_once()
    from forgetmenot.cli import main

    try:
        main()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a handler goes before the interpreter does


if __name__ == "__main__":
    main()
