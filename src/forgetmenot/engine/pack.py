"""A pack: a trie or padded rows that go through the model at once, and the predictions read from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from forgetmenot.engine.lower import LowerStates
from forgetmenot.engine.trie import Ints, build_trie, common_prefixes
from forgetmenot.prompting.encoded import TokenSequence

Layout = Literal["trie", "blocks", "padded", "single"]

PREFIX_SHARE = 1 / 8
"""The least share of the budget for which a common prefix is computed once for all packs."""


def node_budget(device: str, attention: str, threads: int = 1) -> int:
    """How many input positions a pack should have: enough to fill the device, and attention stays cheap.

    A pure function of what a run's identity records, so that the same run always sums in the same order.

    Args:
        device: Its type. See docs/gpu.md for a GPU's figure, which is reasoned and not yet measured.
        attention: How tries are masked. In chunks attention costs a position the same in packs of any size,
            and larger packs save calls; under a dense mask it costs the square of a pack.
        threads: Of the CPU. Two share out a dense pack of twice the size more evenly.
    """
    if device == "cuda":
        return 4096
    if attention == "chunked":
        return 1024
    return 256 if threads == 1 else 512


@dataclass(frozen=True)
class Pack:
    """One forward pass: input tokens, and the edges (position, next token) whose probability is needed.

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
        prefix: How many first tokens of every sequence are no inputs: their keys and values are at hand.
        places: For each sequence, the flat index of each of its input tokens.
        lower: What enters the first layer that learns, where that is known already.
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
    prefix: int
    places: tuple[Ints, ...]
    lower: LowerStates | None = None

    @property
    def nodes(self) -> int:
        """How many input positions the model computes, padding included."""
        return self.tokens.size

    @property
    def arrays(self) -> tuple[Ints, ...]:
        """All that what a model gives for it follows from, beside the states of lower layers."""
        shape = self.end if self.end is not None else self.lengths
        assert shape is not None
        return self.tokens, self.positions, shape, self.sources, self.targets, self.edges, self.owners

    @property
    def passing(self) -> Ints:
        """How many sequences go through each input position [rows, columns]; through padding none."""
        if self.end is None:
            assert self.lengths is not None
            return (np.arange(self.tokens.shape[1]) < self.lengths[:, None]).astype(np.int64)
        last = np.flatnonzero(np.diff(self.owners, append=self.sequences))  # each sequence's last prediction
        ending = np.bincount(self.sources[self.edges[last]], minlength=self.nodes)
        before: Ints = np.concatenate([[0], ending.cumsum()])
        passing: Ints = (before[self.end] - before[:-1])[None]
        return passing

    @property
    def predicting(self) -> Ints:
        """How many sequences predict a token of theirs at each input position [rows, columns]."""
        found: Ints = np.bincount(self.sources[self.edges], minlength=self.nodes).reshape(self.tokens.shape)
        return found


def pack(sequences: Sequence[TokenSequence], layout: Layout, prefix: int = 0) -> Pack:
    """Lay sequences out for one forward pass, which continues from `prefix` tokens that all of them share."""
    inputs = [sequence.tokens[prefix:-1] for sequence in sequences]
    if layout in ("trie", "blocks"):
        trie = build_trie(inputs, share=layout == "trie")
        tokens, positions, end = trie.tokens[None], trie.depth[None], trie.end
        lengths, places = None, trie.nodes
    else:
        lengths = np.array([len(row) for row in inputs], dtype=np.int64)
        columns = int(lengths.max(initial=0))
        tokens = np.zeros((len(inputs), columns), dtype=np.int64)
        for r, row in enumerate(inputs):
            tokens[r, : len(row)] = row
        positions = np.broadcast_to(np.arange(columns), tokens.shape)
        end = None
        places = tuple(r * columns + np.arange(len(row)) for r, row in enumerate(inputs))

    # Sequences that share a position and its next token share the edge.
    counts = [len(sequence.tokens) - sequence.start for sequence in sequences]
    sources = np.concatenate([places[k][s.start - prefix - 1 :] for k, s in enumerate(sequences)])
    targets = np.concatenate([np.array(s.tokens[s.start :], dtype=np.int64) for s in sequences])
    width = int(targets.max(initial=0)) + 1
    distinct, edges = np.unique(sources * width + targets, return_inverse=True)
    return Pack(
        tokens=tokens,
        positions=positions + prefix,
        end=end,
        lengths=lengths,
        sources=distinct // width,
        targets=distinct % width,
        edges=edges,
        owners=np.repeat(np.arange(len(sequences)), counts),
        sequences=len(sequences),
        prefix=prefix,
        places=places,
    )


