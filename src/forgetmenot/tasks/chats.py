"""Conversations of a user's own: turns, the tools that they may call, and which of them are learned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from forgetmenot.tasks.rows import BadRowError, cell
from forgetmenot.tasks.tables import Row
from forgetmenot.tasks.task import Example

ROLES = ("system", "user", "assistant", "tool")
TOOLS = "tools"

SHARE_GPT = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "observation": "tool",
    "tool": "tool",
}
"""The roles of ShareGPT's turns, {"from": …, "value": …}, under our names."""


def conversation(row: Row, column: str) -> dict[str, Any]:
    """Read a chat: its turns under "messages" and, where the row has any, the tools under "tools".

    A turn is {"role": …, "content": …}, or as in ShareGPT's files {"from": …, "value": …}. What stands behind
    the assistant's last turn is left out: nothing answers it.
    """
    found: dict[str, Any] = {"messages": _answered(turns_in(row, column), column)}
    if column != TOOLS and row.get(TOOLS) is not None:
        tools = _parsed(row[TOOLS], TOOLS)
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise BadRowError(f"{TOOLS!r} must be a list of tools, each with its name and parameters.")
        found |= {TOOLS: [_filled(tool) for tool in tools]} if tools else {}
    return found


def every_answer(examples: Sequence[Example]) -> list[Example]:
    """An example for each assistant turn of each chat: what stands before it, and it.

    They begin alike, which the engine computes once; together they learn all that the assistant says, each
    turn behind the very text that the model is asked with.
    """
    found = []
    for example in examples:
        turns = example.fields["messages"]
        places = [k for k, turn in enumerate(turns) if turn["role"] == "assistant" and k > 0]
        for k in places:
            id = example.id if k == places[-1] else f"{example.id}-turn-{k + 1}"
            fields = {**example.fields, "messages": turns[: k + 1]}
            found.append(replace(example, id=id, fields=fields, target=turns[k]["content"]))
    return found


def turns_in(row: Row, column: str) -> list[dict[str, Any]]:
    """Read a list of turns, or that list as JSON in a cell of text.

    Raises:
        BadRowError: It is no such list.
    """
    value = _parsed(cell(row, column), column)
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise BadRowError(f"{column!r} must be a list of turns such as {{'role': 'user', 'content': '…'}}.")
    turns = [_renamed(_filled(turn)) for turn in value]
    for number, turn in enumerate(turns, 1):
        if turn.get("tool_calls"):
            turn["tool_calls"] = _calls(turn["tool_calls"], f"'tool_calls' of turn {number} of {column!r}")
        if not turn.get("tool_calls"):
            turn.pop("tool_calls", None)
        elif turn.get("role") == "assistant":
            turn.setdefault("content", "")  # a call alone says nothing
        if turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            raise BadRowError(
                f"turn {number} of {column!r} needs a role ({', '.join(ROLES)}) and a content of text."
            )
    return turns


def _calls(value: Any, what: str) -> list[dict[str, Any]]:
    """Calls of tools, or that list as JSON, with their arguments as objects.

    In OpenAI's form these are JSON text; Transformers' chat templates write them as JSON themselves.
    """
    calls = _filled(json.loads(value)) if isinstance(value, str) and _is_json(value) else value
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise BadRowError(
            f"{what} must be a list of calls such as {{'function': {{'name': …, 'arguments': …}}}}."
        )
    for call in calls:
        function = call.get("function", call)
        if isinstance(function, dict) and isinstance(text := function.get("arguments"), str):
            if not _is_json(text):
                raise BadRowError(f"{what}: the arguments {text[:40]!r} are not JSON.")
            function["arguments"] = json.loads(text)
    return calls


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _answered(turns: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """The turns up to the assistant's last one."""
    answered = [k for k, turn in enumerate(turns) if turn["role"] == "assistant" and k > 0]
    if not answered:
        raise BadRowError(f"{column!r} needs a turn of the assistant's after at least one other.")
    return turns[: answered[-1] + 1]


def _renamed(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn of ShareGPT's files with our names; any other as it is."""
    if "from" not in turn or "role" in turn:
        return turn
    others = {key: value for key, value in turn.items() if key not in ("from", "value")}
    speaker = turn["from"]
    role = SHARE_GPT.get(speaker, speaker) if isinstance(speaker, str) else None
    return {"role": role, "content": turn.get("value"), **others}


def _parsed(value: Any, column: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as problem:
        raise BadRowError(f"{column!r} is not JSON ({problem.msg}).") from None


def _filled(value: Any) -> Any:
    """Without nulls, however deep: tables with columns of one kind put them where a key is not given."""
    if isinstance(value, Mapping):
        return {key: _filled(part) for key, part in value.items() if part is not None}
    return [_filled(part) for part in value] if isinstance(value, list) else value
