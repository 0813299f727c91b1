"""The work that both sides are given: `workload.yaml`, and the models, prompts and examples that it names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from forgetmenot.engine.attention import choose_attention, use_attention
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import node_budget
from forgetmenot.engine.precision import Precision, choose_precision
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.models.load import load_model, model_source
from forgetmenot.models.settings import AdapterSettings, ModelSettings
from forgetmenot.prompting import Encoded, Encoder, Prompt, choose_prompt
from forgetmenot.tasks import Example, Task, load_tasks, sample
from forgetmenot.tasks.yaml_file import read_yaml

PATH = Path(__file__).with_name("workload.yaml")
SMALL = "small"
"""The model that --model names; the others are folders within --models."""
Layers = Literal["all", "top"]
WIDE = 512
"""A width from which a run computes in bf16 where the processor multiplies it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sizes(_Part):
    """How many examples of each task are scored, and trained on."""

    score: PositiveInt
    train: PositiveInt


class ModelRows(_Part):
    """A model's folder (none for `small`), and how many examples its rows have; see `workload.yaml`."""

    folder: str | None = None
    top: PositiveInt | None = None
    sizes: dict[NonNegativeInt, Sizes]
    whole_run: Sizes | None = None
    trial: Sizes | None = None


class Trl(_Part):
    """Fields of TRL's `SFTConfig`: those always set, and the choices of which the fastest counts."""

    always: dict[str, Any]
    choices: list[dict[str, Any]]


class Peers(_Part):
    """The peers' flags."""

    lm_eval: list[dict[str, int]]
    trl: Trl


class Memory(_Part):
    """The settings with which memory is measured."""

    train: PositiveInt
    slower: float = Field(ge=1)
    ours: list[dict[str, Any]]
    trl: list[dict[str, Any]]


class Tolerance(_Part):
    """The most by which the two sides may differ.

    Attributes:
        log_likelihood: Of a candidate, in nats.
        first_loss: Of the first step, in nats per token.
        weights: Of the weights after training: the norm of the difference over that of the update.
        score: Of a cell of the score matrix.
    """

    log_likelihood: float
    first_loss: float
    weights: float
    score: float


class Workload(_Part):
    """The content of `workload.yaml`, whose comments say what each part is; `of` makes it a row's own.

    Attributes:
        dtype: Of the matrix products, in a row's own.
    """

    tasks: list[str]
    prompt: str
    dtype: Precision = "fp32"
    seed: int
    repeats: NonNegativeInt
    adapter: AdapterSettings
    training: TrainingSettings
    models: dict[str, ModelRows]
    peers: Peers
    memory: Memory
    tolerance: dict[Precision, Tolerance]

    @property
    def rows(self) -> list["Row"]:
        """Every row that a table can have."""
        return [
            Row(model, shots, layers, dtype)
            for model, rows in self.models.items()
            for shots in rows.sizes
            for layers in get_args(Layers)
            if layers == "all" or rows.top
            for dtype in get_args(Precision)
        ]

    @property
    def tolerated(self) -> Tolerance:
        """What the two sides may differ by in a row's dtype."""
        return self.tolerance[self.dtype]

    def of(self, row: "Row") -> "Workload":
        """The workload of a row: with the layers that learn in it, and its dtype."""
        layers = "all" if row.layers == "all" else {"top": self.models[row.model].top}
        adapter = AdapterSettings(**self.adapter.model_dump(exclude_defaults=True) | {"layers": layers})
        return self.model_copy(update={"adapter": adapter, "dtype": row.dtype})


@dataclass(frozen=True)
class Row:
    """A line of a table: a model, a number of demonstrations, which layers learn, and a dtype."""

    model: str
    shots: int
    layers: Layers = "all"
    dtype: Precision = "fp32"

    def __str__(self) -> str:
        further = [one for one in (self.layers, self.dtype) if one not in ("all", "fp32")]
        return "/".join([self.model, str(self.shots), *further])


