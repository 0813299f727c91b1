"""One validated description of a run, composed of the settings that each room defines."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.evaluation.settings import Asking, EvaluationSettings
from forgetmenot.methods import METHODS, find_method
from forgetmenot.models.settings import (
    BUNDLED,
    KINDS,
    AdapterSettings,
    ModelOrName,
    ModelSettings,
    known_kinds,
    used_by,
)
from forgetmenot.paths import filled, model_name
from forgetmenot.prompting import CountOrSettings, DemonstrationSettings, PromptVariants
from forgetmenot.receipts.settings import ReceiptSettings
from forgetmenot.record.seal import check_file
from forgetmenot.settings import NamedSettings, Names, Seed, Settings, by_name
from forgetmenot.tasks.yaml_file import read_yaml, write_yaml

FOLDERS = (
    *(("model",), ("model", "name"), ("data_dir",), ("receipts", "model")),
    *(("adapter", "augmenting"), ("adapter", "augmenting", "name")),
)
"""The keys that may name a folder."""

FILES = (".yaml", ".yml", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".gguf", ".jinja")
"""The endings of what a config names as a file, wherever in it."""

WITHOUT_NUMBERS: Any = {
    "output": True,
    "adapter": {"frozen_cache_gb": True},
    "training": {"save_every": True},
}
"""The keys that no number follows from: a run may go on with others."""

NOT_BESIDE = (("output",), ("model", "gguf_file"), ("adapter", "augmenting", "gguf_file"))
"""The keys whose paths are not relative to the config; a GGUF file is relative to the model's folder."""

LONGEST_NAME = 255
"""The most bytes of a file's name, and so of any text in a config without a blank, slash or comma."""

BUNDLED_JOB = Path(__file__).with_name("quickstart.yaml")


class MethodSettings(NamedSettings):
    """Which method."""

    name: Annotated[str, Field(examples=list(METHODS))] = "sequential"
    """The method that learns the next task without losing the last ones (`fmn list methods`). `method: NAME`
    is short for it; a method's options stand beside its name (`fmn list methods NAME`)."""


MethodOrName = Annotated[
    MethodSettings, BeforeValidator(by_name, json_schema_input_type=str | MethodSettings)
]
"""A method with its options, or its name alone."""


class RunConfig(Settings):
    """A run: one model, one task order, one method, one prompt choice, one seed."""

    model: ModelOrName = ModelSettings()
    """Which model is trained."""
    tasks: Annotated[Names, Field(min_length=1)] = ("quickstart",)
    """What is learned, in this order: names of tasks and suites (`fmn list tasks`, `fmn list suites`), and
    paths of task files (docs/tasks.md)."""
    prompt: PromptVariants = "default"
    """The prompt variant (`fmn list prompts`): one for all tasks, a map from tasks to variants, or the path
    of a YAML file with such a map."""
    demonstrations: CountOrSettings = DemonstrationSettings()
    """Solved examples in the prompt (few-shot). A number alone is the `count`."""
    method: MethodOrName = MethodSettings()
    """How tasks are learned one after another."""
    adapter: AdapterSettings = AdapterSettings()
    """Which parameters learn."""
    training: TrainingSettings = TrainingSettings()
    """How a stage trains."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is scored after every stage, and how."""
    receipts: ReceiptSettings = ReceiptSettings()
    """A small model's prediction in the prompt (docs/receipts.md)."""
    data_dir: str | None = None
    """A folder that holds `glue/`, `trace/`, `standard-cl/`, `super-ni/` or `general/`, or one of these
    folders itself; null reads the hub, which has GLUE's tasks and those of lm-evaluation-harness alone."""
    checkpoints: Literal["all", "last", "none"] = "all"
    """Which stages' weights stay on disk after the run: `all` stages', the `last` one's, or `none`."""
    trackers: Names = ()
    """Accelerate's trackers that are told of the run: tensorboard (`pip install 'forgetmenot[trackers]'`),
    wandb, mlflow and others."""
    seed: Seed = 0
    """What everything that is drawn is drawn by: two runs with the same seed end with the same results."""
    output: str = "runs/{model}-{method}-{hash}-{seed}"
    """The run's directory; `{hash}` stands for everything but the seed and the output."""

    @model_validator(mode="before")
    @classmethod
    def _what_the_method_needs(cls, values: Any) -> Any:
        """Adapter settings that are left open become those that the method works with."""
        if not isinstance(values, Mapping):
            return values  # pydantic refuses it
        method, adapter = values.get("method"), values.get("adapter", {})
        name = method.get("name") if isinstance(method, Mapping) else method
        if not isinstance(name, str) or not isinstance(adapter, Mapping):
            return values
        known = find_method(name)
        needs = known.needs if known is not None else {}
        kind = adapter.get("kind", needs.get("kind", (AdapterSettings().kind,))[0])
        if kind not in needs.get("kind", tuple(KINDS)) and ("kind" in needs or kind not in known_kinds()):
            return values  # the method refuses it in its own words
        of_use = ("kind", *used_by(kind).keys)
        open_settings = {
            key: allowed[0] for key, allowed in needs.items() if key not in adapter and key in of_use
        }
        return {**values, "adapter": {**adapter, **open_settings}} if open_settings else values

    @property
    def hash(self) -> str:
        """Eight hex digits that stand for everything but the seed, the output and when a stage is saved."""
        described = self.model_dump(
            mode="json", exclude={"seed": True, "output": True, "training": {"save_every"}}
        )
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def directory(self) -> Path:
        """The run directory: `output` with its placeholders filled in."""
        values = {
            "model": model_name(self.model.title),
            "method": self.method.name,
            "hash": self.hash,
            "seed": self.seed,
        }
        return filled(self.output, values)

    @property
    def asking(self) -> Asking:
        """How tasks are scored."""
        return Asking(self.evaluation, self.prompt, self.demonstrations, self.seed)

    def to_yaml(self) -> str:
        """The resolved config, every key and every path written out, so that it means the same anywhere."""
        values = placed(self.model_dump(mode="json"), Path.cwd())
        literal = _absolute(str(self.directory)).replace("{", "{{").replace("}", "}}")
        return write_yaml({**values, "output": literal})


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a config file and put the command line's values over it.

    Args:
        path: A YAML file; files and folders that lie beside it are named relative to it. None for the
            defaults, or, where no model and no tasks are named either, for the bundled job.
        overrides: Dotted keys to values: {"training.epochs": 2}.

    Raises:
        UserError: If a key is unknown or a value unfit; the sentence names the key.
    """
    path = None if path is None else Path(path)
    named = {key.split(".")[0] for key in overrides or {}}
    if path is None and not named & {"model", "tasks"}:
        path = BUNDLED_JOB
    values = read_yaml(path) if path is not None else {}
    if path is not None:
        if {"name", "data"} <= values.keys():
            raise UserError(f"{path} is a task file, not a config: say fmn run --tasks {path}.")
        check_texts(values)
        values = placed(values, path.parent)
    for key, value in (overrides or {}).items():
        put(values, key.split("."), value)
    check_texts(values)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        where = f"{path}: " if path not in (None, BUNDLED_JOB) else ""
        raise UserError(where + validation_sentence(error, RunConfig)) from error


SECTIONS = ("model", "adapter", "training", "evaluation", "receipts")


def by_key(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key: a section that is given in part leaves its other keys as they are.

    >>> by_key({"training": {"limit": 8}, "seed": 1})
    {'training.limit': 8, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        in_part = key in SECTIONS and isinstance(value, Mapping)
        found |= {f"{key}.{name}": one for name, one in value.items()} if in_part else {key: value}
    return found


def read_resolved(path: Path) -> RunConfig:
    """The config that a run wrote into its directory.

    Raises:
        UserError: If there is none, it is damaged, or another version of the program wrote it.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} is not a run's directory: it has no {path.name}.")
    check_file(path)
    try:
        return RunConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(
            f"{path} does not fit this version of forgetmenot ({validation_sentence(error, RunConfig)}) "
            "Use the version that wrote it, or start over with --fresh."
        ) from error


