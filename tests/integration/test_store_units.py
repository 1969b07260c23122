"""Units of work on both databases: what is kept, what is refused, what a failure undoes."""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from analytics_server.store import Store, UnitOfWork
from protos.v1 import log_pb2
from queries.errors import IdentityError, InvitationError, LogError, ServiceError, SignatureError
from trust.tlog import entries, merkle


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store.create(store_url)
    yield store
    store.close()


def invite(uow: UnitOfWork, id: str = "i1", expires_at: int = 100) -> None:  # noqa: A002 - as the store calls it
    uow.add_invitation(
        id=id, secret_hash=b"s" * 32, role="agent", participant="alpha", organisation="A", expires_at=expires_at
    )


def enrol(uow: UnitOfWork, id: str = "alpha", key: bytes = b"k" * 32) -> None:  # noqa: A002 - as the store calls it
    uow.add_participant(
        id=id,
        role="agent",
        organisation="A",
        identity_key=key,
        epoch_key=b"e" * 32,
        epoch_key_signature=b"g" * 64,
        certificate_serial="01",
    )


def leaf(number: int = 0, at_ms: int = 1000) -> bytes:
    event = log_pb2.Requested(request_id=b"r%d" % number, analyst="ana", dataset="patients", purpose="p")
    return entries.encode(log_pb2.LogEntry(at_ms=at_ms, actor="ana", requested=event))


def test_invitation_is_good_once(store: Store) -> None:
    with store.begin() as uow:
        invite(uow)
    with store.begin() as uow:
        assert uow.redeem_invitation("i1", b"s" * 32, 50).participant == "alpha"
    with store.begin() as uow, pytest.raises(InvitationError, match="used"):
        uow.redeem_invitation("i1", b"s" * 32, 51)


def test_invitation_is_good_once_among_many_at_once(store: Store) -> None:
    with store.begin() as uow:
        invite(uow)
    start = threading.Barrier(6)

    def redeem() -> bool:
        start.wait()
        try:
            with store.begin() as uow:
                uow.redeem_invitation("i1", b"s" * 32, 50)
        except InvitationError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(lambda _: redeem(), range(6))) == 1


@pytest.mark.parametrize(
    ("id", "secret", "now", "why"),
    [("i2", b"s" * 32, 50, "unknown"), ("i1", b"x" * 32, 50, "unknown"), ("i1", b"s" * 32, 100, "expired")],
)
def test_invitation_is_refused(store: Store, id: str, secret: bytes, now: int, why: str) -> None:  # noqa: A002 - likewise
    with store.begin() as uow:
        invite(uow)
    with store.begin() as uow, pytest.raises(InvitationError, match=why):
        uow.redeem_invitation(id, secret, now)


def test_failure_undoes_the_whole_unit(store: Store) -> None:
    def half() -> None:
        with store.begin() as uow:
            invite(uow)
            uow.append([leaf()])
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half()
    with store.begin() as uow:
        invite(uow)
        assert uow.append([leaf(1)]) == 0


def test_two_participants_of_one_name_or_key_are_refused_and_the_unit_goes_on(store: Store) -> None:
    with store.begin() as uow:
        enrol(uow)
        with pytest.raises(IdentityError, match="the name of 'alpha' is already enrolled"):
            enrol(uow, key=b"x" * 32)
        with pytest.raises(IdentityError, match="the identity key of 'beta' is already enrolled"):
            enrol(uow, id="beta")
        enrol(uow, id="gamma", key=b"y" * 32)
    with store.read() as uow:
        assert [p.id for p in uow.participants()] == ["alpha", "gamma"]


def test_revocation(store: Store) -> None:
    with store.begin() as uow:
        enrol(uow)
        uow.revoke_participant("alpha")
        uow.revoke_participant("alpha")
        with pytest.raises(IdentityError, match="no participant"):
            uow.revoke_participant("beta")
    with store.read() as uow:
        alpha = uow.participant("alpha")
        assert alpha is not None
        assert alpha.revoked
        assert uow.participant("beta") is None


