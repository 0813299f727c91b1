"""A user's own task: a YAML file beside its rows, and no Python."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forgetmenot.errors import UserError, nearest
from forgetmenot.metrics import Metric, known_metrics
from forgetmenot.paths import LONGEST
from forgetmenot.settings import MOST
from forgetmenot.tasks.answers import RULES
from forgetmenot.tasks.chats import conversation, every_answer
from forgetmenot.tasks.rows import BadRowError, Converted, cell, examples, label_in, plain
from forgetmenot.tasks.splits import divide
from forgetmenot.tasks.tables import Row, Table, read_hub, read_table
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
    """Paths relative to the YAML; with `hub`, names of splits."""

    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    train: str | None = None
    score: str | None = None
    validation: str | None = None
    select: str | None = None

    def splits(self) -> dict[str, str]:
        """The splits that the file names; a hub data set that names none has the usual two."""
        named = {"train": self.train, "score": self.score or self.validation, "select": self.select}
        found = {split: place for split, place in named.items() if place is not None}
        return {"train": "train", "score": "validation"} if self.hub and not found else found


class _Generation(_Section):
    """How free answers are written and read; see `forgetmenot.tasks.task.Generation`."""

    max_new_tokens: Annotated[int, Field(ge=1, le=MOST)] = Generation().max_new_tokens
    stop: list[str] = []
    extract: list[str] = list(Generation().extract)


class _TaskFile(_Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST)]
    data: _Data
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


def load_custom(path: Path) -> Task:
    """Load a task from a YAML file.

    It names its `data` (`train`, `score` and `select`: paths relative to it, or splits of a `hub` data set;
    `validation` is accepted for `score`), the column that holds the answer (`label`, `target`, `messages`,
    `text`, or `chosen` and `rejected`), a `metric`, and `prompts`. The labels are the keys of the default
    prompt's choices. Of chats all assistant turns are learned, or with `messages_loss: last` the last alone;
    the last is scored. `instruction` says in words what the task asks, for `fmn synthesize`.

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
    convert = _converter(
        kind, column, labels, file.rejected, file.cluster, written=metric.reads != "likelihoods"
    )

    tables = _tables(path, file.data)
    found = {split: examples(table, split, convert) for split, table in tables.items()}
    _check_clusters(path, file.cluster, found)
    splits = divide(found.get("train", []), found.get("score", []), found.get("select"))
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
        notes=(*_unpinned(file.data), *splits.notes),
        generation=generation,
        source=file.source or "",
        cluster=file.cluster or "",
        instruction=file.instruction,
    )


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
    if not {"train", "score"} & set(splits):
        raise UserError(f"{path}: data names neither train nor score.")
    if data.hub:
        hub = data.hub
        return {split: read_hub(hub, data.config, data.revision, name) for split, name in splits.items()}
    if data.config or data.revision:
        raise UserError(f"{path}: data.config and data.revision need data.hub.")
    for split, name in splits.items():
        if not (path.parent / name).is_file():
            raise UserError(f"{path}: the file of data.{split}, {path.parent / name}, does not exist.")
    return {split: read_table(path.parent / name) for split, name in splits.items()}


def _unpinned(data: _Data) -> tuple[str, ...]:
    if not data.hub or data.revision:
        return ()
    return (f"{data.hub} was read at whatever revision the hub has now; set data.revision to fix it.",)


def _converter(
    kind: Kind,
    column: str,
    labels: tuple[str, ...],
    rejected: str | None,
    cluster: str | None,
    *,
    written: bool,
) -> Callable[[Row], Converted]:
    def shared(row: Row) -> dict[str, Any]:
        return {} if cluster is None else {cluster: row.get(cluster)}

    def choice(row: Row) -> Converted:
        label = label_in(row, column, labels)
        return {name: value for name, value in row.items() if name != column}, label, None

    def answer(row: Row) -> Converted:
        target = plain(cell(row, column))
        if not target.strip():
            raise BadRowError(f"the target in {column!r} is empty.")
        return {name: value for name, value in row.items() if name != column}, None, target

    def messages(row: Row) -> Converted:
        found = conversation(row, column)
        said = found["messages"][-1]["content"]
        if written and not said.strip():
            raise BadRowError("the last turn says nothing that a written answer could be held against.")
        return {**found, **shared(row)}, None, said

    def text(row: Row) -> Converted:
        value = cell(row, column)
        if not isinstance(value, str) or not value.strip():
            raise BadRowError(f"{column!r} is {value!r}, not a text with something in it.")
        return {"text": value, **shared(row)}, None, None

    def preference(row: Row) -> Converted:
        pair = {
            name: _answer_in(row, place) for name, place in zip(PAIR, (column, str(rejected)), strict=True)
        }
        if pair["chosen"] == pair["rejected"]:
            raise BadRowError("the chosen and the rejected answer are the same.")
        others = {name: value for name, value in row.items() if name not in (column, rejected)}
        return {**others, **pair}, PAIR[0], None

    converters: dict[Kind, Callable[[Row], Converted]] = {
        "choice": choice,
        "answer": answer,
        "messages": messages,
        "text": text,
        "preference": preference,
    }
    return converters[kind]


def _answer_in(row: Row, column: str) -> str:
    value = cell(row, column)
    if not isinstance(value, str) or not value.strip():
        raise BadRowError(f"{column!r} is {value!r}, not an answer as text.")
    return value
