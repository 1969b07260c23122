"""A stored tree held against the one that its entries give, and what of it is wrong.

Whoever edits a leaf and not its stored hash has told which one; whoever edits the hash as well is told by the nodes
above it; whoever rebuilds the whole tree is found by the signed heads, which is for the caller to check. Must not know:
how hashes are stored; they are asked for by range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

MAX_FINDINGS = 50
"""After so many, what is wrong is clear."""
_END = 1 << 62


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be. `first` to `last` are the entries that can be meant, None where none is.

    `follows`: it is said of an entry because the tree before that entry is another one, so it says less than whatever
    names what is wrong in the tree.
    """

    text: str
    first: int | None = None
    last: int | None = None
    follows: bool = False

    def __str__(self) -> str:
        if self.first is None:
            return self.text
        where = f"entry {self.first}" if self.first == self.last else f"entries {self.first} to {self.last}"
        return f"{where}: {self.text}"

    @property
    def width(self) -> int:
        """How many entries can be meant; very many where none is named."""
        return _END if self.first is None or self.last is None else self.last - self.first + 1


Rows = Iterable[tuple[object, object]]
"""(index, hash) as they are stored: an edited cell may hold anything."""


class StoredTree:
    """What is stored beside the leaves. `leaf_hashes(first, end)` and `nodes(level, first, end)` read it.

    Without `nodes` no inner node is stored, and only leaf hashes are held against the entries. The first `start` leaves
    are not there, nor are the nodes over them; `count_nodes` leaves those out. `same(level, first, hashes)` is a
    quicker way to see that all of a range is as it must be: level 0 are the leaf hashes, and False says nothing.
    """

    def __init__(
        self,
        leaf_hashes: Callable[[int, int], Rows],
        nodes: Callable[[int, int, int], Rows] | None = None,
        count_nodes: Callable[[], int] = lambda: 0,
        start: int = 0,
        same: Callable[[int, int, Sequence[bytes]], bool] | None = None,
    ) -> None:
        self._leaf_hashes = leaf_hashes
        self._nodes = nodes
        self._count_nodes = count_nodes
        self._start = start
        self._same = same
        self._seen: dict[int, int] = {}  # level -> nodes that there have to be
        self.findings: list[Finding] = []

    def compare_leaves(self, first: int, hashes: Sequence[bytes]) -> None:
        """Hold the stored leaf hashes against those of the entries from `first` on."""
        if self._same is None or not self._same(0, first, hashes):
            self._compare(0, first, hashes, self._leaf_hashes(first, first + len(hashes)))

    def compare(self, level: int, first: int, hashes: Sequence[bytes]) -> None:
        """Hold stored nodes against adjacent subtrees of one level: what `recount.Recount` calls."""
        if self._nodes is None:
            return
        self._seen[level] = first + len(hashes)
        if self._same is None or not self._same(level, first, hashes):
            self._compare(level, first, hashes, self._nodes(level, first, first + len(hashes)))

    def finish(self) -> None:
        """Look for nodes of entries that are not there."""
        seen = sum(end - (self._start >> level) for level, end in self._seen.items())
        if self._nodes is None or self._count_nodes() <= seen:
            return
        for level in range(64):
            for index, _ in self._nodes(level, self._seen.get(level, self._start >> level), _END):
                self._find(f"the store holds tree node ({level}, {index}) of entries that are not there")
        self._find("the store holds tree nodes that belong to no entry")

    def _compare(self, level: int, first: int, hashes: Sequence[bytes], rows: Rows) -> None:
        stored = dict(rows)
        for index, value in enumerate(hashes, first):
            if stored.get(index) != value:
                self._wrong(level, index)

    def _wrong(self, level: int, index: int) -> None:
        first, last = index << level, ((index + 1) << level) - 1
        if level == 0:
            self._find("its bytes do not have the hash that was stored with it", first, last)
        # What is above something wrong is wrong for that reason; only the lowest says where it is.
        elif not any(f.first is not None and first <= f.first <= last for f in self.findings):
            self._find(f"the stored tree node ({level}, {index}) is not theirs", first, last)

    def _find(self, text: str, first: int | None = None, last: int | None = None) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(text, first, last))
