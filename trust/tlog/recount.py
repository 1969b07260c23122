"""A whole tree recomputed from its leaves, a block at a time: what full verification spends its time on.

A block is 4096 adjacent leaves. Inside it subtrees are hashed level by level; above it there is one hash a block. The
roots are those of `merkle`, which stays the definition; this is only the fast way through many leaves. Must not know:
where leaves and nodes are kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from hashlib import sha256
from itertools import islice, starmap
from operator import add
from typing import TYPE_CHECKING, TypeVar

from queries.errors import LogError
from trust.tlog.merkle import Frontier, cover, fold

if TYPE_CHECKING:
    from hashlib import _Hash

T = TypeVar("T")
_LEAF, _NODE = sha256(b"\x00").copy, sha256(b"\x01").copy  # quicker than a new one each time

BLOCK_LEVEL = 12
BLOCK = 1 << BLOCK_LEVEL
"""Leaves in a block."""
Compare = Callable[[int, int, Sequence[bytes]], None]
"""`compare(level, first_index, hashes)`: adjacent subtrees of one level, for whoever holds the stored ones."""


def blocks(rows: Iterable[T], start: int = 0) -> Iterator[list[T]]:
    """Cut a stream of leaves from number `start` on into lists that end where a block of the tree does."""
    stream, room = iter(rows), BLOCK - start % BLOCK
    while block := list(islice(stream, room)):
        yield block
        room = BLOCK


class Recount:
    """A growing tree of which only the peaks are kept. `compare` is shown every subtree above the leaves, once.

    `start` is a tree to go on from, whose leaves are not there; it is not changed.
    """

    def __init__(self, compare: Compare | None = None, start: Frontier | None = None) -> None:
        self._above = Frontier()  # its leaves are whole blocks
        self._last: list[list[bytes]] = [[]]  # the levels of a last, shorter block
        self._lead: Frontier | None = None  # inside of the block that `start` ends in
        self._compare = compare
        if start is not None:
            self._go_on(Frontier(start.size, start.peaks))

    @property
    def size(self) -> int:
        """The number of leaves so far."""
        if self._lead is not None:
            return self._lead.size
        return self._above.size * BLOCK + len(self._last[0])

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        if self._lead is not None:
            return self._lead.root()
        return self._fold(len(self._last[0]))

    def extend(self, leaves: Sequence[bytes], sizes: Sequence[int] = ()) -> tuple[list[bytes], dict[int, bytes]]:
        """Add a block of leaves; return their hashes, and the root at every one of `sizes` that falls into the block.

        `sizes` ascend. A block ends at a multiple of BLOCK, but the last one: raise LogError where one does not.
        """
        return self.extend_hashed(_hashes(_LEAF, leaves), sizes)

    def extend_hashed(self, hashes: list[bytes], sizes: Sequence[int] = ()) -> tuple[list[bytes], dict[int, bytes]]:
        """Do as `extend` does, from leaf hashes."""
        first = self.size
        if self._last[0] or first % BLOCK + len(hashes) > BLOCK:
            raise LogError(f"only the last block of a log may have other than {BLOCK} entries")
        if self._lead is not None:
            return hashes, self._lead_in(self._lead, hashes, frozenset(sizes))
        levels = _levels(hashes)
        self._last = levels
        if self._compare is not None:
            for level, found in enumerate(levels[1:], 1):
                self._compare(level, first >> level, found)
        here = sizes[bisect_right(sizes, first) : bisect_right(sizes, first + len(hashes))]
        roots = {size: self._fold(size - first) for size in here}
        if len(hashes) == BLOCK:
            for (level, index), value in self._above.append(levels[BLOCK_LEVEL][0]):
                if self._compare is not None:
                    self._compare(level + BLOCK_LEVEL, index, [value])
            self._last = [[]]
        return hashes, roots

    def _go_on(self, tree: Frontier) -> None:
        if tree.size % BLOCK:
            self._lead = tree
        else:
            self._lead, self._above = None, Frontier(tree.size // BLOCK, tree.peaks)

    def _lead_in(self, tree: Frontier, hashes: Sequence[bytes], sizes: Set[int]) -> dict[int, bytes]:
        """Add leaves one by one, up to the end of the block that the start ended in."""
        roots = {}
        for hashed in hashes:
            for (level, index), value in tree.append(hashed):
                if self._compare is not None:
                    self._compare(level, index, [value])
            if tree.size in sizes:
                roots[tree.size] = tree.root()
        self._go_on(tree)
        return roots

    def _fold(self, count: int) -> bytes:
        """Return the root over the whole blocks and the first `count` leaves of the last one."""
        return fold([*self._above.peaks, *(self._last[level][index] for level, index in cover((0, count)))])


def _hashes(begun: Callable[[], _Hash], rest: Iterable[bytes]) -> list[bytes]:
    """Return the hashes of messages that all begin as `begun` does."""
    found = []
    for part in rest:
        state = begun()
        state.update(part)
        found.append(state.digest())
    return found


def _levels(hashes: list[bytes]) -> list[list[bytes]]:
    """Return the complete subtrees over adjacent leaves, level by level; level 0 are the leaves."""
    levels = [hashes]
    while len(levels[-1]) > 1:
        below = levels[-1]
        paired = zip(below[::2], below[1::2], strict=False)  # an odd one at the end is part of no subtree yet
        levels.append(_hashes(_NODE, starmap(add, paired)))
    return levels


def roots_at(entries: Iterable[tuple[int, bytes]], sizes: Iterable[int]) -> dict[int, bytes]:
    """Return the root that these entries, in their order, have at every one of `sizes` that they reach."""
    wanted, tree, roots = sorted(set(sizes)), Recount(), dict[int, bytes]()
    for block in blocks(entries):
        roots |= tree.extend([leaf for _, leaf in block], wanted)[1]
    return roots
