"""The tree against the recursion of RFC 6962 section 2.1, written out naively."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import LogError
from trust.tlog import merkle


def naive_root(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(seq: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if seq < k:
        return [*naive_path(seq, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(seq - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: Sequence[bytes], known: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if known else [naive_root(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*naive_subproof(m, leaves[:k], known), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


class DictNodes(dict[merkle.Node, bytes]):
    def read(self, wanted: Sequence[merkle.Node]) -> Mapping[merkle.Node, bytes]:
        return {node: self[node] for node in wanted if node in self}


def grow(leaves: Sequence[bytes]) -> merkle.Tree:
    nodes = DictNodes()
    frontier = merkle.Frontier()
    for seq, leaf in enumerate(leaves):
        nodes[0, seq] = merkle.leaf_hash(leaf)
        nodes.update(frontier.append(nodes[0, seq]))
    return merkle.Tree(nodes, len(leaves))


def numbered(size: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(size)]


sizes = st.integers(1, 200)


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_root_is_the_recursion(leaves: list[bytes]) -> None:
    tree = grow(leaves)
    for size in range(len(leaves) + 1):
        assert tree.root(size) == naive_root(leaves[:size])


@given(sizes, st.data())
def test_inclusion_proof_is_the_recursion_and_verifies(size: int, data: st.DataObject) -> None:
    leaves = numbered(size)
    at = data.draw(st.integers(1, size))
    seq = data.draw(st.integers(0, at - 1))
    proof = grow(leaves).inclusion(seq, at)
    assert proof == naive_path(seq, leaves[:at])
    merkle.verify_inclusion(merkle.leaf_hash(leaves[seq]), seq, at, proof, naive_root(leaves[:at]))
    several = data.draw(st.lists(st.integers(0, size - 1), max_size=8, unique=True))
    assert grow(leaves).inclusions(several) == {each: naive_path(each, leaves) for each in several}


@given(sizes, st.data())
def test_consistency_proof_is_the_recursion_and_verifies(size: int, data: st.DataObject) -> None:
    leaves = numbered(size)
    new = data.draw(st.integers(1, size))
    old = data.draw(st.integers(1, new))
    proof = grow(leaves).consistency(old, new)
    assert proof == naive_subproof(old, leaves[:new], True)
    merkle.verify_consistency(old, naive_root(leaves[:old]), new, naive_root(leaves[:new]), proof)


@given(sizes, st.data())
def test_a_changed_leaf_has_no_inclusion_proof(size: int, data: st.DataObject) -> None:
    leaves = numbered(size)
    seq = data.draw(st.integers(0, size - 1))
    tree = grow(leaves)
    with pytest.raises(LogError):
        merkle.verify_inclusion(merkle.leaf_hash(b"other"), seq, size, tree.inclusion(seq), tree.root())


@given(st.integers(2, 200), st.data())
def test_a_rewritten_history_has_no_consistency_proof(size: int, data: st.DataObject) -> None:
    leaves = numbered(size)
    old = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, old - 1))
    rewritten = [*leaves[:changed], b"other", *leaves[changed + 1 :]]
    tree = grow(rewritten)
    with pytest.raises(LogError):
        merkle.verify_consistency(old, naive_root(leaves[:old]), size, tree.root(), tree.consistency(old))


@given(sizes, st.data())
def test_frontier_goes_on_from_stored_peaks(size: int, data: st.DataObject) -> None:
    leaves = numbered(size)
    at = data.draw(st.integers(0, size))
    whole = grow(leaves)
    frontier = merkle.Frontier(at, merkle.Tree(whole._nodes, at).peaks())
    for leaf in leaves[at:]:
        frontier.append(merkle.leaf_hash(leaf))
    assert frontier.root() == naive_root(leaves)


def test_a_missing_node_is_named() -> None:
    tree = grow(numbered(8))
    del tree._nodes[2, 1]  # type: ignore[attr-defined]  # the tests' own dict
    with pytest.raises(LogError, match=r"\(2, 1\)"):
        tree.inclusion(0)


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 5), (6, 5)])
def test_consistency_is_refused_where_nothing_can_be_proved(old: int, new: int) -> None:
    with pytest.raises(LogError):
        merkle.verify_consistency(old, merkle.EMPTY_ROOT, new, merkle.EMPTY_ROOT, [])
    with pytest.raises(LogError):
        grow(numbered(5)).consistency(old, new)
