"""The RFC 6962 tree over the few leaves that one dealer commits to: built whole in memory, with every proof at hand.

The hashes, and the checking of proofs, are those of `trust.tlog.merkle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from trust.tlog.merkle import leaf_hash, node_hash


class LeafTree:
    """The tree over `leaves`, of which there is at least one."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [[leaf_hash(leaf) for leaf in leaves]]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            level = [node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
            if len(below) % 2:
                level.append(below[-1])  # a lone right node rises: the split at the largest power of two, bottom up
            self._levels.append(level)

    @property
    def root(self) -> bytes:
        """32 bytes."""
        return self._levels[-1][0]

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Return the inclusion proof of leaf `index`: the siblings on its way to the root, lowest first."""
        return self._proofs[index]

    @cached_property
    def _proofs(self) -> list[tuple[bytes, ...]]:
        """Of every leaf, from the root down: a node's proof is its sibling, and then its parent's proof."""
        proofs: list[tuple[bytes, ...]] = [()]
        for level in reversed(self._levels[:-1]):
            pairs = ((index, index ^ 1) for index in range(len(level)))
            proofs = [((level[other],) if other < len(level) else ()) + proofs[index >> 1] for index, other in pairs]
        return proofs
