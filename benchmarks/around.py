"""Seconds that a run spends around the model: packing, masks, examples and files."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from forgetmenot.engine import forward, frozen_states, laid_out, state_files
from forgetmenot.prompting import EncodedExamples
from forgetmenot.runs import api, directory, execution, loop, midway, stage_training

PARTS: dict[str, tuple[tuple[Any, tuple[str, ...]], ...]] = {
    "packing": (
        (laid_out, ("pack", "cut", "arrange")),
        (frozen_states, ("pack", "cut")),
        (frozen_states.FrozenStates, ("under",)),
    ),
    "masks": ((forward, ("attention_mask",)),),
    "examples": (
        (api, ("make_plan",)),
        (loop, ("training_examples", "scored_tasks")),
        (EncodedExamples, ("__getitem__",)),
    ),
    "files": (
        (loop, ("write_predictions", "write_cost", "read_cost")),
        (stage_training, ("save_weights", "save_method_state", "write_cost")),
        (midway.Midway, ("record", "save", "finish")),
        (directory.RunDirectory, ("event", "record_time", "write_json")),
        (directory, ("put_aside", "sync")),
        (execution, ("read_results", "write_report")),
        (state_files.StateFiles, ("read",)),
        (frozen_states.FrozenStates, ("_read",)),
    ),
}
"""The functions of each part, by what holds them."""


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """The seconds of each of PARTS inside the block; what one of them calls of another counts once."""
    seconds: dict[str, float] = defaultdict(float)
    running: list[str] = []

    def outermost(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        watched = adding(seconds, part, function)

        @wraps(function)
        def called(*given: Any, **named: Any) -> Any:
            if running:
                return function(*given, **named)
            running.append(part)
            try:
                return watched(*given, **named)
            finally:
                running.pop()

        return called

    with ExitStack() as stack:
        for part, holders in PARTS.items():
            for holder, names in holders:
                for name in names:
                    stack.enter_context(patch.object(holder, name, outermost(part, getattr(holder, name))))
        yield seconds


def adding(seconds: dict[str, float], part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose time is added to a part of `seconds`."""

    def timed(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            seconds[part] += time.perf_counter() - began

    return timed
