"""A session: a loaded model with its layout chosen, taken to the weights of any stage."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from forgetmenot.config import RunConfig
from forgetmenot.engine import ranks, shards
from forgetmenot.engine.attention import Attention, choose_attention, use_attention
from forgetmenot.engine.guard import choose_layout, why_no_prefix, why_one_by_one
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import node_budget
from forgetmenot.engine.precision import choose_precision
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import kind_of
from forgetmenot.models.chat_templates import chat_template
from forgetmenot.models.load import load_model
from forgetmenot.models.quantize import check_quantization, compute_in
from forgetmenot.models.weights import load_weights
from forgetmenot.prompting import TokenSequence

PACKAGES = ("forgetmenot", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
CHECKPOINTING_FROM = 1_000_000_000


@dataclass
class Session:
    """The model of a run and everything about it that shapes its numbers.

    Attributes:
        learner: The engine's handle on the current weights.
        attention: How every model that is loaded masks tries.
        identity: What two runs must share to give the same numbers to the last bit.
        record: What is worth knowing beside that.
        beside: What the kind of adapter adds to the identity, by name.
    """

    config: RunConfig
    learner: Learner
    attention: Attention
    identity: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def max_length(self) -> int:
        """The most tokens of one sequence: the config's, within what the model has positions for."""
        longest = self.config.training.max_length
        return min(longest, self.learner.max_positions or longest)

    @property
    def learning_rate(self) -> float:
        """The config's, or that of `auto`."""
        rate = self.config.training.learning_rate
        return kind_of(self.config.adapter).default_rate(self.width) if rate == "auto" else rate

    @property
    def width(self) -> int:
        """The model's hidden size."""
        width: int = self.learner.model.config.get_text_config().hidden_size
        return width

    @property
    def computing_in_words(self) -> str:
        """What it computes on and in which numbers, in one line; (auto) marks what `auto` chose."""
        model, training, found = self.config.model, self.config.training, self.identity
        threads = f", threads {found['threads']}" if found["device"] == "cpu" else ""
        precision = f"precision {found['precision']}{_chosen(training.precision)}"
        weights = f"weights {found['dtype']}{_chosen(model.dtype)}"
        beside = "".join(f", {name.replace('_', ' ')} {found[name]}" for name in self.beside)
        return f"Device: {found['device']}{threads}; {precision}, {weights}{beside}"

    @property
    def in_words(self) -> str:
        """The same where something is trained: with the learning rate."""
        chosen = _chosen(self.config.training.learning_rate)
        return f"{self.computing_in_words}, learning rate {self.identity['learning_rate']:g}{chosen}"

    def examine(self, sequences: Sequence[TokenSequence], *, writes: bool = True) -> None:
        """Let the guard choose on the run's first sequences how they are laid out, and answers written.

        Args:
            sequences: What the guard looks at.
            writes: Whether anything is written at all; if not, how is not looked at.
        """
        with kind_of(self.config.adapter).examined(self.learner.model, self.config.adapter):
            self._examine(sequences, writes=writes)

    def _examine(self, sequences: Sequence[TokenSequence], *, writes: bool) -> None:
        own = choose_layout(self.learner, sequences)
        verdict = ranks.agreed(lambda: own)
        self.attention = verdict.attention
        use_attention(self.learner.model, self.attention)
        self.learner.budget = _budget(self.learner.device, self.attention)
        self.learner.layout = verdict.layout
        self.learner.training_layout = verdict.layout
        if verdict.layout == "trie" and self.config.adapter.dropout > 0:
            self.learner.training_layout = "blocks"
        no_prefix = why_no_prefix(self.learner, sequences) if verdict.layout == "trie" else "no trie"
        self.learner.continues = no_prefix is None
        found = why_one_by_one(self.learner, sequences) if writes else None
        alone = ranks.agreed(lambda: found)
        self.learner.together = alone is None
        self.identity |= {
            "attention": self.learner.model.config._attn_implementation,
            "pack_budget": self.learner.budget,
            "layout": self.learner.layout,
            "training_layout": self.learner.training_layout,
            "prefix_cache": self.learner.continues,
            "writes_together": self.learner.together,
        }
        not_taken = verdict.reasons | ({} if no_prefix is None else {"prefix": no_prefix})
        not_taken |= {} if alone is None else {"writing": alone}
        self.record |= {"guard": {"difference": verdict.difference, "not_taken": not_taken}}

    def to_base(self) -> None:
        """Go back to the untouched base model."""
        self._take_up(self._load())

    def to_stage(self, folder: Path, *, trainable: bool) -> None:
        """Go to the weights that a stage left on disk."""
        self._take_up(load_weights(self._load(), folder, trainable=trainable))

    def _load(self) -> Any:
        self.learner.model = None  # first make room: two models need not fit
        trainable = kind_of(self.config.adapter).uses.base_learns
        loaded = load_model(self.config.model, trainable=trainable, device=_loads_on())
        check_base(self.config, self.identity["model_revision"], loaded.revision)
        return loaded.model

    def _take_up(self, model: Any) -> None:
        self._prepare(model)
        self.learner.model = shards.shard(model) if shards.wanted() else model

    def _prepare(self, model: Any) -> None:
        """Bring a model that was just loaded into the run's ways of computing."""
        use_attention(model, self.attention)
        compute_in(model, torch.bfloat16 if self.learner.precision == "bf16" else torch.float32)
        _set_checkpointing(model, self.config)


