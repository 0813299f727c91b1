"""Pairs of a well-formed sentence and the same sentence with one fault of grammar.

The fault is in how the words go together (agreement across other nouns, the form behind an auxiliary, order,
what a verb takes), so that the words alone rarely show it: a word that is wrong here is right elsewhere.
"""

from collections.abc import Callable
from random import Random

from scripts.quickstart import lexicon as lx
from scripts.quickstart import world
from scripts.quickstart.meanings import verbs_like
from scripts.quickstart.morphology import article, gerund, participle, past, plural, third

Pair = tuple[str, str]

_LOOSE_VERBS = lx.words("sleep wait laugh sing dance walk work fall swim cry pray speak")
_TAKING_VERBS = lx.words("help thank invite greet praise ignore visit hug follow watch call answer")
_PREPOSITIONS = ("near", "behind", "beside", "with")


def pair(rng: Random) -> Pair:
    """Return a well-formed sentence and its faulty twin, in lower case, without a full stop."""
    return rng.choice(FAULTS)(rng)


def agreement(rng: Random) -> Pair:
    """The verb agrees with its subject, not with the noun beside it."""
    subject, beside, number = _noun(rng), _noun(rng), rng.random() < 0.5
    near = plural(beside) if rng.random() < 0.5 else beside
    middle = rng.choice(
        [
            "",
            "",
            f" {rng.choice(_PREPOSITIONS)} the {near}",
            f" that {past(rng.choice(_TAKING_VERBS))} the {near}",
            f" that the {near} {past(rng.choice(_TAKING_VERBS))}",
        ]
    )
    verb = rng.choice(_LOOSE_VERBS)
    right, wrong = rng.choice(
        [
            (third(verb), verb),
            ("was " + gerund(verb), "were " + gerund(verb)),
            ("has " + participle(verb), "have " + participle(verb)),
        ]
    )
    if not number:
        subject, right, wrong = plural(subject), wrong, right
    return f"the {subject}{middle} {right}", f"the {subject}{middle} {wrong}"


def auxiliary(rng: Random) -> Pair:
    """Behind an auxiliary stands the form that it asks for."""
    verb = rng.choice([v for v in _LOOSE_VERBS + _TAKING_VERBS if len({v, past(v), participle(v)}) > 1])
    forms = {
        "did not": verb, "will": verb, "must": verb, "can": verb, "has": participle(verb),
        "had": participle(verb), "was not": gerund(verb), "is": gerund(verb), "would": verb,
    }  # fmt: skip
    helper = rng.choice(tuple(forms))
    bad = rng.choice([form for form in (verb, participle(verb), gerund(verb)) if form != forms[helper]])
    if helper in ("was not", "is") and verb in _TAKING_VERBS:
        bad = verb  # "is helped" is a passive
    rest = "" if verb in _LOOSE_VERBS else " " + _person(rng)
    subject = _person(rng)
    tail = _tail(rng)
    return f"{subject} {helper} {forms[helper]}{rest}{tail}", f"{subject} {helper} {bad}{rest}{tail}"


def reflexive(rng: Random) -> Pair:
    """A reflexive agrees with its subject in gender and number."""
    woman, man = rng.choice(lx.WOMEN), rng.choice(lx.MEN)
    verb = past(rng.choice(["praise", "help", "ignore", "draw", "photograph", "warn", "paint", "wash"]))
    tail = _tail(rng)
    many = plural(_trade(rng))
    subject, right, wrong = rng.choice(
        [
            (woman, "herself", rng.choice(["himself", "themselves"])),
            (man, "himself", rng.choice(["herself", "themselves"])),
            (f"the {many}", "themselves", rng.choice(["herself", "himself"])),
            (f"{man}, who likes {woman},", "himself", "herself"),
            (f"{woman}, who likes {man},", "herself", "himself"),
        ]
    )
    return f"{subject} {verb} {right}{tail}", f"{subject} {verb} {wrong}{tail}"


def determiner(rng: Random) -> Pair:
    """A determiner agrees with its noun in number."""
    noun, verb = _noun(rng), past(rng.choice(_LOOSE_VERBS))
    one = rng.choice(["this", "that", "every", "each", "one", "another"])
    many = rng.choice(["these", "those", "many", "several", "two", "few", "both"])
    adjective = rng.choice(["", "old ", "young ", "big ", "small "])
    tail = _tail(rng)
    if rng.random() < 0.5:
        return f"{one} {adjective}{noun} {verb}{tail}", f"{one} {adjective}{plural(noun)} {verb}{tail}"
    return f"{many} {adjective}{plural(noun)} {verb}{tail}", f"{many} {adjective}{noun} {verb}{tail}"


def order(rng: Random) -> Pair:
    """Two neighbouring words stand in the right order."""
    words = world.event(rng).say(rng).split()
    found = [i for i in range(len(words) - 1) if words[i] in _FIXED_ORDER]
    if not found:
        return order(rng)
    at = rng.choice(found)
    return " ".join(words), " ".join([*words[:at], words[at + 1], words[at], *words[at + 2 :]])


