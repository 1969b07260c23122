"""A running consortium whose database fails: everybody is told clearly, and every request ends once it is back."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from harness.axe import Axe
from harness.consortium import Consortium, consortium

from analytics_client.agent.ledger import Ledger
from analytics_client.audit_session import open_log
from analytics_client.enrolment import enrol
from analytics_client.result import Result
from analytics_server import governance
from analytics_server.coordinator.enrolment import invite
from queries.errors import CohortiumError, ServiceError
from trust.tlog.entries import decode

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
"""
INSTITUTIONS = ("ash", "birch", "cedar")
COUNT = "SELECT COUNT(*) AS n FROM people"
WITHIN_S = 60.0


def eventually(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def built(tmp_path: Path, store_url: str) -> Iterator[Consortium]:
    files = {}
    for name in INSTITUTIONS:
        path = tmp_path / f"{name}.csv"
        path.write_text("id,age\n" + "".join(f"{name}{i},{i % 90}\n" for i in range(300)))
        files[name] = {"people": f'path = "{path}"'}
    with consortium(tmp_path, [SCHEMA], files, store=store_url) as running:
        yield running


def running_requests(built: Consortium) -> int:
    assert built.coordinator_object is not None
    with built.coordinator_object._store.read() as uow:
        return len(uow.running_requests())


def check_whole(built: Consortium) -> None:
    """Nothing is left running; the auditor finds the log whole, and in it every request with one end."""
    eventually("every request has ended", lambda: running_requests(built) == 0)
    with open_log(built.folder / "olga") as audit:
        report, history = audit.verify()
    assert report.findings == ()
    entries = [decode(entry.leaf) for entry in history.entries]
    begun = [e.requested.request_id for e in entries if e.WhichOneof("event") == "requested"]
    ended = [getattr(e, k).request_id for e in entries if (k := e.WhichOneof("event")) in ("released", "failed")]
    assert sorted(begun) == sorted(ended)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("at", ["requested", "decided", "released"])
def test_disk_that_fills_up_at_each_step_of_a_request(built: Consortium, at: str) -> None:
    """The analyst reads what happened; the end is stored once there is room again, by the same process."""
    assert built.coordinator_object is not None
    engine = built.coordinator_object._store._engine
    full = threading.Event()

    def fail(_connection: sa.Connection, _cursor: object, text: str, values: object, *_: object) -> None:
        if text.startswith("INSERT INTO audit_index") and f"'{at}'" in repr(values):
            full.set()
        if full.is_set() and text.startswith("INSERT"):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    sa.event.listen(engine, "before_cursor_execute", fail)
    with built.session() as session:
        with pytest.raises(CohortiumError) as caught:
            session.query(COUNT, epsilon=1)
        assert "disk that holds the store is full" in str(caught.value)
        full.clear()
        sa.event.remove(engine, "before_cursor_execute", fail)
        assert session.query(COUNT, epsilon=1).survivors == INSTITUTIONS
    check_whole(built)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_postgresql_that_loses_every_connection_again_and_again(built: Consortium) -> None:
    assert built.coordinator_object is not None
    url = built.config.store_url.replace("+psycopg", "")
    stop = threading.Event()

    def cut() -> None:
        with psycopg.connect(url, autocommit=True) as killer:
            while not stop.wait(0.15):
                killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    cutting = threading.Thread(target=cut)
    told: list[Result | CohortiumError] = []
    with built.session() as session:
        cutting.start()
        for _ in range(12):
            try:
                told.append(session.query(COUNT, epsilon=1))
            except CohortiumError as error:
                told.append(error)
        stop.set()
        cutting.join()
        failed = [answer for answer in told if not isinstance(answer, Result)]
        assert failed, "the connection was cut in the middle of something"
        for error in failed:
            assert isinstance(error, ServiceError) or "stopped in the middle" in str(error), repr(error)
        eventually("it answers again", lambda: isinstance(try_once(session.query), Result))
    check_whole(built)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_connection_cut_at_every_statement_of_a_request(built: Consortium) -> None:
    """Wherever PostgreSQL goes away every request has one end, and what is said not to be charged is not."""
    assert built.coordinator_object is not None
    axe = Axe(built.coordinator_object._store, built.config.store_url)
    answered = failed = 0
    at: int | None = 0
    with built.session() as session:
        assert isinstance(try_once(session.query), Result)
        while at is not None:
            before = spent(built)
            axe.restart(at)
            told = try_once(session.query)
            fell, axe.at = axe.fell, None
            if isinstance(told, Result):
                assert told.survivors == INSTITUTIONS
                answered += 1
            else:
                assert fell, repr(told)
                assert isinstance(told, ServiceError) or "stopped in the middle" in str(told), (at, repr(told))
                failed += 1
            eventually("it has ended", lambda: running_requests(built) == 0)
            if not isinstance(told, Result) and not told.charged:
                eventually("nothing is charged", lambda before=before: spent(built) == before)
            at = at + 1 if fell else None
        axe.close()
        assert isinstance(try_once(session.query), Result)
    assert answered
    assert failed
    check_whole(built)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_connection_cut_at_every_statement_of_an_enrolment_and_a_reading(built: Consortium, tmp_path: Path) -> None:
    """What was cut off did not happen, and happens when it is tried again: one entry for each."""
    assert built.coordinator_object is not None
    axe = Axe(built.coordinator_object._store, built.config.store_url)

    def at_every_statement(work: Callable[[int], object]) -> int:
        """Cut `work` off at statement 0, 1, 2, ... and repeat it each time it failed; return how often it did."""
        number = failed = 0
        while True:
            axe.restart(number)
            try:
                work(number)
            except ServiceError:
                assert axe.fell
                axe.at = None
                failed += 1
                work(number)
            if not axe.fell:
                axe.at = None
                return failed
            number += 1

    tokens = dict[int, str]()

    def enrol_one(number: int) -> None:
        name = f"auditor-{number}"
        if number not in tokens:
            axe.at, at = None, axe.at
            tokens[number] = invited(built, name)
            axe.restart(at)
        enrol(tokens[number], tmp_path / name, roles=["auditor"])

    assert at_every_statement(enrol_one) > 3
    with open_log(built.folder / "olga") as audit:
        assert at_every_statement(lambda _: list(audit.reader.entries(limit=3))) > 3
        axe.close()
        _, history = audit.verify()
    entries = [decode(entry.leaf) for entry in history.entries]
    names = [e.enrolled.participant for e in entries if e.WhichOneof("event") == "enrolled"]
    assert [name for name in names if name.startswith("auditor-")] == [f"auditor-{number}" for number in tokens]
    check_whole(built)


def invited(built: Consortium, name: str) -> str:
    with governance.opened(built.config) as (opened, log):
        return invite(
            opened, log, built.config, role="auditor", participant=name, organisation="", valid_hours=1,
            now=datetime.now(UTC),
        ).to_token()  # fmt: skip


def spent(built: Consortium) -> list[int]:
    """What each ledger has charged and reserved."""
    found = []
    for name in INSTITUTIONS:
        with Ledger.read(built.folder / name / "ledger.sqlite") as ledger:
            found.append(sum(entry.rho_nano for entry in ledger.history(100_000) if entry.state != "released"))
    return found


def try_once(query: Callable[..., Result]) -> Result | CohortiumError:
    try:
        return query(COUNT, epsilon=1)
    except CohortiumError as error:
        return error
