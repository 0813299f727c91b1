"""The named prompts of a task: bundled with the package, or written beside the task itself."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator

from forgetmenot.errors import UserError, nearest
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.tasks.task import Task
from forgetmenot.tasks.yaml_file import read_yaml

_KEYS = ("template", "choices", "separator", "chat", "system", "truncate", "end", "keep", "cut_answer", "eos")

# Conversations and plain text bring their own words: the template only names the field.
_WORDLESS = {
    "messages": {"default": Prompt("default", template="{{ messages }}", separator="", chat=True)},
    "text": {"default": Prompt("default", template="{{ text }}", separator="")},
}


def _from_file(value: Any) -> Any:
    """A path to YAML becomes the map task → variant that is in it."""
    is_file = isinstance(value, str) and value.endswith((".yaml", ".yml"))
    return read_yaml(Path(value)) if is_file else value


PromptVariants = Annotated[str | dict[str, str], BeforeValidator(_from_file)]
"""A variant for all tasks, a map task → variant, or a YAML file with such a map, as `fmn prompts` writes."""


def prompts_of(task: Task) -> dict[str, Prompt]:
    """Return a task's prompt variants by name.

    They are those that came with the task or, where none did, those bundled under the task's name.

    Raises:
        UserError: The task has no prompt, or one of them is not well formed.
    """
    if task.kind in _WORDLESS:
        if task.prompts:
            raise UserError(f"task {task.name!r}: prompts are not used for {task.kind}; leave `prompts` out.")
        return dict(_WORDLESS[task.kind])
    if task.prompts:
        return _variants(task.prompts, f"task {task.name!r}")
    if task.name in _bundled_names():
        return bundled_prompts(task.name)
    raise UserError(
        f"task {task.name!r} has no prompt: give it `prompts` with a variant `default`"
        + (" that has a template and choices." if task.kind == "choice" else " that has a template.")
    )


def choose_prompt(task: Task, variant: str) -> Prompt:
    """Return the variant of a task's prompt that has this name.

    Raises:
        UserError: The task has no such variant; the sentence names those that it has.
    """
    prompts = prompts_of(task)
    if variant not in prompts:
        raise UserError(f"task {task.name!r} has no prompt {variant!r}. {nearest(variant, prompts)}")
    return prompts[variant]


def known_prompts() -> dict[str, tuple[str, ...]]:
    """Return the variants bundled for each task, by task name."""
    return {name: tuple(bundled_prompts(name)) for name in _bundled_names()}


def bundled_prompts(task_name: str) -> dict[str, Prompt]:
    """Read the prompts bundled for a task; `like: other` in its file stands for another task's."""
    content = yaml.safe_load((_FOLDER / f"{task_name}.yaml").read_text(encoding="utf-8"))
    if "like" in content:
        return bundled_prompts(content["like"])
    return _variants(content["variants"], f"bundled task {task_name!r}")


_FOLDER = files("forgetmenot.prompting") / "prompts"


def _bundled_names() -> list[str]:
    return sorted(
        file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml")
    )


def _variants(content: Any, where: str) -> dict[str, Prompt]:
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: `prompts` must map the name of each variant to its settings.")
    try:
        return {str(name): _prompt(str(name), settings) for name, settings in content.items()}
    except UserError as error:
        raise UserError(f"{where}, {error}") from error


def _prompt(name: str, settings: Any) -> Prompt:
    """Check one variant, written as plain data, and make it a prompt."""
    where = f"prompt {name!r}"
    if not isinstance(settings, Mapping):
        raise UserError(f"{where}: a variant is a map with a template, not {settings!r}.")
    for key in settings:
        if key not in _KEYS:
            raise UserError(f"{where}: unknown key {key!r}. {nearest(str(key), _KEYS)}")
    if "template" not in settings:
        raise UserError(f"{where}: the key `template` is missing.")
    chat = settings.get("chat", False)
    if not isinstance(chat, bool):
        raise UserError(f"{where}: `chat` is true or false, not {chat!r}.")
    system = settings.get("system")
    if system is not None and not chat:
        raise UserError(f"{where}: `system` is used in chat only; set `chat: true` or leave it out.")
    choices = settings.get("choices", {})
    if not isinstance(choices, Mapping):
        raise UserError(f"{where}: `choices` must map each label to its words.")
    truncate = settings.get("truncate")
    if truncate is not None and not isinstance(truncate, list | tuple):
        raise UserError(f"{where}: `truncate` is a list of fields, not {truncate!r}.")
    keep = settings.get("keep", "start")
    if keep not in ("start", "end"):
        raise UserError(f"{where}: `keep` is start or end, not {keep!r}.")
    cut_answer = settings.get("cut_answer", False)
    if not isinstance(cut_answer, bool):
        raise UserError(f"{where}: `cut_answer` is true or false, not {cut_answer!r}.")
    eos = settings.get("eos", True)
    if not isinstance(eos, bool):
        raise UserError(f"{where}: `eos` is true or false, not {eos!r}.")
    prompt = Prompt(
        name=name,
        template=_text(settings["template"], f"{where}: `template`"),
        choices={
            _text(label, f"{where}: a label of `choices`"): _text(words, f"{where}: `choices.{label}`")
            for label, words in choices.items()
        },
        separator=_text(settings.get("separator", "" if chat else " "), f"{where}: `separator`"),
        chat=chat,
        system=None if system is None else _text(system, f"{where}: `system`"),
        truncate=None if truncate is None else tuple(_text(one, f"{where}: `truncate`") for one in truncate),
        end=_text(settings.get("end", ""), f"{where}: `end`"),
        keep=keep,
        cut_answer=cut_answer,
        eos=eos,
    )
    if not prompt.fields:
        raise UserError(f"{where}: the template names no field, so every example would be asked the same.")
    for one in prompt.truncate or ():
        if one not in prompt.fields:
            raise UserError(f"{where}: `truncate` names {one!r}, which the template does not use.")
    return prompt


def _text(value: Any, where: str) -> str:
    """Accept text, and whole numbers as they read; YAML's bare yes, no, on, off are truth values."""
    if isinstance(value, bool):
        raise UserError(f"{where} is read by YAML as {str(value).lower()}; put the word in quotes.")
    if not isinstance(value, str | int):
        raise UserError(f"{where} must be text, not {value!r}.")
    return str(value)
