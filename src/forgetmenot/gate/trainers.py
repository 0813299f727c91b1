"""A trainer, as the callback meets it: what it must be like, its model, and how it logs."""

from typing import Any

from accelerate.utils import extract_model_from_parallel

from forgetmenot.errors import UserError
from forgetmenot.gate.undisturbed import undisturbed
from forgetmenot.gate.watcher import ME


def plain(model: Any) -> Any:
    """The model inside what wraps it to be distributed or compiled."""
    return extract_model_from_parallel(model, keep_torch_compile=False)


def check_model(model: Any) -> None:
    """See that this process has all weights of a causal language model, which the engine can ask.

    Raises:
        UserError: If it has not.
    """
    from accelerate.state import AcceleratorState, is_initialized
    from torch.distributed.tensor import DTensor

    launched = AcceleratorState().distributed_type.value if is_initialized() else "NO"
    sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    if sharded or launched in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        how = {"DEEPSPEED": "DeepSpeed", "MEGATRON_LM": "Megatron-LM", "FSDP": "FSDP"}.get(
            launched, "its mesh"
        )
        raise UserError(
            f"{ME}: the model is trained with {how}, which shards its weights, and the callback needs them "
            "whole; train with DDP or on one device, or run `fmn check` on the saved checkpoints."
        )
    if getattr(model, "get_output_embeddings", lambda: None)() is None or getattr(
        model.config, "is_encoder_decoder", False
    ):
        raise UserError(
            f"{ME}: {type(model).__name__} is no causal language model, and only such a model can be asked."
        )
    for adapter in getattr(model, "peft_config", {}).values():
        if adapter.is_prompt_learning:
            raise UserError(
                f"{ME}: the adapter is a soft prompt of PEFT's ({adapter.peft_type.value}), with which the "
                "engine cannot ask; train another kind of adapter."
            )
    for kind in {parameter.device.type for parameter in model.parameters()} - {"cpu", "cuda"}:
        raise UserError(
            f"{ME}: the model is on a device of type {kind}, and only CUDA devices and CPUs are supported."
        )


def check_best(args: Any) -> None:
    """Refuse settings by which the trainer chooses its best checkpoint itself, or saves none.

    Raises:
        UserError: If they are such.
    """
    if args.save_strategy == "no":
        raise UserError(f"{ME}: best=True marks a checkpoint, and save_strategy='no' saves none.")
    if args.load_best_model_at_end or args.metric_for_best_model or args.save_strategy == "best":
        raise UserError(
            f"{ME}: best=True marks the best checkpoint by what is forgotten, and the trainer is to choose "
            "it by a metric (load_best_model_at_end, metric_for_best_model or save_strategy='best'); leave "
            "one out."
        )


def log(trainer: Any, state: Any, control: Any, model: Any, values: dict[str, float]) -> None:
    """Log through the trainer; without one, only where its state keeps what was logged.

    Args:
        trainer: The trainer, if it is known.
        state: Its state.
        control: What it will do next, which stays as it is.
        model: The one in training.
        values: By name.
    """
    if trainer is None:
        state.log_history.append({**values, "epoch": state.epoch, "step": state.global_step})
        return
    due, shows = control.should_log, getattr(trainer, "log_completions", False)
    with undisturbed(model):
        model.eval()  # so that TRL's trainers keep what they average for their own log of training
        try:
            if shows:
                trainer.log_completions = False  # GRPO would show those of the last batch again
            trainer.log(values)
        finally:
            if shows:
                trainer.log_completions = shows
            control.should_log = due  # to have logged clears it