def test_memberships_come_in_order(store: Store) -> None:
    with store.begin() as uow:
        assert uow.latest_membership() is None
        uow.add_membership(1, b"h1", b"one")
        uow.add_membership(2, b"h2", b"two")
    for epoch in (2, 4, 0):
        with store.begin() as uow, pytest.raises(IdentityError, match="does not follow epoch 2"):
            uow.add_membership(epoch, b"h", b"x")
    with store.read() as uow:
        assert (uow.latest_membership(), uow.memberships()) == (b"two", [b"one", b"two"])


def test_republished_dataset_replaces_the_current_one(store: Store) -> None:
    with store.begin() as uow:
        uow.add_dataset("b", b"1", b"b-one")
        uow.add_dataset("a", b"2", b"a-one")
        uow.add_dataset("b", b"3", b"b-two")
    with store.read() as uow:
        found = uow.datasets()
    assert list(found) == ["a", "b"]
    assert (found["b"].schema_hash, found["b"].envelope) == (b"3", b"b-two")


def test_request_runs_and_ends_once(store: Store) -> None:
    with store.begin() as uow:
        uow.add_request(request_id=b"r0", analyst="ana", dataset="d", envelope=b"e", expires_at=9)
        uow.append([leaf(0), leaf(1), leaf(0)])
    with store.read() as uow:
        assert [row.request_id for row in uow.running_requests()] == [b"r0"]
    with store.begin() as uow:
        uow.finish_request(b"r0", "released", release=b"sum")
        with pytest.raises(ServiceError, match="not running"):
            uow.finish_request(b"r0", "failed", failure=b"no")
    with store.read() as uow:
        row = uow.request(b"r0")
        assert uow.running_requests() == []
        assert uow.request(b"r9") is None
    assert row is not None
    assert (row.state, row.release, row.failure, row.seqs, row.envelope) == ("released", b"sum", None, (0, 2), b"e")


def test_request_cannot_be_submitted_twice(store: Store) -> None:
    with store.begin() as uow:
        uow.add_request(request_id=b"r0", analyst="ana", dataset="d", envelope=b"e", expires_at=9)
    with store.begin() as uow, pytest.raises(SignatureError, match="submitted before"):
        uow.add_request(request_id=b"r0", analyst="eve", dataset="d", envelope=b"e", expires_at=9)


def test_log_grows_and_proves(store: Store) -> None:
    frontier = merkle.Frontier()
    heads = [(0, frontier.root())]
    number = 0
    for batch in (1, 3, 1, 7, 20):
        leaves = [leaf(number + i) for i in range(batch)]
        with store.begin() as uow:
            assert uow.append(leaves) == number
            for each in leaves:
                frontier.append(merkle.leaf_hash(each))
            assert uow.tree_size() == frontier.size
            assert uow.root() == frontier.root()
        number += batch
        heads.append((frontier.size, frontier.root()))
    with store.read() as uow:
        for size, root in heads[1:]:
            assert uow.root(size) == root
            assert uow.root(0) == merkle.EMPTY_ROOT
            for seq in range(size):
                merkle.verify_inclusion(merkle.leaf_hash(uow.leaf(seq)), seq, size, uow.inclusion(seq, size), root)
            for old, old_root in heads[1:]:
                if old <= size:
                    merkle.verify_consistency(old, old_root, size, root, uow.consistency(old, size))
        with pytest.raises(LogError, match="no entry 32"):
            uow.leaf(32)


def test_log_goes_on_after_it_was_opened_again(store_url: str) -> None:
    first = Store.create(store_url)
    with first.begin() as uow:
        uow.append([leaf(i) for i in range(5)])
    first.close()
    again = Store.open(store_url)
    frontier = merkle.Frontier()
    with again.begin() as uow:
        assert uow.append([leaf(5), leaf(6)]) == 5
        for number in range(7):
            frontier.append(merkle.leaf_hash(leaf(number)))
        assert uow.root() == frontier.root()
    again.close()


