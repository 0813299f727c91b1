"""Several processes as one run: who writes, who computes which pack, and sums over all of them.

Every process loads the same model, draws the same batches with the same seeds and calls these functions in
the same order. Without a process group each function is the identity.

Gradients are summed here, once per optimizer step, and not by PyTorch's DDP: its hooks expect one forward and
one backward in which every parameter takes part, while a step has several forwards, in a number that varies,
and methods call backward themselves and leave parameters out. One sum after the last backward holds for all
of them; what it gives up, sending while the last backward still computes, is little next to a step of LoRA.

Who only asks which process this is waits for no torch: what needs it imports it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from forgetmenot.errors import PeerLostError, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PATIENCE = timedelta(hours=4)  # others wait while the writer writes; a process that died is noticed at once
NO_FSDP = "FSDP was requested but has no effect"
BUCKET = 1 << 25  # elements that are summed in one message
LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""What launchers set, torchrun's and those of MPI; Accelerate's own variables begin with its name."""

T = TypeVar("T")

_alone = False
"""Whether this process takes no part in what the others do: see `alone`."""


def join() -> None:
    """Join the processes that a launcher started, if one did: over nccl on GPUs, over gloo on CPUs.

    Raises:
        UserError: If the launcher asks for something that would have no effect here.
    """
    if not any(name in LAUNCHERS or name.startswith("ACCELERATE_") for name in os.environ):
        return
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise UserError(
            "DeepSpeed is not supported: its engine fixes how many backward passes a step has, and here "
            "that varies. Use FSDP2 for a model that does not fit one device (accelerate launch --use_fsdp "
            "--fsdp_version 2), else plain data parallelism (--multi_gpu)."
        )
    sharding = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if sharding and not torch.cuda.is_available():
        raise UserError(f"{NO_FSDP} on CPUs: Accelerate shards on GPUs alone. Launch without --use_fsdp.")
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]
    )
    if accelerator.mixed_precision != "no":
        raise UserError(
            f"--mixed_precision {accelerator.mixed_precision} of accelerate launch has no effect here; "
            "set training.precision instead."
        )
    if sharding:
        _check_fsdp(accelerator)


def _check_fsdp(accelerator: Any) -> None:
    from accelerate.utils import DistributedType

    if accelerator.distributed_type != DistributedType.FSDP:
        raise UserError(f"{NO_FSDP} in a process that `accelerate launch --use_fsdp` did not start; do so.")
    if not accelerator.is_fsdp2:
        raise UserError("Of FSDP only version 2 is supported: add --fsdp_version 2.")
    plugin = accelerator.state.fsdp_plugin
    if plugin.activation_checkpointing:
        raise UserError(
            "FSDP's own activation checkpointing has no effect here; "
            "set training.activation_checkpointing: true instead."
        )
    if plugin.cpu_ram_efficient_loading:
        raise UserError(
            "Here every process reads the weights: add --fsdp_cpu_ram_efficient_loading false, "
            "and have memory for as many copies of the model as there are processes."
        )


def leave() -> None:
    """Part from the other processes, at the end of the program."""
    if joined():
        import torch.distributed as dist

        dist.destroy_process_group()


def joined() -> bool:
    """Whether there is a process group; while torch is not imported, or half of it alone, there is none."""
    if _alone or not sys.modules.keys() >= {"torch", "torch.distributed"}:
        return False
    import torch.distributed as dist

    return dist.is_initialized()


@contextmanager
def alone() -> Iterator[None]:
    """Compute as if there were no other process, which meanwhile waits for what is found here.

    Where one fails in the middle, nobody then waits for its part of a sum.
    """
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def world_size() -> int:
    """How many processes there are."""
    if not joined():
        return 1
    import torch.distributed as dist

    return dist.get_world_size()


def rank() -> int:
    """Which of them this is, from 0."""
    if not joined():
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def writes() -> bool:
    """Whether this process is the one that writes files, prints and draws."""
    return rank() == 0


def speaks() -> bool:
    """Whether this process tells the user why the run ends: of several, the one that ends first.

    Before they are joined they fail alike, and the first of them speaks.
    """
    if not joined():
        return os.environ.get("RANK", "0") == "0"
    import torch.distributed as dist

    try:
        count: int = dist.distributed_c10d._get_default_store().add("forgetmenot/ended", 1)
    except RuntimeError:  # the launcher, which keeps the store, is gone
        return writes()
    return count == 1


def wait() -> None:
    """Go on when all processes have come here."""
    if world_size() > 1:
        import torch.distributed as dist

        with _together():
            dist.barrier()


