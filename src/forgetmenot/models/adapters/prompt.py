"""Soft prompts: learned embeddings before every sequence, while all weights stay as they are.

Prompt tuning (Lester et al. 2021, arXiv 2104.08691). To all that lays tokens out, a position of the prompt is
one more token, with an id below zero: −1 is the first row of the prompt, −2 the second. So it is the root of
every trie, has its own position, and costs once what many sequences share; only the embedding layer knows
that its values are learned. (PEFT's prompt learning drops the position ids that a trie needs.)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from forgetmenot.errors import UserError
from forgetmenot.models.adapters.kind import AdapterKind
from forgetmenot.models.settings import KINDS, AdapterSettings

NAME = "soft_prompt"
FILE = "soft_prompt.safetensors"


class SoftPrompt(nn.Module):
    """The rows of a prompt, in the parts in which they were added.

    Attributes:
        parts: The first one first [tokens, width].
        active: How many of the parts are in use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ParameterList()
        self.active = 0

    def add(self, rows: Tensor) -> None:
        """Add a part behind the others, and use all."""
        self.parts.append(nn.Parameter(rows))
        self.active = len(self.parts)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids that stand for the rows in use."""
        return tuple(range(-1, -1 - sum(len(part) for part in self.parts[: self.active]), -1))

    def embed(self, ids: Tensor, embedded: Tensor) -> Tensor:
        """Put the rows in place of what ids below zero were embedded to [..., width]."""
        rows = torch.cat(list(self.parts)).to(embedded.dtype)
        return torch.where((ids < 0)[..., None], rows[(-1 - ids).clamp(min=0)], embedded)


def soft_prompt(model: Any) -> SoftPrompt | None:
    """The soft prompt of a model, if it has one."""
    found: SoftPrompt | None = getattr(model, NAME, None)
    return found


def install(model: Any) -> SoftPrompt:
    """Give a model an empty soft prompt, unless it has one."""
    if (found := soft_prompt(model)) is not None:
        return found
    prompt, embedding = SoftPrompt(), model.get_input_embeddings()
    plain = embedding.forward

    def forward(ids: Tensor) -> Tensor:
        embedded: Tensor = plain(ids.clamp(min=0))
        return prompt.embed(ids, embedded) if prompt.parts else embedded

    embedding.forward = forward
    model.add_module(NAME, prompt)
    return prompt


def drawn_rows(model: Any, count: int, seed: int) -> Tensor:
    """Rows to begin with: the embeddings of tokens drawn from the vocabulary, in fp32 [count, width]."""
    weight = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(weight.shape[0], (count,), generator=generator).to(weight.device)
    rows: Tensor = weight.detach()[drawn].float().clone()
    return rows


@contextmanager
def with_parts(model: Any, count: int) -> Iterator[None]:
    """Answer behind the first `count` parts of the prompt alone; with 0 as the model without any."""
    prompt = soft_prompt(model)
    assert prompt is not None
    before, prompt.active = prompt.active, count
    try:
        yield
    finally:
        prompt.active = before


class PromptTuning(AdapterKind):
    """A soft prompt before a model that stays as it is; `new` adds a part behind those of earlier stages."""

    folder = "prompt"
    uses = KINDS["prompt"]
    not_one_model = (
        "A soft prompt is not a part of the model's weights, so no single model answers like this stage."
    )

    def default_rate(self, width: int) -> float:
        """1e-2 at any width, our own default."""
        return 1e-2

    def adapt(self, model: Any, settings: AdapterSettings, stage: int, seed: int) -> Any:
        """Let the last part learn."""
        prompt = install(model.requires_grad_(False))
        if not prompt.parts or settings.per_stage == "new":
            prompt.add(drawn_rows(model, settings.tokens, seed))
        prompt.parts[-1].requires_grad_(True)
        return model

    def is_in(self, model: Any) -> bool:
        """Whether there is a prompt with a part."""
        prompt = soft_prompt(model)
        return prompt is not None and len(prompt.parts) > 0

    def save(self, model: Any, stage: Path, weights: Mapping[str, Any] | None = None) -> None:
        """Write the parts."""
        prompt = soft_prompt(model)
        assert prompt is not None
        (stage / self.folder).mkdir(parents=True)
        parts = {str(k): part.detach().cpu().contiguous() for k, part in enumerate(prompt.parts)}
        save_file(parts, stage / self.folder / FILE)

    def load(self, base: Any, stage: Path, *, trainable: bool) -> Any:
        """Put the parts before the base.

        Raises:
            UserError: If a part is missing, or is not as wide as the model.
        """
        path = stage / self.folder / FILE
        prompt, parts = install(base), load_file(path)
        width = base.get_input_embeddings().weight.shape[1]
        for k in range(max(1, len(parts))):
            part = parts.get(str(k))
            if part is None or part.dim() != 2 or part.shape[1] != width or not part.is_floating_point():
                raise UserError(f"{path}: part {k} of the prompt is not there, or has another shape or type.")
            prompt.add(part.to(next(base.parameters()).device))
        return base.requires_grad_(False)


PROMPT = PromptTuning()
