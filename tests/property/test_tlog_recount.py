"""The fast way through many leaves gives the tree that the definition gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queries.errors import LogError
from trust.tlog import recount
from trust.tlog.merkle import EMPTY_ROOT, Frontier, leaf_hash
from trust.tlog.recount import BLOCK, Recount, blocks


@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 3 * BLOCK + 5), data=st.data())
def test_roots_and_subtrees_are_those_of_the_frontier(size: int, data: st.DataObject) -> None:
    wanted = set(data.draw(st.lists(st.integers(0, size), max_size=20))) | {size}
    leaves = [b"%d" % number for number in range(size)]
    frontier = Frontier()
    expected_nodes, expected_roots = {}, {}
    for leaf in leaves:
        expected_nodes |= dict(frontier.append(leaf_hash(leaf)))
        if frontier.size in wanted:
            expected_roots[frontier.size] = frontier.root()
    nodes: dict[tuple[int, int], bytes] = {}

    def seen(level: int, first: int, hashes: object) -> None:
        for index, value in enumerate(hashes, first):  # type: ignore[arg-type,var-annotated]
            assert (level, index) not in nodes
            nodes[level, index] = value

    start = data.draw(st.one_of(st.just(0), st.integers(0, size), st.sampled_from([BLOCK, 2 * BLOCK])))
    start = start if start <= size else 0
    gone = Frontier()
    for leaf in leaves[:start]:
        gone.append(leaf_hash(leaf))
    expected_nodes = {(level, at): value for (level, at), value in expected_nodes.items() if (at + 1) << level > start}
    expected_roots = {at: root for at, root in expected_roots.items() if at > start}
    tree = Recount(seen, gone if start else None)
    roots: dict[int, bytes] = {}
    for block in blocks(leaves[start:], start):
        hashes, found = tree.extend(block, sorted(wanted - {0}))
        assert hashes == [leaf_hash(leaf) for leaf in block]
        roots |= found
    assert (tree.size, tree.root()) == (frontier.size, frontier.root())
    expected_roots.pop(0, None)
    assert roots == expected_roots
    assert nodes == expected_nodes


def test_nothing_has_the_empty_root() -> None:
    assert Recount().root() == EMPTY_ROOT


def test_a_short_block_ends_the_log() -> None:
    tree = Recount()
    tree.extend([b"x"])
    with pytest.raises(LogError, match="only the last block"):
        tree.extend([b"y"])
    with pytest.raises(LogError, match="only the last block"):
        recount.Recount().extend([b""] * (BLOCK + 1))