def differences(before: RunConfig, now: RunConfig) -> list[str]:
    """The dotted keys in which two configs differ, aside from those that no number follows from."""
    one, other = (_flat(config.model_dump(mode="json", exclude=WITHOUT_NUMBERS)) for config in (before, now))
    return sorted(key for key in one.keys() | other.keys() if not same_value(one.get(key), other.get(key)))


def settings_hash(config: RunConfig) -> str:
    """A hash of what `differences` looks at, but for the tasks, of which a run may get more."""
    values = config.model_dump(mode="json", exclude={**WITHOUT_NUMBERS, "tasks": True})
    return hashlib.sha256(json.dumps(placed(values, Path.cwd()), sort_keys=True).encode()).hexdigest()[:16]


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a config are the same; a path may be written relative or absolute."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, str) and isinstance(other, str):
        return one == other or _absolute(one) == _absolute(other)
    return bool(one == other)


def _absolute(path: str) -> str:
    return os.path.normpath(Path(path).absolute())


def check_texts(values: Any, key: str = "") -> None:
    """See that every text of a config could name a file, a model or a task.

    Raises:
        UserError: If one is too long, or none in UTF-8.
    """
    if isinstance(values, Mapping):
        for name, value in values.items():
            check_texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            check_texts(value, key)
    elif isinstance(values, str):
        try:
            encoded = values.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{key}: {values!r} is no text in UTF-8; write it otherwise.") from error
        longest = max(map(len, re.split(rb"[/,\s]", encoded)))
        if longest > LONGEST_NAME:
            raise UserError(
                f"{key}: {values[:40]!r}… is a name of {longest:,} letters; {LONGEST_NAME} are the most."
            )
        if "\0" in values:
            raise UserError(f"{key}: {values!r} holds a zero, which no name has.")


def placed(values: Any, folder: Path, key: tuple[str, ...] = ()) -> Any:
    """Settings in which every relative path of a file or folder that lies in `folder` leads to it from here.

    Args:
        values: What stands in a config.
        folder: What its paths are relative to.
        key: Where the values stand in the config.
    """
    if isinstance(values, Mapping):
        return {name: placed(value, folder, (*key, *str(name).split("."))) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [placed(value, folder, key) for value in values]
    if not isinstance(values, str) or key in NOT_BESIDE or values in BUNDLED:
        return values
    there = folder / values
    is_file = there.suffix in FILES and there.is_file()
    is_folder = key in FOLDERS and bool(values) and there.is_dir()
    return os.path.normpath(there) if is_file or is_folder else values


def put(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set a dotted key; a section that is written as a name alone (`model: gpt2`) becomes its `name`.

    Raises:
        UserError: If a value is given where a section belongs.
    """
    for key in keys[:-1]:
        section = values.get(key, {})
        if isinstance(section, str):
            section = {"name": section}
        if not isinstance(section, dict):
            raise UserError(f"{'.'.join(keys)}: {key} is {section!r}, which has no keys.")
        values[key] = dict(section)
        values = values[key]
    values[keys[-1]] = value


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{name}."))
        else:
            flat[name] = value
    return flat
