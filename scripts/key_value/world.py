"""Keys that stand for numbers, and expressions of them: the world of CALM's key-value experiment.

An expression of two or three keys with + and − has a substitution, the same in numbers, and a value:
`qw+rtz-abcd`, `12+47-03`, `+056`. Numbers have two digits, and values a sign and three: a small model then
learns to reckon in minutes. The paper (Bansal et al., ICLR 2024, arXiv 2401.02412, section 4.1) has 25,000
keys for the numbers from 1 to 25,000, three to six keys in an expression, and × as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase

KEYS = 500
LENGTHS = range(2, 7)
NUMBERS = range(1, 100)
OPERANDS = (2, 3)
SHARE_TO_COMPOSE = 0.2


@dataclass(frozen=True)
class World:
    """What each key stands for, and which keys the composition learns from.

    Attributes:
        numbers: Key to number. Several keys stand for the same number.
        to_compose: The keys of the composition's training data, a fifth of all as in the paper.
        held_out: All other keys: those of the test.
    """

    numbers: dict[str, int]
    to_compose: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Expression:
    """An expression of keys, or of numbers alone, in all its forms.

    Attributes:
        keys: As it is written in keys.
        numbers: As it is written in numbers.
        value: What it comes to.
    """

    keys: str
    numbers: str
    value: str


def make_world(seed: int) -> World:
    """Draw the keys, distinct strings of two to six letters, and the number of each."""
    rng = Random(f"{seed} keys")
    numbers: dict[str, int] = {}
    while len(numbers) < KEYS:
        numbers.setdefault(letters(rng), rng.choice(NUMBERS))
    names = rng.sample(sorted(numbers), KEYS)
    cut = int(SHARE_TO_COMPOSE * KEYS)
    return World(numbers, tuple(names[:cut]), tuple(names[cut:]))


def letters(rng: Random) -> str:
    """A string of two to six letters."""
    return "".join(rng.choices(ascii_lowercase, k=rng.choice(LENGTHS)))


def expressions(world: World, keys: Sequence[str], rng: Random) -> Iterator[Expression]:
    """Yield expressions of these keys without end."""
    while True:
        names = rng.choices(keys, k=rng.choice(OPERANDS))
        yield expression(names, [world.numbers[name] for name in names], rng)


def distinct(given: Iterator[Expression], count: int) -> list[Expression]:
    """The first so many of them that differ."""
    found: dict[str, Expression] = {}
    while len(found) < count:
        one = next(given)
        found.setdefault(one.keys, one)
    return list(found.values())


def expression(names: Sequence[str], numbers: Sequence[int], rng: Random) -> Expression:
    """Join names, and the numbers that they stand for, by signs drawn at random."""
    signs = ["", *rng.choices("+-", k=len(names) - 1)]
    written = "".join(f"{sign}{number:02d}" for sign, number in zip(signs, numbers, strict=True))
    value = sum(-number if sign == "-" else number for sign, number in zip(signs, numbers, strict=True))
    return Expression("".join(map("".join, zip(signs, names, strict=True))), written, f"{value:+04d}")
