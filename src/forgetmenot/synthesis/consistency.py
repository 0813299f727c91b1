"""Self-consistency: the output of an input is what the model writes most often."""

from collections import Counter
from collections.abc import Sequence


def most_consistent(outputs: Sequence[str], min_frequency: float) -> str | None:
    """The most frequent text, the shortest of those that are as frequent, and of these the first.

    SELF-GUIDE (Zhao et al. 2024, arXiv 2407.12874), by the official `self_consistency_filter`.

    Args:
        outputs: What the model wrote for one input, as far as it passed the filters.
        min_frequency: The least share of them that must be the same; None is returned below it.
    """
    counts = Counter(outputs)
    most = max(counts.values(), default=0)
    if not outputs or most / len(outputs) < min_frequency:
        return None
    return min((text for text, count in counts.items() if count == most), key=len)
