"""The Audit service over real mTLS: who may read, what reading leaves behind, and that what is read verifies."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness.audit import CONSORTIUM, INSTITUTIONS, World
from harness.stores import new_url

from analytics_client.audit import AuditReader, Entry, Gone, verify
from analytics_server.audit import sealing, service
from analytics_server.audit.service import AuditServicer
from analytics_server.store import Store
from protos.v1 import audit_pb2_grpc
from queries.errors import IdentityError, LogError, PolicyDenied
from trust.identity import keys, x509
from trust.identity.names import Peer
from trust.rpc import channel, server
from trust.tlog.checkpoint import Checkpoint
from trust.tlog.entries import columns, decode, sentence
from trust.tlog.notes import parse as parse_note


class Coordinator:
    """The service alone, in a thread with an event loop of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.revoked: set[str] = set()
        now = datetime.now(UTC)
        root_key, self._issuing_key = keys.generate_tls_key(), keys.generate_tls_key()
        self._root = x509.make_root(CONSORTIUM, root_key, now)
        self._issuing = x509.make_issuing(self._root, root_key, self._issuing_key.public_key(), CONSORTIUM, now)
        self._now = now
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._await(self._start())

    def _await(self, work: object) -> int:
        return int(asyncio.run_coroutine_threadsafe(work, self._loop).result(10))  # type: ignore[arg-type]  # a coroutine

    def _leaf(self, role: str, name: str) -> tuple[bytes, bytes]:
        key = keys.generate_tls_key()
        leaf = x509.issue_leaf(
            self._issuing, self._issuing_key, key.public_key(), Peer(CONSORTIUM, role, name), self._now
        )
        return keys.to_pem(key), x509.to_pem(leaf, self._issuing)

    async def _start(self) -> int:
        self._server = server.new_server()
        gate = server.Gate(CONSORTIUM, lambda peer: peer.id in self.revoked)
        servicer = AuditServicer(
            store=self.world.store, log=self.world.log, gate=gate, governance_key=self.world.governance_key
        )
        audit_pb2_grpc.add_AuditServicer_to_server(servicer, self._server)
        key, chain = self._leaf("coordinator", "coordinator")
        credentials = server.mutual_credentials(key, chain, x509.to_pem(self._root))
        port = server.bind(self._server, "127.0.0.1:0", credentials)
        await self._server.start()
        return port

    @contextmanager
    def reader(self, role: str = "auditor", name: str = "audrey") -> Iterator[AuditReader]:
        key, chain = self._leaf(role, name)
        identity = channel.TlsIdentity(CONSORTIUM, x509.to_pem(self._root), chain, key)
        address = f"127.0.0.1:{self.port}"
        with channel.connect(address, identity) as connected:
            yield AuditReader(connected, address)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(0), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def serving(url: str, folder: Path) -> Iterator[Coordinator]:
    Store.create(url).close()
    world = World(Store.open(url, folder / "shards"))
    world.begin()
    world.query()
    world.query(dataset="labs", denied_by="beta")
    world.witness()
    running = Coordinator(world)
    try:
        yield running
    finally:
        running.stop()
        world.store.close()


