"""What happens to a query when agents vanish, refuse or cheat, and when the coordinator dies, over real connections."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from harness.consortium import Consortium, consortium

from analytics_client.agent.active import ActiveRound
from analytics_client.agent.ledger import Ledger
from analytics_client.agent.responder import Responder
from analytics_client.session import Session
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.rounds import Deadlines
from protos.v1 import analyst_pb2
from queries.errors import BudgetError, ConfigError, DataError, IdentityError, PolicyDenied, QuorumError
from queries.policy import Policy
from trust.secagg import Member, PairKeys
from trust.secagg import agent as secagg_agent

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
[columns.sex]
type = "category"
categories = ["f", "m"]
"""
INSTITUTIONS = ("ash", "birch", "cedar", "dogwood")
COUNT = "SELECT COUNT(*) AS n FROM people"


def files(folder: Path) -> dict[str, dict[str, str]]:
    out = {}
    for number, name in enumerate(INSTITUTIONS):
        rows = "".join(f"{name}-{i},{20 + i % 60},{'fm'[i % 2]}\n" for i in range(100 + 10 * number))
        path = folder / f"{name}.csv"
        path.write_text("id,age,sex\n" + rows)
        out[name] = {"people": f'path = "{path}"'}
    return out


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Consortium]:
    deadlines = Deadlines(join=3, upload=3, confirm=3, reveal=3)
    with consortium(tmp_path, [SCHEMA], files(tmp_path), deadlines=deadlines, epsilon=20.0) as built:
        yield built


class Hold:
    """Stops one agent before it uploads, until `go`."""

    def __init__(self, patch: pytest.MonkeyPatch, institution: str) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        original = Responder.upload

        def upload(responder: Responder, active: ActiveRound) -> Iterator[bytes]:
            if responder._me == institution:
                self.reached.set()
                self.go.wait(10)
            return original(responder, active)

        patch.setattr(Responder, "upload", upload)


def spent(folder: Path) -> int:
    """What the ledger in an agent's folder holds as charged or reserved for all analysts, in 1e-9 of rho."""
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        row = connection.execute("SELECT rho_nano FROM account WHERE analyst = '' AND dataset = 'people'").fetchone()
    return row[0] if row else 0


