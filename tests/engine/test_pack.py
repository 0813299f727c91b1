"""Packs reproduce every sequence's predictions; cuts are partitions within the budget."""

import math
from itertools import pairwise, takewhile
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetmenot.engine.pack import Layout, Pack, cut, pack
from forgetmenot.prompting.encoded import TokenSequence

LAYOUTS: tuple[Layout, ...] = ("trie", "blocks", "padded")
quick = settings(derandomize=True, deadline=None, max_examples=150)


@st.composite
def token_sequence(draw: st.DrawFn) -> TokenSequence:
    """Where `start` is its length it predicts nothing; where it is one token, it has no input either."""
    tokens = tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=7)))
    return TokenSequence(tokens, draw(st.integers(1, len(tokens))))


some_sequences = st.lists(token_sequence(), min_size=1, max_size=12)
layouts = st.sampled_from(LAYOUTS)


@quick
@given(some_sequences, layouts)
def test_edges_are_each_sequences_positions_and_next_tokens(
    sequences: list[TokenSequence], layout: Layout
) -> None:
    packed = pack(sequences, layout)
    assert packed.sequences == len(sequences)
    flat = packed.tokens.flatten()
    depths = packed.positions.flatten()
    for k, sequence in enumerate(sequences):
        edges = packed.edges[packed.owners == k]
        assert packed.targets[edges].tolist() == list(sequence.tokens[sequence.start :])
        sources = packed.sources[edges]
        assert flat[sources].tolist() == list(sequence.tokens[sequence.start - 1 : -1])
        assert depths[sources].tolist() == list(range(sequence.start - 1, len(sequence.tokens) - 1))
        for position, source in enumerate(sources.tolist(), start=sequence.start):
            assert context(packed, source) == list(sequence.tokens[:position])


def context(packed: Pack, source: int) -> list[int]:
    """What a position attends to: its ancestors in a trie, what stands before it in a row."""
    tokens, nodes = packed.tokens.flatten(), np.arange(source + 1)
    if packed.end is None:
        columns = packed.tokens.shape[1]
        return tokens[nodes[nodes >= source // columns * columns]].tolist()  # type: ignore[no-any-return]
    return tokens[nodes[packed.end[nodes] > source]].tolist()  # type: ignore[no-any-return]


@quick
@given(some_sequences, layouts)
def test_each_position_knows_how_many_sequences_go_through_it_and_predict_there(
    drawn: list[TokenSequence], layout: Layout
) -> None:
    """Counted by what each position attends to: a sequence's own beginning, in whichever node or row."""
    sequences = [one for one in drawn if one.start < len(one.tokens)]
    if not sequences:
        return
    packed = pack(sequences, layout)
    passing: dict[tuple[int, ...], int] = {}
    predicting: dict[tuple[int, ...], int] = {}
    for sequence in sequences:
        for k in range(1, len(sequence.tokens)):
            passing[sequence.tokens[:k]] = passing.get(sequence.tokens[:k], 0) + 1
            predicting[sequence.tokens[:k]] = predicting.get(sequence.tokens[:k], 0) + (k >= sequence.start)
    found: dict[str, dict[tuple[int, ...], int]] = {"passing": {}, "predicting": {}}
    for name, counts in (("passing", packed.passing), ("predicting", packed.predicting)):
        for source, count in enumerate(counts.ravel().tolist()):
            if (
                packed.lengths is None
                or source % packed.tokens.shape[1] < packed.lengths[source // packed.tokens.shape[1]]
            ):
                key = tuple(context(packed, source))
                found[name][key] = found[name].get(key, 0) + count
            else:
                assert count == 0
    assert found == {"passing": passing, "predicting": predicting}


@quick
@given(some_sequences)
def test_a_trie_asks_each_prediction_once(sequences: list[TokenSequence]) -> None:
    packed = pack(sequences, "trie")
    asked = {s.tokens[: n + 1] for s in sequences for n in range(s.start, len(s.tokens))}
    assert len(packed.targets) == len(asked)
    assert packed.nodes == len({s.tokens[:n] for s in sequences for n in range(1, len(s.tokens))})


@quick
@given(some_sequences, st.integers(1, 40), layouts)
def test_a_cut_is_a_partition_within_the_budget(
    sequences: list[TokenSequence], budget: int, layout: Layout
) -> None:
    packs = cut(sequences, layout, budget)
    assert sorted(k for indices in packs for k in indices) == list(range(len(sequences)))

    def best(before: int, after: int) -> float:
        """The most nodes that a pack may grow to by the second, for what it shares with the first."""
        rows = (sequences[k].tokens[:-1] for k in (before, after))
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(*rows, strict=False))
        shared = len(list(alike)) if layout == "trie" else 0
        return shared + math.hypot(shared, budget)

    for indices in packs:
        for n in range(1, len(indices)):
            grown = pack([sequences[k] for k in indices[: n + 1]], layout).nodes
            assert grown <= best(*indices[n - 1 : n + 1]) + 1e-9
    for indices, following in pairwise(packs):
        together = [sequences[k] for k in [*indices, following[0]]]
        assert pack(together, layout).nodes > best(indices[-1], following[0]), "it ends where it must"
    assert cut(sequences, layout, budget) == packs


@quick
@given(some_sequences, st.integers(1, 40), layouts, st.randoms(use_true_random=False))
def test_a_cut_depends_on_what_the_sequences_are_and_not_on_their_order(
    sequences: list[TokenSequence], budget: int, layout: Layout, random: Random
) -> None:
    def contents(given: list[TokenSequence]) -> list[list[tuple[int, ...]]]:
        return [[given[k].tokens[:-1] for k in indices] for indices in cut(given, layout, budget)]

    shuffled = list(sequences)
    random.shuffle(shuffled)
    assert contents(shuffled) == contents(sequences)


def test_single_is_one_sequence_at_a_time_in_the_order_given() -> None:
    sequences = [TokenSequence((5, 6), 1), TokenSequence((1, 2, 3), 1)]
    assert cut(sequences, "single", 512) == [[0], [1]]


def test_nothing_is_cut_into_nothing() -> None:
    assert all(cut([], layout, 512) == [] for layout in (*LAYOUTS, "single"))


def test_a_long_common_head_is_not_computed_for_each_sequence_alone() -> None:
    head = tuple(range(100))
    sequences = [TokenSequence((*head, k, k), 100) for k in range(50)]
    packs = cut(sequences, "trie", budget=16)
    assert len(packs) == 1
    assert pack(sequences, "trie").nodes == 150


def test_the_best_size_is_where_a_useful_node_costs_least() -> None:
    """The formula of `cut` against a search: a + c·n² over n − h, for a = budget²·c."""
    for head, budget in ((0, 40), (10, 40), (100, 40), (7, 300)):
        sizes = range(head + 1, 4 * (head + budget))
        cheapest = min(sizes, key=lambda n: (budget**2 + n**2) / (n - head))
        assert abs(cheapest - (head + math.hypot(head, budget))) < 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_candidates_of_one_token_cost_nothing_beyond_their_prompt(layout: Layout) -> None:
    candidates = [TokenSequence((1, 2, 3, answer), 3) for answer in (7, 8, 9)]
    rows = 1 if layout == "trie" else 3
    assert pack(candidates, layout).nodes == 3 * rows


def test_a_pack_pays_for_the_head_that_it_begins_with() -> None:
    sequences = [TokenSequence((1, 2, 3, 4, branch, 5, 6), 4) for branch in range(10)]
    packs = cut(sequences, "trie", budget=12)
    assert [pack([sequences[k] for k in indices], "trie").nodes for indices in packs] == [16, 12]
