"""What a template may cost: a budget that everything it does is charged to.

The limits are of numbers, so that the same example always gives the same; the clock is only looked at to end
what is slower than it should be.
"""

import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from jinja2 import TemplateRuntimeError
from jinja2.utils import Namespace

STEPS = 1_000_000
"""What a template may do beside its input: each call, filter, turn of a loop and four letters are a step."""

LETTERS = 4_000_000
"""The longest text that a template may make beside its input; as a prompt it is a million tokens."""

ENTRIES = 200_000
"""The entries of the largest list, those of the lists within it included, beside its input."""

PER_STEP = 4
"""The letters that cost a step."""

SECONDS = 1.0
"""Of the processor's time; more for a long input."""

TIMES = 10
"""How often a template may write its whole input."""

_COLLECTIONS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)
_READ_PER_STEP = 64
_LOOK = 200  # steps between two looks at the clock


class TooMuchError(TemplateRuntimeError):
    """A template does more than any prompt needs: "takes more than …"."""


class Budget:
    """What one rendering has left.

    Attributes:
        given: What the template writes.
    """

    def __init__(self) -> None:
        self.given: Any = None
        self._left = self._mark = 0
        self._more: int | None = None
        self._since: float | None = None

    def start(self, given: Any = None) -> None:
        """Begin to render, or to compile, which computes what is constant."""
        self.given = given
        self._left, self._mark, self._more, self._since = STEPS, STEPS - _LOOK, None, None

    def spend(self, steps: int) -> None:
        """Take steps off the budget.

        Raises:
            TooMuchError: If there are none left.
        """
        self._left -= steps
        if self._left < self._mark:
            self._look()

    def gone_through(self, value: Any) -> None:
        """Pay for a value that a filter or method reads whole, which is fast."""
        if isinstance(value, (str, list, tuple, range, dict)):
            self.spend(len(value) // _READ_PER_STEP)

    def counted(self, items: Iterable[Any], steps: int = 1) -> Iterator[Any]:
        """The items, each of which costs some steps."""
        for item in items:
            self._left -= steps  # as `spend`, without the call
            if self._left < self._mark:
                self._look()
            yield item

    def made(self, value: Any) -> Any:
        """A value that the template has made, paid for.

        Raises:
            TooMuchError: If it is too large.
        """
        kind = type(value)
        if kind is str:
            self._left -= 1 + len(value) // PER_STEP
        elif kind is int:
            self._left -= 1 + value.bit_length() // 8
        elif kind is bool or value is None:
            self._left -= 1
        else:
            self._left -= 1 + self.measure(value)[0] // PER_STEP
        if self._left < self._mark:
            self._look()
        return value

    def written(self, value: Any) -> None:
        """Pay for a value that is about to become text."""
        if type(value) is str:
            self._left -= 1 + len(value) // PER_STEP
        else:
            self._left -= 1 + self.letters(value) // PER_STEP
        if self._left < self._mark:
            self._look()

    def letters(self, value: Any) -> int:
        """How long a value is as text, about."""
        if isinstance(value, str):
            return len(value)
        return value.bit_length() // 3 + 1 if type(value) is int else self.measure(value)[1]

    def measure(self, value: Any) -> tuple[int, int]:
        """The entries of a value, those within its entries included, and the letters of its text, about.

        Raises:
            TooMuchError: If it is larger than a template may make: two names for one list, again and again,
                hold more than any memory once they are written.
        """
        entries, letters, waiting = 0, 0, [value]
        while waiting:
            one = waiting.pop()
            entries += 1
            kind = type(one)  # the usual kinds first: a template makes thousands of values
            if kind is str:
                letters += len(one)
            elif kind is dict or isinstance(one, Mapping):
                waiting.extend(one.keys())
                waiting.extend(one.values())
                letters += 4 * len(one)
            elif kind is list or isinstance(one, _COLLECTIONS):
                waiting.extend(one)
                letters += 2 * len(one)
            elif isinstance(one, int):
                letters += 1 + one.bit_length() // 3
            elif isinstance(one, Namespace):
                waiting.append(one._Namespace__attrs)
            else:
                letters += len(one) if isinstance(one, (str, bytes)) else 20
            if entries > ENTRIES or letters > LETTERS:
                self._see_fits(letters, entries)
        return entries, letters

    def fits(self, letters: int) -> None:
        """See that a text of so many letters may be made.

        Raises:
            TooMuchError: If not.
        """
        if letters > LETTERS:
            self._see_fits(letters, 0)

    def _see_fits(self, letters: int, entries: int) -> None:
        more = self._allowance()
        if letters > LETTERS + more:
            raise TooMuchError(f"makes a text of more than {LETTERS + more:,} letters")
        if entries > ENTRIES + more:
            raise TooMuchError(f"makes a list of more than {ENTRIES + more:,} entries")

    def _look(self) -> None:
        """See whether anything is left, once in a while."""
        if self._left < 0:
            steps = self._allowance() // PER_STEP
            if self._left + steps < 0:
                raise TooMuchError(f"takes more than {STEPS + steps:,} steps")
        now = time.thread_time()
        self._since = self._since or now
        if now - self._since > SECONDS * (1 + (self._more or 0) / LETTERS):
            raise TooMuchError(f"takes more than {SECONDS:g} seconds")
        self._mark = self._left - _LOOK

    def _allowance(self) -> int:
        """The letters that the template may write more, as its input is so long; counted where it matters."""
        if self._more is None:
            letters, waiting = 0, [self.given]
            while waiting:
                one = waiting.pop()
                if isinstance(one, Mapping):
                    waiting.extend(one.values())
                elif isinstance(one, list):
                    waiting.extend(one)
                letters += len(one) if isinstance(one, str) else 1
            self._more = TIMES * letters
        return self._more
