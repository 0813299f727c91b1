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
    """Two people tell what they saw, and do or do not agree."""
    meaning, agree = world.meaning(rng), rng.random() < 0.5
    other = meaning if agree else meaning.another(rng)
    if other is None:
        return ""
    one, two = rng.sample(lx.NAMES, 2)
    agreed = rng.choice(["They agreed.", "They told the same story.", "They meant the same."])
    differed = rng.choice(
        ["They did not agree.", "They told two different stories.", "They did not mean the same."]
    )
    told, retold = meaning.say(rng), other.say(rng)
    if told == retold:
        return ""
    return f"{one} said that {told}. {two} said that {retold}. {agreed if agree else differed}"


def conclusion(rng: Random) -> str:
    """What follows from a sentence, what cannot be true, and what nobody knows."""
    premise, relation = world.meaning(rng), rng.choice(world.RELATIONS)
    hypothesis = world.related(premise, relation, rng)
    if hypothesis is None:
        return ""
    known, said, name = premise.say(rng), hypothesis.say(rng), rng.choice(lx.NAMES)
    told = sentence(known)
    she = "she" if name in lx.WOMEN else "he"
    way = rng.random()
    if way < 0.25:
        link = {"entailment": "So", "neutral": "Perhaps", "contradiction": "It is not true that"}[relation]
        return f"{told} {link} {said}."
    if way < 0.65:
        verdict = {"entailment": "right", "neutral": "only guessing", "contradiction": "wrong"}[relation]
        return f"{told} {name} says that {said}. {sentence(she)[:-1]} is {verdict}."
    if way < 0.85:
        reply = {
            "entailment": "Yes, it is.",
            "neutral": "Maybe, who knows?",
            "contradiction": "No, it is not.",
        }[relation]
        return f"{told} Is it true that {said}? {reply}"
    verdict = {"entailment": "believed it", "neutral": "was not sure", "contradiction": "did not believe it"}[
        relation
    ]
    return f"{name} knew that {known}. {name} heard that {said}, and {she} {verdict}."


def opinion(rng: Random) -> str:
    """What somebody thought, and what came of it."""
    view, subject = rng.choice(reviews.OPINIONS), rng.choice(tuple(reviews.SUBJECTS))
    said = [sentence(reviews.review(view, rng, subject)) for _ in range(rng.choice([1, 1, 1, 2]))]
    name = rng.choice(lx.NAMES)
    opening = rng.choice(
        ["", "", f"{name} went to see the {subject}. ", f"{name} told us about the {subject}. "]
    )
    return f"{opening}{' '.join(said)} {sentence(reviews.outcome(view, rng))}"


def lesson(rng: Random) -> str:
    """A pupil's sentence, and what the teacher does about it."""
    good, bad = judgements.pair(rng)
    end = "?" if judgements.is_question(good) else "."
    right = rng.random() < 0.5
    name = rng.choice(lx.NAMES)
    said = f'{name} wrote: "{sentence(good if right else bad, end)}"'
    if right:
        return f"{said} {rng.choice(['The teacher nodded.', 'Well done!', 'There was nothing to correct.'])}"
    pen = rng.choice(["The teacher shook her head", "The teacher took the red pen", "It was full of red ink"])
    return f'{said} {pen}: "{sentence(good, end)}"'


def plain(rng: Random) -> str:
    """Well-formed sentences."""
    return " ".join(
        sentence(good, "?" if judgements.is_question(good) else ".")
        for good, _ in (judgements.pair(rng) for _ in range(rng.randint(1, 3)))
    )


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


# A genre's share of the documents.
GENRES: dict[Callable[[Random], str], float] = {
    story: 0.04,
    restated: 0.06,
    witnesses: 0.18,
    conclusion: 0.24,
    opinion: 0.20,
    lesson: 0.20,
    plain: 0.02,
    definition: 0.03,
    card: 0.03,
}
_SCHOOL_WORDS = lx.words(
    "review sentiment sentence grammar correct acceptable first second equivalent same meaning premise "
    "hypothesis true positive negative yes no maybe question answer does the mean what is follow statement "
    "relation"
)


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "-" else " " for letter in text.lower()).split()