def taking(rng: Random) -> Pair:
    """Some verbs need an object and others take none."""
    person, other, tail = _person(rng), _person(rng), _tail(rng)
    if rng.random() < 0.5:
        verb = past(rng.choice(["praise", "thank", "greet", "invite", "hug", "warn", "ignore", "thank"]))
        return f"{person} {verb} {other}{tail}", f"{person} {verb}{tail}"
    verb = past(rng.choice(["sleep", "laugh", "fall", "wait", "cry", "pray"]))
    return f"{person} {verb}{tail}", f"{person} {verb} {other}{tail}"


def case(rng: Random) -> Pair:
    """A pronoun has the case of its place."""
    subject, object_ = rng.choice(
        [("he", "him"), ("she", "her"), ("they", "them"), ("we", "us"), ("I", "me")]
    )
    person, verb, tail = _person(rng), past(rng.choice(_TAKING_VERBS)), _tail(rng)
    if rng.random() < 0.5:
        return f"{subject} {verb} {person}{tail}", f"{object_} {verb} {person}{tail}"
    return f"{person} {verb} {object_}{tail}", f"{person} {verb} {subject}{tail}"


def comparative(rng: Random) -> Pair:
    """A comparative is marked once and takes "than"."""
    left, right, dimension = _person(rng), _person(rng), rng.choice(rng.choice(lx.COMPARISONS))
    good = rng.choice([f"{left} is {dimension} than {right}", f"{left} was much {dimension} than {right}"])
    bad = rng.choice(
        [
            good.replace(dimension, "more " + dimension),
            good.replace("than", rng.choice(["as", "that", "then"])),
        ]
    )
    long = rng.choice(["polite", "famous", "careful", "patient"])
    if rng.random() < 0.3:
        return f"{left} is more {long} than {right}", f"{left} is more {long} as {right}"
    return good, bad


def polarity(rng: Random) -> Pair:
    """The words "ever" and "any" stand under a negation."""
    verb, other, noun = rng.choice(_LOOSE_VERBS), _trade(rng), _noun(rng)
    taking, person = rng.choice(_TAKING_VERBS), _person(rng)
    return rng.choice(
        [
            (
                f"no {other} has ever {participle(verb)}",
                f"{rng.choice(['every', 'some', 'this'])} {other} has ever {participle(verb)}",
            ),
            (f"nobody {past(taking)} any {plural(noun)}", f"somebody {past(taking)} any {plural(noun)}"),
            (
                f"the {other} did not {taking} any {plural(noun)}",
                f"the {other} did {taking} any {plural(noun)}",
            ),
            (f"{person} has never {participle(verb)}", f"{person} has not never {participle(verb)}"),
        ]
    )


def preposition(rng: Random) -> Pair:
    """Some verbs reach their object through a preposition of their own, others need none."""
    verb, word = rng.choice(
        [
            ("wait", "for"),
            ("laugh", "at"),
            ("speak", "to"),
            ("look", "at"),
            ("depend", "on"),
            ("listen", "to"),
            ("wait", "for"),
        ]
    )
    person, other, tail = _person(rng), _person(rng), _tail(rng)
    if rng.random() < 0.6:
        return f"{person} {past(verb)} {word} {other}{tail}", f"{person} {past(verb)} {other}{tail}"
    taking = past(rng.choice(["visit", "help", "thank", "greet", "invite", "praise"]))
    return f"{person} {taking} {other}{tail}", f"{person} {taking} {word} {other}{tail}"


def articles(rng: Random) -> Pair:
    """A singular noun has one determiner."""
    noun = rng.choice(lx.THINGS[rng.choice(tuple(lx.THINGS))])
    adjective = rng.choice(["old", "new", "small", "dirty", "ugly", "expensive"])
    person, tail = _person(rng), _tail(rng)
    verb = past(rng.choice(verbs_like("buy")))
    good = f"{person} {verb} {rng.choice([article(adjective + ' ' + noun), f'the {adjective} {noun}'])}{tail}"
    bad = rng.choice(
        [f"{person} {verb} {adjective} {noun}{tail}", f"{person} {verb} the a {adjective} {noun}{tail}"]
    )
    return good, bad


FAULTS: tuple[Callable[[Random], Pair], ...] = (
    agreement, agreement, auxiliary, auxiliary, reflexive, determiner, order, order, taking, case,
    comparative, polarity, preposition, articles,
)  # fmt: skip
# Words that cannot change places with their right neighbour.
_FIXED_ORDER = (
    {"the", "a", "an", "in", "on", "at", "by", "did", "not", "was", "with"}
    | set(lx.BEFORE_PEOPLE)
    | set(lx.BEFORE_THINGS)
)


def _trade(rng: Random) -> str:
    return rng.choice(lx.PEOPLE[rng.choice(tuple(lx.PEOPLE))])


def _noun(rng: Random) -> str:
    """Return a noun whose plural differs."""
    kinds = rng.choice([lx.PEOPLE, lx.CREATURES])
    return rng.choice([noun for noun in kinds[rng.choice(tuple(kinds))] if plural(noun) != noun])


def _person(rng: Random) -> str:
    return rng.choice(lx.NAMES) if rng.random() < 0.4 else f"the {_trade(rng)}"


def _tail(rng: Random) -> str:
    adjuncts = [rng.choice(lx.TIMES), rng.choice(lx.PLACES["indoors"]), rng.choice(lx.PLACES["outdoors"])]
    return rng.choice(["", "", *(" " + adjunct for adjunct in adjuncts)])