def test_an_agent_that_is_gone_after_joining_does_not_stop_the_others(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = Hold(monkeypatch, "cedar")

    def stop() -> None:
        hold.reached.wait(10)
        stopper = threading.Thread(target=running.agents["cedar"].stop)
        stopper.start()
        time.sleep(0.2)
        hold.go.set()
        stopper.join()

    thread = threading.Thread(target=stop)
    thread.start()
    with running.session() as session:
        result = session.query(COUNT, rho=1)
    thread.join()
    assert result.survivors == ("ash", "birch", "dogwood")
    assert result.invited == 4
    assert result.estimate("n").value == pytest.approx(100 + 110 + 130, abs=15)


def test_a_straggler_is_left_behind_at_the_deadline_and_readmitted_next_time(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = Hold(monkeypatch, "ash")
    with running.session() as session:
        late = session.query(COUNT, rho=0.5)
        hold.go.set()
        time.sleep(0.3)
        again = session.query(COUNT, rho=0.5)
    assert late.survivors == ("birch", "cedar", "dogwood")
    assert again.survivors == INSTITUTIONS


def test_an_agent_that_answers_after_the_deadline_keeps_no_reservation(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, late = Responder.answer, threading.Event()

    def answer(responder: Responder, *announced: Any) -> Any:
        found = original(responder, *announced)
        if responder._me == "ash" and not late.is_set():
            late.set()
            time.sleep(4)  # the joining deadline of this consortium is 3 s
        return found

    monkeypatch.setattr(Responder, "answer", answer)
    with running.session() as session:
        assert session.query(COUNT, rho=0.5).survivors == ("birch", "cedar", "dogwood")
    time.sleep(2)
    assert spent(running.folder / "ash") == 0
    assert spent(running.folder / "birch") > 0


def test_too_few_institutions_cost_nothing_and_are_in_the_log(running: Consortium) -> None:
    for name in ("ash", "birch"):
        running.agents[name].stop()
    with running.session() as session, pytest.raises(QuorumError, match="'people' is served by 2 organisations now"):
        session.query(COUNT, rho=0.5)
    assert all(spent(running.folder / name) == 0 for name in INSTITUTIONS)
    assert [kind for kind, _ in log(running)][-2:] == ["requested", "failed"]


def test_an_overdrawn_budget_is_refused_by_name_and_costs_nothing(running: Consortium) -> None:
    with running.session() as session:
        session.query(COUNT, epsilon=15)
        before = [spent(running.folder / name) for name in INSTITUTIONS]
        with pytest.raises(BudgetError, match="institutions refused") as refused:
            session.query(COUNT, epsilon=19)
    assert {r.institution for r in refused.value.refusals} == set(INSTITUTIONS)  # type: ignore[attr-defined]
    assert refused.value.charged is False  # type: ignore[attr-defined]
    assert [spent(running.folder / name) for name in INSTITUTIONS] == before
    denied = [entry for kind, entry in log(running) if kind == "decided" and "denied" in entry]
    assert len(denied) == 4


def test_a_query_above_the_policys_epsilon_is_denied_under_its_rule(running: Consortium) -> None:
    with running.session() as session, pytest.raises(PolicyDenied, match="at most epsilon 20"):
        session.query(COUNT, epsilon=30)


def test_a_revoked_analyst_is_shut_out_at_once(running: Consortium) -> None:
    from analytics_server import governance
    from analytics_server.control import poke

    with running.session() as session:
        session.query(COUNT, rho=0.1)
        with governance.opened(running.config) as (store, audit_log):
            governance.revoke(store, audit_log, "ada", "left the project")
        poke(running.folder / "server")
        with pytest.raises(IdentityError, match="revoked"):
            session.query(COUNT, rho=0.1)


def test_a_cheating_dealer_is_named_and_the_query_answered_without_it(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    deal = secagg_agent.deal

    class WrongForCedar:
        """The dealer's pair keys, except that what it seals for cedar is sealed under another key."""

        def __init__(self, real: PairKeys, cedar: bytes) -> None:
            self.real, self.cedar = real, cedar

        def secret(self, peer: bytes) -> bytes:
            return bytes(32) if peer == self.cedar else self.real.secret(peer)

    def cheat(parameters: Any, me: str, members: Mapping[str, Member], pair_keys: PairKeys, *rest: Any) -> Any:
        used = WrongForCedar(pair_keys, members["cedar"].epoch_key) if me == "birch" else pair_keys
        return deal(parameters, me, members, used, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(secagg_agent, "deal", cheat)
    with running.session() as session:
        result = session.query(COUNT, rho=1)
    assert result.survivors == ("ash", "cedar", "dogwood")
    assert result.invited == 3
    outcomes = [entry for kind, entry in log(running) if kind == "round_ended"]
    assert len(outcomes) == 2
    once = spent(running.folder / "ash")
    with running.session() as session:
        monkeypatch.setattr(secagg_agent, "deal", deal)
        session.query(COUNT, rho=1)
    assert spent(running.folder / "ash") == 2 * once  # the restarted round was paid once


def test_a_coordinator_that_stops_in_a_round_ends_it_after_restart_and_keeps_what_was_finished(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running.session() as session:
        finished = session.query(COUNT, rho=0.5)
    hold = Hold(monkeypatch, "ash")
    failures: list[BaseException] = []

    def ask() -> None:
        with running.session() as session:
            try:
                session.query(COUNT, rho=0.5)
            except BaseException as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert hold.reached.wait(10)
    assert running.coordinator is not None
    running.coordinator.stop()
    hold.go.set()
    running.start_coordinator()
    running.wait_until_served("people", 4)
    asking.join(20)
    assert len(failures) == 1
    assert isinstance(failures[0], QuorumError)
    assert "stopped in the middle" in str(failures[0])
    kinds = [kind for kind, _ in log(running)]
    assert kinds[-1] in {"failed", "log_read"}
    with running.session() as session:
        stored = session._resume(bytes.fromhex(finished.request_id))
        assert stored.step == "released"
        assert session.query(COUNT, rho=0.5).survivors == INSTITUTIONS


def test_an_agent_that_was_still_judging_when_the_coordinator_died_keeps_no_reservation(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, judging, go = Responder.answer, threading.Event(), threading.Event()

    def answer(responder: Responder, *announced: Any) -> Any:
        if responder._me == "ash":
            judging.set()
            go.wait(10)
        return original(responder, *announced)

    monkeypatch.setattr(Responder, "answer", answer)

    def ask() -> None:
        with running.session() as session, pytest.raises(QuorumError, match="stopped in the middle"):
            session.query(COUNT, rho=0.5)

    asking = threading.Thread(target=ask)
    asking.start()
    assert judging.wait(10)
    assert running.coordinator is not None
    running.coordinator.stop()
    time.sleep(0.3)  # the connection's end has reached the agent
    go.set()
    running.start_coordinator()
    running.wait_until_served("people", 4)
    asking.join(20)
    assert spent(running.folder / "ash") == 0
    with running.session() as session:
        assert session.query(COUNT, rho=0.5).survivors == INSTITUTIONS


def test_an_agent_restarts_and_serves_with_its_ledger_as_it_was(running: Consortium) -> None:
    with running.session() as session:
        session.query(COUNT, rho=0.5)
        before = spent(running.folder / "ash")
        running.agents["ash"].stop()
        running.start_agent("ash")
        running.wait_until_served("people", 4)
        assert session.query(COUNT, rho=0.5).survivors == INSTITUTIONS
    assert spent(running.folder / "ash") == 2 * before
    with Ledger.read(running.folder / "ash" / "ledger.sqlite") as ledger:
        assert [entry.state for entry in ledger.history()] == ["charged", "charged"]


def log(running: Consortium) -> list[tuple[str, str]]:
    """Every entry's kind and sentence, from the store."""
    from analytics_server.store import Store
    from trust.tlog.entries import decode, sentence

    store = Store.open(running.config.store_url)
    try:
        with store.read() as uow:
            rows = uow.leaves(0, 10_000)
    finally:
        store.close()
    entries = [(row.seq, decode(row.leaf)) for row in rows]
    return [(entry.WhichOneof("event") or "", sentence(seq, entry)) for seq, entry in entries]


def test_a_round_that_comes_to_nothing_says_who_left_and_why(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Responder.upload

    def upload(responder: Responder, active: ActiveRound) -> Iterator[bytes]:
        if responder._me in {"ash", "birch"}:
            active.vector = Future()
            active.vector.set_exception(DataError("line 7 of the file holds what it should not"))
        return original(responder, active)

    monkeypatch.setattr(Responder, "upload", upload)
    with running.session() as session, pytest.raises(QuorumError) as failed:
        session.query(COUNT, rho=0.5)
    words = failed.value.message
    assert "ash dropped out at upload (abandoned: it cannot answer from its data now)" in words
    assert "birch dropped out" in words
    assert "line 7" not in words  # what is wrong with local data stays local
    assert spent(running.folder / "ash") == 0


def test_a_second_agent_in_one_folder_is_refused_at_once(running: Consortium) -> None:
    with pytest.raises(ConfigError, match="already running"):
        running.start_agent("ash")
    with running.session() as session:
        assert session.query(COUNT, rho=0.1).survivors == INSTITUTIONS


def test_a_denial_by_the_coordinators_own_policy_is_logged(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Directory, "coordinator_policy", lambda _directory: Policy())
    with running.session() as session, pytest.raises(PolicyDenied) as denied:
        session.query(COUNT, rho=0.1)
    assert denied.value.rule == "coordinator: default-deny"
    assert [kind for kind, _ in log(running)][-2:] == ["requested", "decided"]
    assert all(spent(running.folder / name) == 0 for name in INSTITUTIONS)


def test_the_same_signed_request_again_gets_the_stored_answer_and_is_charged_once(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    original = Session._run

    def run(session: Session, request_id: bytes, envelope: bytes, *, steps: bool) -> Iterator[analyst_pb2.Progress]:
        sent.append(envelope)
        yield from original(session, request_id, envelope, steps=steps)

    monkeypatch.setattr(Session, "_run", run)
    with running.session() as session:
        result = session.query(COUNT, rho=0.5)
        before = spent(running.folder / "ash")
        request_id = bytes.fromhex(result.request_id)
        again = list(original(session, request_id, sent[0], steps=True))
        assert [progress.step for progress in again] == ["released"]
        assert again[0].release == session._resume(request_id).release
    assert spent(running.folder / "ash") == before


def test_steps_are_told_to_whoever_follows_them_and_to_nobody_else(running: Consortium) -> None:
    steps: list[str] = []
    with running.session() as session:
        session.query(COUNT, rho=0.1, on_progress=lambda progress: steps.append(progress.step))
        assert steps == ["logged", "announced", "joined", "uploaded", "confirmed", "revealed", "released"]
        told: list[str] = []
        original = session._run

        def run(request_id: bytes, envelope: bytes, *, steps: bool) -> Iterator[analyst_pb2.Progress]:
            for progress in original(request_id, envelope, steps=steps):
                told.append(progress.step)
                yield progress

        session._run = run  # type: ignore[method-assign]  # this session is the test's own
        session.query(COUNT, rho=0.1)
    assert told == ["logged", "released"]
