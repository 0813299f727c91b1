"""A stage's weights on disk: one folder in the stage's, whose name tells the kind of adapter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from forgetmenot.errors import UserError
from forgetmenot.models.adapt import kind_of, known_adapters
from forgetmenot.models.load import no_progress_bars
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.record.damage import damaged
from forgetmenot.record.seal import check_folder


def save_weights(
    model: Any, settings: AdapterSettings, stage: Path, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write adapter/, model/ or prompt/ under a stage's folder, as safetensors.

    Args:
        model: The model.
        settings: What learned.
        stage: The stage's folder.
        weights: The full weights of a model that holds only its shard of them.
    """
    with no_progress_bars():
        kind_of(settings).save(model, stage, weights)


def weight_folders(stage: Path) -> list[Path]:
    """The folders under a stage's that hold weights; none where they were removed."""
    places = [stage / kind.folder for kind in known_adapters().values()]
    return [place for place in places if place.is_dir()]


def has_weights(stage: Path) -> bool:
    """Whether a stage's folder still holds weights."""
    return bool(weight_folders(stage))


def load_weights(base: Any, stage: Path, *, trainable: bool) -> Any:
    """The model as the stage left it.

    Args:
        base: A fresh base model: adapters are put into it; with full weights only its device, dtype and
            configuration are used.
        stage: The stage's folder.
        trainable: Whether training continues from here (only the last adapter learns).

    Raises:
        UserError: If the folder holds no weights, or damaged ones.
    """
    for kind in known_adapters().values():
        if (stage / kind.folder).is_dir():
            check_folder(stage / kind.folder)
            try:
                with no_progress_bars():
                    return kind.load(base, stage, trainable=trainable)
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                raise damaged(stage / kind.folder, f"it cannot be read ({error})") from error
    raise UserError(
        f"{stage} holds no weights: the run has not come to this stage, or did not keep its weights, as only "
        "`checkpoints: all` does for every stage."
    )
