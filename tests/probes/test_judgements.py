"""Judgements: how a reply is read, what two of them mean, and that nothing judged is asked twice."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from forgetmenot.errors import UserError
from forgetmenot.probes.shared.judged import outcome
from forgetmenot.probes.shared.judgements import Judgement, Judgements, PairComparison, read_judgement
from forgetmenot.synthesis.endpoint import Messages


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A is more helpful. [[A]]", "A"),
        ("My verdict: [[B]]\n", "B"),
        ("[[C]]", "C"),
        ("Not [[A]]; on reflection it is [[A]].", "A"),
        ("[[A]] or [[B]]", None),
        ("[A]", None),
        ("[[D]]", None),
        ("[[a]]", None),
        ("", None),
    ],
)
def test_a_reply_has_one_verdict_or_none(reply: str, verdict: Judgement | None) -> None:
    assert read_judgement(reply) == verdict


def test_an_answer_wins_where_both_orders_say_so() -> None:
    assert outcome("A", "B") == "win"
    assert outcome("B", "A") == "loss"
    for forward, swapped in (("A", "A"), ("B", "B"), ("C", "C"), ("A", "C"), ("C", "B")):
        assert outcome(forward, swapped) == "tie"  # type: ignore[arg-type]
    assert outcome(None, "B") == outcome("A", None) == outcome(None, None) == "unparsable"


class Counting:
    """A judge that prefers the longer answer, counts what it is asked, and breaks down after `patience`."""

    name = "counting"

    def __init__(self, patience: int = 1000) -> None:
        self.asked: list[str] = []
        self.patience = patience

    def complete_all(self, conversations: Sequence[Messages]) -> Iterator[tuple[int, str]]:
        for k, messages in enumerate(conversations):
            if len(self.asked) == self.patience:
                raise UserError("no more today")
            self.asked.append(messages[-1]["content"])
            _, first, second = _answers(messages)
            yield (
                k,
                "[[A]]" if len(first) > len(second) else "[[B]]" if len(second) > len(first) else "unsure",
            )


def _answers(messages: Messages) -> tuple[str, str, str]:
    head, _, rest = messages[-1]["content"].partition("[Answer of assistant A]\n")
    first, _, rest = rest.partition("\n[End of A]\n\n[Answer of assistant B]\n")
    return head, first, rest.removesuffix("\n[End of B]")


def comparisons(*pairs: tuple[str, str]) -> list[PairComparison]:
    return [PairComparison("Longer is better.", "Write.", *pair) for pair in pairs]


def test_nothing_judged_is_asked_twice_also_after_a_restart(tmp_path: Path) -> None:
    path, judge = tmp_path / "probe" / "verdicts.jsonl", Counting()
    asked = comparisons(("long one", "short"), ("short", "long one"), ("same", "size"), ("long one", "short"))
    assert Judgements(path).of(judge, asked) == ["A", "B", None, "A"]
    assert len(judge.asked) == 3
    again = Counting()
    assert Judgements(path).of(again, asked) == ["A", "B", None, "A"]
    assert again.asked == []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["reply"] for row in rows] == ["[[A]]", "[[B]]", "unsure"]


def test_what_was_judged_before_a_breakdown_is_kept(tmp_path: Path) -> None:
    path, asked = tmp_path / "verdicts.jsonl", comparisons(("aa", "b"), ("a", "bb"), ("aaa", "b"))
    with pytest.raises(UserError, match="no more today"):
        Judgements(path).of(Counting(patience=2), asked)
    with path.open("a") as stream:
        stream.write('{"key": "cut short by a k')
    judge = Counting()
    assert Judgements(path).of(judge, asked) == ["A", "B", "A"]
    assert len(judge.asked) == 1
    assert Judgements(path).of(Counting(patience=0), asked) == ["A", "B", "A"]


def test_a_verdict_depends_on_the_judge_and_on_all_that_it_was_shown(tmp_path: Path) -> None:
    one = PairComparison("Be kind.", "Write.", "a", "b")
    others = [
        PairComparison("Be brief.", "Write.", "a", "b"),
        PairComparison("Be kind.", "Read.", "a", "b"),
        PairComparison("Be kind.", "Write.", "b", "a"),
    ]
    keys = {one.key("judge"), one.key("another"), *(other.key("judge") for other in others)}
    assert len(keys) == 5
    assert PairComparison("Be kind.", "Write.", "a", "b").key("judge") == one.key("judge")
