"""Sentences by what they mean, so that what follows from them is known and never guessed from words.

A meaning can be said in several ways (`say` chooses a construction and synonyms), and it has neighbours:
`weaker` meanings follow from it, `stronger` ones stay open, `opposed` ones cannot be true with it, and
`another` is a different meaning that looks alike. A neighbour that a meaning does not have is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol, TypeVar

from scripts.quickstart import lexicon as lx
from scripts.quickstart.morphology import article, participle, past

T = TypeVar("T")


class Meaning(Protocol):
    """What a sentence says; all of its methods draw their choices from the generator they are given."""

    def say(self, rng: Random) -> str:
        """Return the meaning in words, in lower case but for names, without a full stop."""

    def weaker(self, rng: Random) -> Meaning | None:
        """Return a meaning that follows from this one."""

    def stronger(self, rng: Random) -> Meaning | None:
        """Return a meaning that neither follows from this one nor contradicts it."""

    def opposed(self, rng: Random) -> Meaning | None:
        """Return a meaning that cannot be true when this one is."""

    def another(self, rng: Random) -> Meaning | None:
        """Return a meaning that is not this one, told in much the same words."""


@dataclass(frozen=True)
class Thing:
    """A person, creature or thing: "Anna", "the young baker", "a red car"."""

    noun: str
    adjective: str | None = None
    definite: bool = True

    def say(self, rng: Random) -> str:
        """Return the noun phrase."""
        if self.noun in lx.NAMES:
            return self.noun
        words = word_for(self.noun, rng)
        if self.adjective:
            words = f"{word_for(self.adjective, rng)} {words}"
        return f"the {words}" if self.definite else article(words)

    @property
    def adjectives(self) -> Sequence[str]:
        """The adjectives that it may carry."""
        person = self.noun in lx.PEOPLE or lx.KIND_OF.get(self.noun) in lx.PEOPLE
        return lx.BEFORE_PEOPLE if person else lx.BEFORE_THINGS

    def general(self, rng: Random) -> list[Thing]:
        """Return what it also is: without its adjective, or by its kind."""
        found = [replace(self, adjective=None)] if self.adjective else []
        if self.noun in lx.KIND_OF:
            found.append(Thing(lx.KIND_OF[self.noun], self.adjective, definite=False))
        return found

    def special(self, rng: Random) -> list[Thing]:
        """Return what it may be: with an adjective, or one of its kind's members."""
        found = []
        if not self.adjective and self.noun not in lx.NAMES:
            found.append(replace(self, adjective=rng.choice(self.adjectives)))
        if self.noun in lx.KINDS:
            found.append(replace(self, noun=rng.choice(lx.KINDS[self.noun])))
        return found

    def sibling(self, rng: Random) -> Thing:
        """Return something of the same sort that it is not."""
        if self.adjective and rng.random() < 0.5:
            return replace(self, adjective=other(self.adjective, self.adjectives, rng))
        if self.noun in lx.NAMES:
            return replace(self, noun=other(self.noun, lx.NAMES, rng))
        if self.noun in lx.KIND_OF:
            return replace(self, noun=other(self.noun, lx.KINDS[lx.KIND_OF[self.noun]], rng))
        return replace(self, noun=other(self.noun, tuple(lx.KINDS), rng))