def test_two_writers_over_one_database_make_one_sequence(store: Store, store_url: str) -> None:
    """Two coordinators, each with its own memory of where the log ended."""
    other = Store.open(store_url)
    taken: list[int] = []

    def write(own: Store, base: int) -> None:
        for number in range(15):
            with own.begin() as uow:
                taken.append(uow.append([leaf(base + number)]))

    threads = [
        threading.Thread(target=write, args=(own, base)) for own, base in ((store, 100), (other, 200), (store, 300))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert sorted(taken) == list(range(45))
    frontier = merkle.Frontier()
    with store.read() as uow:
        for row in uow.leaves(0, 100):
            frontier.append(merkle.leaf_hash(row.leaf))
        assert uow.root() == frontier.root()


def test_bytes_that_are_no_entry_are_refused(store: Store) -> None:
    with store.begin() as uow, pytest.raises(LogError, match="not an entry"):
        uow.append([b"\xff"])


def test_entries_are_found_by_what_they_say(store: Store) -> None:
    request_id = secrets.token_bytes(32)
    asked = log_pb2.Requested(request_id=request_id, analyst="ana", dataset="patients", purpose="p", rho_nano=7)
    said = log_pb2.Decided(request_id=request_id, institution="beta", allowed=False)
    leaves = [
        entries.encode(log_pb2.LogEntry(at_ms=10, actor="ana", requested=asked)),
        entries.encode(log_pb2.LogEntry(at_ms=20, actor="beta", decided=said)),
        entries.encode(log_pb2.LogEntry(at_ms=30, actor="op", log_read=log_pb2.LogRead(what="everything"))),
    ]
    with store.begin() as uow:
        uow.append(leaves[:1])
        uow.append(leaves[1:])

    def seqs(**filters: str | int) -> list[int]:
        with store.read() as uow:
            return [row.seq for row in uow.leaves(0, 10, **filters)]

    assert seqs() == [0, 1, 2]
    assert seqs(kind="requested") == [0]
    assert seqs(dataset="patients") == [0, 1]  # a decision is found by the dataset of the request it is about
    assert seqs(analyst="ana", outcome="denied") == [1]
    assert seqs(institution="beta") == [1]
    assert seqs(actor="op") == [2]
    assert seqs(request_id=request_id.hex()[:8]) == [0, 1]
    assert seqs(request_id="%") == []
    assert seqs(since_ms=20, before_ms=30) == [1]
    with store.read() as uow:
        assert [row.seq for row in uow.leaves(1, 10, end=2)] == [1]
        with pytest.raises(LogError, match="cannot be filtered by 'leaf'"):
            uow.leaves(0, 10, leaf="x")
    with store.begin() as uow:
        assert uow.rebuild_index() == 3
    assert seqs(dataset="patients") == [0, 1]


def test_checkpoints_and_cosignatures(store: Store) -> None:
    with store.begin() as uow:
        assert uow.latest_checkpoint() is None
        uow.append([leaf(0), leaf(1)])
        uow.add_checkpoint(1, b"r1", b"note 1")
        uow.add_checkpoint(2, b"r2", b"note 2")
        uow.add_cosignature(1, "beta", "line b")
        uow.add_cosignature(1, "alpha", "line a")
        uow.add_cosignature(1, "alpha", "line again")
        with pytest.raises(LogError, match="no checkpoint of size 3"):
            uow.add_cosignature(3, "alpha", "x")
    with store.read() as uow:
        newest, cosigned = uow.latest_checkpoint(), uow.latest_checkpoint(cosigned=True)
        assert newest is not None
        assert cosigned is not None
        assert (newest.size, newest.note, cosigned.size) == (2, b"note 2", 1)
        assert [(row.witness, row.line) for row in uow.cosignatures(1)] == [("alpha", "line a"), ("beta", "line b")]
        assert [row.size for row in uow.checkpoints(2, 10)] == [2]


@pytest.mark.sqlite_files("the plans of its statements")
def test_proofs_and_searches_scan_no_table(tmp_path: Path) -> None:
    """O(log n) in fact: SQLite says of every statement that it seeks."""
    store = Store.create(f"sqlite:///{tmp_path / 'state.sqlite'}")
    with store.begin() as uow:
        uow.append([leaf(number) for number in range(300)])
    statements: list[tuple[str, object]] = []
    sa.event.listen(store._engine, "before_cursor_execute", lambda *event: statements.append((event[2], event[3])))
    with store.read() as uow:
        uow.inclusion(77, 299)
        uow.consistency(77, 299)
        uow.root()
        uow.leaf(5)
        uow.leaves(100, 10)
        uow.leaves(100, 10, dataset="patients")
        uow.leaves(100, 10, kind="requested", actor="ana")
        uow.leaves(100, 10, institution="ash")
        uow.leaves(100, 10, request_id="7230", kind="requested")
        list(uow.posted(0, 1 << 20, {"kind": "requested", "actor": "ana", "dataset": "patients"}))
        uow.leaf(250)
        uow.request(b"r5")
        uow.latest_checkpoint()
    plans = []
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection:
        for statement, parameters in statements:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()  # type: ignore[arg-type]
            plans += [(row[3], statement) for row in rows]
    store.close()
    # The newest checkpoint is the first row of a walk from the end, which SQLite calls a scan; sealed shards, of which
    # there are a few, are all read.
    scanned = [plan for plan in plans if plan[0].startswith("SCAN")]
    assert [plan for plan in scanned if plan[0].split()[1] not in {"checkpoint", "shard"}] == []
    assert len(statements) > 12


def test_steps_run_around_the_commit(store: Store) -> None:
    order: list[str] = []
    with store.begin() as uow:
        uow.before_commit(lambda: order.append("before"))
        uow.after_commit(lambda: order.append("after"))
        order.append("body")

    def fail() -> None:
        with store.begin() as uow:
            uow.before_commit(lambda: order.append("never"))
            uow.after_commit(lambda: order.append("never"))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert order == ["body", "before", "after"]


def test_reader_sees_one_state(store: Store) -> None:
    with store.begin() as uow:
        uow.append([leaf(0)])
    with store.read() as reader:
        assert reader.tree_size() == 1
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_append, store).result()
        assert reader.tree_size() == 1
    with store.read() as uow:
        assert uow.tree_size() == 2


