"""Revocation holds at once: open streams, running rounds and jobs end, and a withheld membership is found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.consortium import Consortium, consortium

from analytics_client.agent import responder
from analytics_client.agent.ledger import Ledger
from analytics_client.audit_session import open_log
from analytics_client.session import Progress
from analytics_server import governance
from analytics_server.control import poke
from analytics_server.coordinator.agent_service import AgentServicer
from analytics_server.coordinator.hub import AgentConnection
from analytics_server.coordinator.requests import RequestDesk
from queries.errors import CohortiumError, IdentityError, LogError
from trust.rpc.server import Gate
from trust.tlog.entries import decode

SCHEMA = """
name = "people"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
[columns.visits]
type = "integer"
lower = 0
upper = 10
"""
INSTITUTIONS = ("ash", "birch", "cedar")
COUNT = "SELECT COUNT(*) AS n FROM people"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Consortium]:
    (tmp_path / "data.csv").write_text("age,visits\n" + "".join(f"{i % 90},{i % 7}\n" for i in range(300)))
    files = {name: {"people": f'path = "{tmp_path}/data.csv"'} for name in INSTITUTIONS}
    with consortium(tmp_path, [SCHEMA], files, epsilon=100_000.0, analysts=("ada", "bob")) as built:
        yield built


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Semaphore, threading.Event]]:
    """Uploads wait: the first is released for each one that began, the second lets them all go."""
    began, go = threading.Semaphore(0), threading.Event()

    def wait(*_: object, **__: object) -> None:
        began.release()
        assert go.wait(60)

    monkeypatch.setattr(responder.schedule, "wait", wait)
    yield began, go
    go.set()


def revoke(running: Consortium, participant: str) -> None:
    with governance.opened(running.config) as (store, log):
        governance.revoke(store, log, participant, "left the consortium")
    poke(running.folder / "server")


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.05)


def failures(running: Consortium) -> list[tuple[str, bool]]:
    with governance.opened(running.config) as (store, _), store.read() as uow:
        entries = [decode(row.leaf).failed for row in uow.leaves(0, 10_000, kind="failed")]
    return [(entry.reason, entry.charged) for entry in entries]


def spent(running: Consortium, analyst: str = "ada") -> list[int]:
    found = []
    for name in INSTITUTIONS:
        with Ledger.read(running.folder / name / "ledger.sqlite") as ledger:
            found.append(sum(a.rho_nano for a in ledger.accounts() if a.analyst == analyst))
    return found


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(work())
        except CohortiumError as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def test_running_query_of_a_revoked_analyst_is_cut_off_and_costs_nothing(
    running: Consortium, held: tuple[threading.Semaphore, threading.Event]
) -> None:
    began, go = held
    with running.session() as session:
        thread, ended = in_background(lambda: session.query(COUNT, epsilon=0.5))
        for _ in INSTITUTIONS:
            assert began.acquire(timeout=30)
        revoke(running, "ada")
        thread.join(30)
        (error,) = ended
        assert isinstance(error, IdentityError), error
        assert "revoked" in str(error)
        eventually(lambda: failures(running) == [("identity", False)])
        # Told that the round is over before a vector left, no institution sends one or keeps a charge.
        go.set()
        eventually(lambda: spent(running) == [0, 0, 0])
        with pytest.raises(IdentityError, match="revoked"):
            session.query(COUNT, epsilon=0.5)
    with running.session("bob") as other:
        assert other.query(COUNT, epsilon=0.5).survivors == INSTITUTIONS


def test_agents_leave_the_rounds_of_who_is_not_in_the_new_membership(
    running: Consortium, held: tuple[threading.Semaphore, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the coordinator goes on with the round: it is the agents that keep the data."""
    began, go = held
    monkeypatch.setattr(RequestDesk, "cut_off", lambda _self: None)
    monkeypatch.setattr(Gate, "cut_off", lambda _self: None)
    with running.session() as session:
        thread, ended = in_background(lambda: session.query(COUNT, epsilon=0.5))
        for _ in INSTITUTIONS:
            assert began.acquire(timeout=30)
        with governance.opened(running.config) as (store, log):
            governance.revoke(store, log, "ada", "left the consortium")
        running.publish()
        eventually(lambda: {a._membership.epoch for a in running.agent_objects.values() if a._membership} == {2})
        running.wait_until_served("people", 3)
        go.set()
        thread.join(60)
    assert isinstance(ended[0], CohortiumError)
    eventually(lambda: spent(running) == [0, 0, 0])