@dataclass(frozen=True)
class Event:
    """Somebody did something, or did not: "Anna did not repair an old car in the garden on Monday"."""

    subject: Thing
    verb: str
    object: Thing | None = None
    place: str | None = None
    time: str | None = None
    negative: bool = False

    def say(self, rng: Random) -> str:
        """Return it in the active or passive voice, as a cleft, or with its place or time in front."""
        adjuncts = [word_for(adjunct, rng) for adjunct in (self.place, self.time) if adjunct]
        verb = word_for(self.verb, rng)
        subject, object_ = self.subject.say(rng), self.object.say(rng) if self.object else ""
        if object_ and rng.random() < 0.35:
            clause = f"{object_} {'was not' if self.negative else 'was'} {participle(verb)} by {subject}"
        else:
            who = f"it was {subject} who" if not self.negative and rng.random() < 0.15 else subject
            clause = f"{who} {f'did not {verb}' if self.negative else past(verb)} {object_}".strip()
        if adjuncts and rng.random() < 0.25:
            return " ".join([adjuncts[0] + ",", clause, *adjuncts[1:]])
        return " ".join([clause, *adjuncts])

    def weaker(self, rng: Random) -> Event | None:
        """Return it with less said; under a negation, with more said of what did not happen."""
        opposite = lx.OPPOSITE_VERBS.get(self.verb)
        if opposite and not self.negative and rng.random() < 0.5:
            return replace(self, verb=opposite, negative=True)
        subjects = [replace(self, subject=subject) for subject in self.subject.general(rng)]
        return choose(subjects + (self._more(rng) if self.negative else self._less(rng)), rng)

    def stronger(self, rng: Random) -> Event | None:
        """Return it with something added that may or may not be so, or with its roles exchanged."""
        if self.negative and self.verb in lx.OPPOSITE_VERBS and rng.random() < 0.5:
            return replace(self, verb=lx.OPPOSITE_VERBS[self.verb], negative=False)
        if (swapped := self._swapped()) and rng.random() < 0.4:
            return swapped
        subjects = [replace(self, subject=subject) for subject in self.subject.special(rng)]
        added = choose(subjects + (self._less(rng) if self.negative else self._more(rng)), rng)
        return negation(added) if added and rng.random() < 0.4 else added

    def opposed(self, rng: Random) -> Event | None:
        """Return the negation of it or of what follows from it, or its opposite."""
        if self.verb in lx.OPPOSITE_VERBS and not self.negative and rng.random() < 0.6:
            return replace(self, verb=lx.OPPOSITE_VERBS[self.verb])
        return denied(self, rng)

    def another(self, rng: Random) -> Event | None:
        """Return it with its roles exchanged, or with one word of it exchanged for its like."""
        if (swapped := self._swapped()) and rng.random() < 0.5:
            return swapped
        found = [replace(self, subject=self.subject.sibling(rng)), negation(self)]
        found.append(replace(self, verb=other(self.verb, verbs_like(self.verb), rng)))
        if self.object:
            found.append(replace(self, object=self.object.sibling(rng)))
        if self.place in lx.INDOORS_OR_OUT:
            places = lx.PLACES[lx.INDOORS_OR_OUT[self.place]]
            found.append(replace(self, place=other(self.place, places, rng)))
        if self.time:
            found.append(replace(self, time=other(self.time, lx.TIMES, rng)))
        return rng.choice(found)

    def _swapped(self) -> Event | None:
        if self.object and self.object.noun in lx.NAMES and self.subject.noun in lx.NAMES:
            return replace(self, subject=self.object, object=self.subject)
        return None

    def _less(self, rng: Random) -> list[Event]:
        found = [replace(self, place=None)] if self.place else []
        if self.place in lx.INDOORS_OR_OUT:
            found.append(replace(self, place=lx.INDOORS_OR_OUT[self.place]))
        if self.time:
            found.append(replace(self, time=None))
        if self.verb in lx.MANNER_OF:
            found.append(replace(self, verb=lx.MANNER_OF[self.verb]))
        if self.object and not (self.negative and self.object.definite):
            found += [replace(self, object=object_) for object_ in self.object.general(rng)]
        return found

    def _more(self, rng: Random) -> list[Event]:
        found = []
        if not self.place:
            found.append(replace(self, place=rng.choice(lx.PLACES[rng.choice(tuple(lx.PLACES))])))
        elif self.place in lx.PLACES:
            found.append(replace(self, place=rng.choice(lx.PLACES[self.place])))
        if not self.time:
            found.append(replace(self, time=rng.choice(lx.TIMES)))
        if self.verb in lx.MANNERS:
            found.append(replace(self, verb=rng.choice(lx.MANNERS[self.verb])))
        if self.object and not (self.negative and self.object.definite):
            found += [replace(self, object=object_) for object_ in self.object.special(rng)]
        return found


