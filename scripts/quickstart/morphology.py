"""Inflection: the English forms of the lexicon's words."""

_IRREGULAR = {  # verb → past, participle
    "feed": "fed fed", "catch": "caught caught", "find": "found found", "draw": "drew drawn",
    "buy": "bought bought", "hide": "hid hidden", "lose": "lost lost", "throw": "threw thrown",
    "break": "broke broken", "steal": "stole stolen", "sleep": "slept slept", "speak": "spoke spoken",
    "sing": "sang sung", "fall": "fell fallen", "swim": "swam swum", "weep": "wept wept",
    "forget": "forgot forgotten", "sell": "sold sold", "lend": "lent lent", "give": "gave given",
    "eat": "ate eaten", "see": "saw seen", "write": "wrote written", "know": "knew known",
    "overlook": "overlooked overlooked", "go": "went gone", "take": "took taken", "drive": "drove driven",
    "bring": "brought brought", "rise": "rose risen", "come": "came come", "send": "sent sent",
    "be": "was been", "have": "had had", "read": "read read", "hurt": "hurt hurt", "teach": "taught taught",
}  # fmt: skip
_PLURALS = {
    "goose": "geese", "trout": "trout", "salmon": "salmon", "fish": "fish",
    "piece of furniture": "pieces of furniture", "scarf": "scarves", "person": "people",
}  # fmt: skip
_DOUBLING = {"hug", "sob", "chat", "stop", "plan", "grab", "swim", "forget", "nap", "beg"}


def plural(noun: str) -> str:
    """Return the plural of a noun: "sparrow" → "sparrows"."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")) or noun in {"potato"}:
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def third(verb: str) -> str:
    """Return the third person singular: "watch" → "watches"."""
    return plural(verb) if verb != "go" else "goes"


def past(verb: str) -> str:
    """Return the simple past: "hug" → "hugged"."""
    return _IRREGULAR[verb].split()[0] if verb in _IRREGULAR else _regular(verb)


def participle(verb: str) -> str:
    """Return the past participle: "hide" → "hidden"."""
    return _IRREGULAR[verb].split()[1] if verb in _IRREGULAR else _regular(verb)


def gerund(verb: str) -> str:
    """Return the -ing form: "chase" → "chasing"."""
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if verb in _DOUBLING else "") + "ing"


def article(words: str) -> str:
    """Return the words with their indefinite article: "old car" → "an old car"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def sentence(words: str) -> str:
    """Return the words as a written sentence: a capital in front, a full stop at the end."""
    return words[0].upper() + words[1:] + "."


def _regular(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in _DOUBLING else "") + "ed"
