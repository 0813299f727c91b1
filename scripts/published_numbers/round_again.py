"""A copy of a model whose layers are rounded to four bits once more: what such a rounding costs by itself.

    python -m scripts.published_numbers.round_again MODELS/smollm2-135m-instruct

Writes MODELS/smollm2-135m-instruct-rounded-again. The rounding is Q4_1's: 32 weights of a row share a scale
and a minimum, both in fp16. Its groups begin 16 weights later than those of the file that the model came
from, so that it rounds what lies between that file's levels. The embeddings are kept: there they have eight
bits.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

GROUP = 32
LEVELS = 15
ENDING = "-rounded-again"


def rounded(weight: Tensor) -> Tensor:
    """A matrix (outputs × inputs, a multiple of 32) with its weights on the sixteen levels of their group."""
    groups = weight.float().roll(-GROUP // 2, dims=1).reshape(len(weight), -1, GROUP)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    scale = ((high - low) / LEVELS).half().float()
    low = low.half().float()
    level = ((groups - low) / scale.clamp(min=1e-8)).round().clamp(0, LEVELS)
    return (low + level * scale).flatten(1).roll(GROUP // 2, dims=1).to(weight.dtype)


def main() -> None:
    """Round and write."""
    source = Path(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    with torch.no_grad():
        for layer in model.model.layers.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.copy_(rounded(layer.weight))
    target = source.with_name(source.name + ENDING)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    print(target)


if __name__ == "__main__":
    main()
