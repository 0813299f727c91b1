"""Meanings about how many: "every baker sang", "no dog slept", "neither Anna nor Ben danced"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from scripts.quickstart import lexicon as lx
from scripts.quickstart.meanings import Event, Meaning, Thing, other, verbs_like, word_for
from scripts.quickstart.morphology import past, plural

Quantity = Literal["all", "some", "none", "not all"]
_DENIAL: dict[Quantity, Quantity] = {"all": "not all", "not all": "all", "some": "none", "none": "some"}


def _predicate(event: Event, rng: Random, negative: bool = False) -> str:
    verb = word_for(event.verb, rng)
    object_ = event.object.say(rng) if event.object else ""
    adjuncts = [word_for(adjunct, rng) for adjunct in (event.place, event.time) if adjunct]
    return " ".join(filter(None, [f"did not {verb}" if negative else past(verb), object_, *adjuncts]))


def _narrower(event: Event, rng: Random) -> Event | None:
    """Return a predicate that holds of fewer."""
    found = replace(event, subject=Thing("Anna")).stronger(rng)
    return replace(found, negative=False) if found else None


def _wider(event: Event, rng: Random) -> Event | None:
    """Return a predicate that holds of more."""
    found = replace(event, subject=Thing("Anna")).weaker(rng)
    return found if found and not found.negative else None


@dataclass(frozen=True)
class Quantified:
    """How many of a kind did it: all, some, none, not all."""

    quantity: Quantity
    noun: str
    event: Event

    def say(self, rng: Random) -> str:
        """Return it with one of the quantity's words."""
        one = word_for(self.noun, rng)
        many = plural(one)
        does, does_not = _predicate(self.event, rng), _predicate(self.event, rng, negative=True)
        ways = {
            "all": [f"every {one} {does}", f"all {many} {does}", f"each {one} {does}"],
            "some": [f"some {many} {does}", f"at least one {one} {does}", f"a few {many} {does}"],
            "none": [f"no {one} {does}", f"none of the {many} {does}", f"not one {one} {does}"],
            "not all": [f"not every {one} {does}", f"not all {many} {does}", f"some {many} {does_not}"],
        }
        return rng.choice(ways[self.quantity])

    def weaker(self, rng: Random) -> Quantified | None:
        """Return it of a smaller quantity, or of a noun or predicate that it carries over to."""
        if self.quantity in ("all", "none") and rng.random() < 0.3:
            return replace(self, quantity="some" if self.quantity == "all" else "not all")
        return self._moved(
            down_noun=self.quantity in ("all", "none"), narrow=self.quantity in ("none", "not all"), rng=rng
        )

    def stronger(self, rng: Random) -> Quantified | None:
        """Return it of a larger quantity, or of a noun or predicate that it does not carry over to."""
        found: Quantified | None
        if self.quantity in ("some", "not all") and rng.random() < 0.3:
            found = replace(self, quantity="all" if self.quantity == "some" else "none")
        else:
            found = self._moved(
                down_noun=self.quantity in ("some", "not all"),
                narrow=self.quantity in ("all", "some"),
                rng=rng,
            )
        return found._denied() if found and rng.random() < 0.4 else found

    def opposed(self, rng: Random) -> Quantified | None:
        """Return the denial of it, or of what follows from it."""
        follows = self.weaker(rng) if rng.random() < 0.5 else self
        return (follows or self)._denied()

    def another(self, rng: Random) -> Quantified | None:
        """Return another quantity, noun or verb."""
        if rng.random() < 0.5:
            return replace(self, quantity=other(self.quantity, tuple(_DENIAL), rng))
        if rng.random() < 0.5:
            return replace(self, noun=Thing(self.noun).sibling(rng).noun)
        return replace(
            self, event=replace(self.event, verb=other(self.event.verb, verbs_like(self.event.verb), rng))
        )

    def _denied(self) -> Quantified:
        return replace(self, quantity=_DENIAL[self.quantity])

    def _moved(self, down_noun: bool, narrow: bool, rng: Random) -> Quantified | None:
        nouns = [rng.choice(lx.KINDS[self.noun])] if self.noun in lx.KINDS else []
        if not down_noun:
            nouns = [lx.KIND_OF[self.noun]] if self.noun in lx.KIND_OF else []
        event = _narrower(self.event, rng) if narrow else _wider(self.event, rng)
        if nouns and (event is None or rng.random() < 0.5):
            return replace(self, noun=nouns[0])
        return replace(self, event=event) if event else None


