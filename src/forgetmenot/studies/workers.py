"""How many runs of a study go on at a time where nobody says.

Two on a machine without a GPU: on two cores two runs of one thread each ended sooner than one after the other
with two threads (docs/performance.md). On a GPU one at a time, as there they would share its memory.
"""

from collections.abc import Iterable
from pathlib import Path

from forgetmenot.config import RunConfig
from forgetmenot.models.settings import BUNDLED, ModelSettings

ROOM = 8
"""How many times its weights' files a run may take of the memory: fp32 of files in 16 bits, what learns with
its gradients and moments, activations. A run with LoRA takes less."""
WEIGHTS = ("*.safetensors", "*.bin")
DEQUANTIZED = 4
"""How many times a GGUF file its weights may be in 16 bits: they are in four."""


def default_workers(configs: Iterable[RunConfig], threads: int, cores: int) -> tuple[int, str]:
    """Runs at a time on this machine, and why.

    Args:
        configs: The runs to do.
        threads: What each run has at least: what was asked for, else 1.
        cores: Of the machine.
    """
    import psutil
    import torch

    if 2 * threads > cores:
        return 1, f"{cores} core{'s' if cores > 1 else ''}"
    if torch.accelerator.is_available():
        return 1, "the machine has an accelerator"
    models = {config.model.title: config.model for config in configs}
    sizes = [weights_size(model) for model in models.values()]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return 1, "how large the model is will be known when it is here"
    needed, free = 2 * ROOM * max(known, default=0), psutil.virtual_memory().available
    if needed > free:
        return 1, f"two might not fit into {free / 2**30:.0f} GiB of free memory"
    return 2, f"{cores} cores, no accelerator"


def weights_size(model: ModelSettings) -> int | None:
    """Bytes of a model's weights in 16 bits, from its files; None where they are not there yet."""
    if model.name in BUNDLED:
        return 0  # a few MB
    path = Path(model.name).expanduser()
    if model.gguf_file is not None and path.is_dir():
        path = path / model.gguf_file
    if path.is_file():
        return path.stat().st_size * DEQUANTIZED
    if path.is_dir():
        return sum(file.stat().st_size for pattern in WEIGHTS for file in path.glob(pattern))
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    file = model.gguf_file or "model.safetensors"
    try:
        found = try_to_load_from_cache(model.name, file, revision=model.revision)
    except HFValidationError:  # a path at which nothing is yet
        return None
    if not isinstance(found, str):
        return None
    return Path(found).stat().st_size * (DEQUANTIZED if model.gguf_file else 1)
