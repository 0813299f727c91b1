"""What people think of hotels, meals, films: opinions whose words alone do not give them away.

A word of praise may be denied, lacking or somebody else's; of two opinions, "but" and "although" say which
one counts: the one behind "but", and the main clause beside "although".
"""

from random import Random
from typing import Literal

from scripts.quickstart.lexicon import MEN, NAMES, WOMEN, words

Opinion = Literal["negative", "positive"]
OPINIONS: tuple[Opinion, Opinion] = ("negative", "positive")

# what is judged → its parts.
SUBJECTS = {
    "hotel": ("room", "bed", "breakfast", "view", "pool", "lobby", "porter"),
    "restaurant": ("soup", "waiter", "dessert", "menu", "wine", "salad", "bread"),
    "film": ("plot", "acting", "ending", "music", "dialogue", "opening", "hero"),
    "book": ("story", "style", "first chapter", "last chapter", "language", "cover", "villain"),
    "concert": ("choir", "orchestra", "sound", "hall", "encore", "soloist", "programme"),
    "phone": ("screen", "battery", "camera", "keyboard", "speaker", "manual", "design"),
    "tour": ("guide", "weather", "lunch", "castle", "boat trip", "driver", "map"),
    "course": ("teacher", "lesson", "textbook", "homework", "lecture", "exam", "exercise"),
}
ADJECTIVES: dict[Opinion, tuple[str, ...]] = {
    "positive": words(
        "good great wonderful excellent lovely charming delightful superb splendid brilliant pleasant "
        "perfect amazing fantastic marvellous terrific impressive enjoyable fine outstanding magnificent "
        "admirable"
    ),
    "negative": words(
        "bad awful terrible horrible poor dreadful boring dull disappointing unpleasant annoying "
        "mediocre tedious lousy miserable dismal pathetic hopeless appalling shabby clumsy forgettable"
    ),
}
NOUNS: dict[Opinion, tuple[str, ...]] = {
    "positive": words("charm warmth humour grace quality beauty taste magic elegance wit talent comfort"),
    "negative": words("faults mistakes flaws problems defects trouble errors weaknesses nonsense noise"),
}
# past tense, bare form.
VERBS: dict[Opinion, tuple[tuple[str, str], ...]] = {
    "positive": (
        ("enjoyed", "enjoy"),
        ("loved", "love"),
        ("liked", "like"),
        ("admired", "admire"),
        ("praised", "praise"),
    ),
    "negative": (("hated", "hate"), ("disliked", "dislike"), ("regretted", "regret"), ("detested", "detest")),
}
_DEGREES = ("very ", "really ", "quite ", "truly ", "", "", "", "")
_DENIALS = ("not", "not at all", "never", "anything but", "far from", "by no means", "hardly")
# A last sentence that a person might add, heard in the running text only.
OUTCOMES: dict[Opinion, tuple[str, ...]] = {
    "positive": (
        "{who} was delighted",
        "{who} smiled all day",
        "{who} thanked everybody",
        "{who} will come back soon",
        "{who} told all the neighbours to go there",
        "{who} gave it five stars",
        "{who} was glad to have spent the money",
        "{who} left in a good mood",
        "{who} wants to do it again",
        "it was worth every penny",
    ),
    "negative": (
        "{who} was disappointed",
        "{who} frowned all day",
        "{who} complained to everybody",
        "{who} will never come back",
        "{who} told all the neighbours to stay away",
        "{who} gave it one star",
        "{who} asked for the money back",
        "{who} left in a bad mood",
        "{who} wants to forget it",
        "it was a waste of money",
    ),
}


def other_opinion(opinion: Opinion) -> Opinion:
    """Return the opposite opinion."""
    return "negative" if opinion == "positive" else "positive"


def review(opinion: Opinion, rng: Random, subject: str | None = None) -> str:
    """Return one sentence that holds the opinion, in lower case, without a full stop."""
    subject = subject or rng.choice(tuple(SUBJECTS))
    one, two = rng.sample([*SUBJECTS[subject], subject], 2)
    contrary = other_opinion(opinion)
    yes, also, no = clause(opinion, one, rng), clause(opinion, two, rng), clause(contrary, two, rng)
    way = rng.random()
    if way < 0.44:
        return yes
    if way < 0.6:
        return f"{yes} and {also}"
    if way < 0.74:
        return rng.choice([f"{no}, but {yes}", f"{no}, and yet {yes}", f"{no}; still, {yes}"])
    if way < 0.9:
        although = rng.choice(["although", "even though", "while"])
        return rng.choice([f"{although} {no}, {yes}", f"{yes}, {although} {no}"])
    if way < 0.95:
        who, said = _somebody(rng), rng.choice(["said", "thought", "wrote"])
        return f"{who} {said} that {no}, but {_plain(opinion, two, rng)}"
    # Somebody else's opinion, and what becomes of it.
    told, verdict = rng.choice(
        [(contrary, "is wrong"), (contrary, "is mistaken"), (opinion, "is right"), (opinion, "is not wrong")]
    )
    name = rng.choice(NAMES)
    return f"{name} says that {_plain(told, two, rng)}, and {'she' if name in WOMEN else 'he'} {verdict}"


def clause(opinion: Opinion, part: str, rng: Random) -> str:
    """Return a main clause that holds the opinion of one part, said straight or the other way round."""
    return _plain(opinion, part, rng) if rng.random() < 0.75 else _roundabout(opinion, part, rng)


def outcome(opinion: Opinion, rng: Random) -> str:
    """Return what came of it: "she asked for the money back"."""
    return rng.choice(OUTCOMES[opinion]).format(who=rng.choice(["he", "she", rng.choice(NAMES)]))


def _plain(opinion: Opinion, part: str, rng: Random) -> str:
    adjective = rng.choice(_DEGREES) + rng.choice(ADJECTIVES[opinion])
    noun, verb = rng.choice(NOUNS[opinion]), rng.choice(VERBS[opinion])[0]
    return rng.choice(
        [
            f"the {part} was {adjective}",
            f"the {part} turned out to be {adjective}",
            f"I found the {part} {adjective}",
            f"we {verb} the {part}",
            f"I {verb} the {part}",
            f"the {part} was full of {noun}",
            f"the {part} had a lot of {noun}",
            f"the {part} could not have been {'better' if opinion == 'positive' else 'worse'}",
        ]
    )


def _roundabout(opinion: Opinion, part: str, rng: Random) -> str:
    contrary = other_opinion(opinion)
    adjective, noun = rng.choice(ADJECTIVES[contrary]), rng.choice(NOUNS[contrary])
    verb = rng.choice(VERBS[contrary])[1]
    return rng.choice(
        [
            f"the {part} was {rng.choice(_DENIALS)} {adjective}",
            f"nobody would call the {part} {adjective}",
            f"there was nothing {adjective} about the {part}",
            f"I did not {verb} the {part}",
            f"nobody could {verb} the {part}",
            f"the {part} lacked {noun}",
            f"the {part} was without {noun}",
            f"the {part} could have been {'better' if opinion == 'negative' else 'worse'}",
        ]
    )


def _somebody(rng: Random) -> str:
    relative = rng.choice(
        ["my brother", "my sister", "my neighbour", "a friend", "the newspaper", "everybody"]
    )
    return rng.choice([relative, rng.choice(WOMEN), rng.choice(MEN)])