@dataclass(frozen=True)
class Counted:
    """A number of a kind did it: "three dogs slept", "more than two dogs slept"."""

    bound: Literal["exactly", "more than", "fewer than"]
    number: int
    noun: str
    event: Event

    def say(self, rng: Random) -> str:
        """Return it with the number in words."""
        bound, number = self.bound, self.number
        if bound == "more than" and rng.random() < 0.5:
            bound_word, number = "at least", number + 1
        elif bound == "exactly":
            bound_word = rng.choice(["exactly", "just", ""])
        else:
            bound_word = bound
        noun = word_for(self.noun, rng)
        many = noun if number == 1 else plural(noun)
        return f"{bound_word} {lx.NUMBERS[number]} {many} {_predicate(self.event, rng)}".strip()

    def weaker(self, rng: Random) -> Counted | None:
        """Return a bound that the number keeps."""
        if rng.random() < 0.5:
            return replace(
                self, bound="more than", number=self.number - rng.randint(1, min(3, self.number - 1))
            )
        return replace(self, bound="fewer than", number=self.number + rng.randint(1, 9 - self.number))

    def stronger(self, rng: Random) -> Counted | None:
        """Return it, or a bound that it keeps, of a narrower noun or predicate."""
        base = self.weaker(rng) if rng.random() < 0.5 else self
        event = _narrower(self.event, rng)
        if base and self.noun in lx.KINDS and rng.random() < 0.5:
            return replace(base, noun=rng.choice(lx.KINDS[self.noun]), bound="exactly")
        return replace(base, event=event, bound="exactly") if base and event else None

    def opposed(self, rng: Random) -> Counted | None:
        """Return a bound that the number breaks."""
        if rng.random() < 0.5:
            return replace(self, bound="more than", number=self.number + rng.randint(0, 8 - self.number))
        return replace(self, bound="fewer than", number=self.number - rng.randint(0, self.number - 2))

    def another(self, rng: Random) -> Counted | None:
        """Return another number or another noun."""
        if rng.random() < 0.6:
            return replace(self, number=other(self.number, range(2, 9), rng))
        return replace(self, noun=Thing(self.noun).sibling(rng).noun)


@dataclass(frozen=True)
class Together:
    """Two people: both, neither, or one of them did it."""

    mode: Literal["both", "neither", "either"]
    left: Thing
    right: Thing
    event: Event

    def say(self, rng: Random) -> str:
        """Return it with the two in either order."""
        one, two = rng.sample([self.left.say(rng), self.right.say(rng)], 2)
        does = _predicate(self.event, rng)
        ways = {
            "both": [f"{one} and {two} {does}", f"both {one} and {two} {does}"],
            "neither": [f"neither {one} nor {two} {does}"],
            "either": [f"either {one} or {two} {does}", f"{one} or {two} {does}"],
        }
        return rng.choice(ways[self.mode])

    def weaker(self, rng: Random) -> Meaning | None:
        """Return what holds of one of them."""
        if self.mode == "either" or rng.random() < 0.25:
            event = _narrower(self.event, rng) if self.mode == "neither" else _wider(self.event, rng)
            return replace(self, event=event) if event else None
        return self._one(rng, negative=self.mode == "neither")

    def stronger(self, rng: Random) -> Meaning | None:
        """Return it of a third person, or with something added; of "either", what holds of one."""
        if self.mode == "either" and rng.random() < 0.7:
            yes, no = self._one(rng, negative=False), self._one(rng, negative=True)
            found: list[Meaning] = [yes, no, replace(self, mode="both")]
            return rng.choice(found)
        third = other(self.left.noun, [name for name in lx.NAMES if name != self.right.noun], rng)
        return replace(self, left=Thing(third))

    def opposed(self, rng: Random) -> Meaning | None:
        """Return what cannot hold of one of them."""
        if self.mode == "either":
            return replace(self, mode="neither")
        if rng.random() < 0.3:
            return replace(self, mode="neither" if self.mode == "both" else "both")
        return self._one(rng, negative=self.mode == "both")

    def another(self, rng: Random) -> Meaning | None:
        """Return another of the three modes, or another person."""
        if rng.random() < 0.6:
            return replace(self, mode=other(self.mode, ("both", "neither", "either"), rng))
        return replace(
            self, left=Thing(other(self.left.noun, [n for n in lx.NAMES if n != self.right.noun], rng))
        )

    def _one(self, rng: Random, negative: bool) -> Event:
        return replace(self.event, subject=rng.choice([self.left, self.right]), negative=negative)
