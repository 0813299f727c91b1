"""Running text from the quickstart's world, for pre-training: people tell, restate, infer, judge, correct.

It shows what the four tasks ask about as it shows in life: a listener believes it or does not, a guest comes
back or asks for the money, a teacher nods or takes the red pen. It holds neither the tasks' prompts nor a
sentence of their score splits.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from scripts.quickstart import judgements, reviews, world
from scripts.quickstart import lexicon as lx
from scripts.quickstart.morphology import article, plural, sentence


def documents(seed: int, score_files: list[Path]) -> Iterator[str]:
    """Yield documents without end, none of which holds a sentence of the score files."""
    rng, held_out = Random(seed), HeldOut(score_files)
    genres, weights = zip(*GENRES.items(), strict=True)
    while True:
        text = rng.choices(genres, weights)[0](rng)
        if text and text not in held_out:
            yield text


class HeldOut:
    """The sentences that no document may hold, found by their first words."""

    def __init__(self, score_files: list[Path]) -> None:
        """Read every sentence of the files' rows."""
        self._by_start: dict[tuple[str, ...], list[list[str]]] = {}
        for path in score_files:
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                for name in row.keys() - {"id", "label"}:
                    words = _words(row[name])
                    self._by_start.setdefault(tuple(words[:2]), []).append(words)

    def __contains__(self, text: str) -> bool:
        words = _words(text)
        return any(
            words[i : i + len(held)] == held
            for i in range(len(words))
            for held in self._by_start.get(tuple(words[i : i + 2]), ())
        )


def story(rng: Random) -> str:
    """Things that happened, one after another."""
    return " ".join(sentence(world.meaning(rng).say(rng)) for _ in range(rng.randint(2, 4)))


def restated(rng: Random) -> str:
    """One meaning, said twice."""
    meaning = world.meaning(rng)
    link = rng.choice(["In other words,", "That is,", "To put it differently,", "It means that"])
    told, retold = meaning.say(rng), meaning.say(rng)
    return f"{sentence(told)} {link} {retold}." if told != retold else ""


def witnesses(rng: Random) -> str:
    """One tells what happened; another tells the same or something else, and is taken to agree or not.

    Now and then it is the same word for word, or something else altogether: from these a model learns first
    to hold two sentences side by side.
    """
    meaning = world.meaning(rng)
    told, name, plainly = meaning.say(rng), rng.choice(lx.NAMES), rng.random() < 0.4
    if rng.random() < 0.5:
        retold, verdict = told if plainly else meaning.say(rng), "agreed"
    else:
        other = world.meaning(rng) if plainly else world.unlike(meaning, rng)
        if other is None or other == meaning:
            return ""
        retold, verdict = other.say(rng), "disagreed"
    return f"{rng.choice(lx.NAMES)} said that {told}. {name} said that {retold}. {_pronoun(name)} {verdict}."


def conclusion(rng: Random) -> str:
    """What follows from a sentence, what cannot be true, and what nobody knows."""
    premise = world.meaning(rng)
    said = [sentence(premise.say(rng))]
    for _ in range(3):
        relation = rng.choice(world.RELATIONS)
        hypothesis = world.related(premise, relation, rng)
        if hypothesis is None:
            return ""
        claim, name, way = hypothesis.say(rng), rng.choice(lx.NAMES), rng.random()
        if way < 0.2:
            link = {"entailment": "So", "neutral": "Perhaps", "contradiction": "It is not true that"}[
                relation
            ]
            said.append(f"{link} {claim}.")
        elif way < 0.6:
            verdict = {"entailment": "right", "neutral": "guessing", "contradiction": "wrong"}[relation]
            said.append(f"{name} says that {claim}. {_pronoun(name)} is {verdict}.")
        else:
            reply = {"entailment": "Yes.", "neutral": "Maybe.", "contradiction": "No."}[relation]
            said.append(f"Is it true that {claim}? {reply}")
    return " ".join(said)


