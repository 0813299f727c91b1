import re
from random import Random

import pytest

from scripts.quickstart import judgements, reviews, world
from scripts.quickstart.corpus import GENRES, HeldOut, documents
from scripts.quickstart.meanings import Comparison, Event, Meaning, Order, Thing
from scripts.quickstart.morphology import article, gerund, participle, past, plural, third
from scripts.quickstart.pretrain import score_files
from scripts.quickstart.quantities import Counted, Quantified


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (plural("cherry"), "cherries"),
        (plural("toy"), "toys"),
        (plural("goose"), "geese"),
        (third("watch"), "watches"),
        (third("cry"), "cries"),
        (past("hug"), "hugged"),
        (past("steal"), "stole"),
        (participle("hide"), "hidden"),
        (past("carry"), "carried"),
        (gerund("chase"), "chasing"),
        (gerund("swim"), "swimming"),
        (article("old car"), "an old car"),
        (article("car"), "a car"),
    ],
)
def test_inflection(made: str, expected: str) -> None:
    assert made == expected


ANNA, BEN = Thing("Anna"), Thing("Ben")


def neighbours(meaning: Meaning, relation: world.Relation) -> set[Meaning]:
    found = (world.related(meaning, relation, Random(seed)) for seed in range(200))
    return {each for each in found if each is not None}


def test_a_denied_event_entails_the_narrower_one_and_never_the_wider() -> None:
    slept_not = Event(ANNA, "sleep", place="in the garden", negative=True)
    entailed = neighbours(slept_not, "entailment")
    assert Event(ANNA, "sleep", place="in the garden", time="at noon", negative=True) in entailed
    assert Event(ANNA, "sleep", negative=True) not in entailed
    assert Event(ANNA, "sleep", negative=True) in neighbours(slept_not, "neutral")


def test_an_event_entails_the_wider_one_and_contradicts_its_denial() -> None:
    strolled = Event(ANNA, "stroll", place="in the garden")
    assert Event(ANNA, "walk", place="in the garden") in neighbours(strolled, "entailment")
    assert Event(ANNA, "stroll", place="outdoors") in neighbours(strolled, "entailment")
    assert Event(ANNA, "walk", place="in the garden", negative=True) in neighbours(strolled, "contradiction")


def test_quantities_carry_over_in_their_own_direction() -> None:
    slept = Event(ANNA, "sleep")
    every_bird = Quantified("all", "bird", slept)
    entailed = neighbours(every_bird, "entailment")
    assert any(isinstance(each, Quantified) and each.noun == "owl" for each in entailed)
    assert Quantified("some", "bird", slept) in entailed
    assert Quantified("not all", "bird", slept) in neighbours(every_bird, "contradiction")
    some_owl = Quantified("some", "owl", slept)
    assert Quantified("some", "bird", slept) in neighbours(some_owl, "entailment")
    assert Quantified("all", "owl", slept) in neighbours(some_owl, "neutral")


@pytest.mark.parametrize("relation", ["entailment", "contradiction"])
def test_bounds_agree_with_arithmetic(relation: world.Relation) -> None:
    for each in neighbours(Counted("exactly", 4, "owl", Event(ANNA, "sleep")), relation):
        assert isinstance(each, Counted)
        holds = each.number < 4 if each.bound == "more than" else each.number > 4
        assert holds == (relation == "entailment")


def test_orders_and_comparisons_reverse() -> None:
    sang, danced = Event(ANNA, "sing"), Event(BEN, "dance")
    assert Order(danced, sang) in neighbours(Order(sang, danced), "contradiction")
    assert sang in neighbours(Order(sang, danced), "entailment")
    taller = Comparison(ANNA, BEN, ("taller", "shorter"))
    said = {taller.say(Random(seed)) for seed in range(20)}
    assert said == {"Anna is taller than Ben", "Ben is shorter than Anna"}
    assert neighbours(taller, "entailment") == {Comparison(BEN, ANNA, ("taller", "shorter"), negative=True)}


def test_no_meaning_is_entailed_and_open_or_denied_at_once() -> None:
    for seed in range(300):
        meaning = world.meaning(Random(seed))
        entailed, open_, denied = (neighbours(meaning, relation) for relation in world.RELATIONS)
        assert not entailed & denied
        assert not entailed & open_
        assert not open_ & denied


def test_a_different_meaning_is_never_the_same() -> None:
    for seed in range(500):
        meaning = world.meaning(Random(seed))
        assert meaning.another(Random(seed)) != meaning


def test_a_fault_changes_the_sentence() -> None:
    for fault in judgements.FAULTS:
        for seed in range(200):
            good, bad = fault(Random(seed))
            assert good != bad, fault.__name__


def test_the_clause_behind_but_decides() -> None:
    plain = re.compile(
        r"the [\w ]+ turned out to be (?:\w+ )?(\w+), but the [\w ]+ turned out to be (?:\w+ )?(\w+)"
    )
    found = [plain.fullmatch(reviews.review("positive", Random(seed))) for seed in range(8000)]
    pairs = [match.groups() for match in found if match]
    assert len(pairs) > 3
    for before, behind in pairs:
        assert before in reviews.ADJECTIVES["negative"]
        assert behind in reviews.ADJECTIVES["positive"]


def test_running_text_holds_no_sentence_of_score() -> None:
    held_out = HeldOut(score_files())
    stream = documents(7, score_files())
    assert all(next(stream) not in held_out for _ in range(300))
    sentence = score_files()[0].read_text(encoding="utf-8").splitlines()[0].split('": "')[2].split('"')[0]
    assert f'Anna wrote: "{sentence}" The teacher nodded.' in held_out
    assert "The teacher nodded." not in held_out


@pytest.mark.parametrize("genre", GENRES, ids=lambda genre: genre.__name__)
def test_every_genre_speaks_and_never_in_the_tasks_prompts(genre: object) -> None:
    assert callable(genre)
    said = " ".join(genre(Random(seed)) for seed in range(200))
    assert len(said) > 1000
    for cue in (
        "Review:",
        "Sentiment:",
        "Acceptable:",
        "Same meaning:",
        "Premise:",
        "Hypothesis:",
        "True:",
        "Answer:",
    ):
        assert cue not in said
