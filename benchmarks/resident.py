"""The peak memory that a piece of work adds to what the process held before (on a CPU: Linux only)."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

MIB = 2**20


def added_at_peak(work: Callable[[], object], device: torch.device) -> float:
    """MiB: of PyTorch's tensors on a GPU, of resident pages on a CPU."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    ctypes.CDLL(None).malloc_trim(0)  # else work could use what was freed before, and add nothing
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # begin a new peak
    work()
    return (_status("VmHWM") - before) / 1024


def resident() -> float:
    """MiB that the process holds now."""
    return _status("VmRSS") / 1024


def _status(name: str) -> int:
    """A figure of the process's memory, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
