"""SLAO: one LoRA adapter for all tasks, into which what each has learned is merged, factor by factor.

Qiao and Mahdavi 2026, "Merge before Forget: A Single LoRA Continual Learning via Continual Merging", ICLR,
arXiv 2512.23017, Algorithm 1. With A_i and B_i as training on task i leaves them, in PEFT's W + s B A,

    task i begins with    A = Qᵀ of the QR decomposition A_{i−1}ᵀ = Q R,    B = B_{i−1};
    then merged are       A' = A_i,    B' ← B' + λ(i) (B_i − B'),    λ(i) = 1 / √i.

A' and B' answer and are saved; B_i is kept beside them for the next task's beginning, so that memory does
not grow. A is replaced and not merged, since the A of different tasks are more alike than their B. The first
task is plain LoRA, with λ(1) = 1. The columns of Q have the signs that make R's diagonal positive, so that
rows that are orthonormal already stay as they are.

The algorithm is as others report it: a review and two independent implementations, which agree. We have not
seen the paper's own text. `power` and `orthogonal: false` are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from forgetmenot.methods.shared.lora_layers import learning, linear_layers
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.settings import NonNegativeFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class SLAO(Method):
    """Merge each task's adapter into one, its A replaced and its B averaged (SLAO).

    Attributes:
        tuned: B of each layer as the last task's training left it, by the layer's name.
    """

    keeps = "one copy of the adapter's B, however many tasks"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora",), "per_stage": ("continue",)}
    shards = False

    class Options(Options):
        """The settings of `slao`."""

        power: NonNegativeFloat = 0.5
        """The i-th task has the weight i^−power in the merged B; 0.5 is the paper's. With 0 the last task's B
        replaces the others'."""
        orthogonal: bool = True
        """Whether a task's A begins with orthonormal rows, as in the paper, or as the task before left it.
        Without, and with `power: 0`, this is `sequential`."""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.tuned: dict[str, Tensor] = {}
        self._merged: dict[str, Tensor] = {}

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """See that every adapted layer is a linear one."""
        linear_layers(learner)

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Go from the merged adapter to where the last task's training ended, its A made orthonormal."""
        import torch

        self._merged = {}
        if not self.tuned or not any(stage.data.values()):
            return
        with torch.no_grad():
            for name, layer in linear_layers(learner).items():
                a, b = (one[learning(layer)].weight for one in (layer.lora_A, layer.lora_B))
                self._merged[name] = b.clone()
                b.copy_(self.tuned[name])
                if self.options.orthogonal:
                    a.copy_(orthonormal(a))

    def end(self, learner: Learner, stage: Stage) -> None:
        """Merge, and remember what was merged."""
        import torch

        if not any(stage.data.values()):
            return
        share = stage.number**-self.options.power
        with torch.no_grad():
            for name, layer in linear_layers(learner).items():
                b = layer.lora_B[learning(layer)].weight
                self.tuned[name] = b.clone()
                if name in self._merged:
                    b.copy_(torch.lerp(self._merged[name], b, share))
        self._merged = {}

    def state_dict(self) -> dict[str, Any]:
        """The last task's B."""
        return dict(self.tuned)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.tuned = dict(state)


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows of the same span, each on the side of the given one [rank, width]."""
    import torch

    columns, triangle = torch.linalg.qr(rows.double().T)
    found: Tensor = (columns * torch.where(triangle.diagonal() < 0, -1.0, 1.0)).T.to(rows)
    return found
