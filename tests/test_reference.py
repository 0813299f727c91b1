"""What `fmn list` says of each thing that there is."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter

import forgetmenot
from forgetmenot.errors import UserError
from forgetmenot.metrics import known_metrics
from forgetmenot.reference import KINDS, known
from forgetmenot.report.setting_words import type_in_words
from forgetmenot.settings import Names, PositiveInt, Settings


class Inner(Settings):
    """A section."""

    key: int = 1
    """A number."""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (bool, "`true` or `false`"),
        (Annotated[int, Field(ge=2)], "a whole number from 2 on"),
        (Annotated[float, Field(gt=0, le=1)], "a number above 0 and at most 1"),
        (Annotated[float, Field(ge=0, lt=1)], "a number from 0 to below 1"),
        (Literal["a", "b", 3], "`a`, `b` or `3`"),
        (int | Literal["auto"] | None, "a whole number, `auto` or `null`"),
        (dict[str, int], "a map to whole numbers"),
        (dict[str, Any], "a map"),
        (Names, "a name or a list of names"),
        (str | Inner, "a name or a section of keys"),
        (tuple[Inner, ...], "a list of sections of keys"),
        (list[int | str], "a list of whole numbers or texts"),
        (Annotated[str, Field(examples=["x", "y"])], "`x`, `y` or the name of another"),
    ],
)
def test_a_type_is_said_in_words(kind: Any, words: str) -> None:
    schema = TypeAdapter(kind).json_schema()
    schema.pop("$defs", None)
    assert type_in_words(schema) == words


def test_a_bound_that_no_one_meets_is_not_said() -> None:
    class Count(Settings):
        """Numbers."""

        many: PositiveInt = 1
        """How many."""

    from forgetmenot.report.setting_words import settings_of

    assert [(one.type, one.default, one.text) for one in settings_of(Count)] == [
        ("a whole number above 0", "1", "How many.")
    ]


def test_settings_are_chosen_by_what_they_begin_with() -> None:
    found = known("settings", "training.l").entries
    assert [one.name for one in found] == [
        "training.learning_rate",
        "training.loss_average",
        "training.limit",
    ]
    assert found[0].about == "a number above 0 or `auto`; default auto"
    assert [one.name for one in known("settings", "grid").entries] == ["grid (of a study)"]
    with pytest.raises(UserError, match=r"Did you mean 'training\.save_every'"):
        known("settings", "save_every")


def test_a_method_is_told_with_its_papers_options_and_needs() -> None:
    found = known("methods", "o-lora")
    assert "arXiv 2310.14152" in found.text
    assert "Adapter: kind lora; per_stage new" in found.text
    assert [one.name for one in found.entries] == ["strength"]
    assert known("methods", "sequential").entries == ()
    assert "\n\n    L(θ) + λ/2 · Σᵢ Σₖ Fᵢₖ (θₖ − θᵢₖ)²\n\n" in known("methods", "ewc").text


def test_an_item_of_a_list_is_one_line_which_the_screen_breaks() -> None:
    text = known("methods", "ssr").text
    assert "\n2. the inputs are clustered by their embeddings" in text
    assert "in proportion to its size, those nearest to its centre are kept;\n\nand before" in text
    assert "\n- An input is read by" in text


def test_a_probe_is_told_with_its_options() -> None:
    found = known("probes", "drift")
    assert "arXiv 1706.04599" in found.text
    assert [one.name for one in found.entries] == ["tasks", "limit"]


def test_metrics_are_told_with_title_unit_and_test() -> None:
    entries = known("metrics").entries
    assert [one.name for one in entries] == list(known_metrics())
    assert entries[0].about == "Accuracy; share of examples; exact McNemar"
    found = known("metrics", "sari").text
    assert "Formula: mean over examples" in found
    assert "Chance level: none." in found


@pytest.mark.parametrize("what", KINDS)
def test_what_is_unknown_is_named_in_one_sentence_with_the_nearest(what: str) -> None:
    nearby = known(what).entries[0].name
    with pytest.raises(UserError, match=rf"list {what}: .* Did you mean '{nearby}'") as error:
        known(what, f"{nearby}x")
    assert "\n" not in str(error.value)


def test_python_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    forgetmenot.known("methods", "ewc").print()
    assert "strength: a number from 0 on; default 1000" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no list of 'metods'\. Did you mean 'methods'"):
        forgetmenot.known("metods")