def check_base(config: RunConfig, begun: str, now: str) -> None:
    """Hold the base model that is there now against the one that a run began with.

    Raises:
        UserError: They differ: what the run saved stands on the other one.
    """
    if now != begun:
        raise UserError(
            f"The model {config.model.name!r} is another than the run began with (it was {begun}, and "
            f"is {now} now), and what the run learned stands on that one; put it back, or train anew."
        )


def open_session(config: RunConfig, threads: int | None = None) -> Session:
    """Load the model of a config.

    Args:
        config: The run's.
        threads: How many CPU threads the run began with; None for a new run.
    """
    kind = kind_of(config.adapter)
    if shards.wanted() and not kind.shards:
        raise UserError(
            "FSDP is for full fine-tuning (adapter.kind: full); with adapter.kind: "
            f"{config.adapter.kind} every process holds the model: launch without --use_fsdp."
        )
    if threads is not None:
        torch.set_num_threads(threads)
    device = _device()
    check_quantization(config.model, config.adapter)
    loaded = load_model(config.model, trainable=kind.uses.base_learns, device=_loads_on())
    model = loaded.model
    kind.check(model, config.adapter)
    beside = kind.identity(model, config.adapter)
    width = model.config.get_text_config().hidden_size
    precision = choose_precision(config.training.precision, device, width)
    attention = choose_attention(config.training.attention, device, model)
    session = Session(
        config, Learner(model, loaded.tokenizer, _budget(device, attention), precision), attention
    )
    learner = session.learner
    learner.dpo_beta = config.training.dpo_beta
    learner.loss_average = config.training.loss_average
    parameters = sum(p.numel() for p in model.parameters())
    session._take_up(model)
    template = chat_template(config.model)
    chat = {} if template is None else {"chat_template": hashlib.sha256(template.encode()).hexdigest()[:16]}
    session.identity = {
        "model_revision": loaded.revision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": ranks.world_size(),
        "sharded": shards.wanted(),
        "precision": precision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": config.model.quantization,
        "attention": model.config._attn_implementation,
        "pack_budget": learner.budget,
        "max_length": session.max_length,
        "learning_rate": session.learning_rate,
        **chat,
        **beside,
    }
    session.beside = tuple(beside)
    packages = (*PACKAGES, "bitsandbytes") if config.model.quantization else PACKAGES
    session.record = {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "parameters": parameters,
        "dropout_set_to_0": loaded.dropout,
    }
    return session


def _chosen(setting: object) -> str:
    return " (auto)" if setting == "auto" else ""


def _budget(device: torch.device, attention: Attention) -> int:
    return node_budget(device.type, attention, torch.get_num_threads())


def _device() -> torch.device:
    """Where the model computes."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _loads_on() -> torch.device:
    """Where the model is loaded: what is going to be sharded need not fit one device."""
    return torch.device("cpu") if shards.wanted() else _device()


def _set_checkpointing(model: Any, config: RunConfig) -> None:
    """Trade time for memory: `auto` does so for full fine-tuning of more than a billion parameters."""
    wanted = config.training.activation_checkpointing
    if wanted == "auto":
        large = sum(p.numel() for p in model.parameters()) > CHECKPOINTING_FROM
        wanted = large and kind_of(config.adapter).uses.base_learns
    if wanted:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
