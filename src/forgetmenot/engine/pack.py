"""What goes through the model at once: a trie, or padded rows, and the predictions that are read from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forgetmenot.engine.trie import build_trie, common_prefixes
from forgetmenot.prompting.encoded import TokenSequence

Layout = Literal["trie", "blocks", "padded", "single"]
Ints = NDArray[np.int64]

NODE_BUDGET = {"cpu": 512, "cuda": 4096}
"""Input positions in a pack, by device: enough to fill it, and attention stays cheap beside the MLPs.

See docs/gpu.md for the figure of a GPU, which is reasoned and not yet measured.
"""


@dataclass(frozen=True)
class Pack:
    """One forward pass: input tokens, and the edges (position, next token) whose probability is asked.

    The last token of a sequence is only ever predicted, so it is an edge and no input: candidates of one
    token cost nothing beyond their prompt.

    Attributes:
        tokens: Input tokens [rows, columns]. A trie has one row.
        positions: Position ids [rows, columns].
        end: The trie's interval mask [columns]: i may attend to j iff j ≤ i < end[j]. None for padded rows.
        lengths: The length of each padded row [rows]. None for a trie.
        sources: For each edge the flat index (row × columns + column) of the position that predicts [edges].
        targets: For each edge the token predicted [edges].
        edges: For each predicted token of each sequence, sequence after sequence, its edge [predicted].
        owners: The sequence that each entry of `edges` belongs to [predicted].
        sequences: How many sequences there are.
    """

    tokens: Ints
    positions: Ints
    end: Ints | None
    lengths: Ints | None
    sources: Ints
    targets: Ints
    edges: Ints
    owners: Ints
    sequences: int

    @property
    def nodes(self) -> int:
        """How many input positions the model computes, padding included."""
        return self.tokens.size


def pack(sequences: Sequence[TokenSequence], layout: Layout) -> Pack:
    """Lay sequences out for one forward pass."""
    inputs = [sequence.tokens[:-1] for sequence in sequences]
    if layout in ("trie", "blocks"):
        trie = build_trie(inputs, share=layout == "trie")
        tokens, positions, end = trie.tokens[None], trie.depth[None], trie.end
        lengths, nodes = None, trie.nodes
    else:
        lengths = np.array([len(row) for row in inputs], dtype=np.int64)
        columns = int(lengths.max(initial=0))
        tokens = np.zeros((len(inputs), columns), dtype=np.int64)
        for r, row in enumerate(inputs):
            tokens[r, : len(row)] = row
        positions = np.broadcast_to(np.arange(columns), tokens.shape)
        end = None
        nodes = tuple(r * columns + np.arange(len(row)) for r, row in enumerate(inputs))

    # Sequences that share a position and its next token share the edge.
    counts = [len(sequence.tokens) - sequence.start for sequence in sequences]
    sources = np.concatenate([nodes[k][s.start - 1 :] for k, s in enumerate(sequences)])
    targets = np.concatenate([np.array(s.tokens[s.start :], dtype=np.int64) for s in sequences])
    width = int(targets.max(initial=0)) + 1
    distinct, edges = np.unique(sources * width + targets, return_inverse=True)
    return Pack(
        tokens=tokens,
        positions=positions,
        end=end,
        lengths=lengths,
        sources=distinct // width,
        targets=distinct % width,
        edges=edges,
        owners=np.repeat(np.arange(len(sequences)), counts),
        sequences=len(sequences),
    )


def positions(sequences: Sequence[TokenSequence], layout: Layout) -> int:
    """How many input positions one pack of these sequences has."""
    lengths = [len(sequence.tokens) - 1 for sequence in sequences]
    if layout == "padded":
        return len(lengths) * max(lengths, default=0)
    rows = sorted(sequence.tokens[:-1] for sequence in sequences)
    return sum(lengths) - (int(common_prefixes(rows).sum()) if layout == "trie" else 0)


def cut(sequences: Sequence[TokenSequence], layout: Layout, budget: int) -> list[list[int]]:
    """Divide sequences into packs of at most `budget` input positions, or twice the longest sequence.

    Sequences are sorted first, so that those with a common prefix meet in one pack (padded rows: so that
    those of like length do). Twice the longest, so that a long common head is not computed for each sequence
    alone. The cut is a pure function of its arguments: the same run sums in the same order.

    Returns:
        For each pack the indices of its sequences.
    """
    lengths = [len(sequence.tokens) - 1 for sequence in sequences]
    budget = max(budget, 2 * max(lengths, default=0))
    everything = range(len(sequences))
    if layout == "single":
        return [[k] for k in everything]
    if layout == "padded":
        order = sorted(everything, key=lambda k: (lengths[k], sequences[k].tokens))
    else:
        order = sorted(everything, key=lambda k: sequences[k].tokens[:-1])
    if layout == "trie":
        shared = common_prefixes([sequences[k].tokens[:-1] for k in order])
    else:
        shared = np.zeros(len(order), dtype=np.int64)

    packs: list[list[int]] = []
    used = 0
    for k, common in zip(order, shared.tolist(), strict=True):
        if layout == "padded":
            needed = lengths[k] * (len(packs[-1]) + 1) if packs else 0
        else:
            needed = used + lengths[k] - common
        if packs and needed <= budget:
            packs[-1].append(k)
            used = needed
        else:
            packs.append([k])
            used = lengths[k]
    return packs
