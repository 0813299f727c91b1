"""The format of solved examples, letter by letter, and its controls."""

from dataclasses import replace

import pytest

from forgetmenot.prompting.solved_examples import CONTROLS, ExampleFormat, up_to_cue
from forgetmenot.tasks import Example

PAIR = ExampleFormat(("premise", "hypothesis"), {"in": "yes", "out": "no"})
ONE = Example("train-1", {"premise": "It rains.", "hypothesis": "It is wet."}, "in")
OTHER = Example("train-2", {"premise": "It snows.", "hypothesis": "It is hot."}, "out")
ASKED = Example("score-1", {"premise": "He ran.", "hypothesis": "He moved."}, "in")
SOLUTION = """Solution:
Premise Solution: He ran.
Hypothesis Solution: He moved.
Options Solution: yes, no
Answer Solution:"""
GOLD = f"""Example 1:
Premise 1: It rains.
Hypothesis 1: It is wet.
Options 1: yes, no
Answer 1: yes

Example 2:
Premise 2: It snows.
Hypothesis 2: It is hot.
Options 2: yes, no
Answer 2: no

{SOLUTION}"""


def with_control(name: str) -> str:
    return CONTROLS[name](PAIR).in_context([ONE, OTHER], ASKED)


def test_gold_examples_are_numbered_and_the_solution_is_asked() -> None:
    assert PAIR.in_context([ONE, OTHER], ASKED) == GOLD


def test_a_samplegen_model_learns_examples_then_its_answer_then_the_end() -> None:
    assert PAIR.learned([ONE, OTHER], ASKED) == f"{GOLD} yes\nEND_EXAMPLES"


def test_unified_names_say_nothing_of_the_task() -> None:
    lines = with_control("unified").split("\n")
    assert lines[:5] == [
        "Example 1:",
        "Input 1: It rains.",
        "Input 2: It is wet.",
        "Input 3: yes, no",
        "Answer 1: yes",
    ]
    assert lines[-5:] == [
        "Solution:",
        "Input 1: He ran.",
        "Input 2: He moved.",
        "Input 3: yes, no",
        "Answer Solution:",
    ]


def test_corrupted_examples_say_nothing_and_the_question_all() -> None:
    said = with_control("corrupted")
    assert said.startswith(
        "Example 1:\nPremise 1: (blank)\nHypothesis 1: (blank)\nOptions 1: (blank)\nAnswer 1: (blank)\n\n"
    )
    assert said.endswith(f"\n\n{SOLUTION}")
    assert "rains" not in said


def test_unanswered_examples_lack_their_answers_alone() -> None:
    assert with_control("unanswered") == GOLD.replace("Answer 1: yes", "Answer 1:").replace(
        "Answer 2: no", "Answer 2:"
    )


def test_a_verbose_prompt_asks_the_same_in_more_words() -> None:
    said = with_control("verbose")
    examples, question = said.split("Solution:\n", 1)
    assert examples == GOLD.split("Solution:\n")[0]
    assert "He ran. He moved." in question
    assert "yes, no" in question
    assert question.endswith("\nAnswer Solution:")
    assert len(question) > 2 * len(SOLUTION)


def test_irrelevant_examples_are_written_as_those_of_their_task() -> None:
    other = ExampleFormat(("sentence",), {"good": "good", "bad": "bad"})
    shown = Example("train-9", {"sentence": "What fun."}, "good")
    assert CONTROLS["irrelevant"](PAIR) == PAIR
    assert PAIR.in_context([shown], ASKED, other) == (
        f"Example 1:\nSentence 1: What fun.\nOptions 1: good, bad\nAnswer 1: good\n\n{SOLUTION}"
    )


def test_each_control_changes_one_thing() -> None:
    changed = {
        name: [
            key
            for key in ("unified", "answered", "blank", "wordy")
            if getattr(made, key) != getattr(PAIR, key)
        ]
        for name, made in ((name, control(PAIR)) for name, control in CONTROLS.items())
    }
    assert changed == {
        "unified": ["unified"],
        "corrupted": ["blank"],
        "unanswered": ["answered"],
        "irrelevant": [],
        "verbose": ["wordy"],
    }
    # and none of them leaves a trace in the format that it was made from
    assert replace(PAIR).in_context([ONE, OTHER], ASKED) == GOLD


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (
            "\nExample 1: x\nAnswer 1: y\nAnswer Solution: yes\nEND",
            "Example 1: x\nAnswer 1: y\nAnswer Solution:",
        ),
        ("Example 1: x ", "Example 1: x\nAnswer Solution:"),
        ("a Answer Solution: b Answer Solution: c", "a\nAnswer Solution:"),
        ("", "\nAnswer Solution:"),
    ],
)
def test_what_was_written_is_cut_at_the_first_answer(written: str, kept: str) -> None:
    assert up_to_cue(written) == kept
