"""What a watched training was, as its record says."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from forgetmenot.gate.watcher import Watcher

PACKAGES = ("forgetmenot", "torch", "transformers", "trl", "peft", "accelerate")


def about(args: Any, model: Any, trainer: Any, watcher: Watcher) -> dict[str, Any]:
    """What the page says of the training, and what a resumed one must share (`tasks`).

    Args:
        args: The trainer's settings.
        model: The one that is trained.
        trainer: The trainer, if it is known.
        watcher: What is asked.
    """
    return {
        "described": {
            "model": str(getattr(model.config, "_name_or_path", "") or "the model"),
            "method": "Trainer" if trainer is None else type(trainer).__name__,
            "adapter": _adapter_in_words(model),
            "seed": args.seed,
            "split": watcher.panel.asking.evaluation.split,
        },
        "tasks": {
            one.task.name: {
                "metric": one.task.metric,
                "n": len(one.examples),
                "data": one.data,
                "prompt": one.prompt.hash,
                "chat": one.prompt.chat,
            }
            for one in watcher.scored
        },
    }


def environment(watcher: Watcher) -> dict[str, Any]:
    """What the numbers depend on beside the weights, once the model has been asked."""
    assert watcher.session is not None, "asked first"
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"identity": watcher.session.identity, **watcher.session.record, "versions": versions}


def _adapter_in_words(model: Any) -> str:
    """What learns: "LoRA, rank 8", or all weights."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        return "full fine-tuning"
    config = configs[model.active_adapters[0]]
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    rank = getattr(config, "r", None)
    name = "LoRA" if kind == "LORA" else kind
    return name if rank is None else f"{name}, rank {rank}"
