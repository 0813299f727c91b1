"""The `layers` probe: the similarity of the hidden states to the base model's, layer by layer."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PositiveInt
from safetensors.numpy import load_file, save_file

from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.probes.shared.probe import Part, Probe, ProbeOptions
from forgetmenot.probes.shared.prompt_sets import read_prompts
from forgetmenot.prompting.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


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

    MOSSA's measure and representation (Zhao, Ziser and Cohen, arXiv 2410.20008), whose other model is one
    that was tuned on a task; here it is the run's own base model, so that 1 is a layer that says the same as
    before. Layer 0 are the embeddings. There is no delta: the base is 1 against itself.
    """

    Options = LayersOptions

    def __init__(self, options: LayersOptions, data_dir: Path | None) -> None:
        super().__init__(options, data_dir)
        self.prompts = read_prompts(options.prompts, data_dir)[: options.limit]
        if len(self.prompts) < 3:
            raise UserError("evaluation.probes.layers: it needs three prompts or more to compare layers.")

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """A part for each layer."""
        import torch

        tokens = Tokens(learner.tokenizer).plain(self.prompts)
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
            folder.mkdir(parents=True, exist_ok=True)
            aside = kept.with_name(f".{kept.name}.writing")
            save_file({str(layer): one.numpy() for layer, one in enumerate(states)}, aside)
            aside.rename(kept)
        ranks.wait()
        reference = {int(name): torch.from_numpy(one) for name, one in load_file(kept).items()}
        return [
            _part(layer, linear_cka(one, reference[layer]), len(prompts)) for layer, one in enumerate(states)
        ]


def _part(layer: int, value: float, n: int) -> Part:
    name, metric = f"layer {layer}", "linear CKA with the base model"
    if math.isnan(value):
        return Part(name, None, metric, n, reason="all prompts have the same state there")
    return Part(name, value, metric, n)


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Linear centred kernel alignment of two representations of the same rows, in fp64: from 0 to 1.

    NaN where one of them is the same in all rows.

    ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) after centring the columns (Kornblith et al. 2019, arXiv 1905.00414, eq. 3).

    Args:
        one: [rows, width].
        other: [rows, another width].
    """
    import torch

    x, y = (values.double() - values.double().mean(0) for values in (one, other))
    both = torch.linalg.norm(x.T @ y) ** 2
    return float(both / (torch.linalg.norm(x.T @ x) * torch.linalg.norm(y.T @ y)))
