"""Large models on their way from the coordinator: pieces are put together, and wait for their announcement.

Must not know: what a model means. Whether the bytes are those of the hash is checked where the announcement is judged.
"""

from __future__ import annotations

from collections import OrderedDict

from protos.v1 import agent_pb2

MAX_BYTES = 64 << 20
KEPT = 4
"""Models that may wait at once, for jobs that run side by side; the oldest is forgotten."""


class Models:
    """Models by hash, whole or in part. Bounded whatever is sent."""

    def __init__(self) -> None:
        self._parts: OrderedDict[bytes, bytearray] = OrderedDict()

    def take(self, piece: agent_pb2.ModelPiece) -> None:
        """Add a piece; one that makes a model longer than it may be is dropped with it."""
        parts = self._parts.setdefault(piece.model_hash, bytearray())
        parts += piece.data
        if len(parts) > min(piece.size, MAX_BYTES):
            del self._parts[piece.model_hash]
        while len(self._parts) > KEPT:
            self._parts.popitem(last=False)

    def fill(self, announce: agent_pb2.Announce) -> None:
        """Put the model that an announcement names into it, once; without one it is judged as it came."""
        found = self._parts.pop(announce.job.model_hash, None) if announce.HasField("job") else None
        if found is not None:
            announce.job.model = bytes(found)