def _append(store: Store) -> None:
    with store.begin() as uow:
        uow.append([leaf(1)])


def test_units_written_together_fail_alone(store: Store) -> None:
    """One transaction; what a unit that raised had done, its hooks included, is undone, and the others stand."""
    steps: list[str] = []

    def add(number: int, *, fail: bool = False) -> Callable[[UnitOfWork], int]:
        def unit(uow: UnitOfWork) -> int:
            seq = uow.append([leaf(number)])
            uow.add_checkpoint(seq + 1, b"r%d" % number, b"n")
            uow.after_commit(lambda: steps.append(str(number)))
            if fail:
                raise RuntimeError(f"unit {number}")
            return seq

        return unit

    with store.begin() as uow:
        uow.append([leaf(0)])
    outcomes = store.write_all([add(1), add(2, fail=True), add(3), lambda uow: uow.participant("nobody")])  # type: ignore[list-item]
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], RuntimeError)
    assert outcomes[2:] == [2, None]
    assert steps == ["1", "3"]
    assert store.write_all([add(4)]) == [3]
    assert [str(outcome) for outcome in store.write_all([add(5, fail=True)])] == ["unit 5"]
    frontier = merkle.Frontier()
    with store.read() as uow:
        rows = uow.leaves(0, 10)
        assert [row.leaf for row in rows] == [leaf(number) for number in (0, 1, 3, 4)]
        assert [row.root for row in uow.checkpoints(0, 10)] == [b"r1", b"r3", b"r4"]
        for row in rows:
            frontier.append(merkle.leaf_hash(row.leaf))
        assert uow.root() == frontier.root()


def test_entry_is_not_dated_before_the_one_above_it(store: Store) -> None:
    with store.begin() as uow:
        uow.append([leaf(at_ms=1005)])
        assert uow.latest_ms() == 1005
        with pytest.raises(LogError, match="dated before"):
            uow.append([leaf(at_ms=1004)])
        with pytest.raises(LogError, match="dated before"):
            uow.append([leaf(at_ms=1006), leaf(at_ms=1005)])
        assert uow.append([leaf(at_ms=1006), leaf(at_ms=1006)]) == 1
    with store.begin() as uow:
        assert uow.latest_ms() == 1006
