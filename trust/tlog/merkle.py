"""RFC 6962 Merkle trees: hashes, roots, inclusion and consistency proofs, and how to check them.

A tree is stored as its *complete* subtrees only: node (level, index) is the root over the 2^level leaves that start at
index * 2^level; level 0 are the leaf hashes. All else (a root, a proof) is folded from O(log n) such nodes, which are
asked for in one read. This module must not know where nodes are kept nor what a leaf means.

Checks raise `LogError`; none returns a bool that could be ignored.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from queries.errors import LogError

Node: TypeAlias = tuple[int, int]
"""(level, index) of a complete subtree."""
Span: TypeAlias = tuple[int, int]
"""(begin, end) of leaves, end excluded."""

HASH_SIZE = 32
MAX_SIZE = 1 << 63
"""Sizes are SQL BIGINTs."""
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""RFC 6962 section 2.1: the root of no leaves."""


class Nodes(Protocol):
    """Where complete subtrees are kept."""

    def read(self, wanted: Sequence[Node]) -> Mapping[Node, bytes]:
        """Return the 32-byte hash of every wanted node, in one go; leave out those that are not there."""


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 || leaf), RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root over adjacent complete subtrees, given left to right from the largest to the smallest."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def cover(span: Span) -> list[Node]:
    """Return the complete subtrees, left to right, that make up a span which starts where a subtree of its size may."""
    begin, end = span
    nodes = []
    for level in range((end - begin).bit_length() - 1, -1, -1):
        if (end - begin) >> level & 1:
            nodes.append((level, begin >> level))
            begin += 1 << level
    return nodes


def inclusion_spans(seq: int, size: int) -> list[Span]:
    """Return the spans whose roots are the audit path of leaf `seq` in a tree of `size`, leaf to root (2.1.1)."""
    if not 0 <= seq < size:
        raise LogError(f"entry {seq} is not in a log of size {size}")
    begin, end = 0, size
    spans: list[Span] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if seq < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((begin, middle))
            begin = middle
    return spans[::-1]


def consistency_spans(old_size: int, new_size: int) -> list[Span]:
    """Return the spans whose roots prove that the tree of `old_size` is a prefix of that of `new_size` (2.1.2)."""
    if not 0 < old_size <= new_size:
        raise LogError(f"there is no consistency proof from size {old_size} to size {new_size}")
    begin, end = 0, new_size
    whole = True  # the old tree is itself a node on the way down, which the verifier already knows
    spans: list[Span] = []
    while end != old_size:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((begin, middle))
            begin = middle
            whole = False
    if not whole:
        spans.append((begin, end))
    return spans[::-1]


def _split(size: int) -> int:
    """Return the largest power of two below `size`, for size >= 2."""
    return 1 << ((size - 1).bit_length() - 1)


