"""Balancing: every label has as many rows as the rarest of those that were written."""

import random
from collections import defaultdict
from collections.abc import Sequence


def balanced(labels: Sequence[str], seed: int) -> list[int]:
    """The places of the rows that are kept, in order: of each label as many as the rarest has, drawn by seed.

    Rows without a label must be gone before: the official quick-start script counts them as classes, and so
    keeps one row of each class where a single output is stray. As there, a label that no row has is no class.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        places[label].append(place)
    least = min(map(len, places.values()), default=0)
    draw = random.Random(seed)
    return sorted(place for label in sorted(places) for place in draw.sample(places[label], least))
