"""The trie against a slow, obvious one: a dictionary of prefixes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from forgetmenot.engine.trie import build_trie, common_prefixes

Rows = list[tuple[int, ...]]

# Three tokens and short rows: duplicates, prefixes of one another, single tokens and empty rows abound.
rows_of_tokens = st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple), max_size=12)
quick = settings(derandomize=True, deadline=None, max_examples=200)


def prefixes(rows: Rows) -> set[tuple[int, ...]]:
    return {row[:n] for row in rows for n in range(1, len(row) + 1)}


@quick
@given(rows_of_tokens)
def test_each_distinct_prefix_is_one_node(rows: Rows) -> None:
    trie = build_trie(rows)
    node_of: dict[tuple[int, ...], int] = {}
    for row, nodes in zip(rows, trie.nodes, strict=True):
        assert trie.tokens[nodes].tolist() == list(row), "the path spells the sequence"
        assert trie.depth[nodes].tolist() == list(range(len(row)))
        for n, node in enumerate(nodes.tolist(), start=1):
            assert node_of.setdefault(row[:n], node) == node, "equal prefixes share their node"
    assert node_of.keys() == prefixes(rows)
    assert sorted(node_of.values()) == list(range(len(trie))), (
        "no node is shared by two prefixes, none is idle"
    )


@quick
@given(rows_of_tokens)
def test_the_interval_is_ancestor_or_self(rows: Rows) -> None:
    trie = build_trie(rows)
    prefix_of = {
        node: row[:n]
        for row, nodes in zip(rows, trie.nodes, strict=True)
        for n, node in enumerate(nodes.tolist(), start=1)
    }
    for i, prefix in prefix_of.items():
        for j, other in prefix_of.items():
            assert (j <= i < trie.end[j]) == (prefix[: len(other)] == other)


@quick
@given(rows_of_tokens)
def test_blocks_share_nothing(rows: Rows) -> None:
    blocks = build_trie(rows, share=False)
    assert len(blocks) == sum(map(len, rows))
    begin = 0
    for row, nodes in zip(rows, blocks.nodes, strict=True):
        assert nodes.tolist() == list(range(begin, begin + len(row))), "one after another, in the order given"
        assert blocks.tokens[nodes].tolist() == list(row)
        assert blocks.depth[nodes].tolist() == list(range(len(row)))
        assert (blocks.end[nodes] == begin + len(row)).all(), "attention ends with the block"
        begin += len(row)


@quick
@given(rows_of_tokens)
def test_common_prefixes_counts_up_to_the_first_difference(rows: Rows) -> None:
    counted = common_prefixes(rows).tolist()
    for before, row, count in zip([(), *rows], rows, counted, strict=False):
        assert before[:count] == row[:count]
        assert count == min(len(before), len(row)) or before[count] != row[count]


def test_a_trie_worked_by_hand() -> None:
    trie = build_trie([(7, 8, 9), (7, 8), (7, 5), (4,), (7, 8)])
    assert trie.tokens.tolist() == [4, 7, 5, 8, 9]
    assert trie.depth.tolist() == [0, 0, 1, 1, 2]
    assert trie.end.tolist() == [1, 5, 3, 5, 5]
    assert [nodes.tolist() for nodes in trie.nodes] == [[1, 3, 4], [1, 3], [1, 2], [0], [1, 3]]