def agreed(find: Callable[[], T]) -> T:
    """What the writer finds: the others do not look themselves."""
    found = [find() if writes() else None]
    if world_size() > 1:
        import torch.distributed as dist

        with _together():
            dist.broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def all_reduce(values: Tensor) -> Tensor:
    """The sum of a tensor over the processes, on every one of them."""
    if world_size() == 1:
        return values
    import torch.distributed as dist

    summed = values.to(_device(), copy=True)
    with _together():
        dist.all_reduce(summed)
    return summed.to(values.device)


def gathered(found: Mapping[int, T]) -> dict[int, T]:
    """The entries that the processes found, all together on every one of them."""
    if world_size() == 1:
        return dict(found)
    import torch.distributed as dist

    parts: list[dict[int, T]] = [{} for _ in range(world_size())]
    with _together():
        dist.all_gather_object(parts, dict(found))
    return {key: value for part in parts for key, value in part.items()}


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum each parameter's gradient over the processes, in place.

    A gradient that is None everywhere stays None, since an optimizer does more to zeros. Sharded parameters
    are left alone: their gradients were summed in the backward pass (`forgetmenot.engine.shards`).
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor

    whole = [p for p in parameters if not isinstance(p, DTensor)]
    if world_size() == 1 or not whole:
        return
    present = all_reduce(torch.tensor([p.grad is not None for p in whole], dtype=torch.int32))
    gradients = []
    for parameter, count in zip(whole, present.tolist(), strict=True):
        if count and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        with _together():
            dist.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, summed in zip(bucket, parts, strict=True):
            gradient.copy_(summed.view_as(gradient))


def check_alike(parameters: Iterable[Tensor]) -> None:
    """Compare the parameters that every process has whole with the writer's.

    Raises:
        RuntimeError: If their sums differ: some hook did not do the same on every process.
    """
    import torch
    from torch.distributed.tensor import DTensor

    whole = [p.detach() for p in parameters if not isinstance(p, DTensor)]
    if world_size() == 1 or not whole:
        return
    sums = torch.stack([p.double().sum() for p in whole]).cpu()
    if not torch.allclose(sums, agreed(lambda: sums), rtol=1e-9, atol=1e-9, equal_nan=True):
        raise RuntimeError("The processes' weights differ after training: a hook did not do the same on all.")


@dataclass(frozen=True)
class PackTurn:
    """One of the packs that this process computes.

    Attributes:
        pack: Its index.
        counts: False where another process computes this pack and this one only keeps step with it.
        dealt: The packs that all processes compute in this turn.
    """

    pack: int
    counts: bool
    dealt: tuple[int, ...]


def turns(sizes: Sequence[int], *, keep_step: bool = False) -> Iterator[PackTurn]:
    """What this process computes of packs of so many input positions.

    Args:
        sizes: The input positions of each pack.
        keep_step: Whether a process whose packs are done repeats others' (with weight 0) until all are: the
            processes of a sharded model must make the same number of forward passes.
    """
    hands = deal(sizes, world_size())
    for turn in range(len(hands[0])):
        dealt = tuple(hand[turn] for hand in hands if turn < len(hand))
        own = hands[rank()]
        if turn < len(own):
            yield PackTurn(own[turn], True, dealt)
        elif keep_step:
            yield PackTurn(dealt[0], False, dealt)


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Deal packs so that all hands hold an equal number and about equally many positions.

    The largest first, each to the hand that holds the fewest positions (and of those the fewest packs) and
    has room. A pure function.

    Returns:
        For each hand its packs in order, the first hand no fewer than any other. One hand: all of them.
    """
    room = -(-len(sizes) // hands)
    held: list[list[int]] = [[] for _ in range(hands)]
    load = [0] * hands
    for pack in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        hand = min((h for h in range(hands) if len(held[h]) < room), key=lambda h: (load[h], len(held[h])))
        held[hand].append(pack)
        load[hand] += sizes[pack]
    return sorted((sorted(packs) for packs in held), key=len, reverse=True)


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in order, in lists of one dtype and at most BUCKET elements (or of a single tensor)."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        elements = sum(one.numel() for one in bucket) + tensor.numel()
        if bucket and (elements > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _device() -> torch.device:
    """Where this process computes, which is where its messages start."""
    import torch

    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


@contextmanager
def _together() -> Iterator[None]:
    """A message in which all take part; it fails where one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(f"Another process of this run has ended ({error}).") from error
