"""A user's own task: a YAML file beside its rows, and no Python."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from forgetmenot.errors import UserError, nearest
from forgetmenot.metrics import Metric, known_metrics
from forgetmenot.paths import LONGEST
from forgetmenot.settings import MOST
from forgetmenot.tasks.answers import RULES
from forgetmenot.tasks.chats import every_answer
from forgetmenot.tasks.conversion import Conversion, identifier
from forgetmenot.tasks.files import read_table
from forgetmenot.tasks.rows import examples, plain
from forgetmenot.tasks.splits import divide, hold_out
from forgetmenot.tasks.tables import Table, read_hub
from forgetmenot.tasks.task import PAIR, Example, Generation, Kind, Task
from forgetmenot.tasks.yaml_file import read_yaml

# Which key of the file makes which kind of task, and by what that is scored where the file names no metric.
KINDS: dict[str, tuple[Kind, str]] = {
    "label": ("choice", "accuracy"),
    "target": ("answer", "exact_match"),
    "messages": ("messages", "loss"),
    "text": ("text", "loss"),
    "chosen": ("preference", "preference"),
}


ONE_FILE = "10%"
"""The share of a single file that is scored; ours."""

# What should stand where something else does, by pydantic's name of the mistake.
BELONGS = {
    "string_type": "text (in quotes, if it looks like a number)",
    "int_type": "a whole number",
    "list_type": "a list",
    "dict_type": "a section of keys with their values",
    "model_type": "a section of keys with their values",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Data(_Section):
    """Paths relative to the YAML, of files or folders of texts; with `hub`, names of splits.

    `score` and `select` may be a share of train instead, as "10%"; `select: 0` holds nothing out.
    """

    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    train: str | None = None
    score: str | None = None
    validation: str | None = None
    select: str | Literal[0] | None = None

    def splits(self) -> dict[str, str]:
        """The splits that are read; a hub data set that names none has the usual two."""
        named = {"train": self.train, "score": self.score or self.validation, "select": self.select}
        found = {split: place for split, place in named.items() if isinstance(place, str)}
        if self.hub and not found:
            return {"train": "train", "score": "validation"}
        return {split: place for split, place in found.items() if _share(place) is None}

    def shares(self) -> dict[str, float]:
        """The splits that are held out of train, with their shares in percent; 0 for none of its rows."""
        named = {"score": self.score or self.validation, "select": self.select}
        found = {split: _share(place) for split, place in named.items() if place is not None}
        return {split: share for split, share in found.items() if share is not None}


def _share(place: str | int) -> float | None:
    """The percent that "10%" stands for; None for the name of a file or a split."""
    if isinstance(place, int):
        return float(place)
    return float(place[:-1]) if re.fullmatch(r"\d+(\.\d+)?%", place) else None


class _Generation(_Section):
    """How free answers are written and read; see `forgetmenot.tasks.task.Generation`."""

    max_new_tokens: Annotated[int, Field(ge=1, le=MOST)] = Generation().max_new_tokens
    stop: list[str] = []
    extract: list[str] = list(Generation().extract)


class _TaskFile(_Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST)]
    data: Annotated[_Data, BeforeValidator(lambda data: _one_file(data))]
    prompts: dict[str, dict[str, Any]] = {}
    label: str | None = None  # of these five, one: KINDS
    target: str | None = None
    messages: str | None = None
    text: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    metric: str | None = None
    messages_loss: Literal["all", "last"] | None = None
    generation: _Generation | None = None
    source: str | None = None
    cluster: str | None = None
    instruction: str = ""


def _one_file(data: Any) -> Any:
    """A single file is trained on, but for a tenth that is scored."""
    return {"train": data, "score": ONE_FILE} if isinstance(data, str) else data


def load_custom(path: Path) -> Task:
    """Load a task from a YAML file.

    It names its `data` (`train`, `score` and `select`: paths relative to it, splits of a `hub` data set, or
    shares of train; `validation` is accepted for `score`), the column that holds the answer (`label`,
    `target`, `messages`, `text`, or `chosen` and `rejected`), a `metric`, and `prompts`. The labels are the
    keys of the default prompt's choices. Of chats all assistant turns are learned, or with `messages_loss:
    last` the last alone; the last is scored. `instruction` says in words what the task asks, for
    `fmn synthesize`.

    Raises:
        UserError: A key, a file or a row is wrong; names it.
    """
    file = _parse(path)
    kind, column, metric = _question(path, file)
    labels = tuple(file.prompts["default"]["choices"]) if kind == "choice" else ()
    labels = PAIR if kind == "preference" else labels
    if metric.label_count not in (None, len(labels)):
        raise UserError(
            f"{path}: the metric {metric.name} needs {metric.label_count} labels, and the default prompt has "
            f"{len(labels)}."
        )
    if file.messages_loss is not None and kind != "messages":
        raise UserError(f"{path}: the key 'messages_loss' is for chats (`messages`); leave it out.")
    generation = _generation(path, file, kind, metric)
    written = metric.reads != "likelihoods"
    convert = Conversion(kind, column, labels, file.rejected, file.cluster, written=written)

    tables = _tables(path, file.data)
    found = {split: examples(table, split, convert) for split, table in tables.items()}
    cluster = None if file.cluster is None else identifier(file.cluster)
    _check_clusters(path, cluster, found)
    notes = convert.notes() + _hold_out(path, file.data, cluster, found)
    splits = divide(found.get("train", []), found.get("score", []), found.get("select"), cluster)
    notes += _chosen_on(file.data, len(splits.train), len(splits.select))
    learns_all = kind == "messages" and file.messages_loss != "last"
    return Task(
        name=file.name,
        kind=kind,
        metric=metric.name,
        train=every_answer(splits.train) if learns_all else splits.train,
        select=splits.select,
        score=splits.score,
        labels=labels,
        prompts=file.prompts,
        origin="; ".join(table.source for table in tables.values()),
        notes=(*_unpinned(file.data), *notes, *splits.notes),
        generation=generation,
        source=identifier(file.source or ""),
        cluster=cluster or "",
        instruction=file.instruction,
    )


def _hold_out(path: Path, data: _Data, cluster: str | None, found: dict[str, list[Example]]) -> list[str]:
    """Take the splits that are shares of train out of it, and say so."""
    notes = []
    for split, share in data.shares().items():
        rows = found.get("train", [])
        size = int(len(rows) * share / 100)
        found["train"], found[split] = hold_out(rows, size, cluster)
        held = len(found[split])
        if share and not held:
            whole = "all copies of a text" if cluster is None else f"all rows of a {cluster!r}"
            raise UserError(
                f"{path}: data.{split}: {share:g}% of {len(rows):,} rows of train, {whole} together, are "
                "none; give more rows, a larger share, or a file."
            )
        if held:
            why = "score" if split == "score" else "choose on"
            notes.append(
                f"{held:,} of {len(rows):,} rows of train are held out to {why}, by their text: the same "
                "ones in every run."
            )
    return notes


def _chosen_on(data: _Data, train: int, select: int) -> list[str]:
    """Say what no file and no share names: that `select` is carved from train."""
    if data.select is not None or not select:
        return []
    return [
        f"{select:,} of {train + select:,} rows of train are held out to choose prompts and settings on "
        "(select), by their text: the same ones in every run; `data: {select: 0}` trains on them too."
    ]


def check_task_file(path: Path) -> None:
    """Check the keys of a task file without reading any rows.

    Raises:
        UserError: A key is wrong; names it.
    """
    file = _parse(path)
    _question(path, file)


def _check_clusters(path: Path, cluster: str | None, found: Mapping[str, Sequence[Example]]) -> None:
    """Every row must have the field that says which rows are not independent.

    Raises:
        UserError: One has not; names the split and the row.
    """
    if cluster is None:
        return
    for split, rows in found.items():
        for number, example in enumerate(rows, 1):
            if example.fields.get(cluster) is None:
                raise UserError(
                    f"{path}: cluster: row {number} of {split} has no value in a field {cluster!r}; every "
                    "row needs one, in another column than what is predicted."
                )


def _generation(path: Path, file: _TaskFile, kind: Kind, metric: Metric) -> Generation:
    """The file's `generation` and `source`, refused where nothing would use them."""
    if (file.source is not None) != (metric.reads == "rewrites"):
        takes = "needs" if file.source is None else "has no use for"
        raise UserError(
            f"{path}: the metric {metric.name} {takes} the key 'source': the field that was rewritten."
        )
    if file.generation is None:
        return Generation()
    if kind not in ("answer", "messages") or metric.reads == "likelihoods":
        raise UserError(f"{path}: the key 'generation' is for answers that are generated; leave it out.")
    for rule in file.generation.extract:
        if rule not in RULES:
            raise UserError(f"{path}: generation.extract has no rule {rule!r}. {nearest(rule, RULES)}")
    if "" in file.generation.stop:
        raise UserError(f"{path}: generation.stop has an empty string, which would end every answer.")
    settings = file.generation
    return Generation(settings.max_new_tokens, tuple(settings.stop), tuple(settings.extract))


def _parse(path: Path) -> _TaskFile:
    written = read_yaml(path)
    _refuse_nulls(path, written)
    try:
        file = _TaskFile.model_validate(written)
    except ValidationError as problem:
        raise UserError(f"{path}: {_sentence(problem)}") from None
    for variant in file.prompts.values():
        if isinstance(choices := variant.get("choices"), dict):  # 1: 1 in YAML is meant as the texts "1"
            variant["choices"] = {_text(key): _text(words) for key, words in choices.items()}
    return file


def _refuse_nulls(path: Path, written: Mapping[Any, Any], section: str = "") -> None:
    """A key without a value means nothing here, and is seldom meant; a prompt checks its own keys.

    Raises:
        UserError: There is one; names it.
    """
    for key, value in written.items():
        name = f"{section}{key}"
        if isinstance(value, Mapping) and section != "prompts.":
            _refuse_nulls(path, value, f"{name}.")
        elif value is None or (isinstance(value, list) and None in value):
            what = "has no value (null)" if value is None else "holds an item without a value (null)"
            raise UserError(f"{path}: the key {name!r} {what}; write one, or leave the key out.")


def _text(value: object) -> Any:
    return plain(value) if isinstance(value, bool | int | float) else value


def _sentence(problem: ValidationError) -> str:
    """Say the first thing that is wrong in our words."""
    error = problem.errors()[0]
    key = ".".join(map(str, error["loc"]))
    if error["type"] in ("extra_forbidden", "invalid_key"):
        sections: dict[Any, type[_Section]] = {"data": _Data, "generation": _Generation}
        section = sections.get(error["loc"][0], _TaskFile)
        return f"the key {key!r} is unknown. {nearest(str(error['loc'][-1]), section.model_fields)}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing."
    if key == "name" and error["type"] == "string_pattern_mismatch":
        return f"the name {error['input']!r} may have letters, digits, '.', '_' and '-' only."
    if key == "name" and error["type"] == "string_too_long":
        return f"the name {error['input']!r} has {len(error['input'])} characters; {LONGEST} are the most."
    if belongs := BELONGS.get(error["type"]):
        return f"the key {key!r} is {error['input']!r}, where {belongs} belongs."
    wanted = error["msg"].removeprefix("Input should be ")
    return f"the key {key!r} is {error['input']!r}; it should be {wanted}."


def _question(path: Path, file: _TaskFile) -> tuple[Kind, str, Metric]:
    """What kind of task it is, which column holds the answer, and how it is scored."""
    given = {key: column for key in KINDS if (column := getattr(file, key)) is not None}
    if len(given) != 1:
        raise UserError(
            f"{path} must have exactly one of the keys {', '.join(KINDS)}; "
            f"it has {', '.join(given) or 'none'}."
        )
    [(key, column)] = given.items()
    if (file.chosen is None) != (file.rejected is None):
        raise UserError(f"{path}: preferences need both keys, 'chosen' and 'rejected'.")
    kind, default = KINDS[key]
    metrics = {name: metric for name, metric in known_metrics().items() if kind in metric.kinds}
    named = file.metric or default
    if named not in metrics:
        wrong = (
            f"the metric {named!r} does not fit {key!r}"
            if named in known_metrics()
            else f"there is no metric {named!r}"
        )
        raise UserError(f"{path}: {wrong}. {nearest(named, metrics)}")
    if kind in ("choice", "answer", "preference") and "default" not in file.prompts:
        raise UserError(f"{path}: the key 'prompts' must hold a prompt named 'default'.")
    if kind == "choice":
        choices = file.prompts["default"].get("choices")
        if not isinstance(choices, dict) or len(choices) < 2 or not all(isinstance(c, str) for c in choices):
            raise UserError(f"{path}: prompts.default.choices must map two labels or more to their words.")
    return kind, column, metrics[named]


def _tables(path: Path, data: _Data) -> dict[str, Table]:
    if data.score and data.validation:
        raise UserError(f"{path}: data.score and data.validation mean the same; give one of them.")
    splits = data.splits()
    for split, share in data.shares().items():
        if "train" not in splits or not (0 < share < 100 or (split == "select" and share == 0)):
            raise UserError(
                f"{path}: data.{split} must be a file, or a share of data.train between 0% and 100%"
                f"{', or 0 for none' if split == 'select' else ''}."
            )
    if not {"train", "score"} & set(splits):
        raise UserError(f"{path}: data names neither train nor score.")
    if data.hub:
        hub = data.hub
        return {split: read_hub(hub, data.config, data.revision, name) for split, name in splits.items()}
    if data.config or data.revision:
        raise UserError(f"{path}: data.config and data.revision need data.hub.")
    for split, name in splits.items():
        if not (path.parent / name).exists():
            raise UserError(f"{path}: the file of data.{split}, {path.parent / name}, does not exist.")
    return {split: read_table(path.parent / name) for split, name in splits.items()}


def _unpinned(data: _Data) -> tuple[str, ...]:
    if not data.hub or data.revision:
        return ()
    return (f"{data.hub} was read at whatever revision the hub has now; set data.revision to fix it.",)