def opinion(rng: Random) -> str:
    """What somebody thought, at some length, and what came of it."""
    view, subject = rng.choice(reviews.OPINIONS), rng.choice(tuple(reviews.SUBJECTS))
    parts = rng.sample([*reviews.SUBJECTS[subject], subject], 3)
    said = [sentence(reviews.clause(view, part, rng)) for part in parts[: rng.randint(1, 3)]]
    said.insert(rng.randint(0, len(said)), sentence(reviews.review(view, rng, subject)))
    return f"{' '.join(said)} {sentence(reviews.outcome(view, rng))}"


def lesson(rng: Random) -> str:
    """Pupils' sentences, and what the teacher says to them."""
    said = []
    for _ in range(3):
        good, bad = (sentence(words) for words in judgements.pair(rng))
        name = rng.choice(lx.NAMES)
        if rng.random() < 0.5:
            said.append(f'{name} wrote: "{good}" That is good English.')
        else:
            correction = f' It should be: "{good}"' if rng.random() < 0.3 else ""
            said.append(f'{name} wrote: "{bad}" That is bad English.{correction}')
    return " ".join(said)


def plain(rng: Random) -> str:
    """Well-formed sentences."""
    return " ".join(sentence(good) for good, _ in (judgements.pair(rng) for _ in range(rng.randint(2, 4))))


def definition(rng: Random) -> str:
    """What a word means."""
    kind = rng.choice(tuple(lx.KINDS))
    member, another = rng.sample(lx.KINDS[kind], 2)
    words = lx.SYNONYMS[rng.choice([concept for concept, words in lx.SYNONYMS.items() if len(words) > 1])]
    left, right = rng.choice([*lx.OPPOSITES_OF_PEOPLE.items(), *lx.OPPOSITES_OF_THINGS.items()])
    general, manners = rng.choice(tuple(lx.MANNERS.items()))
    one, two = rng.sample(words, 2)
    said = [
        f"every {member} is {article(kind)}",
        f"{plural(member)} and {plural(another)} are {plural(kind)}",
        f"{one} means {two}",
        f"{left} is the opposite of {right}",
        f"to {rng.choice(manners)} is to {general}",
        rng.choice(
            [
                "yes is the opposite of no",
                "positive is the opposite of negative",
                "maybe is neither yes nor no",
            ]
        ),
    ]
    return " ".join(sentence(each) for each in rng.sample(said, 2))


def card(rng: Random) -> str:
    """A filled-in form, or words learnt at school."""
    if rng.random() < 0.5:
        word = rng.choice(_SCHOOL_WORDS)
        name = rng.choice(lx.NAMES)
        return f"{sentence(word)[:-1]} was the word of the day. {name} wrote it down: {word}, {word}."
    kind = rng.choice(tuple(lx.PEOPLE))
    lines = {
        "Name": rng.choice(lx.NAMES),
        "Trade": rng.choice(lx.PEOPLE[kind]),
        "Blood test": rng.choice(["positive", "negative"]),
        "Likes music": rng.choice(["yes", "no", "maybe"]),
        "Day": rng.choice(lx.TIMES[:4]).removeprefix("on "),
    }
    return "\n".join(f"{key}: {lines[key]}" for key in rng.sample(list(lines), rng.randint(2, 4)))


# How often a genre comes, against the others.
GENRES: dict[Callable[[Random], str], float] = {
    story: 0.02,
    restated: 0.08,
    witnesses: 0.60,
    conclusion: 0.20,
    opinion: 0.14,
    lesson: 0.20,
    plain: 0.12,
    definition: 0.02,
    card: 0.02,
}
# The words that say who was right, or how it ended.
VERDICTS = lx.words(
    "agreed disagreed right wrong guessing good bad Yes No Maybe delighted disappointed smiled frowned "
    "complained worth waste glad asked"
)
_SCHOOL_WORDS = lx.words(
    "review sentiment sentence grammar correct acceptable first second equivalent same meaning premise "
    "hypothesis true positive negative yes no maybe question answer does the mean what is follow statement "
    "relation"
)


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "-" else " " for letter in text.lower()).split()


def _pronoun(name: str) -> str:
    return "She" if name in lx.WOMEN else "He"
