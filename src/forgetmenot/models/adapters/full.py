"""Full fine-tuning: all of the model's own weights learn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from forgetmenot.models.adapters.kind import AdapterKind
from forgetmenot.models.layers import first_learning, parameters_below
from forgetmenot.models.settings import KINDS, AdapterSettings

REFERENCE_WIDTH = 2048


class Full(AdapterKind):
    """All weights, kept in Transformers' layout."""

    folder = "model"
    uses = KINDS["full"]
    shards = True

    def default_rate(self, width: int) -> float:
        """1e-5 from width 2048 on; narrower models take larger steps, by 1/width².

        The rule is our heuristic: it meets the usual 5e-5 at width 896 and what small models need at 256.
        """
        return 1e-5 * max(1.0, REFERENCE_WIDTH / width) ** 2

    def check(self, model: Any, settings: AdapterSettings) -> None:
        """The layers must be there."""
        first_learning(model, settings.layers)

    def adapt(self, model: Any, settings: AdapterSettings, stage: int, seed: int) -> Any:
        """Let everything learn, or all that comes after the layers that do not."""
        model.requires_grad_(True)
        if first := first_learning(model, settings.layers):
            for parameter in parameters_below(model, first):
                parameter.requires_grad_(False)
        return model

    def is_in(self, model: Any) -> bool:
        """Every model has weights."""
        return True

    def save(self, model: Any, stage: Path, weights: Mapping[str, Any] | None = None) -> None:
        """Write all weights and the configuration."""
        model.save_pretrained(stage / self.folder, state_dict=weights)

    def load(self, base: Any, stage: Path, *, trainable: bool) -> Any:
        """Read all weights; of the base only its device, dtype and configuration are used."""
        device = next(base.parameters()).device
        model = AutoModelForCausalLM.from_pretrained(
            stage / self.folder, config=base.config, dtype=base.dtype, use_safetensors=True
        )
        return model.to(device).eval()


FULL = Full()
