"""What may happen in the quickstart's world: draws meanings, and puts two of them side by side."""

from random import Random
from typing import Literal

from scripts.quickstart import lexicon as lx
from scripts.quickstart.meanings import Comparison, Event, Meaning, Order, State, Thing, Transfer
from scripts.quickstart.quantities import Counted, Quantified, Together

Relation = Literal["entailment", "neutral", "contradiction"]
RELATIONS: tuple[Relation, ...] = ("entailment", "neutral", "contradiction")


def meaning(rng: Random) -> Meaning:
    """Return a meaning of any sort."""
    makers = (event, event, event, state, comparison, order, transfer, quantified, counted, together)
    return rng.choice(makers)(rng)


def related(premise: Meaning, relation: Relation, rng: Random) -> Meaning | None:
    """Return a meaning that stands in the relation to the premise, None where none was found."""
    if relation == "entailment":
        follows = premise.weaker(rng)
        # Two steps down now and then; of a number's bound there is no second one.
        if isinstance(follows, Event) and rng.random() < 0.3:
            return follows.weaker(rng) or follows
        return follows
    return premise.stronger(rng) if relation == "neutral" else premise.opposed(rng)


def unlike(one: Meaning, rng: Random) -> Meaning | None:
    """Return a meaning that is not this one in up to three parts, None where none was found."""
    found: Meaning | None = one
    for _ in range(rng.randint(1, 3)):
        found = found and found.another(rng)
    return found if found != one else None


def event(rng: Random) -> Event:
    """Return an event with one or two people, or a person and a thing."""
    subject, sort = somebody(rng), rng.random()
    place = rng.choice(lx.PLACES[rng.choice(tuple(lx.PLACES))]) if rng.random() < 0.25 else None
    time = rng.choice(lx.TIMES) if rng.random() < 0.2 else None
    negative = rng.random() < 0.3
    if sort < 0.2:
        verb, object_ = _verb_alone(rng), None
    elif sort < 0.45:
        verb, object_ = rng.choice(tuple(lx.VERBS_TO_PEOPLE)), somebody(rng, besides=subject)
    elif sort < 0.6:
        verb, object_ = (
            rng.choice(tuple(lx.VERBS_OF_MIND)),
            rng.choice([somebody(rng, besides=subject), something(rng)]),
        )
    elif sort < 0.7:
        verb, object_ = rng.choice(tuple(lx.VERBS_TO_CREATURES)), _one_of(lx.CREATURES, rng)
    elif sort < 0.77:
        kind = rng.choice(["fruit", "vegetable"])
        verb = rng.choice(["cook", *lx.MANNERS["cook"]])
        object_ = Thing(rng.choice(lx.THINGS[kind]), definite=rng.random() < 0.4)
    else:
        verb, object_ = rng.choice(tuple(lx.VERBS_TO_THINGS)), something(rng)
    return Event(subject, verb, object_, place, time, negative)


def state(rng: Random) -> State:
    """Return a state of a person or a thing."""
    negative = rng.random() < 0.35
    degree = "" if negative or rng.random() < 0.7 else "very"
    if rng.random() < 0.5:
        person = Thing(somebody(rng).noun)
        return State(person, rng.choice(tuple(lx.OPPOSITES_OF_PEOPLE)), degree, negative)
    thing = Thing(something(rng).noun)
    adjective = rng.choice([*lx.OPPOSITES_OF_THINGS, *lx.COLOURS])
    return State(thing, adjective, "" if adjective in lx.COLOURS else degree, negative)


def comparison(rng: Random) -> Comparison:
    """Return a comparison of two people."""
    more = somebody(rng)
    return Comparison(
        more, somebody(rng, besides=more), rng.choice(lx.COMPARISONS), negative=rng.random() < 0.25
    )


def order(rng: Random) -> Order:
    """Return two short events of two people, one before the other."""
    one = somebody(rng)
    return Order(Event(one, _verb_alone(rng)), Event(somebody(rng, besides=one), _verb_alone(rng)))


def transfer(rng: Random) -> Transfer:
    """Return a thing passing from one person to another."""
    giver = somebody(rng)
    return Transfer(giver, somebody(rng, besides=giver), something(rng), rng.choice(lx.TRANSFERS))


def quantified(rng: Random) -> Quantified:
    """Return what all, some or none of a kind of people or creatures did."""
    quantity: Literal["all", "some", "none", "not all"] = rng.choice(["all", "some", "none", "not all"])
    return Quantified(quantity, _kind_or_member(rng), _predicate(rng))


def counted(rng: Random) -> Counted:
    """Return what a number of people or creatures did."""
    return Counted("exactly", rng.randint(2, 8), _kind_or_member(rng), _predicate(rng))


def together(rng: Random) -> Together:
    """Return what two people did together, or did not."""
    left, right = rng.sample(lx.NAMES, 2)
    mode: Literal["both", "neither", "either"] = rng.choice(["both", "neither", "either"])
    return Together(mode, Thing(left), Thing(right), _predicate(rng))


def somebody(rng: Random, besides: Thing | None = None) -> Thing:
    """Return a person, by name or by trade."""
    if rng.random() < 0.5:
        return Thing(rng.choice([name for name in lx.NAMES if not besides or name != besides.noun]))
    person = _one_of(lx.PEOPLE, rng)
    return person if not besides or person.noun != besides.noun else somebody(rng, besides)


def something(rng: Random) -> Thing:
    """Return a thing, now and then by its kind alone."""
    if rng.random() < 0.15:
        return Thing(rng.choice(tuple(lx.THINGS)), definite=False)
    return _one_of(lx.THINGS, rng)


def _one_of(kinds: dict[str, tuple[str, ...]], rng: Random) -> Thing:
    thing = Thing(rng.choice(kinds[rng.choice(tuple(kinds))]), definite=rng.random() < 0.5)
    adjective = rng.choice(thing.adjectives) if kinds is not lx.CREATURES and rng.random() < 0.2 else None
    return Thing(thing.noun, adjective, thing.definite)


def _verb_alone(rng: Random) -> str:
    special = [manner for verb in lx.VERBS_ALONE for manner in lx.MANNERS.get(verb, ())]
    return rng.choice([*lx.VERBS_ALONE, *special])


def _kind_or_member(rng: Random) -> str:
    kinds = rng.choice([lx.PEOPLE, lx.CREATURES])
    kind = rng.choice(tuple(kinds))
    return kind if rng.random() < 0.4 else rng.choice(kinds[kind])


def _predicate(rng: Random) -> Event:
    place = rng.choice(lx.PLACES[rng.choice(tuple(lx.PLACES))]) if rng.random() < 0.35 else None
    time = rng.choice(lx.TIMES) if not place and rng.random() < 0.3 else None
    return Event(Thing("Anna"), _verb_alone(rng), None, place, time)