def positions(sequences: Sequence[TokenSequence], layout: Layout) -> int:
    """How many input positions one pack of these sequences has."""
    lengths = [len(sequence.tokens) - 1 for sequence in sequences]
    if layout == "padded":
        return len(lengths) * max(lengths, default=0)
    rows = sorted(sequence.tokens[:-1] for sequence in sequences)
    return sum(lengths) - (int(common_prefixes(rows).sum()) if layout == "trie" else 0)


def cut(sequences: Sequence[TokenSequence], layout: Layout, budget: int, prefix: int = 0) -> list[list[int]]:
    """Divide sequences into packs for one forward pass each.

    Sequences are sorted first, so that those with a common prefix meet in one pack (padded rows: so that
    those of like length do). A pack of n nodes costs a + b·n + c·n²: a call, the linear layers, attention.
    Without anything shared the best n is √(a/c), the budget. The nodes h that a sequence shares with the one
    before it are computed again in a pack of its own, so there the best n, for which a + c·n² over n − h is
    least, is h + √(h² + a/c): a pack ends where it would grow beyond that. Candidates so stay with their
    prompt. The cut is a pure function of its arguments: the same run sums in the same order.

    Args:
        sequences: What is divided.
        layout: How the packs will be laid out.
        budget: Input positions in a pack whose sequences share nothing.
        prefix: How many first tokens of every sequence are no inputs.

    Returns:
        For each pack the indices of its sequences.
    """
    everything = range(len(sequences))
    if layout == "single":
        return [[k] for k in everything]
    inputs = [sequence.tokens[prefix:-1] for sequence in sequences]
    order = sorted(everything, key=lambda k: (len(inputs[k]) if layout == "padded" else 0, inputs[k]))
    if layout == "trie":
        shared = common_prefixes([inputs[k] for k in order])
    else:
        shared = np.zeros(len(order), dtype=np.int64)

    packs: list[list[int]] = []
    used = 0
    for k, common in zip(order, shared.tolist(), strict=True):
        length = len(inputs[k])
        if layout == "padded":
            needed = length * (len(packs[-1]) + 1) if packs else 0
        else:
            needed = used + length - common
        if packs and ((needed - common) ** 2 <= common**2 + budget**2):
            packs[-1].append(k)
            used = needed
        else:
            packs.append([k])
            used = length
    return packs


@dataclass(frozen=True)
class Arrangement:
    """Sequences laid out for scoring, which may be scored again whenever the weights change.

    Attributes:
        prefix: The tokens that every sequence begins with and that are computed once for all packs.
        packs: For each pack the indices of its sequences, and the pack.
        sequences: How many sequences there are.
        without_sharing: How many input positions they have one at a time.
    """

    prefix: tuple[int, ...]
    packs: tuple[tuple[list[int], Pack], ...]
    sequences: int
    without_sharing: int

    @property
    def computed(self) -> int:
        """How many input positions the model computes, padding included."""
        return len(self.prefix) + sum(packed.nodes for _, packed in self.packs)


def arrange(
    sequences: Sequence[TokenSequence], layout: Layout, budget: int, *, continues: bool
) -> Arrangement:
    """Lay sequences out for scoring.

    Args:
        sequences: What is scored.
        layout: How packs are laid out.
        budget: See `cut`.
        continues: Whether the model can continue from the keys and values of a prefix.
    """
    prefix = shared_prefix(sequences) if continues and layout == "trie" else 0
    indices = cut(sequences, layout, budget, prefix)
    if prefix < PREFIX_SHARE * budget or len(indices) == 1:
        prefix, indices = 0, cut(sequences, layout, budget)
    return Arrangement(
        prefix=sequences[0].tokens[:prefix] if prefix else (),
        packs=tuple((part, pack([sequences[k] for k in part], layout, prefix)) for part in indices),
        sequences=len(sequences),
        without_sharing=sum(len(sequence.tokens) - 1 for sequence in sequences),
    )


def shared_prefix(sequences: Sequence[TokenSequence]) -> int:
    """How many first tokens all sequences share, before any of them predicts."""
    if not sequences:
        return 0
    least, greatest = min(s.tokens for s in sequences), max(s.tokens for s in sequences)
    common = int(common_prefixes([least, greatest])[1])
    return min(common, min(s.start for s in sequences) - 1)
