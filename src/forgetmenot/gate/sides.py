"""What a check compares: a model, an adapter, a stage, a GGUF file or an endpoint, by what the user wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from forgetmenot.config import RunConfig, read_resolved
from forgetmenot.errors import UserError, nearest, validation_sentence
from forgetmenot.hub import NotThereError, answers
from forgetmenot.models.settings import BUNDLED, ModelSettings
from forgetmenot.paths import at_home
from forgetmenot.record.layout import BASE, CONFIG, LAST, STAGES
from forgetmenot.runs.directory import RunDirectory, begun_with

if TYPE_CHECKING:
    from forgetmenot.gate.endpoint import Server

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Side:
    """One of the models that a check compares.

    Attributes:
        given: As the user wrote it.
        model: The model, or the one below an adapter or a stage; None at an endpoint.
        adapter: The folder of a PEFT adapter on that model.
        run: The directory of the run that a stage is of.
        stage: The stage's name.
        config: The run's config.
        notes: What the user should know of how it was found.
        server: The model at an endpoint.
    """

    given: str
    model: ModelSettings | None
    adapter: Path | None = None
    run: Path | None = None
    stage: str | None = None
    config: RunConfig | None = None
    notes: tuple[str, ...] = ()
    server: Server | None = None

    @property
    def kind(self) -> str:
        """What it is, in a word or two for readers."""
        if self.server is not None:
            return "endpoint"
        if self.stage is not None:
            return "base of a run" if self.stage == BASE else "stage"
        if self.adapter is not None:
            return "adapter"
        return "GGUF file" if self.model is not None and self.model.in_gguf else "model"

    @property
    def is_plain(self) -> bool:
        """Whether it is a model on this machine with nothing put on it."""
        return self.server is None and self.adapter is None and self.stage in (None, BASE)

    @property
    def title(self) -> str:
        """A short name: the last part of its path, with the stage; at an endpoint, of the model's name."""
        if self.server is not None:
            return self.server.name.rstrip("/").rpartition("/")[2]
        if self.run is not None:
            return f"{self.run.resolve().name}:{self.stage}"
        return self.given.rstrip("/").rpartition("/")[2]


def find_side(given: str, base: ModelSettings | None = None) -> Side:
    """Find out what a user means, without loading it.

    Args:
        given: A hub id, a directory, the directory of an adapter, RUN_DIR:STAGE, the path of a .gguf file, or
            an endpoint's URL, with #NAME where it serves several models.
        base: The model that the check compares with, where an adapter's own is not on this machine.

    Raises:
        UserError: If nothing is there, or something else than it should be.
    """
    if not given:
        raise UserError("check: name two models; one of them is empty.")
    if given.startswith(("http://", "https://")):
        from forgetmenot.gate.endpoint import Server

        return Side(given, None, server=Server(given))
    path = at_home(given, "check")
    if given in BUNDLED or path.suffix == ".gguf":
        return Side(given, _model(str(path) if path.suffix == ".gguf" else given))
    if path.is_dir():
        if (path / STAGES).is_dir() and (path / CONFIG).is_file():
            stages = ", ".join(_stages(path))
            raise UserError(f"check: {given} is a run; name one of its stages, as {given}:last ({stages}).")
        return (
            _adapter(given, path, base) if (path / ADAPTER_CONFIG).is_file() else Side(given, _model(given))
        )
    if path.is_file():
        raise UserError(f"check: {given} is a file, and no .gguf; give a model's directory or a hub id.")
    run, colon, stage = given.rpartition(":")
    if colon and at_home(run, "check").is_dir():
        return _stage(given, at_home(run, "check"), stage)
    if given.startswith((".", "/", "~")) or given.count("/") > 1:
        raise UserError(f"check: there is no {given!r}; check the path.")
    return Side(given, _on_hub(given))


def _on_hub(name: str) -> ModelSettings:
    """A model on the hub, which is asked for it before any other side is."""
    try:
        answers(name, "config.json", None)
    except NotThereError as why:
        raise UserError(
            f"check: {name!r} is neither a folder here nor a hub id that can be reached now ({why})."
        ) from why
    return _model(name)


def _model(name: str) -> ModelSettings:
    try:
        return ModelSettings(name=name)
    except ValidationError as error:
        raise UserError(f"check: {validation_sentence(error, ModelSettings)}") from error


def _stages(run: Path) -> list[str]:
    return [BASE, *begun_with(RunDirectory(run)).get("stages", ())]


def _stage(given: str, run: Path, stage: str) -> Side:
    config = read_resolved(run / CONFIG)
    names = _stages(run)
    directory = RunDirectory(run)
    done = [name for name in names if directory.is_committed(name)]
    if stage == LAST:
        found = done[-1:]
    else:
        found = [name for k, name in enumerate(names) if stage in (name, str(k), f"{k:02d}")]
    if not found:
        hint = nearest(stage, [*names, LAST])
        raise UserError(f"check: {given}: this run has no stage {stage!r}. {hint}")
    if found[0] not in done:
        raise UserError(f"check: {given}: the run has not come to stage {found[0]} yet.")
    return Side(given, config.model, run=run, stage=found[0], config=config)


def _adapter(given: str, path: Path, base: ModelSettings | None) -> Side:
    """An adapter of PEFT's, on the model that its own config names."""
    try:
        config: dict[str, Any] = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        named, kind = config["base_model_name_or_path"], config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"check: {path / ADAPTER_CONFIG} is no config of a PEFT adapter ({error})."
        ) from error
    if kind != "LORA":
        raise UserError(
            f"check: {given} is a PEFT adapter of type {kind}; only LoRA adapters can be checked."
        )
    if not named:
        named = base.name if base is not None else ""
    if not named:
        raise UserError(f"check: {given} does not say which model it belongs to (base_model_name_or_path).")
    alike = base is not None and Path(base.name).is_dir() and Path(base.name).name == Path(str(named)).name
    local = alike or str(named).startswith((".", "/", "~"))
    if local and not Path(named).exists():
        if base is None:
            raise UserError(
                f"check: {given} belongs to the model {named!r}, which is not here; name the base first."
            )
        note = f"{given} names {named!r} as its model, which is not here: it is put on {base.title}."
        return Side(given, base, adapter=path, notes=(note,))
    if base is not None and (base.name == named or _same(base.name, named)):
        return Side(given, base, adapter=path)
    model = _model(named)
    return Side(given, _on_hub(named) if model.on_hub else model, adapter=path)


def stands_elsewhere(side: Side, base: Side) -> list[str]:
    """A note where an adapter or a stage is of another model than the base of the check."""
    if side.adapter is None and side.run is None:
        return []
    if side.model is None or base.model is None or side.model.name == base.model.name:
        return []
    if _same(side.model.name, base.model.name):
        return []
    return [
        f"{side.title} stands on {side.model.name}, and not on {base.model.name}, the model of {base.title}: "
        "what these two differ in is judged too."
    ]


def _same(one: str, other: str) -> bool:
    """Whether two paths lead to the same folder."""
    there = Path(one).exists() and Path(other).exists()
    return there and Path(one).samefile(other)