@dataclass(frozen=True)
class State:
    """Somebody or something was so: "the baker was happy", "the car was not expensive"."""

    subject: Thing
    adjective: str
    degree: str = ""
    negative: bool = False

    def say(self, rng: Random) -> str:
        """Return it as a predicate."""
        was = "was not" if self.negative else "was"
        degree = "very " if self.degree else ""
        return f"{self.subject.say(rng)} {was} {degree}{word_for(self.adjective, rng)}"

    def weaker(self, rng: Random) -> State | None:
        """Return less of it, or the negation of its opposite."""
        found = [replace(self, subject=subject) for subject in self.subject.general(rng)]
        if not self.negative:
            found.append(replace(self, adjective=opposite(self.adjective, rng), degree="", negative=True))
        if self.degree and not self.negative:
            found.append(replace(self, degree=""))
        return choose(found, rng)

    def stronger(self, rng: Random) -> State | None:
        """Return more of it, or something else about the same subject."""
        more = opposite(self.adjective, rng) if self.negative else self.adjective
        found = [replace(self, subject=subject) for subject in self.subject.special(rng)]
        if self.negative or not self.degree:
            found.append(
                replace(self, adjective=more, degree="" if self.negative else "very", negative=False)
            )
        else:
            found.append(replace(self, adjective=unrelated(self.adjective, rng)))
        found.append(replace(self, adjective=unrelated(self.adjective, rng), negative=rng.random() < 0.5))
        return rng.choice(found)

    def opposed(self, rng: Random) -> State | None:
        """Return its opposite, or its negation."""
        if not self.negative and rng.random() < 0.6:
            return replace(self, adjective=opposite(self.adjective, rng))
        return replace(self, negative=not self.negative, degree="")

    def another(self, rng: Random) -> State | None:
        """Return it of somebody else, or with another adjective."""
        found = [
            replace(self, adjective=unrelated(self.adjective, rng)),
            replace(self, negative=not self.negative),
        ]
        found.append(replace(self, adjective=opposite(self.adjective, rng)))
        return rng.choice([*found, replace(self, subject=self.subject.sibling(rng))])


@dataclass(frozen=True)
class Comparison:
    """One is more so than the other: "Anna is taller than Ben"."""

    more: Thing
    less: Thing
    dimension: tuple[str, str]
    negative: bool = False

    def say(self, rng: Random) -> str:
        """Return it from either side."""
        is_ = "is not" if self.negative else "is"
        more, less = self.more.say(rng), self.less.say(rng)
        if rng.random() < 0.5:
            return f"{more} {is_} {self.dimension[0]} than {less}"
        return f"{less} {is_} {self.dimension[1]} than {more}"

    def weaker(self, rng: Random) -> Comparison | None:
        """Return the negation of the reverse."""
        if self.negative:
            return None
        return replace(self, more=self.less, less=self.more, negative=True)

    def stronger(self, rng: Random) -> Comparison | None:
        """Return another dimension; of a negation, the reverse, since both may be alike."""
        if self.negative and rng.random() < 0.5:
            return replace(self, more=self.less, less=self.more, negative=False)
        return replace(
            self, dimension=other(self.dimension, lx.COMPARISONS, rng), negative=rng.random() < 0.5
        )

    def opposed(self, rng: Random) -> Comparison | None:
        """Return the reverse or the negation."""
        if not self.negative and rng.random() < 0.6:
            return replace(self, more=self.less, less=self.more)
        return replace(self, negative=not self.negative)

    def another(self, rng: Random) -> Comparison | None:
        """Return the reverse, or another dimension."""
        if rng.random() < 0.7:
            return replace(self, more=self.less, less=self.more)
        return replace(self, dimension=other(self.dimension, lx.COMPARISONS, rng))


@dataclass(frozen=True)
class Order:
    """One thing happened before another: "Anna sang before Ben danced"."""

    first: Event
    then: Event

    def say(self, rng: Random) -> str:
        """Return it with either event in front."""
        first, then = (f"{each.subject.say(rng)} {past(each.verb)}" for each in (self.first, self.then))
        return rng.choice(
            [
                f"{first} before {then}",
                f"{then} after {first}",
                f"before {then}, {first}",
                f"after {first}, {then}",
            ]
        )

    def weaker(self, rng: Random) -> Event | None:
        """Return one of the two events."""
        return rng.choice([self.first, self.then])

    def stronger(self, rng: Random) -> Meaning | None:
        """Return one event with something added."""
        return rng.choice([self.first, self.then]).stronger(rng)

    def opposed(self, rng: Random) -> Meaning | None:
        """Return the reverse order, or the negation of one event."""
        if rng.random() < 0.6:
            return Order(self.then, self.first)
        return negation(rng.choice([self.first, self.then]))

    def another(self, rng: Random) -> Meaning | None:
        """Return the reverse order, or another event in the place of one."""
        if rng.random() < 0.6:
            return Order(self.then, self.first)
        return replace(
            self, first=replace(self.first, verb=other(self.first.verb, tuple(lx.VERBS_ALONE), rng))
        )


