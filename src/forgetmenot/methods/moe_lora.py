"""LoRA as a mixture of experts: a gate in each layer decides, token by token, which of them speak.

MoE-LoRA in the form of LoRAMoE (Dou et al. 2024, arXiv 2312.09979) and of CoIN's baseline (Chen et al. 2024,
arXiv 2403.08350): experts (A_e, B_e) beside each linear layer, weighed by a soft gate on the layer's input,

    W x + α/r Σ_e E · softmax(G x)_e · B_e A_e x.

The configured rank is divided among the E experts, so the adapter is as large as plain LoRA's and lies in the
same files: expert e is block e of A's rows and of B's columns. The factor E is our own: with the gate at its
start, G = 0, all weights are 1 and the layer is plain LoRA. LoRAMoE's balancing of experts needs examples
that are labelled by kind of task, and is left out. The gate looks at one token, so shared prefixes are
exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Method, Stage
from forgetmenot.methods.shared.method import Options as BaseOptions
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.settings import PositiveInt

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

    from forgetmenot.engine.learner import Learner

ADAPTER = "default"
GATES = "expert_gates"


class Options(BaseOptions):
    """How many experts there are."""

    experts: PositiveInt = 4
    """How many experts divide `adapter.rank` among them; one is plain LoRA. The default is our own."""


class MoELoRA(Method):
    """Train LoRA experts for all tasks, which a gate weighs token by token (MoE-LoRA)."""

    Options = Options
    keeps: ClassVar[str] = "the gates of its experts, however many tasks"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora",), "per_stage": ("continue",)}
    not_one_model: ClassVar[str] = (
        "weighs its experts by each token, which merged weights cannot: the experts are a LoRA adapter, and "
        "method.safetensors holds their gates."
    )

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.gates: dict[str, Tensor] = {}
        """By the number of the layer: in the model where they are installed, read from disk before."""

    def check(self, adapter: AdapterSettings) -> None:
        """The experts must have equal shares of the rank."""
        super().check(adapter)
        if adapter.rank % self.options.experts:
            raise UserError(
                f"method.experts: {self.options.experts} experts cannot share adapter.rank {adapter.rank} "
                "evenly; choose a rank that is a multiple of the number of experts."
            )

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """The gates learn with the experts."""
        for gate in self._installed(learner.model):
            gate.requires_grad_(True)

    @contextmanager
    def answering(self, learner: Learner) -> Iterator[None]:
        """With the gates, also in a model that was just read from disk."""
        if self.gates:
            self._installed(learner.model)
        yield

    def _installed(self, model: PeftModel) -> nn.ParameterList:
        """The gates of a model, put in where they are missing."""
        import torch
        from torch import nn

        if not hasattr(model, GATES):
            experts = self.options.experts
            inner = _inner_layers(model) if experts > 1 else []  # a single expert needs no gate
            gates = nn.ParameterList(
                self.gates.get(f"gate.{k}", torch.zeros(experts, layer.in_features)).to(model.device)
                for k, layer in enumerate(inner)
            ).requires_grad_(False)
            for layer, gate in zip(inner, gates, strict=True):
                layer.register_forward_hook(_weigh(gate))
            model.add_module(GATES, gates)
        found: nn.ParameterList = getattr(model, GATES)
        self.gates = {f"gate.{k}": gate for k, gate in enumerate(found)}
        return found

    def state_dict(self) -> dict[str, Any]:
        """The gates."""
        return {name: gate.detach().clone() for name, gate in self.gates.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.gates = dict(state)


def _inner_layers(model: PeftModel) -> list[Any]:
    """The A of every adapted linear layer."""
    from peft.tuners.lora import LoraLayer

    adapted = (module for module in model.modules() if isinstance(module, LoraLayer))
    return [layer.lora_A[ADAPTER] for layer in adapted if ADAPTER in layer.lora_A]


def _weigh(gate: nn.Parameter) -> Any:
    """A hook on A that weighs the block of each expert by the gate's softmax, times their number."""
    from torch import nn

    def hook(_module: nn.Module, inputs: tuple[Tensor], inner: Tensor) -> Tensor:
        experts = len(gate)
        weights = experts * nn.functional.linear(inputs[0], gate).softmax(-1)
        return inner * weights.repeat_interleave(inner.shape[-1] // experts, -1).to(inner.dtype)

    return hook
