"""Reading the log over the wire: for auditors, stewards and operators.

Reading entries, or having one proved, is itself an entry, made before the first byte leaves. Heads, checkpoints and
memberships hold no entry and are not logged: a witness's word for the head would otherwise always be one read behind.
Must not know: how a peer proved who it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeAlias

import grpc

from analytics_server.audit.log import AuditLog
from analytics_server.store import LogRow, Store
from protos.v1 import audit_pb2, audit_pb2_grpc, envelope_pb2, log_pb2
from queries.errors import LogError
from trust.identity import membership
from trust.rpc.server import Gate, peer, serves

READERS = ("auditor", "steward", "operator")
PAGE_ENTRIES = 500
PAGE_BYTES = 1 << 20
MAX_FILTER = 200
LONGEST_WAIT_S = 60

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Filters: TypeAlias = dict[str, str | int]


class AuditServicer(audit_pb2_grpc.AuditServicer):
    """The Audit service over the store; `gate` says who may come in at all, governance's raw key who witnesses are."""

    def __init__(self, *, store: Store, log: AuditLog, gate: Gate, governance_key: bytes) -> None:
        self.gate = gate
        self._governance_key = governance_key
        self._store = store
        self._log = log

    @serves(*READERS)
    async def Entries(  # noqa: N802 - named by the service definition
        self, request: audit_pb2.EntriesRequest, context: Context
    ) -> AsyncIterator[audit_pb2.EntriesPage]:
        """Stream the entries that match, in pages; with `follow`, those to come as well."""
        filters = _filters(request)
        grown = asyncio.Event()
        unsubscribe = self._wake(grown) if request.follow else None
        try:
            size = await asyncio.to_thread(self._record_read, peer(context).id, request, filters)
            first, left = request.first, request.limit or size + 1
            while True:
                grown.clear()
                while rows := await asyncio.to_thread(self._read, first, min(left, PAGE_ENTRIES), size, filters):
                    for page in _pages(rows, size):
                        yield page
                    first = rows[-1].seq + 1
                    left -= len(rows) if request.limit else 0
                if not request.follow or left <= 0:
                    return
                await grown.wait()
                size = await asyncio.to_thread(self._size)
        finally:
            if unsubscribe is not None:
                unsubscribe()

    @serves(*READERS)
    async def Proof(  # noqa: N802 - named by the service definition
        self, request: audit_pb2.ProofRequest, context: Context
    ) -> audit_pb2.ProofResponse:
        """Prove that an entry is in the log, and that the log continues the one of `old_size`."""
        return await asyncio.to_thread(self._prove, peer(context).id, request)

    @serves(*READERS)
    async def Heads(  # noqa: N802 - named by the service definition
        self,
        request: audit_pb2.HeadsRequest,  # noqa: ARG002 - named by the service definition
        context: Context,  # noqa: ARG002 - named by the service definition
    ) -> audit_pb2.HeadsResponse:
        """Give the newest head, the newest cosigned head, and every membership."""
        return await asyncio.to_thread(self._heads)

    @serves("auditor")
    async def Witness(  # noqa: N802 - named by the service definition
        self, request: audit_pb2.WitnessRequest, context: Context
    ) -> audit_pb2.WitnessResponse:
        """Keep an auditor's cosignature of the head it saw last, and give the next one with its consistency proof."""
        grown = asyncio.Event()
        unsubscribe = self._wake(grown)
        try:
            if request.cosignature:
                await asyncio.to_thread(self._keep, peer(context).id, request.size, request.cosignature)
            if await asyncio.to_thread(self._size) == request.size:
                try:
                    async with asyncio.timeout(min(request.wait_s, LONGEST_WAIT_S)):
                        await grown.wait()
                except TimeoutError:
                    pass  # the head as it is
            return await asyncio.to_thread(self._next_head, request.size)
        finally:
            unsubscribe()

    @serves(*READERS)
    async def Checkpoints(  # noqa: N802 - named by the service definition
        self,
        request: audit_pb2.CheckpointsRequest,
        context: Context,  # noqa: ARG002 - named by the service definition
    ) -> AsyncIterator[audit_pb2.CheckpointsPage]:
        """Stream every signed head of at least `first_size`, with its cosignatures."""
        size = request.first_size
        while page := await asyncio.to_thread(self._checkpoints, size):
            notes = [note for _, note in page]
            for chunk in _chunks(notes):
                yield audit_pb2.CheckpointsPage(checkpoints=chunk)
            size = page[-1][0] + 1

    def _wake(self, grown: asyncio.Event) -> Callable[[], None]:
        loop = asyncio.get_running_loop()

        def listener() -> None:  # called from the thread that appended
            loop.call_soon_threadsafe(grown.set)

        return self._log.subscribe(listener)

    def _record_read(self, reader: str, request: audit_pb2.EntriesRequest, filters: Filters) -> int:
        what = " ".join(f"{name}={value}" for name, value in filters.items()) or "everything"
        with self._store.begin() as uow:
            seq = uow.tree_size()  # of the entry that records this read: it is part of what is read
            last = min(request.first + request.limit - 1, seq) if request.limit else seq
            followed = ", and what follows" if request.follow else ""
            self._log.append_in(uow, [_read_entry(reader, what + followed, request.first, max(last, request.first))])
            return seq + 1

    def _read(self, first: int, limit: int, end: int, filters: Filters) -> list[LogRow]:
        if limit <= 0 or first >= end:
            return []
        with self._store.read() as uow:
            return uow.leaves(first, limit, end=end, **filters)

    def _size(self) -> int:
        with self._store.read() as uow:
            return uow.tree_size()

    def _prove(self, reader: str, request: audit_pb2.ProofRequest) -> audit_pb2.ProofResponse:
        with self._store.begin() as uow:
            size = uow.tree_size()
            if request.seq >= size or request.old_size > size:
                raise LogError(f"the log has {size} entries", hint="name an entry and a size that it has")
            self._log.append_in(uow, [_read_entry(reader, "proof", request.seq, request.seq)])
            head = self._log.head(uow)
            return audit_pb2.ProofResponse(
                checkpoint=self._log.cosigned(uow, head),
                inclusion=uow.inclusion(request.seq, head.size),
                consistency=uow.consistency(request.old_size, head.size) if request.old_size else (),
            )

    def _keep(self, witness: str, size: int, line: str) -> None:
        """Keep a cosignature that verifies under the key that the newest membership gives this person."""
        with self._store.begin() as uow:
            envelope = uow.latest_membership()
            if envelope is None:
                raise LogError("there is no membership yet", hint="wait for it")
            document = membership.verify(envelope, self._governance_key)
            self._log.add_cosignature(uow, size, witness, document.person(witness).identity_key, line)

    def _next_head(self, size: int) -> audit_pb2.WitnessResponse:
        with self._store.read() as uow:
            head = uow.latest_checkpoint()
            if head is None:
                raise LogError("the log is empty", hint="wait for its first entry")
            if head.size < size:
                raise LogError(f"the log has {head.size} entries, you have seen {size}", hint="tell the institutions")
            return audit_pb2.WitnessResponse(
                checkpoint=head.note, consistency=uow.consistency(size, head.size) if 0 < size < head.size else ()
            )

    def _heads(self) -> audit_pb2.HeadsResponse:
        with self._store.read() as uow:
            head, cosigned = uow.latest_checkpoint(), uow.latest_checkpoint(cosigned=True)
            memberships = [envelope_pb2.Envelope.FromString(envelope) for envelope in uow.memberships()]
            return audit_pb2.HeadsResponse(
                checkpoint=self._log.cosigned(uow, head) if head else b"",
                cosigned=self._log.cosigned(uow, cosigned) if cosigned else b"",
                membership=memberships[-1] if memberships else None,
                memberships=memberships,
                first=uow.kept_from(),
                peaks=uow.tree_before(uow.kept_from()).peaks,
            )

    def _checkpoints(self, first_size: int) -> list[tuple[int, bytes]]:
        with self._store.read() as uow:
            return self._log.cosigned_checkpoints(uow, first_size, PAGE_ENTRIES)


