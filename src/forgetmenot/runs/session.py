"""A model at work: loaded, its layout chosen, taken to the weights of any stage."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from forgetmenot.config import RunConfig
from forgetmenot.engine import (
    NODE_BUDGET,
    Learner,
    auto_learning_rate,
    choose_layout,
    choose_precision,
    why_no_prefix,
)
from forgetmenot.models import check_targets, load_model, load_weights
from forgetmenot.prompting import TokenSequence

PACKAGES = ("forgetmenot", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
CHECKPOINTING_FROM = 1_000_000_000


@dataclass
class Session:
    """The model of a run and everything about it that shapes its numbers.

    Attributes:
        learner: The engine's handle on the current weights.
        identity: What two runs must share to give the same numbers to the last bit.
        record: What is worth knowing beside that.
    """

    config: RunConfig
    learner: Learner
    identity: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def max_length(self) -> int:
        """The most tokens of one sequence: the config's, within what the model has positions for."""
        text = self.learner.model.config.get_text_config()
        positions = getattr(text, "max_position_embeddings", None)
        return min(self.config.training.max_length, positions or self.config.training.max_length)

    @property
    def learning_rate(self) -> float:
        """The config's, or that of `auto`."""
        rate = self.config.training.learning_rate
        return auto_learning_rate(self.config.adapter.kind, self.width) if rate == "auto" else rate

    @property
    def width(self) -> int:
        """The model's hidden size."""
        width: int = self.learner.model.config.get_text_config().hidden_size
        return width

    def examine(self, sequences: Sequence[TokenSequence]) -> None:
        """Let the guard choose the layout on the run's first sequences."""
        verdict = choose_layout(self.learner, sequences)
        self.learner.layout = verdict.layout
        self.learner.training_layout = verdict.layout
        if (
            verdict.layout == "trie"
            and self.config.adapter.kind == "lora"
            and self.config.adapter.dropout > 0
        ):
            self.learner.training_layout = "blocks"
        no_prefix = why_no_prefix(self.learner, sequences) if verdict.layout == "trie" else "no trie"
        self.learner.continues = no_prefix is None
        self.identity |= {
            "layout": self.learner.layout,
            "training_layout": self.learner.training_layout,
            "prefix_cache": self.learner.continues,
        }
        not_taken = verdict.reasons | ({} if no_prefix is None else {"prefix": no_prefix})
        self.record |= {"guard": {"difference": verdict.difference, "not_taken": not_taken}}

    def to_base(self) -> None:
        """Go back to the untouched base model."""
        trainable = self.config.adapter.kind == "full"
        self.learner.model = None  # first make room: two models need not fit
        self.learner.model = load_model(self.config.model, trainable=trainable, device=_device()).model
        _set_checkpointing(self.learner.model, self.config)

    def to_stage(self, folder: Path, *, trainable: bool) -> None:
        """Go to the weights that a stage left on disk."""
        self.to_base()
        self.learner.model = load_weights(self.learner.model, folder, trainable=trainable)
        _set_checkpointing(self.learner.model, self.config)


def open_session(config: RunConfig, threads: int | None = None) -> Session:
    """Load the model of a config.

    Args:
        config: The run's.
        threads: How many CPU threads the run began with; None for a new run.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    device = _device()
    loaded = load_model(config.model, trainable=config.adapter.kind == "full", device=device)
    model = loaded.model
    check_targets(model, config.adapter)
    width = model.config.get_text_config().hidden_size
    precision = choose_precision(config.training.precision, device, width)
    learner = Learner(model, loaded.tokenizer, NODE_BUDGET.get(device.type, NODE_BUDGET["cpu"]), precision)
    _set_checkpointing(model, config)
    session = Session(config, learner)
    session.identity = {
        "model_revision": loaded.revision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "pack_budget": learner.budget,
        "max_length": session.max_length,
        "learning_rate": session.learning_rate,
    }
    session.record = {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "dropout_set_to_0": loaded.dropout,
    }
    return session


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _set_checkpointing(model: Any, config: RunConfig) -> None:
    """Trade time for memory: `auto` does so for full fine-tuning of more than a billion parameters."""
    wanted = config.training.activation_checkpointing
    if wanted == "auto":
        large = sum(p.numel() for p in model.parameters()) > CHECKPOINTING_FROM
        wanted = large and config.adapter.kind == "full"
    if wanted:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
