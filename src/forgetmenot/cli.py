"""The command line: one verb is carried out, and whatever happens ends in a sentence and an exit status."""

import errno
import io
import os
import shlex
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from forgetmenot import signals
from forgetmenot.arguments import parser
from forgetmenot.engine import ranks
from forgetmenot.errors import PeerLostError, UserError, masked
from forgetmenot.machine import way_out
from forgetmenot.tasks.yaml_file import shortened
from forgetmenot.verbs import VERBS

DONE, MISTAKE, BUG = 0, 2, 70
FRESH = "--fresh"
AGAIN = "run the same command again"
"""What a sentence says where something was kept to go on from."""
TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0; 2 for a user's mistake; 70 for an internal error; 130 and 143."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _write_what_can_be_written()
    # libraries' messages to one another; no user can act on them
    warnings.simplefilter("ignore", FutureWarning)
    with signals.listening():
        try:
            try:
                parsed = parser().parse_args(given)
                parsed.arguments = given
                VERBS[parsed.verb](parsed)
            finally:
                sys.stdout.flush()  # here, where a closed stdout can still be handled
        except PeerLostError:
            _leave(TERMINATED)
        except UserError as error:
            over = f" Leave out {FRESH}, which would start over." if FRESH in given else ""
            _end(MISTAKE, f"{error}{over if AGAIN in str(error) else ''}")
        except signals.Interrupted as interrupted:
            _end_interrupted(interrupted, given)
        except BrokenPipeError:  # as in `fmn … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except Exception as error:  # noqa: BLE001 (an internal error: the user gets the trace in a file)
            if (number := signals.asked_to_stop()) is not None:  # which a library has turned into its own
                _end_interrupted(signals.Interrupted(number), given)
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                _end(MISTAKE, f"the name {shortened(str(error.filename))} is too long for a file.")
            if (sentence := way_out(error)) is not None:
                _end(MISTAKE, f"{sentence}; then {AGAIN}.")
            _end(BUG, f"internal error; please report it with the trace {_trace()}")
    sys.exit(DONE)


def _trace() -> str:
    """Where the present exception's trace is: in a file, or above where none can be written."""
    trace = masked(traceback.format_exc())
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="forgetmenot-", suffix=".log", delete=False
        ) as file:
            file.write(trace)
    except OSError:
        print(trace, file=sys.stderr)
        return "above"
    return f"in {file.name}"


def _end_interrupted(interrupted: signals.Interrupted, given: Sequence[str]) -> NoReturn:
    """Say where the work stands and how to go on with it, and exit as a shell expects."""
    what = "interrupted" if interrupted.number == signal.SIGINT else "terminated"
    again = "Begin again" if given[:1] == ["check"] else "Go on"
    where = f" {interrupted.where}" if interrupted.where else ""
    if interrupted.run_dir and given[:1] in (["run"], ["resume"]):  # other verbs have more to do than the run
        given = ["resume", interrupted.run_dir]
    command = shlex.join(one for one in given if one != FRESH)
    over = f" ({FRESH} would start over.)" if FRESH in given else ""
    _end(interrupted.status, f"{what}.{where} {again} with: fmn {command}{over}")


def _write_what_can_be_written() -> None:
    """Nothing fails where a stream is closed, or a locale lacks a letter; a question mark stands for it."""
    nowhere = Path(os.devnull)
    sys.stdout = sys.stdout or nowhere.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or nowhere.open("w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _end(status: int, sentence: str) -> NoReturn:
    """Print why and exit; of several processes the first that ends prints it, and the run has its status."""
    if not ranks.speaks():
        _leave(TERMINATED)
    print(f"forgetmenot: {masked(sentence)}", file=sys.stderr)
    _leave(status)


def _leave(status: int) -> NoReturn:
    """Exit; the launcher sends SIGTERM to all processes when the first one ends, which is too late here."""
    if "RANK" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)
