"""The audit log over the store: entries in, signed checkpoints out, in the same transaction.

A tree never grows without a checkpoint over it being signed before the commit, so at every durable instant the newest
checkpoint covers the whole log. Must not know: gRPC, who may read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from analytics_server.store import CheckpointRow, Store, UnitOfWork
from protos.v1 import log_pb2
from queries.errors import LogError
from trust.tlog import notes
from trust.tlog.checkpoint import Checkpoint
from trust.tlog.cosignature import CosignatureVerifier
from trust.tlog.entries import encode


class AuditLog:
    """The log that this coordinator keeps. `signer` is its log key, named by `origin`. Thread-safe."""

    def __init__(self, store: Store, signer: notes.Signer, origin: str) -> None:
        if signer.name != origin:
            raise LogError(f"the log key is named {signer.name!r}, the log {origin!r}", hint="give both one name")
        self.store = store
        self.origin = origin
        self.verifier = signer.verifier
        self._signer = signer
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def append_in(self, uow: UnitOfWork, entries: Sequence[log_pb2.LogEntry]) -> int:
        """Append entries in this transaction; return the sequence number of the first. Raise LogError on a bad entry.

        The checkpoint is signed at the transaction's end at the latest; `head` signs it earlier. Times never go back
        along the log: where this machine's clock did, or another coordinator's is ahead, an entry takes the time of the
        one above it.
        """
        latest = uow.latest_ms()
        for entry in entries:
            latest = entry.at_ms = max(entry.at_ms, latest)
        first = uow.append([encode(entry) for entry in entries])
        if entries:
            uow.before_commit(lambda: self._sign(uow))
            uow.after_commit(self.announce)
        return first

    def append(self, entries: Sequence[log_pb2.LogEntry]) -> int:
        """Append entries in a transaction of their own; they are durable when this returns."""
        with self.store.begin() as uow:
            return self.append_in(uow, entries)

    def head(self, uow: UnitOfWork) -> CheckpointRow:
        """Return the signed checkpoint of the whole log as this transaction sees it, signing it where it is new."""
        size = uow.tree_size()
        newest = uow.latest_checkpoint()
        if newest is not None and newest.size == size:
            return newest
        root = uow.root(size)
        signed = CheckpointRow(size, root, notes.sign(Checkpoint(self.origin, size, root).text(), self._signer))
        uow.add_checkpoint(signed.size, signed.root, signed.note)
        return signed

    def add_cosignature(self, uow: UnitOfWork, size: int, witness: str, public_key: bytes, line: str) -> None:
        """Keep a witness's line once it verifies over the checkpoint of that size. Raise LogError where it does not.

        `public_key` is the witness's raw Ed25519 identity key, from the membership.
        """
        found = uow.checkpoint(size)
        if found is None:
            raise LogError(f"{witness} cosigned a checkpoint of size {size}, which this log never signed")
        CosignatureVerifier(witness, public_key).verify_line(notes.parse(found.note).text, line)
        uow.add_cosignature(size, witness, line)

    def newest_cosigned_by(self, uow: UnitOfWork, witness: str, public_key: bytes) -> bytes:
        """Return the newest head that a witness cosigned with this key, as a note with its line; empty for none."""
        row = uow.newest_cosignature(witness)
        head = None if row is None else uow.checkpoint(row.size)
        if row is None or head is None:
            return b""
        note = head.note
        try:
            CosignatureVerifier(witness, public_key).verify_line(notes.parse(note).text, row.line)
        except LogError:
            return b""  # by a key that the witness had before
        return notes.with_lines(note, [row.line])

    def cosigned(self, uow: UnitOfWork, checkpoint: CheckpointRow) -> bytes:
        """Return a checkpoint's note with every cosignature that is known of it."""
        return notes.with_lines(checkpoint.note, [row.line for row in uow.cosignatures(checkpoint.size)])

    def cosigned_checkpoints(self, uow: UnitOfWork, first_size: int, limit: int) -> list[tuple[int, bytes]]:
        """Return at most `limit` (size, note) of at least `first_size`, each note with its cosignatures."""
        checkpoints = uow.checkpoints(first_size, limit)
        if not checkpoints:
            return []
        lines: dict[int, list[str]] = {}
        for row in uow.cosignatures(first_size, checkpoints[-1].size):
            lines.setdefault(row.size, []).append(row.line)
        return [(c.size, notes.with_lines(c.note, lines.get(c.size, []))) for c in checkpoints]

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every durable append, from whichever thread tells; return how to stop it.

        Appends of other processes are told where the store hears of them (`analytics_server.store.instance`).
        """
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return unsubscribe

    def announce(self) -> None:
        """Tell every listener that the log has grown."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _sign(self, uow: UnitOfWork) -> None:
        self.head(uow)
