"""The work that both sides are given: `workload.yaml`, and the models, prompts and examples that it names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from forgetmenot.engine.attention import choose_attention, use_attention
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import node_budget
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.evaluation.readings import sample
from forgetmenot.models.load import load_model, model_source, no_progress_bars
from forgetmenot.models.settings import AdapterSettings, ModelSettings
from forgetmenot.prompting import Encoded, Encoder, Prompt, choose_prompt
from forgetmenot.tasks import Example, Task, load_tasks
from forgetmenot.tasks.yaml_file import read_yaml

PATH = Path(__file__).with_name("workload.yaml")
SMALL = "small"
"""The model that a user names; the others are dimensions with random weights."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sizes(_Part):
    """How many examples of each task are scored, and trained on."""

    score: PositiveInt
    train: PositiveInt


class ModelRows(_Part):
    """A model's dimensions (none for `small`) and the sizes by number of demonstrations."""

    config: dict[str, Any] | None = None
    sizes: dict[int, Sizes]


class Trl(_Part):
    """Fields of TRL's `SFTConfig`: those always set, and the choices of which the fastest counts."""

    always: dict[str, Any]
    choices: list[dict[str, Any]]


class Peers(_Part):
    """The peers' flags."""

    lm_eval: list[dict[str, int]]
    trl: Trl


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
    """The content of `workload.yaml`, whose comments say what each part is."""

    tasks: list[str]
    prompt: str
    dtype: dict[Literal["cpu", "cuda"], Literal["fp32", "bf16"]]
    seed: int
    pairs: PositiveInt
    adapter: AdapterSettings
    training: TrainingSettings
    models: dict[str, ModelRows]
    peers: Peers
    tolerance: dict[Literal["fp32", "bf16"], Tolerance]

    @property
    def rows(self) -> list["Row"]:
        """Every row that a table can have."""
        return [Row(model, shots) for model, rows in self.models.items() for shots in rows.sizes]


@dataclass(frozen=True)
class Row:
    """A line of a table: a model and a number of demonstrations."""

    model: str
    shots: int

    def __str__(self) -> str:
        return f"{self.model}/{self.shots}"


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


def read_material(workload: Workload, row: Row, data_dir: Path | None) -> list[Material]:
    """The tasks of a row: prompts with their demonstrations, and the examples that a run would take."""
    sizes = workload.models[row.model].sizes[row.shots]
    return [
        Material(
            task=task,
            prompt=with_demonstrations(choose_prompt(task, workload.prompt), task, row.shots),
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


def write_model(workload: Workload, name: str, small: str, folder: Path) -> Path:
    """Where a row's model lies; one of given dimensions is written into the folder, with random weights.

    Args:
        workload: Names the dimensions.
        name: A key of `workload.models`.
        small: The model named by the user: a bundled one or a directory. Its tokenizer serves all.
        folder: An empty one.
    """
    source, _ = model_source(ModelSettings(name=small))
    config = workload.models[name].config
    if config is None:
        return Path(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(workload.seed)
    with no_progress_bars():
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config, **special), dtype=torch.bfloat16
        ).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def open_learner(workload: Workload, path: Path, device: torch.device) -> Learner:
    """The engine's handle on a model, as a run of LoRA opens it."""
    dtype = workload.dtype[kind_of(device)]
    settings = ModelSettings(name=str(path), dtype=dtype)
    loaded = load_model(settings, trainable=workload.adapter.kind == "full", device=device)
    attention = choose_attention(workload.training.attention, device, loaded.model)
    use_attention(loaded.model, attention)
    budget = node_budget(device.type, attention, torch.get_num_threads())
    return Learner(loaded.model, loaded.tokenizer, budget, dtype)


def tolerance(workload: Workload, device: torch.device) -> Tolerance:
    """What the two sides may differ by in the dtype of a device."""
    return workload.tolerance[workload.dtype[kind_of(device)]]


def kind_of(device: torch.device) -> Literal["cpu", "cuda"]:
    """The key of a device in `Workload.dtype`."""
    return "cuda" if device.type == "cuda" else "cpu"
