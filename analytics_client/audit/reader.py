"""The coordinator's Audit service, as a reader sees it: errors of this product, verified proofs, lazy streams.

Must not know: how a channel was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from analytics_client.audit.history import NOTHING_GONE, Entry, Gone, History
from protos.v1 import audit_pb2, audit_pb2_grpc, envelope_pb2
from queries.errors import LogError
from trust.identity.membership import MembershipDocument
from trust.rpc.channel import CALL_DEADLINE_S
from trust.rpc.errors import translated
from trust.tlog.checkpoint import Checkpoint, open_checkpoint
from trust.tlog.merkle import leaf_hash, verify_consistency, verify_inclusion
from trust.tlog.notes import Verifier

STREAM_DEADLINE_S = 600.0
"""For reading a whole log."""
FILTERS = ("kind", "dataset", "actor", "request_id", "institution", "outcome")


@dataclass(frozen=True, slots=True)
class Heads:
    """The newest head, the newest one that a witness cosigned (empty before the first), all memberships' envelopes."""

    checkpoint: bytes
    cosigned: bytes
    memberships: tuple[bytes, ...]
    gone: Gone = NOTHING_GONE


@dataclass(frozen=True, slots=True)
class Proof:
    """An entry that is in the log under a head that the log's key signed."""

    entry: Entry
    head: Checkpoint
    note: bytes


class AuditReader:
    """Reads the log over a connected channel. What it returns from streams is not verified: see `verify`."""

    def __init__(self, channel: grpc.Channel, address: str) -> None:
        self._stub = audit_pb2_grpc.AuditStub(channel)
        self._address = address

    def entries(
        self,
        *,
        first: int = 0,
        limit: int = 0,
        follow: bool = False,
        since_ms: int = 0,
        before_ms: int = 0,
        **filters: str,
    ) -> Iterator[Entry]:
        """Stream entries from `first` on that match every filter (FILTERS); at most `limit`, 0 for all.

        With `follow` the stream goes on with what is appended, until it is closed. The read itself becomes an entry.
        """
        unknown = set(filters) - set(FILTERS)
        if unknown:
            raise LogError(f"the log cannot be filtered by {min(unknown)!r}", hint=f"by: {', '.join(FILTERS)}")
        request = audit_pb2.EntriesRequest(
            first=first, limit=limit, follow=follow, since_ms=since_ms, before_ms=before_ms, **filters
        )
        with translated(self._address):
            stream = self._stub.Entries(request, timeout=None if follow else STREAM_DEADLINE_S)
            try:
                for page in stream:
                    for entry in page.entries:
                        yield Entry(entry.seq, entry.leaf)
            finally:
                stream.cancel()

    def heads(self) -> Heads:
        """Return the newest heads and every membership."""
        with translated(self._address):
            found = self._stub.Heads(audit_pb2.HeadsRequest(), timeout=CALL_DEADLINE_S)
        gone = Gone(found.first, tuple(found.peaks))
        return Heads(found.checkpoint, found.cosigned, tuple(_envelope(m) for m in found.memberships), gone)

    def checkpoints(self, first_size: int = 0) -> Iterator[bytes]:
        """Stream every signed head of at least `first_size` entries, each with its cosignatures."""
        request = audit_pb2.CheckpointsRequest(first_size=first_size)
        with translated(self._address):
            for page in self._stub.Checkpoints(request, timeout=STREAM_DEADLINE_S):
                yield from page.checkpoints

    def prove(self, entry: Entry, membership: MembershipDocument, *, seen: Checkpoint | None = None) -> Proof:
        """Have the log prove that it holds an entry, and that it continues a head `seen` before. Raise LogError."""
        request = audit_pb2.ProofRequest(seq=entry.seq, old_size=seen.size if seen else 0)
        with translated(self._address):
            found = self._stub.Proof(request, timeout=CALL_DEADLINE_S)
        head = open_checkpoint(
            found.checkpoint, membership.log_origin, Verifier(membership.log_origin, membership.log_key)
        )
        verify_inclusion(leaf_hash(entry.leaf), entry.seq, head.size, list(found.inclusion), head.root)
        if seen is not None and seen.size:
            verify_consistency(seen.size, seen.root, head.size, head.root, list(found.consistency))
        return Proof(entry, head, found.checkpoint)

    def history(self) -> History:
        """Fetch the whole log with every signed head over it, for `verify` or an export."""
        entries = list(self.entries())
        size = entries[-1].seq + 1 if entries else 0
        heads = self.heads()
        notes = [note for note in self.checkpoints() if _size(note) <= size]
        return History(entries, notes, heads.memberships, heads.gone)


def _size(note: bytes) -> int:
    """Return the size that a note claims; a note without one is left for `verify` to find fault with."""
    lines = note.split(b"\n", 2)
    return int(lines[1]) if len(lines) > 1 and lines[1].isdigit() else 0


def _envelope(message: envelope_pb2.Envelope) -> bytes:
    return message.SerializeToString(deterministic=True)
