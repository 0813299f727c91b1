"""Conversations from a released chat model itself, as a task that `replay.sources` takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from forgetmenot.config import load_config
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.record.files import append_line, read_lines
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.opening import opened
from forgetmenot.synthesis.funnel import Step
from forgetmenot.synthesis.general import (
    Conversation,
    GeneralSettings,
    general_funnel,
    opening,
    write_conversations,
)
from forgetmenot.tasks.yaml_file import write_yaml
from forgetmenot.trials.synthesis_folder import CARD, CONTENT, TASK, check_same, withdraw
from forgetmenot.trials.synthesize import WrittenTask

NAME, KIND = "general", "messages"
"""What the task is called, and what it is made of."""
WRITTEN = "written.jsonl"
"""The log of what was written: another file than that of the draws for a task."""
CARD_TEXT = """\
# Conversations written by {model}

{rows:,} conversations of one turn in train.jsonl, both turns written by the model itself from its own chat
template (the way of Magpie, Xu et al. 2024, arXiv 2406.08464). No person has read them.

- Model: {model} ({model_revision}); seed {seed}; {settings}
- Dropped of {count:,}: {dropped}
- Use: as a source of rehearsal, so that tuning this model keeps how it answers:
  `fmn run --model {model} --tasks YOUR_TASK,{path} --method replay --set method.sources=general`
- Not for measuring: what the model cannot do, it does not ask itself. The model's terms apply.
"""


def synthesize_general(
    model: str | Mapping[str, Any],
    output: str | Path,
    *,
    seed: int = 42,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> WrittenTask:
    """Let a chat model write conversations, and make a task of them. What was written before is not again.

    Args:
        model: As a config's `model`.
        output: The directory.
        seed: Of all draws.
        settings: Keys of `GeneralSettings`.
        console: Where to show progress.

    Raises:
        UserError: If a setting is wrong, the model is none for chats, or no conversation is left.
    """
    try:
        asked = GeneralSettings.model_validate(settings or {})
    except ValidationError as error:
        raise UserError(validation_sentence(error, GeneralSettings)) from error
    config = load_config(None, {"model": model, "seed": seed})
    directory = RunDirectory(Path(output))
    from forgetmenot.prompting.tokens import tokens_of
    from forgetmenot.runs.session import open_session

    with opened(directory, console, "synthesize") as display:
        session = open_session(config)
        display.say(session.computing_in_words)
        opening(tokens_of(session.learner.tokenizer))  # refuse before anything is written
        revision = session.identity["model_revision"]
        check_same(directory.path, NAME, KIND, config.model.title, revision)
        drawn_by = [revision, session.identity["precision"], seed, asked.model_dump(exclude={"count"})]
        log, said = directory.path / WRITTEN, list[str]()
        lines = read_lines(log, _read, said)
        for sentence in said:
            display.say(sentence)
        with display.progress("writing conversations", asked.count) as advance:
            written = write_conversations(
                session.learner,
                asked,
                seed=seed,
                done={one.number: one for by, one in lines if by == drawn_by},
                save=lambda one: append_line(log, [drawn_by, asdict(one)], checked=True),
                advance=advance,
            )
        withdraw(directory.path)
        rows = [one for one in written if one.dropped is None]
        funnel = general_funnel(written)
        dropped = "; ".join(f"{one.name}: {one.reasons}" for one in funnel if one.reasons)
        if not rows:
            raise UserError(
                f"no conversation of {asked.count:,} is left, so no task is written. Dropped were, of "
                f"{dropped}. Where turns have not ended raise --set max_turn_tokens, where answers have not, "
                "--set max_answer_tokens; else take a larger model."
            )
        content = _content(config.model.title, revision, seed, asked, funnel)
        _write(directory, content, rows, dropped)
    return WrittenTask(directory.path, content)


def _read(content: Any) -> tuple[Any, Conversation]:
    drawn_by, fields = content
    return drawn_by, Conversation(**fields)


def _content(
    model: str, revision: str, seed: int, settings: GeneralSettings, funnel: Sequence[Step]
) -> dict[str, Any]:
    """What synthesis.json holds."""
    return {
        "version": 1,
        "task": NAME,
        "kind": KIND,
        "model": model,
        "model_revision": revision,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "funnel": [step.to_json() for step in funnel],
        "rows": funnel[-1].left,
        "labels": {},
        "missing_labels": [],
        "as_asked": None,
        "read_by": "the whole text, up to the end of the turn",
    }


def _write(
    directory: RunDirectory, content: Mapping[str, Any], rows: list[Conversation], dropped: str
) -> None:
    """Write the rows, the task, the card and the counts."""
    turns = [
        {
            "messages": [
                {"role": "user", "content": one.user},
                {"role": "assistant", "content": one.answer},
            ]
        }
        for one in rows
    ]
    directory.write_text("train.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in turns))
    directory.write_text(
        CARD,
        CARD_TEXT.format(
            **{name: content[name] for name in ("model", "model_revision", "rows", "seed")},
            settings=", ".join(f"{name} {value}" for name, value in content["settings"].items()),
            count=content["settings"]["count"],
            dropped=dropped or "none",
            path=directory.path / TASK,
        ),
    )
    directory.write_json(CONTENT, content)
    task = {"name": NAME, "data": {"train": "train.jsonl"}, "messages": "messages"}
    directory.write_text(TASK, write_yaml(task))
