"""One validated description of a study: a base config, and the grid of what varies about it."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from forgetmenot.config import RunConfig, placed, put
from forgetmenot.errors import UserError, nearest, validation_sentence
from forgetmenot.paths import filled, path_safe
from forgetmenot.report.comparison.claims import check_claims
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.runs import ComparedRun
from forgetmenot.report.published import load_published
from forgetmenot.report.wording import setting
from forgetmenot.settings import NonNegativeFloat, PositiveInt, Settings
from forgetmenot.studies.protocol import Protocol
from forgetmenot.tasks import expand
from forgetmenot.tasks.yaml_file import read_yaml, write_yaml

ORDER_SEED = 20250402  # fixed: `random: k` draws the same orders for every model, method and seed
MOST_ORDERS = math.factorial(6)


class Resources(Settings):
    """What one run of a study gets."""

    cpus: PositiveInt | None = None
    """Threads of each run; null takes `OMP_NUM_THREADS` where that is set, and else shares a machine's cores
    among the runs that it has at a time."""
    gpus: NonNegativeFloat | None = None
    """Ray's GPUs for each run; null is one where there are any. Without Ray it must be null."""


class StudyConfig(Settings):
    """A study: one base config and a grid over it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "study"
    """The study's name in `output`; that of its file unless given."""
    base: dict[str, Any] = Field(default={})
    """The config that all runs share; what it does not name has the defaults of a run. Its keys may be
    dotted."""
    grid: Annotated[dict[str, Any], Field(min_length=1)]
    """What varies: any dotted key of the config to the list of its values; every combination is a run.
    `order` is a key besides: orders of the base's tasks as lists, `permutations` for all of them, or
    `{random: k}` for k. Keys that vary together share one entry, with commas between, and their values in
    lists: `"method, adapter": [[sequential, {kind: full}], [o-lora, {rank: 16}]]`."""
    protocol: Protocol = Protocol()
    """What is stated before the runs: claims, and a pilot."""
    resources: Resources = Resources()
    """What each run gets."""
    published: str | None = None
    """Figures of a paper that the report shows beside the study's own, by the name of its file in
    `report/published/`: haque-2025, trace, forever-2026, standard-cl, slao-2025 or gainlora-2025."""
    output: str = "studies/{name}-{hash}"
    """The study's directory; `{hash}` stands for the base, so that a larger grid continues in the same
    one."""

    @property
    def directory(self) -> Path:
        """The study's directory: `output` with its placeholders filled in."""
        return filled(self.output, {"name": self.name, "hash": self.base_config.hash})

    @property
    def base_config(self) -> RunConfig:
        """The base alone as the config of a run."""
        return _validated(_dotted(self.base), "base")

    def to_yaml(self) -> str:
        """The study as one YAML file."""
        return write_yaml(self.model_dump(mode="json"))


@dataclass(frozen=True)
class StudyRun:
    """One point of a grid.

    Attributes:
        varies: Each key of the grid to its value here; `order` to a list of tasks.
        config: What this amounts to.
    """

    varies: dict[str, Any]
    config: RunConfig

    @property
    def title(self) -> str:
        """What tells it from the others: "method=joint, seed=1"."""
        return titled(self.varies)


def load_study(
    source: Mapping[str, Any] | str | Path, overrides: Mapping[str, Any] | None = None
) -> StudyConfig:
    """Read a study's file and put the command line's values over it.

    Args:
        source: The path of a YAML file, or its content.
        overrides: Dotted keys to values: {"base.training.epochs": 2, "grid.seed": [0, 1], "output": "out"}.

    Raises:
        UserError: If a key is unknown or a value unfit; the sentence names the key.
    """
    where = ""
    if isinstance(source, Mapping):
        values = deepcopy(dict(source))
    else:
        values = {"name": path_safe(Path(source).stem) or "study", **read_yaml(Path(source))}
        where = f"{source}: "
        sections = {name: values[name] for name in ("base", "grid") if isinstance(values.get(name), Mapping)}
        values |= {name: placed(section, Path(source).parent) for name, section in sections.items()}
    if isinstance(values.get("base"), Mapping):
        values["base"] = _dotted(values["base"])  # or `base.training.epochs` would hide `training.limit`
    for key, value in (overrides or {}).items():
        section, _, rest = key.partition(".")
        # What follows `grid` is one key, dots and all.
        put(values, ["grid", rest] if section == "grid" and rest else key.split("."), value)
    try:
        study = StudyConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(where + validation_sentence(error, StudyConfig)) from error
    if study.published is not None:
        load_published(study.published)  # a wrong name is said before hours are spent
    return study


def expand_study(study: StudyConfig) -> list[StudyRun]:
    """Every run of a study, the last key of the grid varying fastest; each has a directory of its own.

    Raises:
        UserError: If an axis is not a list of values, a run's config is wrong, two runs are the same, or a
            claim speaks of a row that there is not.
    """
    _check_grid(study)
    # An order is one of tasks that are chosen.
    axes = sorted(study.grid, key=lambda axis: "tasks" not in _keys(axis))
    choices = list(_choices(study.grid, axes, {"tasks": study.base_config.tasks}))
    runs: dict[Path, StudyRun] = {}
    for number, chosen in enumerate(choices, start=1):
        varies = {key: chosen[key] for axis in study.grid for key in _keys(axis)}
        where = f"grid: run {number} of {len(choices)} ({titled(varies)})"
        run = run_of(study, varies, where)
        same = runs.setdefault(run.config.directory, run)
        if same is not run:
            raise UserError(f"{where} is the same run as that of {same.title}; leave one of them out.")
    rows = Comparison(study.name, [ComparedRun(path.name, run.varies) for path, run in runs.items()])
    check_claims(rows, study.protocol.claims)
    return list(runs.values())