class Tree:
    """A tree of a known size over stored nodes."""

    def __init__(self, nodes: Nodes, size: int) -> None:
        self._nodes = nodes
        self.size = size

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves (all of them by default)."""
        size = self.size if size is None else size
        self._check(size)
        return self._roots([[(0, size)]])[0][0]

    def peaks(self) -> list[bytes]:
        """Return the hashes of the complete subtrees that make up the tree: what `Frontier` goes on from."""
        wanted = cover((0, self.size))
        have = self._nodes.read(wanted)
        return [self._get(have, node) for node in wanted]

    def inclusion(self, seq: int, size: int | None = None) -> list[bytes]:
        """Return the audit path of leaf `seq` in the tree of the first `size` leaves."""
        size = self.size if size is None else size
        self._check(size)
        return self._roots([inclusion_spans(seq, size)])[0]

    def inclusions(self, seqs: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the audit paths of several leaves; neighbours share most of their nodes, which are read once."""
        return dict(zip(seqs, self._roots([inclusion_spans(seq, self.size) for seq in seqs]), strict=True))

    def consistency(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """Return the proof that the first `old_size` leaves are a prefix of the first `new_size`."""
        new_size = self.size if new_size is None else new_size
        self._check(new_size)
        return self._roots([consistency_spans(old_size, new_size)])[0]

    def _check(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise LogError(f"the log has {self.size} entries, not {size}")

    def _roots(self, paths: Sequence[Sequence[Span]]) -> list[list[bytes]]:
        covers = [[cover(span) for span in spans] for spans in paths]
        have = self._nodes.read(list(dict.fromkeys(node for path in covers for nodes in path for node in nodes)))
        return [[fold([self._get(have, node) for node in nodes]) for nodes in path] for path in covers]

    @staticmethod
    def _get(have: Mapping[Node, bytes], node: Node) -> bytes:
        value = have.get(node)
        if value is None:
            raise LogError(f"the log lacks tree node {node}", hint="restore the database from a backup, then verify it")
        return value


class Frontier:
    """The right edge of a growing tree: all that is needed to append, or to recompute a root from a stream."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)
        if len(self._peaks) != size.bit_count():
            raise LogError(f"{len(self._peaks)} subtree hashes cannot make up a log of size {size}")

    def append(self, hashed: bytes) -> list[tuple[Node, bytes]]:
        """Add a leaf hash; return the subtrees above the leaf that it completes, smallest first."""
        completed: list[tuple[Node, bytes]] = []
        index = self.size
        level = 0
        while index & 1:
            hashed = hashlib.sha256(b"\x01" + self._peaks.pop() + hashed).digest()
            index >>= 1
            level += 1
            completed.append(((level, index), hashed))
        self._peaks.append(hashed)
        self.size += 1
        return completed

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The hashes of the complete subtrees, largest first: what another `Frontier` of this size goes on from."""
        return tuple(self._peaks)

    def root(self) -> bytes:
        """Return the root over everything appended so far."""
        return fold(self._peaks)


def verify_inclusion(hashed: bytes, seq: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with this hash is entry `seq` of the tree (`size`, `root`); RFC 9162 section 2.1.3.2."""
    if not 0 <= seq < size <= MAX_SIZE:
        raise LogError(f"entry {seq} is not in a log of size {size}")
    _check_hashes(hashed, root, *proof)
    index, last = seq, size - 1
    have = hashed
    for sibling in proof:
        if last == 0:
            raise LogError(f"the inclusion proof of entry {seq} is too long")
        if index & 1 or index == last:
            have = node_hash(sibling, have)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            have = node_hash(have, sibling)
        index >>= 1
        last >>= 1
    if last != 0:
        raise LogError(f"the inclusion proof of entry {seq} is too short")
    if not hmac.compare_digest(have, root):
        raise LogError(f"entry {seq} is not included in the log head of size {size}")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree (`old_size`, `old_root`) is a prefix of (`new_size`, `new_root`); RFC 9162 section 2.1.4.2.

    From size 0 nothing can be proved, so it is refused; a witness without a head takes the first one it sees on trust.
    """
    if not 0 < old_size <= new_size <= MAX_SIZE:
        raise LogError(f"nothing can be proved from a log of size {old_size} to one of size {new_size}")
    if old_size == new_size:
        if proof:
            raise LogError("the consistency proof is too long")
        if not hmac.compare_digest(old_root, new_root):
            raise LogError(f"two heads of size {old_size} differ: the log was forked or rewritten")
        return
    if not proof:
        raise LogError("the consistency proof is too short")
    _check_hashes(old_root, new_root, *proof)
    _climb(old_size, old_root, new_size, new_root, proof)


def _climb(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    index, last = old_size - 1, new_size - 1
    while index & 1:
        index >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise LogError("the consistency proof is too long")
        if index & 1 or index == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        index >>= 1
        last >>= 1
    if last != 0:
        raise LogError("the consistency proof is too short")
    if not (hmac.compare_digest(old, old_root) and hmac.compare_digest(new, new_root)):
        raise LogError(f"the log of size {new_size} does not continue the log of size {old_size}: it was rewritten")


def _check_hashes(*hashes: bytes) -> None:
    if any(len(value) != HASH_SIZE for value in hashes):
        raise LogError("a hash of the log is not 32 bytes long")
