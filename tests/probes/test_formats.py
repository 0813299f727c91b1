"""Which answers a program could read: tables of written answers, and a schema check against jsonschema's."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.engine.learner import Learner
from forgetmenot.probes.shared.formats import (
    ask_for_call,
    ask_for_json,
    calls_in,
    fits,
    is_call,
    json_in,
    json_requests,
    tool_requests,
)
from forgetmenot.prompting.tokens import Tokens

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize(
    ("text", "whole", "wanted"),
    [
        ('{"a": 1}', True, {"a": 1}),
        ('\n {"a": 1}\n', True, {"a": 1}),
        ('```json\n{"a": 1}\n```', True, {"a": 1}),
        ('```\n{"a": 1}\n```\n', True, {"a": 1}),
        ('{"a": 1}\n\nNext: {"b": 2}', False, {"a": 1}),
        ('```json\n{"a": 1}\n```\nHere you are.', False, {"a": 1}),
        ("[1, 2]", True, [1, 2]),
    ],
)
def test_json_is_read(text: str, whole: bool, wanted: Any) -> None:
    assert json_in(text, whole=whole) == wanted


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", True),
        ("Sure!", True),
        ('Sure! {"a": 1}', True),
        ('Sure! {"a": 1}', False),
        ('{"a": 1} That is it.', True),
        ('{"a": 1}```', True),
        ('```json\n{"a": 1}', True),
        ("{'a': 1}", True),
        ('{"a": 1', False),
        ('{"a": NaN}', True),
        ('{"a": Infinity}', False),
        ("[" * 100_000, True),
        ("[" * 100_000, False),
    ],
)
def test_what_is_no_json_is_refused(text: str, whole: bool) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_in(text, whole=whole)


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ('{"name": "get_weather", "arguments": {"city": "Rome"}}', "get_weather", {"city": "Rome"}),
        ('{"name": "get_weather", "parameters": {"city": "Rome"}}', "get_weather", {"city": "Rome"}),
        (
            'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>',
            "get_weather",
            {"city": "Rome"},
        ),
        (
            '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Rome"}}]',
            "get_weather",
            {"city": "Rome"},
        ),
        (
            '{"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\\"a\\": 1}"}}]}',
            "f",
            {"a": 1},
        ),
        ('{"name": "f", "arguments": "a=1"}', "f", "a=1"),
        ('{"note": 1} {oops} {"name": "f", "arguments": {}}', "f", {}),
    ],
)
def test_a_call_is_read_in_what_templates_write_around_it(text: str, name: str, arguments: Any) -> None:
    assert calls_in(text) == [(name, arguments)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is warm.",
        '{"name": "f"}',
        '{"arguments": {"city": "Rome"}}',
        'get_weather(city="Rome")',
        "[" * 5000,
        '{"name": 3, "arguments": {}}',
    ],
)
def test_what_is_no_call_is_none(text: str) -> None:
    assert calls_in(text) == []
    assert not is_call(calls_in(text), [WEATHER])


@pytest.mark.parametrize(
    ("calls", "valid"),
    [
        ([("get_weather", {"city": "Rome"})], True),
        ([("get_weather", {"city": "Rome", "days": 3, "unit": "celsius"})], True),
        ([("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Oslo"})], True),
        ([], False),
        ([("weather", {"city": "Rome"})], False),
        ([("get_weather", {})], False),
        ([("get_weather", {"city": 3})], False),
        ([("get_weather", {"city": "Rome", "days": "3"})], False),
        ([("get_weather", {"city": "Rome", "unit": "kelvin"})], False),
        ([("get_weather", {"city": "Rome", "country": "Italy"})], False),
        ([("get_weather", "Rome")], False),
        ([("get_weather", {"city": "Rome"}), ("weather", {})], False),
    ],
)
def test_a_call_must_name_a_tool_with_arguments_that_fit(calls: list[tuple[str, Any]], valid: bool) -> None:
    assert is_call(calls, [WEATHER]) is valid


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-3, 3),
    st.sampled_from(["a", "b", "x"]),
    st.just(2.0),
    st.none(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
LEAVES = st.sampled_from(
    [
        {},
        *({"type": one} for one in ("string", "integer", "number", "boolean")),
        {"type": "string", "enum": ["a", "b"]},
    ]
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.lists(st.sampled_from("abc"), unique=True, max_size=2)
    closed: st.SearchStrategy[Any] = st.just({"additionalProperties": False}) | st.just({})
    return st.builds(
        lambda properties, required, closed: {
            "type": "object",
            "properties": properties,
            "required": required,
            **closed,
        },
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        names,
        closed,
    )


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.builds(lambda one: {"type": "array", "items": one}, inner) | _objects(inner),
    max_leaves=4,
)


@given(VALUES, SCHEMAS)
def test_a_value_fits_where_jsonschema_says_so(value: Any, schema: Any) -> None:
    assert fits(value, schema) is jsonschema.Draft202012Validator(schema).is_valid(value)


def test_the_bundled_requests_are_sound_and_describe_what_is_checked() -> None:
    requests, tools = json_requests(), tool_requests()
    assert (len(requests), len(tools)) == (20, 12)
    assert len({one["prompt"] for one in (*requests, *tools)}) == 32
    for one in requests:
        jsonschema.Draft202012Validator.check_schema(one["schema"])
        assert all(f'"{name}"' in one["prompt"] for name in one["schema"]["properties"])
        assert not fits({}, one["schema"])
    for one in tools:
        for tool in one["tools"]:
            assert tool["type"] == "function"
            jsonschema.Draft202012Validator.check_schema(tool["function"]["parameters"])
            assert not fits({}, tool["function"]["parameters"])
            assert tool["function"]["parameters"]["additionalProperties"] is False


CHAT_WITH_TOOLS = (
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}<|end|>{% endfor %}<|assistant|>"
)
REFUSES = "{% if tools %}{{ raise_exception('no tools') }}{% endif %}" + CHAT_WITH_TOOLS


@pytest.mark.parametrize(
    ("template", "native", "begins"),
    [
        (CHAT_WITH_TOOLS, True, '<|system|>[{"'),
        (REFUSES, False, "<|user|>You can call one of these tools:"),
        ("as it is", False, "<|user|>You can call one of these tools:"),
        (None, False, "You can call one of these tools:"),
    ],
)
def test_tools_stand_in_the_template_or_in_words(
    template: str | None, native: bool, begins: str, learner: Learner
) -> None:
    tokenizer = learner.tokenizer
    if template != "as it is":
        tokenizer.chat_template = template
    request = tool_requests()[1]
    ids, by_template = ask_for_call(Tokens(tokenizer), request)
    text = tokenizer.decode(ids)
    assert by_template is native
    assert text.startswith(begins)
    assert request["prompt"] in text
    assert all(tool["function"]["name"] in text for tool in request["tools"])
    assert text.endswith("\n\nCall:" if template is None else "<|assistant|>")
    assert json.dumps(request["tools"][0]["function"]["parameters"]) in text or native


def test_json_is_asked_for_in_the_template_or_plainly(learner: Learner) -> None:
    request = json_requests()[0]
    text = learner.tokenizer.decode(ask_for_json(Tokens(learner.tokenizer), request))
    assert text == f"<|user|>{request['prompt']}<|end|><|assistant|>"
    learner.tokenizer.chat_template = None
    text = learner.tokenizer.decode(ask_for_json(Tokens(learner.tokenizer), request))
    assert text == f"{request['prompt']}\n\nJSON:"
