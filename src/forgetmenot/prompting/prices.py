"""What a template pays in advance: for each filter, method and operator that makes much of little.

No single step of Python can be interrupted, so `'x' * 10**9`, a `center` or a width in a format is priced
before it is taken. A price takes the budget, the value, and all other arguments, by position or by name, and
refuses what would be too large.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forgetmenot.prompting.limits import ENTRIES, Budget, TooMuchError

Price = Callable[[Budget, Any, Sequence[Any]], None]

DIGITS = 3_000
"""The most of a number; Python itself writes none above 4,300."""

_PERCENT = re.compile(r"%(?:\([^)]{0,100}\))?([-+ #0-9.*]*)")
_BRACES = re.compile(r"\{[^{}:]*:([^{}]*\{?)")


def _wide(budget: Budget, value: Any, others: Sequence[Any]) -> None:
    """`center`, `ljust`."""
    budget.fits(budget.letters(value) + _numbers(others))


def _in_parts(_budget: Budget, _value: Any, others: Sequence[Any]) -> None:
    """`batch`, `slice`."""
    if _numbers(others) > ENTRIES:
        raise TooMuchError(f"makes more than {ENTRIES:,} parts")


def _rounded(_budget: Budget, _value: Any, others: Sequence[Any]) -> None:
    if _numbers(others) > DIGITS:
        raise TooMuchError(f"rounds to more than {DIGITS:,} digits")


def _indented(budget: Budget, value: Any, others: Sequence[Any]) -> None:
    lines = 1 + str(value).count("\n")
    budget.fits(budget.letters(value) + lines * (_numbers(others) + _texts(budget, others)))


def _replaced(budget: Budget, value: Any, others: Sequence[Any]) -> None:
    text = str(value)
    times = max((text.count(one) for one in others if isinstance(one, str)), default=0)
    budget.fits(len(text) + times * _texts(budget, others))


def _joined(budget: Budget, values: Any, others: Sequence[Any]) -> None:
    count = len(values) if isinstance(values, (str, list, tuple, dict)) else 1
    budget.fits(budget.letters(values) + count * _texts(budget, others))


def _joined_by(budget: Budget, separator: Any, others: Sequence[Any]) -> None:
    """The method `join`, which is the separator's."""
    for values in others:
        _joined(budget, values, [separator])


def _formatted(budget: Budget, template: Any, others: Sequence[Any]) -> None:
    """`%` and `format`: each place may hold all values, and each width is written out."""
    text = template.decode("latin-1") if isinstance(template, bytes) else str(template)
    specs = [*_PERCENT.findall(text), *_BRACES.findall(text)]
    widths = sum(int(digits[:20]) for spec in specs for digits in re.findall(r"\d+", spec))
    given = sum(_numbers_in(others) for spec in specs if "*" in spec or "{" in spec)  # a width is a value
    places = max(text.count("%"), text.count("{"))
    budget.fits(len(text) + widths + given + places * _texts(budget, others))


def _as_json(budget: Budget, value: Any, others: Sequence[Any]) -> None:
    entries, letters = budget.measure(value)
    budget.fits(letters + entries * (_numbers(others) + _texts(budget, others)))


def _summed(budget: Budget, value: Any, _others: Sequence[Any]) -> None:
    """A list that grows is copied for each one that is added to it."""
    if isinstance(value, (list, tuple)):
        budget.spend(len(value) * (budget.measure(value)[0] - len(value)) // 64)


def _wrapped(budget: Budget, value: Any, others: Sequence[Any]) -> None:
    width = max(1, min((one for one in others if isinstance(one, int) and one is not True), default=79))
    lines = 1 + budget.letters(value) // width
    budget.fits(budget.letters(value) + lines * _texts(budget, others))
    budget.spend(10 * lines + budget.letters(value))


def _linked(budget: Budget, value: Any, others: Sequence[Any]) -> None:
    """`urlize`, which searches each word."""
    budget.fits(budget.letters(value) * (1 + _texts(budget, others)))
    budget.spend(budget.letters(value) + max(map(len, str(value).split()), default=0) ** 2 // 64)


def _stripped(budget: Budget, value: Any, _others: Sequence[Any]) -> None:
    """Each tag is cut out of a copy of the whole."""
    budget.spend(str(value).count("<") * budget.letters(value) // 4096)


def _slow(budget: Budget, value: Any, _others: Sequence[Any]) -> None:
    budget.spend(budget.letters(value))


def _refused(_budget: Budget, _value: Any, _others: Sequence[Any]) -> None:
    raise TooMuchError("calls a method that makes much of little")


FILTERS: Mapping[str, Price] = {
    "batch": _in_parts,
    "center": _wide,
    "format": _formatted,
    "indent": _indented,
    "join": _joined,
    "pprint": _slow,
    "replace": _replaced,
    "round": _rounded,
    "slice": _in_parts,
    "striptags": _stripped,
    "sum": _summed,
    "title": _slow,
    "tojson": _as_json,
    "urlize": _linked,
    "wordcount": _slow,
    "wordwrap": _wrapped,
}

METHODS: Mapping[str, Price] = {
    "center": _wide,
    "expandtabs": _refused,
    "format": _formatted,
    "format_map": _formatted,
    "from_bytes": _refused,
    "join": _joined_by,
    "ljust": _wide,
    "replace": _replaced,
    "rjust": _wide,
    "to_bytes": _refused,
    "translate": _refused,
    "zfill": _wide,
}


def price_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Refuse an operation between two values whose result would be too large.

    Raises:
        TooMuchError: If it would be.
    """
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        wanted = bits * abs(right) if operator == "**" else bits + right.bit_length()
        if wanted > 4 * DIGITS and not (operator == "**" and bits <= 1):
            raise TooMuchError(f"computes a number of more than {DIGITS:,} digits")
    elif operator == "*":
        for value, count in ((left, right), (right, left)):
            if isinstance(count, int) and not isinstance(value, (int, float)):
                budget.fits(max(budget.measure(value)) * max(count, 0))
    elif operator == "%":
        _formatted(budget, left, right if isinstance(right, tuple) else [right])


def _numbers(values: Sequence[Any]) -> int:
    """How much all whole numbers come to."""
    return sum(abs(one) for one in values if isinstance(one, int))


def _numbers_in(values: Sequence[Any]) -> int:
    """The same, of those within lists and maps, too."""
    total, waiting = 0, list(values)
    while waiting:
        one = waiting.pop()
        if isinstance(one, int):
            total += abs(one)
        elif isinstance(one, Mapping):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
    return total


def _texts(budget: Budget, values: Sequence[Any]) -> int:
    """The letters of all values but whole numbers, which are short."""
    return sum(20 if isinstance(one, int) else budget.letters(one) for one in values)