def run_of(study: StudyConfig, varies: Mapping[str, Any], where: str, folder: str | None = None) -> StudyRun:
    """One run of a study.

    Args:
        study: The study.
        varies: Keys to values, put over the base.
        where: What an error begins with.
        folder: The run's directory in that of the study; by its config unless given.
    """
    values = _dotted(study.base)
    for key in sorted(varies, key=lambda key: (key.count("."), key == "order")):  # the whole, then parts
        put(values, ["tasks"] if key == "order" else key.split("."), deepcopy(varies[key]))
    output = str(study.directory).replace("{", "{{").replace("}", "}}")
    values["output"] = f"{output}/{folder or RunConfig.model_fields['output'].default}"
    return StudyRun(dict(varies), _validated(values, where))


def titled(varies: Mapping[str, Any]) -> str:
    """Settings in one line: "method=joint, seed=1"."""
    return ", ".join(f"{key}={setting(value)}" for key, value in varies.items())


def _check_grid(study: StudyConfig) -> None:
    if "output" in study.base:
        raise UserError("base.output: the runs of a study are in the study's directory; set its own output.")
    seen = set[str]()
    for axis, values in study.grid.items():
        keys = _keys(axis)
        for key in keys:
            if key == "output":
                raise UserError(
                    "grid.output: the runs of a study are in the study's directory; leave it out."
                )
            if key.partition(".")[0] not in {*RunConfig.model_fields, "order"}:
                known = nearest(key, {*RunConfig.model_fields, "order"})
                raise UserError(f"grid.{axis}: there is no key {key!r} of a config. {known}")
            if key in seen or (key == "order" and len(keys) > 1):
                raise UserError(f"grid.{axis}: {key} must be a separate key, named once.")
            seen.add(key)
        if axis != "order" and (not isinstance(values, list) or not values):
            raise UserError(f"grid.{axis}: write a list of the values that it takes (given: {values!r}).")
        for value in values if len(keys) > 1 else ():
            if not isinstance(value, list) or len(value) != len(keys):
                raise UserError(
                    f"grid.{axis}: write lists of {len(keys)} values, one for each key ({value!r})."
                )


Values = dict[str, Any]


def _choices(grid: Mapping[str, Any], axes: Sequence[str], chosen: Values) -> Iterator[Values]:
    """Every way to choose a value on each axis, beside what is chosen already."""
    if not axes:
        yield chosen
        return
    axis, *others = axes
    keys = _keys(axis)
    for value in _orders(grid["order"], chosen["tasks"]) if axis == "order" else grid[axis]:
        values = [value] if len(keys) == 1 else value
        yield from _choices(grid, others, {**chosen, **dict(zip(keys, values, strict=True))})


def _keys(axis: str) -> list[str]:
    """The keys of the config that an axis of the grid sets."""
    return [key.strip() for key in axis.split(",")]


def _orders(axis: Any, tasks: Any) -> list[list[str]]:
    """The orders of some tasks that an `order` of the grid stands for."""
    names = expand(_names(tasks))
    count = math.factorial(len(names))
    if axis == "permutations":
        if count > MOST_ORDERS:
            raise UserError(
                f"grid.order: {len(names)} tasks have {count} orders; take some: order: {{random: 10}}."
            )
        return [list(order) for order in itertools.permutations(names)]
    if isinstance(axis, Mapping):
        wanted = axis.get("random")
        if set(axis) != {"random"} or not isinstance(wanted, int) or wanted < 1:
            raise UserError(f"grid.order: write {{random: k}} for k of all orders (given: {dict(axis)!r}).")
        if wanted > count:
            raise UserError(f"grid.order: {len(names)} tasks have {count} orders, fewer than {wanted}.")
        draw, drawn = np.random.default_rng(ORDER_SEED), dict[tuple[str, ...], None]()
        while len(drawn) < wanted:
            drawn[tuple(names[k] for k in draw.permutation(len(names)))] = None
        return [list(order) for order in drawn]
    if not isinstance(axis, list) or not axis:
        raise UserError(
            f"grid.order: write a list of orders, permutations, or {{random: k}} (given: {axis!r})."
        )
    orders = [expand(_names(order)) for order in axis]
    for order in orders:
        if sorted(order) != sorted(names):
            raise UserError(
                f"grid.order: {', '.join(order)} is not an order of the tasks {', '.join(names)}."
            )
    return orders


def _names(tasks: Any) -> list[str]:
    """The names in a value of `tasks`."""
    return [str(name) for name in _validated({"tasks": tasks}, "grid").tasks]


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with dotted keys, as Python's callers write them, put into their sections."""
    sections: dict[str, Any] = {}
    for key, value in values.items():
        put(sections, key.split("."), deepcopy(value))
    return sections


def _validated(values: Mapping[str, Any], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {validation_sentence(error, RunConfig)}") from error