@dataclass(frozen=True)
class Transfer:
    """Something passed from one to the other: "Anna sold the car to Ben", "Ben bought the car from Anna"."""

    giver: Thing
    receiver: Thing
    thing: Thing
    verbs: tuple[str, str]

    def say(self, rng: Random) -> str:
        """Return it from the giver's side or the receiver's."""
        giver, receiver, thing = self.giver.say(rng), self.receiver.say(rng), self.thing.say(rng)
        gave, got = past(self.verbs[0]), past(self.verbs[1])
        return rng.choice(
            [
                f"{giver} {gave} {thing} to {receiver}",
                f"{thing} was {participle(self.verbs[0])} to {receiver} by {giver}",
                f"{receiver} {got} {thing} from {giver}",
                f"{thing} was {participle(self.verbs[1])} from {giver} by {receiver}",
            ]
        )

    def weaker(self, rng: Random) -> Meaning | None:
        """Return one side of it, or a more general thing."""
        found: list[Meaning] = [Event(self.giver, self.verbs[0], self.thing)]
        found.append(Event(self.receiver, self.verbs[1], self.thing))
        return rng.choice([*found, *(replace(self, thing=thing) for thing in self.thing.general(rng))])

    def stronger(self, rng: Random) -> Meaning | None:
        """Return it with its roles exchanged, or of something more special."""
        swapped = replace(self, giver=self.receiver, receiver=self.giver)
        return rng.choice([swapped, *(replace(self, thing=thing) for thing in self.thing.special(rng))])

    def opposed(self, rng: Random) -> Meaning | None:
        """Return the negation of one side."""
        sides = [
            Event(self.giver, self.verbs[0], self.thing),
            Event(self.receiver, self.verbs[1], self.thing),
        ]
        return negation(rng.choice(sides))

    def another(self, rng: Random) -> Meaning | None:
        """Return it with its roles exchanged, or of another thing."""
        if rng.random() < 0.6:
            return replace(self, giver=self.receiver, receiver=self.giver)
        return replace(self, thing=self.thing.sibling(rng))


def word_for(concept: str, rng: Random) -> str:
    """Return one of the words that stand for a concept."""
    return rng.choice(lx.SYNONYMS.get(concept, (concept,)))


def other(one: T, among: Sequence[T], rng: Random) -> T:
    """Return one of them that is not this one."""
    return rng.choice([each for each in among if each != one])


def choose(found: Sequence[T], rng: Random) -> T | None:
    """Return one of them, None where there is none."""
    return rng.choice(found) if found else None


def negation(event: Event) -> Event:
    """Return the event denied; of a denied event, the event."""
    return replace(event, negative=not event.negative)


def denied(event: Event, rng: Random) -> Event:
    """Return the denial of the event, or of something that follows from it."""
    follows = event.weaker(rng) if rng.random() < 0.5 else event
    return negation(follows or event)


def opposite(adjective: str, rng: Random) -> str:
    """Return an adjective that cannot hold at the same time."""
    if adjective in lx.COLOURS:
        return other(adjective, lx.COLOURS, rng)
    return (lx.OPPOSITES_OF_PEOPLE | lx.OPPOSITES_OF_THINGS)[adjective]


def unrelated(adjective: str, rng: Random) -> str:
    """Return an adjective of the same sort of subject that may hold or not."""
    if adjective in lx.OPPOSITES_OF_PEOPLE:
        sort = tuple(lx.OPPOSITES_OF_PEOPLE)
    else:
        sort = tuple(lx.OPPOSITES_OF_THINGS) + (() if adjective in lx.COLOURS else lx.COLOURS)
    excluded = {adjective, *([] if adjective in lx.COLOURS else [opposite(adjective, rng)])}
    return rng.choice([each for each in sort if each not in excluded])


def verbs_like(verb: str) -> tuple[str, ...]:
    """Return the verbs that could stand in the place of this one."""
    tables = (lx.VERBS_TO_PEOPLE, lx.VERBS_TO_CREATURES, lx.VERBS_TO_THINGS, lx.VERBS_ALONE, lx.VERBS_OF_MIND)
    for words in (*map(tuple, tables), *lx.MANNERS.values(), *zip(*lx.TRANSFERS, strict=True)):
        if verb in words:
            return words
    return tuple(lx.VERBS_TO_THINGS)