def _read_entry(reader: str, what: str, first: int, last: int) -> log_pb2.LogEntry:
    return log_pb2.LogEntry(
        at_ms=time.time_ns() // 1_000_000,
        actor=reader,
        log_read=log_pb2.LogRead(what=what, first=first, last=last),
    )


def _filters(request: audit_pb2.EntriesRequest) -> Filters:
    filters: Filters = {}
    for name in ("kind", "dataset", "actor", "institution", "outcome", "request_id"):
        value: str = getattr(request, name)
        if len(value) > MAX_FILTER or not value.isprintable():
            raise LogError(f"the filter {name} is too long or not printable")
        if value:
            filters[name] = value
    for name in ("since_ms", "before_ms"):
        if at := getattr(request, name):
            filters[name] = int(at)
    return filters


def _pages(rows: Iterable[LogRow], size: int) -> Iterator[audit_pb2.EntriesPage]:
    page, weight = audit_pb2.EntriesPage(tree_size=size), 0
    for row in rows:
        if page.entries and weight + len(row.leaf) > PAGE_BYTES:
            yield page
            page, weight = audit_pb2.EntriesPage(tree_size=size), 0
        page.entries.add(seq=row.seq, leaf=row.leaf)
        weight += len(row.leaf)
    yield page


def _chunks(notes: Iterable[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    weight = 0
    for note in notes:
        if chunk and weight + len(note) > PAGE_BYTES:
            yield chunk
            chunk, weight = [], 0
        chunk.append(note)
        weight += len(note)
    yield chunk
