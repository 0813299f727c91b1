"""The `layers` probe: the similarity of the hidden states to the base model's, layer by layer."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.numpy import load_file, save_file

from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.probes.shared.probe import NOT_FINITE, Part, Probe, ProbeOptions
from forgetmenot.probes.shared.prompt_sets import read_prompts
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.record.seal import check_file, written_sealed
from forgetmenot.settings import PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


NOTHING = 1e-12
"""A debiased product below this part of the biased one is rounding."""


class LayersOptions(ProbeOptions):
    """On what the states are compared.

    Attributes:
        prompts: One of TRACE's sets of prompts, or the path of a JSON or JSONL file whose rows have a
            `prompt`, such as the inputs of a task.
        limit: Take the first so many.
    """

    prompts: str = "self-instruct"
    limit: PositiveInt | None = None


class Layers(Probe):
    """Layers: linear CKA of each layer's states at the last prompt token, against the base model's.

    MOSSA's representation (Zhao, Ziser and Cohen, arXiv 2410.20008), whose other model is one that was tuned
    on a task; here it is the run's own base model, so that 1 is a layer that says the same as before, and 0
    one that says nothing of it. The value is the debiased estimate; MOSSA's, the biased one, stands under
    `more`. Layer 0 are the embeddings. There is no delta: the base is 1 against itself.
    """

    Options = LayersOptions

    def __init__(self, options: LayersOptions, data_dir: Path | None) -> None:
        super().__init__(options, data_dir)
        self.prompts = read_prompts(options.prompts, data_dir)[: options.limit]
        if len(self.prompts) < 4:
            raise UserError("evaluation.probes.layers: it needs four prompts or more to compare layers.")

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """A part for each layer."""
        import torch

        tokens = tokens_of(learner.tokenizer).plain(self.prompts)
        positions = learner.max_positions
        prompts = [row[-positions:] if positions else row for row in tokens]
        layers: int = learner.model.config.get_text_config().num_hidden_layers
        with learner.progress("layers", layers + 1) as advance:
            states = []
            for layer in range(layers + 1):
                states.append(learner.hidden(prompts, layer))
                advance(1)
        kept = folder / f"states-{zlib.crc32(repr(prompts).encode()):08x}.safetensors"
        if stage == base and ranks.writes():
            with written_sealed(kept) as aside:
                save_file({str(layer): one.numpy() for layer, one in enumerate(states)}, aside)
        ranks.wait()
        check_file(kept)
        reference = {int(name): torch.from_numpy(one) for name, one in load_file(kept).items()}
        return [_part(layer, one, reference[layer]) for layer, one in enumerate(states)]


def _part(layer: int, states: Tensor, reference: Tensor) -> Part:
    name, metric, n = f"layer {layer}", "debiased linear CKA with the base model", len(states)
    if not (states.isfinite().all() and reference.isfinite().all()):
        return Part(name, None, metric, n, reason=NOT_FINITE)
    value = debiased_cka(states, reference)
    if math.isnan(value):
        reason = "all prompts have the same state there, or all states are equally far apart"
        return Part(name, None, metric, n, reason=reason)
    return Part(name, value, metric, n, more={"biased": linear_cka(states, reference)})


def debiased_cka(one: Tensor, other: Tensor) -> float:
    """Linear centred kernel alignment by the unbiased estimate of HSIC, in fp64: 1 alike, 0 unrelated.

    HSIC₁(X, Y) / √(HSIC₁(X, X) HSIC₁(Y, Y)) (Murphy, Zylberberg and Fyshe 2024, arXiv 2405.01012), with HSIC₁
    that of Song et al. (2012, "Feature Selection via Dependence Maximization", JMLR 13, eq. 5). For columns
    of mean zero and a linear kernel it is, but for n (n − 3),

        ‖XᵀY‖² − n/(n−2) Σᵢ ‖xᵢ‖² ‖yᵢ‖² + Σᵢ ‖xᵢ‖² Σᵢ ‖yᵢ‖² / ((n−1)(n−2)).

    It may lie a little below 0. NaN where one of them has no structure at all: the same in all rows, or all
    rows equally far apart.

    Args:
        one: [rows, width]; four rows or more.
        other: [rows, another width].
    """
    x, y = _centred(one), _centred(other)
    products = [_unbiased(*pair) for pair in ((x, y), (x, x), (y, y))]
    if products[1] <= NOTHING * _biased(x, x) or products[2] <= NOTHING * _biased(y, y):
        return math.nan
    return products[0] / math.sqrt(products[1] * products[2])


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Linear centred kernel alignment as first defined, in fp64: from 0 to 1; for comparison with papers.

    ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) after centring the columns (Kornblith et al. 2019, arXiv 1905.00414, eq. 3). It is
    biased: unrelated Gaussian states of width p read p / (p + n) in n rows.

    Args:
        one: [rows, width].
        other: [rows, another width].
    """
    x, y = _centred(one), _centred(other)
    return _biased(x, y) / math.sqrt(_biased(x, x) * _biased(y, y))


def _centred(values: Tensor) -> Tensor:
    values = values.double() - values[0].double()  # exactly 0 where all rows are the same
    return values - values.mean(0)


def _biased(x: Tensor, y: Tensor) -> float:
    return float((x.T @ y).square().sum())


def _unbiased(x: Tensor, y: Tensor) -> float:
    n, a, b = len(x), x.square().sum(1), y.square().sum(1)
    return _biased(x, y) - n / (n - 2) * float(a @ b) + float(a.sum() * b.sum()) / ((n - 1) * (n - 2))
