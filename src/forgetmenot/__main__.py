"""`python -m forgetmenot`, and the commands `forgetmenot` and `fmn`."""

from forgetmenot import signals


def main() -> None:
    """Answer signals, then import the command line and run it."""
    signals.leave_at_once()
    from forgetmenot.cli import main

    try:
        main()
    finally:
        signals.end()


if __name__ == "__main__":
    main()
