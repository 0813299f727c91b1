"""ROUGE-L, SARI and edit similarity against second implementations, on 200 pairs in several languages."""

import random
import re
from collections.abc import Sequence

import numpy as np
import pytest
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from forgetmenot.metrics import METRICS, measure
from forgetmenot.metrics.sari import sari, tokens_13a

LINES = """
the cat sat on a mat and it was 3.5 km away , don't you think ? U.S. 1,000 ( yes ) well-known
Die Polizei hat zwei Frauen über 30 festgenommen . "Spielhölle" , 25 Personen und Automaten !
现 在 应 该 有 科 技 狠 活 博 主 教 人 怎 么 做 ， 今 天 天 气 很 好 。
кот сидит на коврике и смотрит в окно , где идёт снег .
def f ( x ) : return x + 1 <EOL> self . y = '<STR_LIT>' &amp; &lt;b&gt; a-b 3-4
नमस्ते दुनिया 🙂 é ß İ café naïve x 1
"""
VOCABULARIES = [line.split(" ") for line in LINES.strip().split("\n")]


def texts() -> list[tuple[str, str, str]]:
    """A source, an answer and a gold text each: some empty, some equal, most with words in common."""
    rng = random.Random(0)
    made = []
    for k in range(200):
        words = VOCABULARIES[k % len(VOCABULARIES)]
        joint = "" if k % 7 == 2 else "\n" if k % 11 == 3 else " "
        source = [rng.choice(words) for _ in range(rng.randint(0, 25))]
        gold = [word for word in source if rng.random() < 0.7] + rng.choices(words, k=rng.randint(0, 4))
        answer = [word for word in gold if rng.random() < 0.6] + rng.choices(words, k=rng.randint(0, 6))
        if k % 20 == 0:
            answer = gold
        if k % 20 == 1:
            answer = []
        if k % 20 == 2:
            answer = source
        made.append((joint.join(source), joint.join(answer), joint.join(gold)))
    return made


def common(one: Sequence[object], other: Sequence[object]) -> int:
    """The length of the longest common subsequence, by the textbook's table."""
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
    return int(table[-1, -1])


def test_edit_similarity() -> None:
    for _, answer, gold in texts():
        wanted = 2 * common(answer, gold) / (len(answer) + len(gold)) if answer and gold else 0.0
        assert measure("edit_similarity", [gold], [answer]).value == pytest.approx(wanted, abs=1e-12)
    assert measure("edit_similarity", ["", "a"], ["", ""]).value == 0.0


def test_rouge_l() -> None:
    for _, answer, gold in texts():
        words = [re.findall("[a-z0-9]+", text.lower()) for text in (answer, gold)]
        if not words[1]:
            continue  # a gold text of other letters is refused where all are
        hits = common(*words)
        wanted = 2 * hits / (len(words[0]) + len(words[1])) if hits else 0.0
        assert measure("rouge_l", [gold], [answer]).value == pytest.approx(wanted, abs=1e-12)


def reference_sari(source: str, answer: str, gold: str) -> float:
    """Xu et al.'s definition with Hugging Face's corrections, counted n-gram by n-gram."""
    cut = Tokenizer13a()
    rows = [cut(text.lower()).split(" ") for text in (source, answer, gold)]
    total = 0.0
    for n in (1, 2, 3, 4):
        grams = [[" ".join(row[i : i + n]) for i in range(len(row) - n + 1)] for row in rows]
        everything = {gram for row in grams for gram in row}
        count = {gram: [row.count(gram) for row in grams] for gram in everything}
        precision, chances, right, possible = 0.0, 0, 0, 0
        deleted_well, deleted = 0.0, 0
        for s, a, g in count.values():
            if min(s, a):
                chances += 1
                precision += min(s, a, g) / min(s, a)
            right += min(s, a, g)
            possible += min(s, g)
            if s > a:
                deleted += 1
                deleted_well += max(0, s - a - g) / (s - a)
        total += f1(precision / chances if chances else 1, right / possible if possible else 1)
        total += deleted_well / deleted if deleted else 1
        added = [gram for gram, (s, a, _) in count.items() if a and not s]
        wanted = [gram for gram, (s, _, g) in count.items() if g and not s]
        hit = len(set(added) & set(wanted))
        total += f1(hit / len(added) if added else 1, hit / len(wanted) if wanted else 1)
    return total / 12


def f1(p: float, r: float) -> float:
    return 2 * p * r / (p + r) if p + r else 0.0


def test_sari() -> None:
    for source, answer, gold in texts():
        assert sari(source, answer, gold) == pytest.approx(reference_sari(source, answer, gold), abs=1e-12)


def test_sari_by_hand() -> None:
    # One word is kept, one rightly added; of two deleted one was to stay. Orders 3 and 4 have none in the
    # answer: nothing deleted wrongly but the source's own.
    source, answer, gold = "a b c", "a d", "a b d"
    unigrams = (f1(1, 1 / 2) + 1 / 2 + f1(1, 1)) / 3
    bigrams = (f1(1, 0) + 1 / 2 + f1(0, 0)) / 3  # kept none of "a b"; deleted "a b" and "b c"; added "a d"
    trigrams = (f1(1, 1) + 1 + f1(1, 0)) / 3  # deleted "a b c" rightly; to add was "a b d"
    assert sari(source, answer, gold) == pytest.approx((unigrams + bigrams + trigrams + 1) / 4)
    assert sari("same text here now", "same text here now", "same text here now") == 1.0


def test_tokens_are_those_of_mteval() -> None:
    cut = Tokenizer13a()
    marks = [
        "a-\nb\nc <skipped> &quot;x&quot; 3.14, 1-2 U.S.A. end. [a]{b}~`^_@#$%*+=|\\/<>;:!?'s it's",
        ".5 5. ,a a, 1,5 - -- 5-a \t x\u00a0y",
        *(text for three in texts() for text in three),
    ]
    for text in marks:
        assert tokens_13a(text) == cut(text).split()


def test_a_whole_split_is_the_mean_and_resampling_sees_every_example() -> None:
    rows = [row for row in texts() if row[0] and row[2]][:20]
    gold = [(source, reference) for source, _, reference in rows]
    answers = [answer for _, answer, _ in rows]
    each = [sari(source, answer, reference) for source, answer, reference in rows]
    assert measure("sari", gold, answers).value == pytest.approx(np.mean(each))
    stacked = METRICS["sari"].terms(gold, [answers, answers[::-1]])
    assert stacked.shape == (2, 1, 20)
    assert stacked[0, 0] == pytest.approx(each)
