"""Token sequences as a trie, flattened depth-first, so that every distinct prefix is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Trie:
    """A forest of token prefixes in depth-first order.

    Node i may attend to node j iff j ≤ i < end[j]: j is then i itself or one of its ancestors. A forest
    whose sequences share nothing (`share=False`) is the block-diagonal mask of ordinary packing.

    Attributes:
        tokens: The token at each node [n].
        depth: The node's distance from its root, which is its position id [n].
        end: The index just past the node's subtree [n].
        nodes: For each sequence, in the order given, the node of each of its tokens.
    """

    tokens: Ints
    depth: Ints
    end: Ints
    nodes: tuple[Ints, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def build_trie(sequences: Sequence[tuple[int, ...]], *, share: bool = True) -> Trie:
    """Flatten sequences into a trie; equal sequences and common prefixes share their nodes.

    Args:
        sequences: Non-empty token sequences, in any order.
        share: Whether prefixes are shared. Without, every sequence is a root of its own.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__) if share else range(len(sequences))
    rows = [sequences[k] for k in order]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    shared = common_prefixes(rows) if share else np.zeros(len(rows), dtype=np.int64)

    # Row r adds the nodes of its positions shared[r] … lengths[r]−1, numbered from first[r] on.
    first = np.concatenate([[0], np.cumsum(lengths - shared)])
    n = int(first[-1])
    tokens, depth, end = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    path = np.empty(int(lengths.max(initial=0)), dtype=np.int64)  # the node at each depth of the current row
    nodes: list[Ints] = [path] * len(rows)
    for r, row in enumerate(rows):
        start, stop, new = int(first[r]), int(first[r + 1]), int(shared[r])
        tokens[start:stop] = row[new:]
        depth[start:stop] = np.arange(new, lengths[r])
        path[new : lengths[r]] = np.arange(start, stop)
        nodes[order[r]] = path[: lengths[r]].copy()

    # A row's first new node closes every open node that is at least as deep; going backwards, `closes`
    # holds for each depth the node that does so next.
    closes = np.full(len(path) + 1, n, dtype=np.int64)
    for r in range(len(rows) - 1, -1, -1):
        new, length = int(shared[r]), int(lengths[r])
        if new < length:
            end[first[r] : first[r + 1]] = closes[new:length]
            closes[new:] = first[r]
    return Trie(tokens, depth, end, tuple(nodes))


def common_prefixes(rows: Sequence[tuple[int, ...]]) -> Ints:
    """How many first tokens each sequence has in common with the one before it (0 for the first)."""
    shared = np.zeros(len(rows), dtype=np.int64)
    for r in range(1, len(rows)):
        before, row = rows[r - 1], rows[r]
        limit = min(len(before), len(row))
        if before[:limit] == row[:limit]:
            shared[r] = limit
        else:
            shared[r] = next(p for p in range(limit) if before[p] != row[p])
    return shared
