"""The RFC 6962 tree over the few leaves that one dealer commits to: built whole in memory, every proof at once.

The same hashes as the audit log's tree (RFC 6962 section 2.1, RFC 9162 section 2.1.3), without storage or growth.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


class LeafTree:
    """The tree over `leaves`, of which there is at least one."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [[_leaf_hash(leaf) for leaf in leaves]]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            level = [_node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
            if len(below) % 2:
                level.append(below[-1])  # a lone right node rises: the split at the largest power of two, bottom up
            self._levels.append(level)

    @property
    def root(self) -> bytes:
        """32 bytes."""
        return self._levels[-1][0]

    def proof(self, index: int) -> list[bytes]:
        """Return the inclusion proof of leaf `index`: the siblings on its way to the root, lowest first."""
        siblings = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                siblings.append(level[sibling])
            index >>= 1
        return siblings


def includes(root: bytes, size: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether `proof` shows that `leaf` is number `index` of the `size` leaves under `root`."""
    node, siblings, last = _leaf_hash(leaf), iter(proof), size - 1
    for _ in range((size - 1).bit_length()):
        if index % 2:
            node = _node_hash(next(siblings, b""), node)
        elif index < last:
            node = _node_hash(node, next(siblings, b""))
        index, last = index >> 1, last >> 1
    return next(siblings, None) is None and hmac.compare_digest(node, root)


def _leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