@pytest.fixture
def coordinator(store_url: str, tmp_path: Path) -> Iterator[Coordinator]:
    with serving(store_url, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared_coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    folder = tmp_path_factory.mktemp("log")
    with serving(new_url(folder), folder) as running:
        yield running


def test_expired_log_is_read_and_verified(tmp_path: Path) -> None:
    """Over the wire too: what is gone is said, with the subtrees that the tree goes on from."""
    with serving(new_url(tmp_path), tmp_path) as coordinator:
        world = coordinator.world
        world.now_ms += 1000
        sealed = sealing.seal(world.store, world.log, before_ms=world.now_ms, now_ms=world.now_ms)
        assert sealed is not None
        world.query()
        assert len(sealing.expire(world.store, world.log, before_ms=world.now_ms, now_ms=world.now_ms)) == 1
        with coordinator.reader() as reader:
            history = reader.history()
            with pytest.raises(LogError, match="deleted after their time"):
                reader.prove(Entry(0, b""), world.documents[-1])
    assert history.gone == Gone(sealed.end, sealed.peaks)
    report = verify(
        history.entries,
        None,
        history.memberships,
        world.governance_key,
        checkpoints=history.checkpoints,
        gone=history.gone,
    )
    assert report.findings == ()
    assert report.first == sealed.end


def test_what_is_read_verifies_and_the_read_is_an_entry(coordinator: Coordinator) -> None:
    before = len(coordinator.world.entries())
    with coordinator.reader() as reader:
        history = reader.history()
        heads = reader.heads()
    entries = list(history.entries)
    assert len(entries) == before + 1
    read = decode(entries[-1].leaf)
    assert (read.actor, read.log_read.what, read.log_read.first, read.log_read.last) == (
        "audrey",
        "everything",
        0,
        before,
    )
    report = verify(
        entries,
        heads.checkpoint,
        history.memberships,
        coordinator.world.governance_key,
        checkpoints=history.checkpoints,
    )
    assert report.findings == ()
    assert set(report.witnesses) == set(INSTITUTIONS)
    assert len(parse_note(heads.cosigned).lines) == 1 + len(INSTITUTIONS)
    assert list(heads.memberships) == coordinator.world.memberships


def test_heads_and_checkpoints_leave_the_log_as_it_is(coordinator: Coordinator) -> None:
    before = coordinator.world.entries()
    with coordinator.reader() as reader:
        reader.heads()
        assert list(reader.checkpoints()) == coordinator.world.checkpoints()
        assert list(reader.checkpoints(first_size=9)) == [
            note for note in coordinator.world.checkpoints() if int(note.split(b"\n")[1]) >= 9
        ]
    assert coordinator.world.entries() == before


def test_entries_are_filtered_and_bounded(coordinator: Coordinator) -> None:
    with coordinator.reader() as reader:

        def kinds(first: int = 0, limit: int = 0, **filters: str) -> list[str]:
            return [columns(decode(e.leaf)).kind for e in reader.entries(first=first, limit=limit, **filters)]

        assert kinds(kind="requested") == ["requested", "requested"]
        assert kinds(dataset="labs", outcome="denied") == ["decided"]
        assert kinds(dataset="labs", institution="alpha") == ["decided"]
        assert kinds(first=2, limit=2) == ["requested", "decided"]
        assert kinds(kind="requested", limit=1) == ["requested"]
        assert kinds(first=1000) == []
        with pytest.raises(LogError, match="filtered by 'leaf'"):
            list(reader.entries(leaf="x"))
        with pytest.raises(LogError, match="not printable"):
            list(reader.entries(kind="\x1b"))
    last = decode(coordinator.world.entries()[-1][1])
    assert last.log_read.what == "everything"
    assert "read the log" in sentence(0, last)


def test_pages_are_split(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PAGE_ENTRIES", 4)
    monkeypatch.setattr(service, "PAGE_BYTES", 200)
    with coordinator.reader() as reader:
        assert [e.seq for e in reader.entries()] == list(range(len(coordinator.world.entries())))
        assert len(list(reader.checkpoints())) == len(coordinator.world.checkpoints())


def test_follow_delivers_what_is_appended_at_once(coordinator: Coordinator) -> None:
    with coordinator.reader() as reader:
        stream = reader.entries(first=2, follow=True, kind="requested")
        assert [next(stream).seq, next(stream).seq] == [2, 8]
        waits = []
        for _ in range(3):
            started = time.monotonic()
            request_id = coordinator.world.query()
            entry = next(stream)
            waits.append(time.monotonic() - started)
            assert decode(entry.leaf).requested.request_id == request_id
        stream.close()
    assert min(waits) < 0.5, "a poll would take longer"
    assert coordinator.world.log._listeners == [] or _eventually(lambda: coordinator.world.log._listeners == [])


def _eventually(happens: object) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if happens():  # type: ignore[operator]  # a function without arguments
            return True
        time.sleep(0.02)
    return False


def test_follow_stops_at_its_limit(coordinator: Coordinator) -> None:
    with coordinator.reader() as reader:
        stream = reader.entries(first=2, limit=3, follow=True, kind="requested")
        assert [next(stream).seq, next(stream).seq] == [2, 8]
        coordinator.world.query()
        assert len(list(stream)) == 1


def test_entry_is_proved_and_a_false_one_is_not(coordinator: Coordinator) -> None:
    world = coordinator.world
    seq, leaf = world.entries()[4]
    with world.store.read() as uow:
        seen = Checkpoint("north/log", 3, uow.root(3))
        other = Checkpoint("north/log", 3, bytes(32))
    with coordinator.reader() as reader:
        proof = reader.prove(Entry(seq, leaf), world.documents[-1], seen=seen)
        assert proof.head.size == len(world.entries())
        with pytest.raises(LogError, match="not included"):
            reader.prove(Entry(seq, leaf + b"\x50\x00"), world.documents[-1])
        with pytest.raises(LogError, match="rewritten"):
            reader.prove(Entry(seq, leaf), world.documents[-1], seen=other)
        with pytest.raises(LogError, match="the log has"):
            reader.prove(Entry(10_000, leaf), world.documents[-1])
    assert decode(world.entries()[-1][1]).log_read.what == "proof"


@pytest.mark.parametrize("role", ["auditor", "steward", "operator"])
def test_readers(shared_coordinator: Coordinator, role: str) -> None:
    with shared_coordinator.reader(role) as reader:
        assert reader.heads().checkpoint


@pytest.mark.parametrize("role", ["analyst", "agent"])
def test_others_are_refused_and_nothing_is_logged(shared_coordinator: Coordinator, role: str) -> None:
    coordinator = shared_coordinator
    before = coordinator.world.entries()
    with coordinator.reader(role) as reader:
        with pytest.raises(PolicyDenied, match="not for the role"):
            list(reader.entries())
        with pytest.raises(PolicyDenied):
            reader.heads()
        with pytest.raises(PolicyDenied):
            list(reader.checkpoints())
        with pytest.raises(PolicyDenied):
            reader.prove(Entry(0, b""), coordinator.world.documents[-1])
    assert coordinator.world.entries() == before


def test_revoked_auditor_is_refused(shared_coordinator: Coordinator) -> None:
    shared_coordinator.revoked.add("mallory")
    with shared_coordinator.reader(name="mallory") as reader, pytest.raises(IdentityError, match="revoked"):
        reader.heads()


def test_empty_log_has_no_head(tmp_path: Path) -> None:
    world = World(Store.create(new_url(tmp_path)))
    running = Coordinator(world)
    try:
        with running.reader() as reader:
            assert reader.heads().checkpoint == b""
            assert len(list(reader.entries())) == 1
            assert reader.heads().checkpoint != b""
    finally:
        running.stop()
        world.store.close()
