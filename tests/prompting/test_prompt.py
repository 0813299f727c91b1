import dataclasses
import hashlib

import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import Prompt

FIELDS = {"sentence": "a fine film", "n": 3}


def test_render_drops_one_newline_at_the_very_end_only() -> None:
    prompt = Prompt("default", "Review: {{ sentence }}\nSentiment:\n")
    assert prompt.render(FIELDS | {"sentence": "two lines\n"}) == "Review: two lines\n\nSentiment:"


def test_fields_are_what_the_template_reads_from_the_example() -> None:
    prompt = Prompt("default", "{% for i in range(n) %}{{ sentence }}{{ i }}{% endfor %}")
    assert prompt.fields == {"sentence", "n"}
    assert prompt.render(FIELDS | {"sentence": "x"}) == "x0x1x2"


def test_hash_is_stable_and_follows_the_content_not_the_name() -> None:
    prompt = Prompt("default", "{{ sentence }}", {"a": "x", "b": "y"})
    canonical = (
        '{"chat":false,"choices":{"a":"x","b":"y"},"end":"","separator":" ","system":null,'
        '"template":"{{ sentence }}","truncate":null}'
    )
    assert prompt.hash == hashlib.sha256(canonical.encode()).hexdigest()[:16]
    assert dataclasses.replace(prompt, name="other").hash == prompt.hash
    assert dataclasses.replace(prompt, choices={"b": "y", "a": "x"}).hash == prompt.hash
    changes: list[dict[str, object]] = [
        {"template": "{{ n }}"},
        {"choices": {"a": "x", "b": "z"}},
        {"separator": ""},
        {"chat": True},
        {"system": "Be brief."},
        {"truncate": ("sentence",)},
        {"end": "\n"},
    ]
    hashes = {dataclasses.replace(prompt, **change).hash for change in changes}  # type: ignore[arg-type]
    assert len(hashes | {prompt.hash}) == len(changes) + 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__ }}",
        "{{ sentence.__init__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ joiner.__init__.__globals__ }}",
        "{{ sentence.format_map({}).__class__ }}",
        "{{ '{0.__class__.__mro__}'.format(sentence) }}",
        "{{ items.append(1) }}",
    ],
)
def test_a_template_that_reaches_out_of_the_sandbox_is_refused(template: str) -> None:
    with pytest.raises(UserError, match=r"prompt 'sly': the template reaches out of its sandbox"):
        Prompt("sly", template).render(FIELDS | {"items": [1]})


@pytest.mark.parametrize("template", ["{{ lipsum() }}", "{{ [1, 2] | random }}"])
def test_a_template_has_no_chance(template: str) -> None:
    with pytest.raises(UserError, match=r"lipsum|random"):
        Prompt("dice", template).render(FIELDS)


def test_a_missing_field_is_named_beside_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"'sentense', which is not there. Did you mean 'sentence'\? Known: n, s"
    ):
        Prompt("default", "{{ sentense }}").render(FIELDS)


def test_a_syntax_error_is_named_with_its_line() -> None:
    with pytest.raises(UserError, match=r"prompt 'default': the template's line 2 "):
        Prompt("default", "one\n{% if %}")


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ n + sentence }}", "{{ range(10 ** 9) }}", "{% include 'x' %}"]
)
def test_a_template_that_fails_is_the_persons_error(template: str) -> None:
    with pytest.raises(UserError, match=r"prompt 'default': the template cannot be rendered"):
        Prompt("default", template).render(FIELDS)


@pytest.mark.parametrize(
    "template",
    ["{{ a }}", "{{ a ~ '!' }}", "{{ a | upper }}", "{{ [1, a] }}", "{{ [a] | join(',') }}", "{{ b.c }}"],
)
def test_a_field_that_is_null_is_never_written(template: str) -> None:
    with pytest.raises(UserError, match=r"the field '(a|b\.c)' is null.*default"):
        Prompt("p", template).render({"a": None, "b": {"c": None}})


def test_a_template_may_say_what_stands_for_null() -> None:
    fields = {"a": None, "b": [None, 1]}
    for template, text in (
        ("{{ a | default('nothing') }}", "nothing"),
        ("{{ a or 'nothing' }}", "nothing"),
        ("{% if a %}{{ a }}{% else %}nothing{% endif %}", "nothing"),
        ("{% if a is none %}nothing{% endif %}", "nothing"),
        ("{% if a == none and a is defined %}nothing{% endif %}", "nothing"),
        ("{{ b | tojson }}", "[null, 1]"),
    ):
        assert Prompt("p", template).render(fields) == text


def test_truth_is_written_as_people_type_it() -> None:
    assert Prompt("p", "{{ a }} {{ b }} {{ 3 }}").render({"a": True, "b": False}) == "true false 3"
