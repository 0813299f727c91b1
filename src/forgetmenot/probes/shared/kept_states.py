"""The hidden states of every stage of a run, kept so that models can be held against one another by layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from forgetmenot.engine import ranks
from forgetmenot.paths import file_name
from forgetmenot.record.seal import check_file, read_json, write_sealed, written_sealed

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
MEASURED = "measured.json"
"""The stages in the order in which they were measured."""


class KeptStates:
    """The states of one set of inputs, a file for each stage: layer → [inputs, width], in fp32.

    Attributes:
        folder: Of this set; its name ends in a hash of the inputs' tokens.
    """

    def __init__(self, probe: Path, name: str, prompts: Sequence[tuple[int, ...]]) -> None:
        """The states in a probe's folder, of a set of inputs that has a name."""
        self.folder = probe / file_name(name, prompts)

    def keep(self, stage: str, states: Tensor) -> None:
        """Keep a stage's states [inputs, layers, width]."""
        if ranks.writes():
            layers = states.transpose(0, 1).contiguous().numpy()  # a file takes what lies in one piece
            with written_sealed(self._file(stage)) as aside:
                save_file({str(layer): one for layer, one in enumerate(layers)}, aside)
            stages = self.stages()
            if stage not in stages:
                write_sealed(self.folder / MEASURED, json.dumps([*stages, stage]) + "\n")
        ranks.wait()

    def stages(self) -> list[str]:
        """Those that were measured, in this order."""
        return read_json(self.folder / MEASURED, list) or []

    def before(self, stage: str) -> str | None:
        """The stage that was measured before this one; None where one between them was not.

        A run's stages have numbers in front: "02-mrpc".
        """
        earlier = self.stages()[: self.stages().index(stage)]
        if not earlier:
            return None
        numbers = [name.partition("-")[0] for name in (earlier[-1], stage)]
        gap = all(number.isdecimal() for number in numbers) and int(numbers[1]) - int(numbers[0]) != 1
        return None if gap else earlier[-1]

    def check(self, stage: str) -> None:
        """Hold a stage's file against what was written.

        Raises:
            UserError: It is another.
        """
        check_file(self._file(stage))

    def of(self, stage: str, layer: int) -> Floats:
        """One layer of a stage [inputs, width]; no other is read."""
        with safe_open(self._file(stage), framework="np") as file:
            found: Floats = file.get_tensor(str(layer))
        return found

    def _file(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"