def test_job_of_a_revoked_analyst_ends_and_what_it_held_returns(running: Consortium) -> None:
    two = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.rounds >= 2:
            two.set()

    def train() -> object:
        return session.train(
            "poisson",
            dataset="people",
            label="visits",
            features=["age"],
            rho=100.0,
            rounds=1000,
            spare_rounds=0,
            on_progress=watch,
        )

    with running.session() as session:
        thread, ended = in_background(train)
        assert two.wait(60)
        with governance.opened(running.config) as (store, log):
            governance.revoke(store, log, "ada", "left the consortium")
        running.publish()
        thread.join(60)
    assert isinstance(ended[0], CohortiumError), ended
    eventually(lambda: len(failures(running)) == 1)

    def returned() -> bool:
        for name in INSTITUTIONS:
            with Ledger.read(running.folder / name / "ledger.sqlite") as ledger:
                if any(not entry.reason for entry in ledger.jobs()):
                    return False
        return all(0 < rho < 50_000_000_000 for rho in spent(running))

    eventually(returned)


def test_open_streams_of_auditor_and_agent_end(running: Consortium) -> None:
    with open_log(running.folder / "olga") as auditor:
        first = threading.Event()

        def follow() -> object:
            for _ in auditor.reader.entries(first=0, follow=True):
                first.set()
            return "ended"

        thread, ended = in_background(follow)
        assert first.wait(30)
        revoke(running, "olga")
        thread.join(30)
        assert isinstance(ended[0], IdentityError), ended
        assert "revoked" in str(ended[0])
    revoke(running, "cedar")
    eventually(lambda: isinstance(running.agents["cedar"].error, IdentityError))
    assert running.coordinator_object is not None
    assert running.coordinator_object._hub.get("cedar") is None


def test_agent_that_was_not_shown_the_new_membership_finds_out_with_the_next_question(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    welcome = AgentServicer.welcome

    def withheld(self: AgentServicer, connection: AgentConnection) -> None:
        if connection.id != "cedar":
            welcome(self, connection)

    monkeypatch.setattr(AgentServicer, "welcome", withheld)
    with governance.opened(running.config) as (store, log):
        governance.revoke(store, log, "ada", "left the consortium")
    running.publish()
    eventually(lambda: {n for n, a in running.agent_objects.items() if a._membership.epoch == 2} == {"ash", "birch"})  # type: ignore[union-attr]
    running.wait_until_served("people", 3)
    with running.session("bob") as session, pytest.raises(CohortiumError) as refused:
        session.query(COUNT, epsilon=0.5)
    (refusal,) = [r for r in refused.value.refusals if r.institution == "cedar"]
    assert "withholds the newer one" in refusal.message


def test_analyst_that_is_shown_an_old_membership_finds_out_with_the_answer(running: Consortium) -> None:
    directory = running.coordinator_object._directory  # type: ignore[union-attr]
    session = running.session("bob")
    assert session.membership.epoch == 1
    old = directory.membership_envelope
    with governance.opened(running.config) as (store, log):
        governance.revoke(store, log, "ada", "left the consortium")
    running.publish()
    eventually(lambda: {a._membership.epoch for a in running.agent_objects.values() if a._membership} == {2})
    running.wait_until_served("people", 3)
    directory.membership_envelope = old  # what analysts are shown; the rounds are of epoch 2
    with pytest.raises(LogError, match="epoch 2, you were shown epoch 1"):
        session.query(COUNT, epsilon=0.5)
    session.close()
