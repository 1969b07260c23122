"""Two coordinator processes over one PostgreSQL: one log, one membership, and neither ends what the other runs."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from harness.consortium import EVERYTHING, Running, free_port
from harness.fatal import FATAL

from analytics_client import tether
from analytics_client.agent.runner import Agent
from analytics_client.audit_session import open_log
from analytics_client.enrolment import enrol
from analytics_client.session import Session, connect
from analytics_server import governance
from analytics_server.audit.fsck import fsck
from analytics_server.config import ServerConfig, load
from analytics_server.control import poke
from analytics_server.coordinator.enrolment import invite
from analytics_server.coordinator.requests import INTERRUPTED
from analytics_server.store import Store
from analytics_server.store import instance as instances
from protos.v1 import analyst_pb2
from queries.errors import CohortiumError, ConfigError, ServiceError
from trust.tlog.entries import decode

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
nullable = false
[columns.visits]
type = "integer"
lower = 0
upper = 10
nullable = false
"""
COUNT = "SELECT COUNT(*) AS n FROM people"
SIDES = {"one": ("ash", "birch", "cedar"), "two": ("dogwood", "elm", "fir")}
ANALYSTS = {"one": "ada", "two": "ben"}
WITHIN_S = 60.0


def eventually(what: str, condition: Callable[[], bool], seconds: float = WITHIN_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


class Pair:
    """Coordinators "one" and "two", each a process with institutions and an analyst of its own."""

    def __init__(self, folder: Path, store: str, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        first = governance.initialise(
            folder / "one",
            consortium="pair",
            address=f"127.0.0.1:{free_port()}",
            enrolment_address=f"127.0.0.1:{free_port()}",
            governance=folder / "office",
            store=store,
            minimum_cohort=3,
            colluders=1,
            now=datetime.now(UTC),
        )
        shutil.copytree(folder / "one", folder / "two")
        text = (folder / "two" / "server.toml").read_text()
        for address in (first.address, first.enrolment_address):
            text = text.replace(address, f"127.0.0.1:{free_port()}")
        (folder / "two" / "server.toml").write_text(text)
        self.configs = {side: load(folder / side) for side in SIDES}

    def start(self, side: str) -> None:
        log = self.folder / f"{side}.log"
        before = log.read_text().count("is ready") if log.exists() else 0
        with log.open("ab") as out:
            process = tether.start(["run", "harness.fatal:coordinator", "run", str(self.folder / side)], log=out)
        self.processes[side] = process
        self.stack.callback(self.stop, process)
        eventually(
            f"{side} is ready: {log.read_text()}",
            lambda: process.poll() is not None or log.read_text().count("is ready") > before,
        )
        assert process.poll() is None, log.read_text()

    @staticmethod
    def stop(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(WITHIN_S)

    def admit(self, side: str, role: str, name: str) -> Path:
        """Invite at one side, and enrol at its coordinator."""
        config = self.configs[side]
        with governance.opened(config) as (store, log):
            token = invite(
                store,
                log,
                config,
                role=role,
                participant=name,
                organisation=name,
                valid_hours=1,
                now=datetime.now(UTC),
            ).to_token()
        enrol(token, self.folder / name, roles=[role])
        return self.folder / name

    def publish(self) -> None:
        """Publish through the folder of "one"; "two" hears of it from the database alone."""
        config = self.configs["one"]
        with governance.opened(config) as (store, log):
            office = governance.open_governance(self.folder / "office", config)
            governance.publish_membership(store, log, config, office, now=int(time.time()))
        poke(config.folder)

    def run_agent(self, name: str) -> None:
        data = self.folder / f"{name}.csv"
        data.write_text("id,age,visits\n" + "".join(f"{name}{i},{i % 90},{i % 7}\n" for i in range(200)))
        text = f'[datasets.people]\npath = "{data}"\n' + EVERYTHING.format(dataset="people", epsilon=1000.0)
        (self.folder / name / "agent.toml").write_text(text)
        running = Running(Agent(self.folder / name).run)
        self.stack.callback(running.stop)

    def session(self, side: str) -> Session:
        return self.stack.enter_context(connect(self.folder / ANALYSTS[side]))


def serving(session: Session) -> tuple[str, ...]:
    try:
        return next((d.serving for d in session.datasets()), ())
    except CohortiumError:
        return ()


@pytest.fixture(scope="module")
def pair(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE pair")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{Path(__file__).parents[2]}")
        url = f"postgresql+psycopg://postgres@/pair?host={postgresql.partition('host=')[2]}"
        built = Pair(tmp_path_factory.mktemp("pair"), url, stack)
        for side in SIDES:
            built.start(side)
        config = built.configs["one"]
        with governance.opened(config) as (store, log):
            office = governance.open_governance(built.folder / "office", config)
            governance.publish_dataset(store, log, office, SCHEMA)
        for side, names in SIDES.items():
            for name in names:
                built.admit(side, "agent", name)
            built.admit(side, "analyst", ANALYSTS[side])
        built.admit("one", "auditor", "olga")
        built.publish()
        for names in SIDES.values():
            for name in names:
                built.run_agent(name)
        yield built
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("DROP DATABASE pair WITH (FORCE)")


@pytest.fixture
def sessions(pair: Pair) -> dict[str, Session]:
    found = {side: pair.session(side) for side in SIDES}
    for side, names in SIDES.items():
        eventually(f"{side} serves", lambda side=side, names=names: serving(found[side]) == names)  # type: ignore[misc]
    return found


def check_log(pair: Pair) -> list[str]:
    """The auditor and fsck find one whole log; every request in it has one end. Return the kinds of its entries."""
    with open_log(pair.folder / "olga") as audit:
        report, history = audit.verify()
    assert report.ok, report
    config: ServerConfig = pair.configs["two"]
    store = Store.open(config.store_url)
    found = fsck(store, origin=config.log_origin, log_key=config.log_key(), governance_key=config.governance_key)
    store.close()
    assert found.findings == ()
    entries = [decode(entry.leaf) for entry in history.entries]
    begun = [e.requested.request_id for e in entries if e.WhichOneof("event") == "requested"]
    ended = [getattr(e, k).request_id for e in entries if (k := e.WhichOneof("event")) in ("released", "failed")]
    assert sorted(begun) == sorted(ended)
    return [str(e.WhichOneof("event")) for e in entries]


def test_both_answer_at_once_into_one_log(pair: Pair, sessions: dict[str, Session]) -> None:
    def ask(side: str) -> list[tuple[str, ...]]:
        return [sessions[side].query(COUNT, epsilon=1).survivors for _ in range(8)]

    with ThreadPoolExecutor(2) as both:
        answers = dict(zip(SIDES, both.map(ask, SIDES), strict=True))
    assert answers == {side: [names] * 8 for side, names in SIDES.items()}
    assert check_log(pair).count("released") >= 16


def test_reader_at_one_follows_what_the_other_writes(pair: Pair, sessions: dict[str, Session]) -> None:
    with open_log(pair.folder / "olga") as audit:
        following = audit.reader.entries(first=0, follow=True, kind="released")
        seen: list[int] = []

        def read() -> None:
            try:
                seen.extend(entry.seq for entry in following)
            except ServiceError:
                return  # the session is left while it waits

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        eventually("the reader has read what there is", lambda: len(seen) > 0 or not reading.is_alive())
        before = len(seen)
        sessions["two"].query(COUNT, epsilon=1)
        eventually("the reader sees the other's entry", lambda: len(seen) > before)
    reading.join(WITHIN_S)


def test_killed_coordinator_s_request_is_ended_by_the_other(pair: Pair, sessions: dict[str, Session]) -> None:
    fatal = pair.folder / "two" / FATAL
    fatal.write_text("before RequestDesk._release.work")
    with ThreadPoolExecutor(1) as other:
        asking = other.submit(lambda: sessions["two"].query(COUNT, epsilon=1))
        assert pair.processes["two"].wait(WITHIN_S) == -9
        store = Store.open(pair.configs["one"].store_url)

        def running() -> list[bytes]:
            with store.read() as uow:
                return [row.request_id for row in uow.running_requests()]

        # "one" answers all the time, and it alone ends what "two" had left.
        assert sessions["one"].query(COUNT, epsilon=1).survivors == SIDES["one"]
        eventually("nothing is left running", lambda: not running())
        with store.read() as uow:
            (ended,) = [row.request_id for row in uow.requests_of("ben") if row.state == "failed"]
        store.close()
        fatal.unlink()
        pair.start("two")
        # However long the analyst's own patience was: the end is told by either.
        assert isinstance(asking.exception(WITHIN_S), CohortiumError)
    eventually("two serves again", lambda: serving(sessions["two"]) == SIDES["two"])
    told = sessions["two"]._resume(ended)
    assert (told.step, told.failure.message) == ("failed", INTERRUPTED.message)
    assert sessions["two"].query(COUNT, epsilon=1).survivors == SIDES["two"]
    check_log(pair)


def test_job_of_a_killed_coordinator_goes_on_at_the_other(pair: Pair, sessions: dict[str, Session]) -> None:
    """After the last released round, with the institutions that are connected there; nothing is released twice."""
    fatal = pair.folder / "two" / FATAL
    fatal.write_text("before _Job._release.work#3")
    with ThreadPoolExecutor(1) as other:
        training = other.submit(
            lambda: sessions["two"].train(
                "poisson", rho=20.0, rounds=6, spare_rounds=6, dataset="people", label="visits", features=["age"]
            )
        )
        assert pair.processes["two"].wait(WITHIN_S) == -9
        store = Store.open(pair.configs["one"].store_url)

        def jobs() -> dict[bytes, tuple[str, int]]:
            with store.read() as uow:
                rows = [row for row in uow.requests_of("ben") if uow.job_rounds(row.request_id)]
                return {row.request_id: (row.state, len(uow.job_rounds(row.request_id))) for row in rows}

        eventually("the job is over", lambda: [state for state, _ in jobs().values()] == ["released"])
        fatal.unlink()
        pair.start("two")
        training.exception(WITHIN_S)  # whatever the analyst's own patience was
    ((request_id, _),) = jobs().items()
    with store.read() as uow:
        released = [analyst_pb2.Progress.FromString(stored) for stored in uow.job_rounds(request_id)]
    store.close()
    assert [tuple(progress.institutions) for progress in released] == [SIDES["two"]] * 2 + [SIDES["one"]] * 4
    eventually("two serves again", lambda: serving(sessions["two"]) == SIDES["two"])
    assert sessions["two"].model(request_id.hex()).complete
    with open_log(pair.folder / "olga") as audit:
        report, _ = audit.verify()
    assert report.ok, report


def test_start_leaves_alone_what_a_living_one_runs(pair: Pair, sessions: dict[str, Session]) -> None:
    """A request of a living process is waited for at the other coordinators, and ended only when that process dies."""
    config = pair.configs["one"]
    living = instances.register(config.store_url)
    store = Store.open(config.store_url)
    request_id = b"held by a process that lives...."
    with governance.opened(config) as (_, log), store.begin() as uow:
        uow.add_request(
            request_id=request_id, analyst="ada", dataset="people", envelope=b"", expires_at=1, instance=living.id
        )
        log.append_in(uow, [])
    pair.stop(pair.processes["two"])
    pair.start("two")
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(sessions["one"]._resume, request_id)
        assert sessions["one"].query(COUNT, epsilon=1).survivors == SIDES["one"]
        with store.read() as uow:
            assert [row.request_id for row in uow.running_requests()] == [request_id]
        assert not waiting.done()
        living.close()
        end: analyst_pb2.Progress = waiting.result(WITHIN_S)
    store.close()
    assert end.step == "failed"
    assert end.failure.message == INTERRUPTED.message


# --- who lives -------------------------------------------------------------------------------------------------------


def is_dead(url: str, instance: int) -> bool:
    store = Store.open(url)
    try:
        with store.begin() as uow:
            return instances.is_dead(uow._connection, instance)
    finally:
        store.close()


def test_lease_that_is_lost_is_taken_again_and_nothing_missed(postgresql_database: str) -> None:
    Store.create(postgresql_database).close()
    heard: list[str] = []
    living = instances.register(postgresql_database, heard.append)
    assert not is_dead(postgresql_database, living.id)
    with psycopg.connect(postgresql_database.replace("+psycopg", ""), autocommit=True) as killer:
        killer.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    eventually("it holds its lease again", lambda: not is_dead(postgresql_database, living.id))
    eventually("it looks at everything anew", lambda: {instances.LOG, instances.DIRECTORY} <= set(heard))
    living.close()
    assert is_dead(postgresql_database, living.id)


def test_silent_process_loses_its_lease(postgresql_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.create(postgresql_database).close()
    monkeypatch.setattr(instances, "SILENT_S", 1)
    monkeypatch.setattr(instances, "HEARTBEAT_S", 600.0)
    monkeypatch.setattr(instances, "AGAIN_S", 600.0)
    silent = instances.register(postgresql_database)
    eventually("the server ends the session", lambda: is_dead(postgresql_database, silent.id))
    silent.close()


def test_commands_elsewhere_are_heard(postgresql_database: str) -> None:
    store = Store.create(postgresql_database)
    heard: list[str] = []
    living = instances.register(postgresql_database, heard.append)
    with store.begin() as uow:
        uow.add_membership(1, b"h", b"e")
    eventually("the membership is heard of", lambda: instances.DIRECTORY in heard)
    with store.begin() as uow:
        uow.add_checkpoint(0, b"r", b"n")
    eventually("the head is heard of", lambda: instances.LOG in heard)
    living.close()
    store.close()


def test_postgresql_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be reached"):
        instances.register(f"postgresql+psycopg://postgres@/none?host={tmp_path}")


@pytest.mark.sqlite_files("one file, one coordinator")
def test_second_coordinator_over_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    from analytics_server.coordinator.rounds import Deadlines
    from analytics_server.coordinator.server import Coordinator

    config = governance.initialise(
        tmp_path / "one",
        consortium="pair",
        address=f"127.0.0.1:{free_port()}",
        enrolment_address=f"127.0.0.1:{free_port()}",
        governance=None,
        store="state.sqlite",
        minimum_cohort=3,
        colluders=1,
        now=datetime.now(UTC),
    )
    first = instances.register(config.store_url)
    store = Store.open(config.store_url)
    with store.begin() as uow:
        uow.add_request(request_id=b"r", analyst="a", dataset="d", envelope=b"", expires_at=1, instance=first.id)
    with pytest.raises(ConfigError, match=r"another coordinator runs over .* PostgreSQL"):
        Coordinator(replace(config, folder=tmp_path / "two"), deadlines=Deadlines())
    with store.read() as uow:
        assert [row.instance for row in uow.running_requests()] == [first.id]
    first.close()
    instances.register(config.store_url).close()
    store.close()
