"""A model whose weights are spread over the processes: FSDP2, for full fine-tuning of what fits no device.

Each process holds a part of every parameter, a DTensor; PyTorch gathers a layer's weights while it computes
and sums the gradients in the backward pass. Every process must make the same number of forward passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from forgetmenot.engine import ranks

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.fsdp import FSDPModule


def wanted() -> bool:
    """Whether this run was launched to be sharded."""
    if not ranks.joined():
        return False
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    launched: bool = AcceleratorState().distributed_type == DistributedType.FSDP
    return launched


def shard(model: Any) -> Any:
    """Spread a model over the processes by Accelerate's FSDP plugin; gradients are summed, not averaged."""
    from accelerate import Accelerator
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    model = fsdp2_prepare_model(Accelerator(), model)
    for part in _parts(model):
        part.set_force_sum_reduction_for_comms(True)
        part.set_gradient_divide_factor(1.0)
    return model


def is_sharded(model: Any) -> bool:
    """Whether the model is spread over the processes."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def put_away(model: Any) -> None:
    """Let go of what a forward pass gathered, so that the model's parameters are its shards again."""
    if is_sharded(model):
        for part in _parts(model):
            part.reshard()


def put_away_part(model: Any, module: Any) -> None:
    """The same for one module's parameters alone, which are sharded by itself or with the model."""
    part = module if is_sharded(module) else model
    part.reshard()


def whole(value: Tensor) -> Tensor:
    """A tensor gathered from the processes, where it is spread over them."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_to_learn(value: Tensor) -> Tensor:
    """A parameter gathered from the processes, whose gradient is summed over them and sharded again."""
    from torch.distributed.tensor import DTensor, Partial

    if not isinstance(value, DTensor):
        return value
    return value.full_tensor(grad_placements=[Partial()] * value.device_mesh.ndim)


def whole_weights(model: Any) -> dict[str, Tensor] | None:
    """All weights of a sharded model, on the writer's CPU; the others get none. None if it is not sharded."""
    if not is_sharded(model):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast("dict[str, Tensor]", get_model_state_dict(model, options=options))


def _parts(model: Any) -> list[FSDPModule]:
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
