"""The filters of SELF-GUIDE: why a written input or output is dropped.

Zhao et al. 2024 (arXiv 2407.12874) and the official code. That code adds the task's strings to one global
noise list with every call, so that a task inherits those of the tasks before it; here nothing is shared.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from unicodedata import category

import numpy as np

EMPTY, NOISE, WINDOW = "empty", "noise list", "length window"


@dataclass(frozen=True)
class Window:
    """The lengths that are kept: from `least` characters to fewer than `end`."""

    least: int
    end: int

    @property
    def is_empty(self) -> bool:
        """Whether no length lies in it, as where all demonstrations are equally long."""
        return self.end <= max(self.least, 1)

    def __contains__(self, length: object) -> bool:
        return isinstance(length, int) and self.least <= length < self.end


def window_of(texts: Sequence[str]) -> Window:
    """The mean length of texts in characters, less and plus two standard deviations, cut to whole numbers.

    The deviation is that of the texts themselves (divided by n), as in the official code.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.float64)
    mean, spread = lengths.mean(), 2 * lengths.std()
    return Window(int(mean - spread), int(mean + spread))


def why_dropped(text: str, noise: Collection[str], window: Window | None) -> str | None:
    """The first filter that drops a text, in the official order; None where it passes all.

    Noise is looked for in the text as it was written, the blanks around it included: it may be a blank line.
    The length is that of the text without them, which is our own reading.

    Args:
        text: As it was written.
        noise: The strings that may not stand anywhere in it.
        window: The lengths that are kept; None for all.
    """
    if all(letter.isspace() or category(letter) in ("Cc", "Cf") for letter in text):
        return EMPTY  # also where characters without a width are all there is
    if window is not None and len(text.strip()) not in window:
        return WINDOW
    if any(one in text for one in noise):
        return NOISE
    return None
