"""Filters, self-consistency and balancing, each on cases made by hand."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from forgetmenot.errors import UserError
from forgetmenot.prompting import Prompt
from forgetmenot.synthesis.balance import balanced
from forgetmenot.synthesis.consistency import most_consistent
from forgetmenot.synthesis.filters import EMPTY, NOISE, WINDOW, Window, why_dropped, window_of
from forgetmenot.synthesis.settings import (
    PIPELINE_NOISE,
    QUICK_START_NOISE,
    VARIANTS,
    SynthesisSettings,
    synthesis_settings,
)
from forgetmenot.synthesis.subject import cleaned
from forgetmenot.synthesis.written_form import input_fields, read_input, write_input
from forgetmenot.tasks import Example


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A good film.", None),
        ("", EMPTY),
        (" \n ", EMPTY),
        ("\u200b\ufeff \u2060", EMPTY),  # nothing of it is seen
        ("\u200bgood", None),
        ("Of course! A good film.", NOISE),
        ("I find, of course! it good", None),  # the list is read letter by letter
        ("A film.\n\nAnother film.", NOISE),
        ("A film.\n\n", NOISE),  # as it was written, blanks around it included
        ("The output of the film", NOISE),
        ("It is good, therefore I liked it.", NOISE),
        ("a line\\_\\_with marks", NOISE),
    ],
)
def test_noise_and_emptiness(text: str, reason: str | None) -> None:
    assert why_dropped(text, PIPELINE_NOISE, None) == reason


def test_the_quick_start_does_not_mind_therefore() -> None:
    assert why_dropped("It is good, therefore I liked it.", QUICK_START_NOISE, None) is None


def test_the_window_is_the_mean_and_two_deviations_of_all_texts() -> None:
    # lengths 4, 6, 8: mean 6, deviation sqrt(8/3) = 1.633 (divided by n), so 2.73 to 9.27
    window = window_of(["a" * 4, "a" * 6, "a" * 8])
    assert window == Window(2, 9)
    assert [length for length in range(12) if length in window] == [2, 3, 4, 5, 6, 7, 8]
    assert why_dropped(" aa ", (), window) is None  # blanks around it are no part of its length
    assert [why_dropped("a" * n, (), window) for n in (1, 2, 8, 9)] == [WINDOW, None, None, WINDOW]
    assert why_dropped("Of course! It is", PIPELINE_NOISE, window) == WINDOW  # which comes before the noise


def test_a_window_of_equally_long_texts_is_empty() -> None:
    assert window_of(["entails", "entails", "neutral"]).is_empty
    assert not window_of(["a" * 3, "a" * 5]).is_empty


@pytest.mark.parametrize(
    ("outputs", "least", "answer"),
    [
        (["a", "b", "a"], 0.3, "a"),
        (["long", "b", "long", "b"], 0.3, "b"),  # as frequent: the shorter
        (["aa", "bb", "bb", "aa"], 0.3, "aa"),  # as long: the first
        (["a", "b", "c", "d"], 0.3, None),
        (["a", "b", "c", "d"], 0.25, "a"),  # reached is enough
        ([], 0.0, None),
    ],
)
def test_the_most_frequent_output_is_the_answer(outputs: list[str], least: float, answer: str | None) -> None:
    assert most_consistent(outputs, least) == answer


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(0, 99))
def test_balancing_keeps_of_each_label_as_many_as_the_rarest(labels: list[str], seed: int) -> None:
    kept = balanced(labels, seed)
    counts = Counter(labels)
    assert kept == sorted(set(kept))
    assert Counter(labels[k] for k in kept) == dict.fromkeys(counts, min(counts.values(), default=0))
    assert balanced(labels, seed) == kept


def test_which_rows_are_spared_depends_on_the_seed() -> None:
    labels = ["a"] * 50 + ["b"]
    assert len({tuple(balanced(labels, seed)) for seed in range(20)}) > 5


PAIR = Prompt("default", "Does {{ premise }} entail {{ hypothesis }}?")
LINE = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).map(str.strip)


def test_fields_stand_in_the_order_of_the_template() -> None:
    assert input_fields(PAIR) == ("premise", "hypothesis")
    assert input_fields(Prompt("x", "{{ hypothesis }} {{ premise }}")) == ("hypothesis", "premise")


@given(LINE.filter(bool), LINE.filter(bool))
def test_several_fields_are_read_as_they_are_written(premise: str, hypothesis: str) -> None:
    fields = {"premise": premise, "hypothesis": hypothesis}
    text = write_input(Example("x", fields), ("premise", "hypothesis"))
    assert text == f"premise: {premise}\nhypothesis: {hypothesis}"
    assert read_input(text, ("premise", "hypothesis")) == fields


@pytest.mark.parametrize(
    "text",
    ["A man sleeps.", "premise: a", "hypothesis: b\npremise: a", "premise:\nhypothesis: b", "premise: a b:"],
)
def test_what_lacks_a_field_is_not_read(text: str) -> None:
    assert read_input(text, ("premise", "hypothesis")) is None


def test_a_value_may_have_several_lines() -> None:
    found = read_input("premise: a\nb\n hypothesis : c", ("premise", "hypothesis"))
    assert found == {"premise": "a\nb", "hypothesis": "c"}


def test_inputs_are_text() -> None:
    with pytest.raises(UserError, match="'x' has 3 in the field 'premise'"):
        write_input(Example("x", {"premise": 3}), ("premise",))


@pytest.mark.parametrize(
    ("chat", "written", "text"),
    [
        (False, 'A film."\n\n[input]="Another', "A film."),
        (False, 'A "film" it is."', 'A "film" it is.'),
        (False, "A film.", "A film."),
        (True, '[input]="A film."', "A film."),
        (True, '"A film."\nIt is new.', "A film."),
        (True, 'A "film"', 'A "film"'),
        (True, "\n\nA film.\n\n", "A film.\n\n"),  # it went on: a filter looks for that
    ],
)
def test_the_marks_of_a_request_are_no_part_of_an_input(chat: bool, written: str, text: str) -> None:
    assert cleaned(written, chat=chat) == text


def test_variants_are_the_official_scripts() -> None:
    choice, answer = (SynthesisSettings().of(kind) for kind in ("choice", "answer"))
    assert (choice.temperature, choice.input_window, choice.output_window) == (0.7, True, False)
    assert (answer.temperature, answer.input_window, answer.output_window) == (0.9, False, True)
    assert (choice.rounds, choice.per_round, choice.top_k, choice.max_input_tokens) == (40, 10, 40, 500)
    assert (choice.outputs, choice.best_of, choice.output_top_k, choice.output_temperature) == (
        10,
        20,
        10,
        0.2,
    )
    assert (choice.min_frequency, choice.context_tokens, choice.max_output_tokens) == (0.3, 3000, 500)
    quick = SynthesisSettings(variant="quick-start").of("choice")
    assert (quick.input_window, quick.output_window, quick.min_frequency) == (False, True, 0.2)
    assert SynthesisSettings(variant="search").of("answer").input_window is True
    assert SynthesisSettings(input_window=False, noise=()).of("choice").noise == ()


def test_settings_name_their_mistakes() -> None:
    with pytest.raises(UserError, match="temperatur"):
        synthesis_settings({"temperatur": 1})
    with pytest.raises(UserError, match="best_of: 5 outputs are drawn, and 10"):
        synthesis_settings({"best_of": 5})
    with pytest.raises(ValidationError, match="best_of: 5 outputs are drawn"):  # of self-guide-replay too
        SynthesisSettings(best_of=5)


def test_the_docs_have_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "synthesis.md").read_text(encoding="utf-8")
    table = page.split("\n## Settings\n")[1].split("### What is ours")[0]
    assert {key for key in SynthesisSettings.model_fields if f"`{key}`" not in table} == set()
    assert {name for name in VARIANTS if f"| `{name}` |" not in table} == set()
