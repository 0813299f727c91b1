"""Answers that a program has to read: requests for JSON and for the call of a tool, and what counts as valid.

The requests are our own, bundled as `probes/formats/*.jsonl`. What is checked is the form alone: whether a
program could go on with the answer, not whether it is true.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.prompting.tokens import Ids, Tokens

VERSION = 1
"""Raised whenever the requests or the rules change, so that numbers of two versions are not compared."""

TOOLS_IN_WORDS = (
    "You can call one of these tools:\n{tools}\n"
    'Answer with one JSON object, {{"name": the name of a tool, "arguments": an object}}, and nothing else.'
    "\n\n{prompt}"
)
"""How tools are offered to a model whose chat template does not know them."""

KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
}

Schema = Mapping[str, Any]


def json_requests() -> list[dict[str, Any]]:
    """The requests for JSON: each with a `prompt`, and the `schema` that it describes in words."""
    return _read("json")


def tool_requests() -> list[dict[str, Any]]:
    """The requests that need a tool: each with a `prompt` and `tools`, as OpenAI's API takes them."""
    return _read("tools")


def ask_for_json(tokens: Tokens, request: Mapping[str, Any]) -> Ids:
    """The tokens of a request for JSON, in the chat template of a model that has one."""
    if not tokens.has_chat_template:
        return tokens.plain([f"{request['prompt']}\n\nJSON:"])[0]
    return tokens.chat([tokens.conversation([_user(request["prompt"])], reply=True)])[0]


def ask_for_call(tokens: Tokens, request: Mapping[str, Any]) -> tuple[Ids, bool]:
    """The tokens of a request that offers tools, and whether the model's chat template wrote the tools.

    Where it has no place for them, or there is no template, they stand in the request's own words.
    """
    tools = request["tools"]
    if tokens.has_chat_template:
        try:
            text = tokens.conversation([_user(request["prompt"])], reply=True, tools=tools)
        except UserError:  # a template that refuses tools
            text = ""
        if all(name in text for name in _parameters(tools)):
            return tokens.chat([text])[0], True
    described = "\n".join(json.dumps(one["function"]) for one in tools)
    prompt = TOOLS_IN_WORDS.format(tools=described, prompt=request["prompt"])
    if not tokens.has_chat_template:
        return tokens.plain([f"{prompt}\n\nCall:"])[0], False
    return tokens.chat([tokens.conversation([_user(prompt)], reply=True)])[0], False


def json_in(text: str, *, whole: bool) -> Any:
    """The JSON value that an answer is, perhaps fenced as Markdown code; with `whole`, and nothing else.

    Without it, what follows the value is not read: a model without a chat template writes on.

    Raises:
        ValueError: There is none.
    """
    text = text.strip()
    opened = re.match(r"```\w*\s*", text)
    value, rest = _value_at(text, opened.end() if opened else 0)
    if whole and rest.strip() != ("```" if opened else ""):
        raise ValueError("there is more than the value")
    return value


def values_in(text: str) -> Iterator[Any]:
    """The JSON objects and lists anywhere in a text, those inside another one left out."""
    at = 0
    while begin := _OPENING.search(text, at):
        try:
            value, rest = _value_at(text, begin.start())
        except ValueError:
            at = begin.end()
        else:
            yield value
            at = len(text) - len(rest)


def calls_in(text: str) -> list[tuple[str, Any]]:
    """The name and the arguments of each call of a tool that an answer holds.

    A call is a JSON object with `name`, and `arguments` or (as Llama writes) `parameters`, alone or in a
    list, under `function` as on OpenAI's wire or not; arguments may be JSON in a text. Whatever stands around
    it is passed over: templates write calls between tags of their own. Forms that are no JSON are not read.
    """
    return [call for value in values_in(text) for call in _calls(value)]


def is_call(calls: Sequence[tuple[str, Any]], tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there are calls, and each names a given tool with arguments that fit its schema."""
    schemas = _parameters(tools)
    return bool(calls) and all(name in schemas and fits(given, schemas[name]) for name, given in calls)


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value fits a JSON Schema.

    Of the schema `type`, `enum`, `required`, `properties`, `items` and `additionalProperties: false` are
    read; the bundled requests use no more.
    """
    kind = schema.get("type")
    if kind is not None and not _is(value, kind):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return (
            all(name in value for name in schema.get("required", ()))
            and (schema.get("additionalProperties", True) or all(name in known for name in value))
            and all(fits(value[name], inner) for name, inner in known.items() if name in value)
        )
    return not isinstance(value, list) or all(fits(one, schema.get("items", {})) for one in value)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"  # which Python takes for a number
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()  # as JSON Schema: 3.0 is one
    return isinstance(value, KINDS[kind])


def _calls(value: Any) -> Iterator[tuple[str, Any]]:
    """The calls within a JSON value."""
    if isinstance(value, list):
        for one in value:
            yield from _calls(one)
    elif isinstance(value, dict):
        given = value.get("arguments", value.get("parameters"))
        if isinstance(value.get("name"), str) and given is not None:
            yield value["name"], _unpacked(given)
        for key in ("function", "tool_calls"):
            yield from _calls(value.get(key))


def _unpacked(arguments: Any) -> Any:
    """Arguments that may be JSON in a text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json_in(arguments, whole=True)
    except ValueError:
        return arguments


def _value_at(text: str, at: int) -> tuple[Any, str]:
    """The JSON value that begins at a place of a text, and what follows it.

    Raises:
        ValueError: There is none.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value, text[end:]


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_OPENING = re.compile(r"[\[{]")
_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _parameters(tools: Sequence[Mapping[str, Any]]) -> dict[str, Schema]:
    """The schema of each tool's arguments, by its name."""
    return {one["function"]["name"]: one["function"]["parameters"] for one in tools}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _read(name: str) -> list[dict[str, Any]]:
    text = (files("forgetmenot.probes") / "formats" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
