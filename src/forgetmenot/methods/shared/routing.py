"""The router: it assigns a prompt without a task id to the task with the most similar prompts.

The nearest class mean over embeddings of the untouched base model, as linear discriminant analysis measures
distance (in continual learning: Hayes and Kanan 2020, SLDA, arXiv 1909.01520):

    route(x) = argmin_t (h(x) − μ_t)ᵀ Σ⁻¹ (h(x) − μ_t),    μ_t = mean of h over training prompts of task t,

with h(x) the hidden state at the prompt's last token. Σ is the covariance within the tasks, all in one,
shrunk towards a multiple of the identity by what so few prompts leave uncertain (OAS; Chen et al. 2010,
"Shrinkage Algorithms for MMSE Covariance Estimation", eq. 23, as scikit-learn computes it: without the terms
in 2/width, which vanish where states are wide). A language model's hidden states vary in a few directions
far more than in all others, and without Σ (`euclidean`; Mensink et al. 2013) those decide.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.settings import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


MOST_KEPT = 2**26
"""Numbers in the base model's views of prompts that are kept from one stage to the next: 256 MiB; ours."""


class RoutingOptions(Options):
    """How prompts are told apart."""

    layer: NonNegativeInt | Literal["middle"] = "middle"
    """The layer whose output embeds a prompt; 0 is the token embeddings. The middle one by default: what lies
    above it turns towards the answer, and away from the question."""
    prompts: PositiveInt = 512
    """The most training prompts of a task that its centroid is the mean of, evenly spaced."""
    distance: Literal["mahalanobis", "euclidean"] = "mahalanobis"
    """The distance to a centroid: with the covariance within the tasks (`mahalanobis`), or without it."""


class Routing(Method):
    """Send each prompt to the part of the method that learned its task."""

    Options: ClassVar[type[Options]] = RoutingOptions

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.centroids: dict[str, Tensor] = {}
        self.scatter: Tensor | None = None  # the sum over prompts of (h − μ)(h − μ)ᵀ, fp64 [width, width]
        self.counted = 0
        self._views: dict[bytes, tuple[Tensor, dict[str, int]]] = {}  # and the positions that each took

    @abstractmethod
    def as_base(self, learner: Learner) -> AbstractContextManager[None]:
        """Context in which the model answers as the untouched base."""

    def check_model(self, learner: Learner) -> None:
        """The layer that embeds must be there."""
        self._layer(learner)

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Take the centroid of each of the stage's tasks, and how its prompts lie around it."""
        for task, examples in stage.data.items():
            if examples:
                some = examples[:: -(-len(examples) // self.options.prompts)]
                states = self._embed(learner, [example.prompt for example in some]).double()
                centroid = states.mean(0)
                self.centroids[task] = centroid.float()
                if self.options.distance == "mahalanobis":
                    around = states - centroid
                    self.scatter = around.T @ around + (0 if self.scatter is None else self.scatter)
                    self.counted += len(around)

    def route(self, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Sequence[str] | None:
        """The task whose centroid is nearest to each prompt."""
        import torch

        if not self.centroids:
            return None
        tasks, centroids = list(self.centroids), torch.stack(list(self.centroids.values())).double()
        states = self._embed(learner, prompts).double()
        if self.scatter is not None:
            lower = torch.linalg.cholesky(shrunk(self.scatter, self.counted))
            states, centroids = (
                torch.linalg.solve_triangular(lower, one.T, upper=False).T for one in (states, centroids)
            )
        return [tasks[k] for k in torch.cdist(states, centroids).argmin(1).tolist()]

    def _embed(self, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """The base model's view of each prompt [prompts, width]."""
        if not all(prompts):
            raise UserError(
                "method.name: this method tells tasks apart by their prompts, and plain text has none. "
                "Leave such tasks out, or choose another method."
            )
        # The base never changes, and every stage asks the same. Prompts are known by the call that asks them
        # together: packed with others they would differ in their last bits. Positions count always: a
        # resumed run tells the same.
        layer, before = self._layer(learner), dict(learner.counts)
        key = hashlib.sha256(repr((layer, [*map(tuple, prompts)])).encode()).digest()
        if key in self._views:
            found, taken = self._views[key]
            learner.counts |= {name: before[name] + more for name, more in taken.items()}
            return found
        with self.as_base(learner):
            found = learner.hidden(prompts, layer)
        if found.numel() + sum(one.numel() for one, _ in self._views.values()) <= MOST_KEPT:
            self._views[key] = found, {name: learner.counts[name] - n for name, n in before.items()}
        return found

    def _layer(self, learner: Learner) -> int:
        layers: int = learner.model.config.get_text_config().num_hidden_layers
        layer: int = layers // 2 if self.options.layer == "middle" else self.options.layer
        if layer > layers:
            raise UserError(f"method.layer: this model has {layers} layers, and no layer {layer}.")
        return layer

    def state_dict(self) -> dict[str, Any]:
        """Each task's centroid, and the covariance within the tasks."""
        state: dict[str, Any] = {f"centroid.{task}": value for task, value in self.centroids.items()}
        return state if self.scatter is None else {**state, "scatter": self.scatter, "counted": self.counted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.centroids = {
            name.removeprefix("centroid."): value
            for name, value in state.items()
            if name.startswith("centroid.")
        }
        self.scatter, self.counted = state.get("scatter"), state.get("counted", 0)


def shrunk(scatter: Tensor, count: int) -> Tensor:
    """A covariance from few samples, made invertible: the oracle approximating shrinkage (OAS).

    With p the width and n the samples, the paper's ρ = ((1 − 2/p) tr S² + tr² S) / ((n + 1 − 2/p) (tr S² −
    tr² S / p)); like `sklearn.covariance.oas` this leaves 2/p out.

    Args:
        scatter: Σ x xᵀ over samples of mean zero, in fp64 [width, width].
        count: How many samples; at least one.

    Returns:
        (1 − ρ) S + ρ tr(S)/width I, with S = scatter / count [width, width]. Where no sample differs from the
        mean, the identity.
    """
    import torch

    covariance, width = scatter / count, len(scatter)
    size = covariance.trace() / width
    if size == 0:
        return torch.eye(width, dtype=scatter.dtype)
    spread = covariance.square().mean()
    least = (count + 1) * (spread - size**2 / width)
    share = 1.0 if least <= 0 else min(float((spread + size**2) / least), 1.0)
    return (1 - share) * covariance + share * size * torch.eye(width, dtype=scatter.dtype)
