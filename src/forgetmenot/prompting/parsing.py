"""The parser of written answers: the label that a freely written answer names."""

import re
from collections.abc import Mapping

_MARKS = " \t\"'`*_([{<«“‘„-:>#."  # allowed before an answer, without a meaning
_NEGATED = re.compile(r"(?:\bnot|n't|\bnever|\bneither|\bnor)\s+(?:an?\s+)?$", re.IGNORECASE)


def parse_choice(text: str, choices: Mapping[str, str]) -> str | None:
    """Return the label whose words an answer names, or None where it names none or leaves it open.

    Read is the first line with something in it, without regard to case; words count where they stand whole:
    "acceptable" is not in "unacceptable", "3" not in "3.5". Of choices that overlap the longest counts. An
    answer that begins with a choice is that choice, whatever follows. Otherwise it must name one choice
    alone, and not deny it: "It is positive" is read, "positive or negative, I think" by its first word, "not
    positive" and "either positive or negative" are not. These rules are our own.

    Args:
        text: What the model wrote after the prompt.
        choices: Label to words, as in `Prompt.choices`.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    words = {words.strip().casefold(): label for label, words in choices.items()}
    longest_first = sorted(words, key=len, reverse=True)
    either = "|".join(map(re.escape, longest_first))
    whole = re.compile(rf"(?<!\w)(?<!\d[.,])(?:{either})(?!\w)(?![.,]\d)")
    folded = line.casefold()
    found = list(whole.finditer(folded))
    if not found:
        return None
    if not folded[: found[0].start()].strip(_MARKS):
        return words[found[0][0]]
    named = {words[one[0]] for one in found}
    if len(named) > 1 or any(_NEGATED.search(folded[: one.start()]) for one in found):
        return None
    return named.pop()


def last_choice(text: str, choices: Mapping[str, str]) -> str | None:
    """Return the label whose words stand last in a text, letter by letter; None where none stands there.

    The reading of SELF-GUIDE (Zhao et al. 2024, arXiv 2407.12874), by the official `find_last_occurrence`:
    words count inside others too, as "entails" in "not entails", and matches do not overlap. Where several
    begin at one place the longest counts (there: the first of the labels, as they occur in the data).

    Args:
        text: What the model wrote after the prompt.
        choices: Label to words, as in `Prompt.choices`.
    """
    labels = {words: label for label, words in choices.items()}
    either = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    found = re.findall(either, text)
    return labels[found[-1]] if found else None
