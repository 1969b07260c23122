"""A PostgreSQL backend that is terminated at every statement of a transaction: all of it happened, or nothing did."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.axe import COMMIT, Axe

from analytics_server.audit.log import AuditLog
from analytics_server.store import Store, UnitOfWork
from protos.v1 import log_pb2
from queries.errors import ServiceError
from trust.tlog import notes
from trust.tlog.recount import Recount

ORIGIN = "north/log"


@pytest.fixture
def store(postgresql_database: str) -> Iterator[Store]:
    made = Store.create(postgresql_database)
    yield made
    made.close()


def entry(number: int) -> log_pb2.LogEntry:
    asked = log_pb2.Requested(request_id=b"r%d" % number, analyst="ana", dataset="d")
    return log_pb2.LogEntry(at_ms=1, actor="ana", requested=asked)


def submit(log: AuditLog, number: int) -> Callable[[UnitOfWork], int]:
    """As the coordinator takes a request in: row, entry, signed head."""

    def work(uow: UnitOfWork) -> int:
        request_id = b"r%d" % number
        uow.add_request(request_id=request_id, analyst="ana", dataset="d", envelope=b"e", expires_at=9)
        seq = log.append_in(uow, [entry(number)])
        log.head(uow)
        uow.finish_request(request_id, "released", release=b"s")
        return seq

    return work


def state(store: Store) -> tuple[int, int, int]:
    """Entries, requests, and the size of the newest head; the tree is checked against them."""
    with store.read() as uow:
        rows = uow.leaves(0, 1000)
        newest = uow.latest_checkpoint()
        tree = Recount()
        tree.extend([row.leaf for row in rows])
        assert newest is None or newest.root == tree.root() == uow.root()
        assert [row.seq for row in rows] == list(range(len(rows)))
        return len(rows), len(list(uow.all_requests())), newest.size if newest else 0


@pytest.mark.parametrize("together", [1, 3])
def test_transaction_cut_off_at_every_statement(store: Store, postgresql_database: str, together: int) -> None:
    log = AuditLog(store, notes.Signer(ORIGIN, Ed25519PrivateKey.generate()), ORIGIN)
    with store.begin() as uow:
        submit(log, 0)(uow)
    axe = Axe(store, postgresql_database)
    done, at = 1, 0
    while at is not None:
        units = [submit(log, done + number) for number in range(together)]
        axe.restart(at)
        try:
            outcomes = store.write_all(units)
        except ServiceError as error:
            outcomes = [error]
        axe.at = None
        if axe.fell:
            assert [type(outcome) for outcome in outcomes] == [ServiceError], at
            assert "PostgreSQL cannot be reached" in str(outcomes[0])
            assert state(store) == (done, done, done), at
            outcomes = store.write_all(units)  # once more, and once
        assert outcomes == list(range(done, done + together)), at
        done += together
        assert state(store) == (done, done, done)
        at = COMMIT if not axe.fell else at + 1 if at != COMMIT else None
    assert axe.fell
    assert axe.longest > 5 * together
    axe.close()