@dataclass(frozen=True)
class Material:
    """A task's part of a row: the same examples and the same prompt for both sides."""

    task: Task
    prompt: Prompt
    score: Sequence[Example]
    train: Sequence[Example]

    def questions(self) -> list[tuple[str, list[str]]]:
        """Each scored example's prompt and its candidates, as text."""
        return [(self.prompt.render(one.fields), self._answers()) for one in self.score]

    def lessons(self) -> list[tuple[str, str]]:
        """Each training example's prompt and answer, as text."""
        return [
            (self.prompt.render(one.fields), self.prompt.separator + self.prompt.choices[str(one.label)])
            for one in self.train
        ]

    def gold(self) -> list[int]:
        """The index of each scored example's right candidate."""
        return [self.task.labels.index(str(one.label)) for one in self.score]

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> Sequence[Encoded]:
        """Examples as our side's tokens."""
        return Encoder(self.task, self.prompt, tokenizer, max_length).encode_all(examples)

    def _answers(self) -> list[str]:
        return [self.prompt.separator + self.prompt.choices[label] for label in self.task.labels]


def read_workload(path: Path = PATH) -> Workload:
    """Read a workload file.

    Raises:
        UserError: If a key is unknown, missing, or has an unfit value.
    """
    try:
        return Workload.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {validation_sentence(error, Workload)}") from error


def read_material(workload: Workload, shots: int, sizes: Sizes, data_dir: Path | None) -> list[Material]:
    """The tasks of a row: prompts with their demonstrations, and the examples that a run would take."""
    return [
        Material(
            task=task,
            prompt=with_demonstrations(choose_prompt(task, workload.prompt), task, shots),
            score=sample(task.name, task.score, sizes.score),
            train=sample(task.name, task.train, sizes.train),
        )
        for task in load_tasks(workload.tasks, data_dir)
    ]


def with_demonstrations(prompt: Prompt, task: Task, shots: int) -> Prompt:
    """The prompt behind `shots` answered examples of train, which are part of its template."""
    answered = [
        prompt.render(one.fields) + prompt.separator + prompt.choices[str(one.label)] + "\n\n"
        for one in demonstrations(task, shots)
    ]
    if not answered:
        return prompt
    written = f"{{% raw %}}{''.join(answered)}{{% endraw %}}"
    return replace(prompt, name=f"{prompt.name}-{shots}-shot", template=written + prompt.template)


def demonstrations(task: Task, shots: int) -> list[Example]:
    """The first examples of each label in train, the labels taking turns."""
    labels = task.labels
    by_label = {label: [one for one in task.train if one.label == label] for label in labels}
    return [by_label[labels[k % len(labels)]][k // len(labels)] for k in range(shots)]


def model_of(workload: Workload, name: str, small: str, models: Path | None) -> Path:
    """Where a row's model lies.

    Args:
        workload: Names the folders.
        name: A key of `workload.models`.
        small: What --model names: a bundled model or a directory.
        models: What --models names: the folder that the others lie in.

    Raises:
        UserError: If there is no such folder.
    """
    folder = workload.models[name].folder
    if folder is None:
        return Path(model_source(ModelSettings(name=small))[0])
    if models is None or not (models / folder).is_dir():
        raise UserError(
            f"--models: the rows of {name} need a folder that holds {folder}/, and {models} is none; give "
            "the folder that the trained models lie in."
        )
    return models / folder


def check_dtype(dtype: Precision, device: torch.device) -> None:
    """Refuse bf16 where it is emulated.

    Raises:
        UserError: It is.
    """
    if choose_precision("auto", device, WIDE) == "fp32" and dtype == "bf16":
        raise UserError("--rows: this processor has no units for bf16; choose rows without it.")


def open_learner(workload: Workload, path: Path, device: torch.device, *, peer: bool = False) -> Learner:
    """The engine's handle on a model, as a run of LoRA opens it.

    On a CPU our weights are fp32, and a run rounds them once for all its passes; a peer, which would round
    them in every pass, has them in the row's dtype from the start.
    """
    weights: Precision = workload.dtype if peer or device.type == "cuda" else "fp32"
    settings = ModelSettings(name=str(path), dtype=weights)
    loaded = load_model(settings, trainable=workload.adapter.kind == "full", device=device)
    attention = choose_attention(workload.training.attention, device, loaded.model)
    use_attention(loaded.model, attention)
    budget = node_budget(device.type, attention, torch.get_num_threads())
    return Learner(loaded.model, loaded.tokenizer, budget, workload.dtype)
