"""The true label of any sentence of the bundled reviews, read off the grammar that `reviews.py` writes by.

A sentence that the grammar could not have written has no label here, whatever people would say of it.
"""

import re

from scripts.quickstart import lexicon as lx
from scripts.quickstart.reviews import ADJECTIVES, NOUNS, OPINIONS, SUBJECTS, VERBS, Opinion, other_opinion


def true_sentiment(sentence: str) -> Opinion | None:
    """The opinion that a review holds; None for a sentence that is none."""
    text = sentence.strip().removesuffix(".")
    text = text[:1].lower() + text[1:] if text.startswith(_LOWER) else text
    for pattern, kept, turned in _SENTENCES:
        found = pattern.fullmatch(text)
        opinions = {name: clause(said) for name, said in found.groupdict().items()} if found else {}
        opinion = opinions.get(kept)
        if opinion is None or None in opinions.values():
            continue
        if opinions.get("also", opinion) == opinion and (kept == "no" or opinions.get("no") != opinion):
            return other_opinion(opinion) if turned else opinion
    return None


def clause(text: str) -> Opinion | None:
    """The opinion of one main clause; None if it is none."""
    for opinion in OPINIONS:
        if _PLAIN[opinion].fullmatch(text) or _ROUNDABOUT[other_opinion(opinion)].fullmatch(text):
            return opinion
    return None


def _any(words: tuple[str, ...] | list[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, words))})"


_PART = f"the {_any([*SUBJECTS, *(part for parts in SUBJECTS.values() for part in parts)])}"
_LOWER = ("The ", "We ", "Nobody ", "There ", "Although ", "Even ", "While ", "My ", "A ", "Everybody ")
"""What begins with a capital at the head of a sentence only."""
_DEGREE = "(?:very |really |quite |truly )?"
_DENIAL = "(?:not|not at all|never|anything but|far from|by no means|hardly)"


def _plain(opinion: Opinion) -> re.Pattern[str]:
    adjective, noun = _DEGREE + _any(ADJECTIVES[opinion]), _any(NOUNS[opinion])
    verb = _any([past for past, _ in VERBS[opinion]])
    end = "better" if opinion == "positive" else "worse"
    return re.compile(
        f"{_PART} was {adjective}|{_PART} turned out to be {adjective}|I found {_PART} {adjective}|"
        f"(?:we|I) {verb} {_PART}|{_PART} was full of {noun}|{_PART} had a lot of {noun}|"
        f"{_PART} could not have been {end}"
    )


def _roundabout(contrary: Opinion) -> re.Pattern[str]:
    """What holds the opposite of the opinion whose words stand in it."""
    adjective, noun = _any(ADJECTIVES[contrary]), _any(NOUNS[contrary])
    verb = _any([bare for _, bare in VERBS[contrary]])
    end = "better" if contrary == "positive" else "worse"
    return re.compile(
        f"{_PART} was {_DENIAL} {adjective}|nobody would call {_PART} {adjective}|"
        f"there was nothing {adjective} about {_PART}|(?:I did not|nobody could) {verb} {_PART}|"
        f"{_PART} lacked {noun}|{_PART} was without {noun}|{_PART} could have been {end}"
    )


_PLAIN = {opinion: _plain(opinion) for opinion in OPINIONS}
_ROUNDABOUT = {opinion: _roundabout(opinion) for opinion in OPINIONS}
_WHO = f"(?:my brother|my sister|my neighbour|a friend|the newspaper|everybody|{_any([*lx.WOMEN, *lx.MEN])})"
_NO, _YES = "(?P<no>.+?)", "(?P<yes>.+?)"

# Each form of a sentence, the group whose opinion it holds, and whether it holds the opposite.
_SENTENCES = [
    (re.compile(text), kept, turned)
    for text, kept, turned in (
        (_YES, "yes", False),
        (f"{_YES} and (?P<also>.+)", "yes", False),
        (f"{_NO}(?:, but|, and yet|; still,) {_YES}", "yes", False),
        (f"(?:although|even though|while) {_NO}, {_YES}", "yes", False),
        (f"{_YES}, (?:although|even though|while) {_NO}", "yes", False),
        (f"{_WHO} (?:said|thought|wrote) that {_NO}, but {_YES}", "yes", False),
        (f"{_any(list(lx.NAMES))} says that {_NO}, and (?:she|he) is (?:wrong|mistaken)", "no", True),
        (f"{_any(list(lx.NAMES))} says that {_YES}, and (?:she|he) is (?:right|not wrong)", "yes", False),
    )
]
