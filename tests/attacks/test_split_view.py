"""A coordinator that serves its parties different logs, leaves decisions out, or writes false times, over live agents.

Each is refused by an honest party at once, or stands in what the next query leaves behind.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from harness.consortium import Consortium, consortium
from typer.testing import CliRunner

from analytics_client.agent.journal import Journal
from analytics_client.audit import anomalies, read_journal, reconcile, requests, roots_at, verify, write_sqlite
from analytics_client.audit.history import Entry, History
from analytics_client.cli import app
from analytics_client.gossip import verify_witnessed
from analytics_client.pins import Pins
from analytics_server.audit.log import AuditLog
from analytics_server.coordinator import records
from analytics_server.coordinator.hub import AgentConnection
from analytics_server.coordinator.rounds import Deadlines, Round
from analytics_server.store import Store
from protos.v1 import agent_pb2, analyst_pb2, log_pb2
from queries.errors import CohortiumError, ConfigError, LogError
from trust.tlog import notes
from trust.tlog.checkpoint import Checkpoint
from trust.tlog.evidence import Evidence, examine
from trust.tlog.merkle import Frontier, Tree, leaf_hash

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
"""
INSTITUTIONS = ("ash", "birch", "cedar", "dogwood")
VICTIM = "ash"
COUNT = "SELECT COUNT(*) AS n FROM people"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    folder: Path = tmp_path_factory.mktemp("split")
    files = {}
    for name in INSTITUTIONS:
        path = folder / f"{name}.csv"
        path.write_text("id,age\n" + "".join(f"{name}{i},{i % 90}\n" for i in range(50)))
        files[name] = {"people": f'path = "{path}"'}
    with consortium(folder, [SCHEMA], files, deadlines=Deadlines(join=1.5), analysts=("ada", "bob", "eve")) as built:
        yield built


def read(running: Consortium) -> History:
    store = Store.open(running.config.store_url)
    try:
        with store.read() as uow:
            log = AuditLog(store, running.config.log_signer(), running.config.log_origin)
            return History(
                [Entry(row.seq, row.leaf) for row in uow.leaves(0, 100_000)],
                [note for _, note in log.cosigned_checkpoints(uow, 0, 100_000)],
                list(uow.memberships()),
            )
    finally:
        store.close()


def told(running: Consortium) -> list[str]:
    """The kinds of anomaly in the log as it is, which has to verify."""
    history = read(running)
    report = verify(
        history.entries, None, history.memberships, running.config.governance_key, checkpoints=history.checkpoints
    )
    assert report.ok, report.findings
    return [a.kind for a in anomalies(requests(history.entries), report)]


def decisions(running: Consortium, institution: str) -> list[log_pb2.Decided]:
    entries = [log_pb2.LogEntry.FromString(entry.leaf) for entry in read(running).entries]
    return [e.decided for e in entries if e.WhichOneof("event") == "decided" and e.decided.institution == institution]


def spent(running: Consortium, institution: str) -> int:
    with closing(sqlite3.connect(running.folder / institution / "ledger.sqlite")) as connection:
        row = connection.execute("SELECT rho_nano FROM account WHERE analyst = ''").fetchone()
    return row[0] if row else 0


def journal(running: Consortium, institution: str, target: Path) -> Path:
    with (
        closing(sqlite3.connect(running.folder / institution / "journal.sqlite")) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    return target


class Fork:
    """A second log of the same coordinator, signed with its real key: the same up to some size, then another."""

    def __init__(self, running: Consortium, leaves: Sequence[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        frontier = Frontier()
        for index, leaf in enumerate(leaves):
            hashed = leaf_hash(leaf)
            self.nodes[0, index] = hashed
            self.nodes |= dict(frontier.append(hashed))
        self.size, self.root = frontier.size, frontier.root()
        self.tree = Tree(self, self.size)
        text = Checkpoint(running.config.log_origin, self.size, self.root).text()
        self.note = notes.sign(text, running.config.log_signer())

    def read(self, wanted: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
        return {node: self.nodes[node] for node in wanted}


@pytest.fixture
def lie(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[agent_pb2.Announce], None]], None]:
    """Alter every announcement to the victim from now on."""
    original = AgentConnection.send

    def install(alter: Callable[[agent_pb2.Announce], None]) -> None:
        def send(connection: AgentConnection, message: agent_pb2.ToAgent) -> None:
            if connection.id == VICTIM and message.HasField("announce"):
                altered = agent_pb2.ToAgent()
                altered.CopyFrom(message)
                alter(altered.announce)
                message = altered
            original(connection, message)

        monkeypatch.setattr(AgentConnection, "send", send)

    return install


def test_honest_parties_show_each_other_one_log(running: Consortium) -> None:
    for analyst in ("ada", "bob", "ada"):
        with running.session(analyst) as session:
            assert session.query(COUNT, rho=0.01).survivors == INSTITUTIONS
    last = decisions(running, VICTIM)[-1]
    decision = agent_pb2.Decision.FromString(agent_pb2.Answer.FromString(last.statement).decision)
    assert decision.log_size > 0
    assert decision.own_size == len(decisions(running, VICTIM)) - 1
    assert set(told(running)) <= {"repeated"}


def test_an_analyst_who_was_shown_another_log_is_answered_by_nobody(running: Consortium) -> None:
    """What eve was shown is a fork that has the log's signature; every agent demands the proof that nobody can make."""
    running.wait_until_served("people", len(INSTITUTIONS))
    with running.session("eve") as session:
        session.query(COUNT, rho=0.01)
    leaves = [entry.leaf for entry in read(running).entries]
    fork = Fork(running, [*leaves[:-1], leaves[0]])
    pins = Pins(running.folder / "eve")
    seen = (running.folder / "eve" / "seen.json").read_text()
    pins._replace(replace(pins._seen, log_size=0, log_root=""))
    pins.accept_log_head(fork.size, fork.root, after=0, note=fork.note)
    before = {name: spent(running, name) for name in INSTITUTIONS}
    with running.session("eve") as session, pytest.raises(CohortiumError) as refused:
        session.query(COUNT, rho=0.01)
    assert {r.institution: r.rule for r in refused.value.refusals} == dict.fromkeys(INSTITUTIONS, "log")
    assert "was shown another log" in refused.value.refusals[0].message
    assert {name: spent(running, name) for name in INSTITUTIONS} == before
    (running.folder / "eve" / "seen.json").write_text(seen)
    for name in INSTITUTIONS:
        assert evidence_of(running, name) == "proven"


def evidence_of(running: Consortium, participant: str) -> str:
    """What the evidence that a participant kept shows, with the entries of the log as it is."""
    folder = running.folder / participant / "evidence"
    end = time.monotonic() + 30
    while not (folder.exists() and any(folder.glob("*.json"))):
        assert time.monotonic() < end, f"{participant} kept nothing"
        threading.Event().wait(0.05)
    (path,) = folder.glob("*.json")
    found = Evidence.from_bytes(path.read_bytes())
    roots = roots_at(read(running).entries, [head.size for head in found.heads])
    return examine(found, running.config.governance_key, roots).kind


def test_an_institution_that_is_shown_another_log_tells_the_analyst_and_then_refuses(
    running: Consortium, lie: Callable[[Callable[[agent_pb2.Announce], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The victim is fed a fork with flawless proofs, so it answers; what it signed gives the fork away."""
    running.wait_until_served("people", len(INSTITUTIONS))
    forks: list[Fork] = []

    def split(announce: agent_pb2.Announce) -> None:
        old = announce.head.old_size
        leaves = [entry.leaf for entry in read(running).entries][:old]
        fork = Fork(running, [*leaves, b"\x08\x01", announce.inclusion.leaf])
        forks.append(fork)
        announce.head.checkpoint = fork.note
        announce.head.consistency[:] = fork.tree.consistency(old)
        announce.inclusion.seq = fork.size - 1
        announce.inclusion.hashes[:] = fork.tree.inclusion(fork.size - 1)
        announce.seen_consistency[:] = fork.tree.consistency(Pins(running.folder / "bob").log_size)

    monkeypatch.setattr(Round, "head", property(lambda _: None, lambda _self, _head: None), raising=False)
    lie(split)
    with running.session("bob") as session, pytest.raises(LogError, match="ash was shown another log"):
        session.query(COUNT, rho=0.01)
    assert len(forks) == 1
    assert evidence_of(running, "bob") == "word"  # ash signed what it was shown
    monkeypatch.undo()
    before = spent(running, VICTIM)
    with running.session("bob") as session:
        assert VICTIM not in session.query(COUNT, rho=0.01).survivors
    assert spent(running, VICTIM) == before
    # An auditor sees it in the log as well: the decision names a head that the log never had.
    assert "split view" in told(running)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """A consortium whose log was never forked."""
    folder: Path = tmp_path_factory.mktemp("omit")
    files = {}
    for name in INSTITUTIONS:
        path = folder / f"{name}.csv"
        path.write_text("id,age\n" + "".join(f"{name}{i},{i % 90}\n" for i in range(50)))
        files[name] = {"people": f'path = "{path}"'}
    with consortium(folder, [SCHEMA], files, deadlines=Deadlines(join=1.5)) as built:
        yield built


def test_an_omitted_denial_shows_at_the_next_query_and_by_name_in_the_journal(
    second: Consortium,
    lie: Callable[[Callable[[agent_pb2.Announce], None]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The coordinator forges a request for the victim alone and hides that it was caught."""
    second.wait_until_served("people", len(INSTITUTIONS))
    with second.session() as session:
        session.query(COUNT, rho=0.01)
    original = Round._on_answer

    def hide(round_: Round, member: str, answer: agent_pb2.Answer) -> None:
        if not agent_pb2.Decision.FromString(answer.decision).allowed:
            return
        original(round_, member, answer)

    def forge(announce: agent_pb2.Announce) -> None:
        announce.request.signatures[0].signature = bytes(64)

    monkeypatch.setattr(Round, "_on_answer", hide)
    lie(forge)
    with second.session() as session:
        assert VICTIM not in session.query(COUNT, rho=0.01).survivors
    monkeypatch.undo()
    logged = len(decisions(second, VICTIM))
    second.wait_until_served("people", len(INSTITUTIONS))
    with second.session() as session:
        assert VICTIM in session.query(COUNT, rho=0.01).survivors
    history = read(second)
    key = second.config.governance_key
    report = verify(history.entries, None, history.memberships, key, checkpoints=history.checkpoints)
    found = [a for a in anomalies(requests(history.entries), report) if a.kind == "omitted"]
    assert [VICTIM in a.text for a in found] == [True]
    assert len(decisions(second, VICTIM)) == logged + 1
    own = read_journal(journal(second, VICTIM, tmp_path / "victim.sqlite"))
    compared = reconcile(own, requests(history.entries), report.identity_keys[VICTIM])
    assert compared.problems == compared.foreign == ()
    assert [(o.decision.allowed, o.decision.rule) for o in compared.missing] == [(False, "signature")]
    with pytest.raises(LogError, match=r"not in the log: decision \d+ .* denied \(signature\)"):
        compared.require()
    database = tmp_path / "log.sqlite"
    write_sqlite(history, database)
    command = ["audit", "reconcile", str(tmp_path / "victim.sqlite"), "--database", str(database)]
    done = CliRunner().invoke(app, [*command, "--governance-key", key.hex(), "--json"])
    assert isinstance(done.exception, LogError)
    assert [m["number"] for m in json.loads(done.stdout)["missing"]] == [compared.missing[0].number]
    for other in INSTITUTIONS[1:]:
        theirs = read_journal(journal(second, other, tmp_path / f"{other}.sqlite"))
        assert reconcile(theirs, requests(history.entries), report.identity_keys[other]).ok


@pytest.mark.parametrize("edit", ["statement", "cut", "foreign"])
def test_an_edited_journal_proves_nothing(second: Consortium, tmp_path: Path, edit: str) -> None:
    history = read(second)
    key = second.config.governance_key
    report = verify(history.entries, None, history.memberships, key, checkpoints=history.checkpoints)
    path = journal(second, "birch", tmp_path / "birch.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        if edit == "statement":
            connection.execute(
                "UPDATE journal SET statement = (SELECT statement FROM journal WHERE seq = 1) WHERE seq = 0"
            )
        elif edit == "cut":
            connection.execute("DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)")
        connection.commit()
    known = report.identity_keys["birch" if edit != "foreign" else "cedar"]
    compared = reconcile(read_journal(path), requests(history.entries), known)
    assert not compared.ok
    if edit == "cut":
        assert len(compared.foreign) == 1
    else:
        assert compared.problems


def test_the_journal_only_grows_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    own = Journal.open(path)
    for number in range(5):
        own.append(bytes([number]))
    head = own.head
    own.close()
    with closing(sqlite3.connect(path)) as connection:
        for statement in (
            "UPDATE journal SET statement = x'00'",
            "DELETE FROM journal",
            "INSERT INTO journal VALUES (9, 1, x'00')",
            "INSERT OR REPLACE INTO journal VALUES (2, 1, x'00')",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(statement)
    again = Journal.open(path)
    assert again.head == head
    assert [(n, s) for n, _, s in again.statements()] == [(n, bytes([n])) for n in range(5)]
    again.close()
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "junk.sqlite").write_bytes(b"junk" * 100)
    with pytest.raises(ConfigError, match="cannot be opened"):
        Journal.open(tmp_path / "junk.sqlite")


@pytest.mark.parametrize("change", ["none shown", "of another request", "a denial", "altered", "another head"])
def test_a_release_without_the_survivors_own_words_is_refused(
    second: Consortium, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    from analytics_client import session as sessions

    second.wait_until_served("people", len(INSTITUTIONS))

    def checked(progress: analyst_pb2.Progress, survivors: Sequence[str], **known: object) -> None:
        verify_witnessed(progress, survivors, **known)  # type: ignore[arg-type]
        answer = agent_pb2.Answer.FromString(progress.statements[0])
        if change == "none shown":
            del progress.statements[0]
        elif change == "of another request":
            known["request_id"] = bytes(32)
        elif change == "a denial":
            progress.statements[0] = _denial(second, VICTIM)
        elif change == "altered":
            answer.decision += b"\x08"
            progress.statements[0] = answer.SerializeToString()
        else:
            known["head"] = (known["head"][0], bytes(32))  # type: ignore[index]
        verify_witnessed(progress, survivors, **known)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "verify_witnessed", checked)
    with second.session() as session, pytest.raises(LogError):
        session.query(COUNT, rho=0.01)


def _denial(running: Consortium, institution: str) -> bytes:
    own = Journal.open(running.folder / institution / "journal.sqlite")
    try:
        statements = [agent_pb2.Answer.FromString(statement) for _, _, statement in own.statements()]
    finally:
        own.close()
    denied = [s for s in statements if not agent_pb2.Decision.FromString(s.decision).allowed]
    return denied[0].SerializeToString()


def test_a_back_dated_entry_is_older_than_a_head_without_it(tmp_path: Path) -> None:
    """The keeper's clock says what it likes; the witnesses' clocks do not."""
    from harness.audit import new_world

    world = new_world(tmp_path, queries=1, witnessed=False)
    world.witness()
    seq = len(world.entries())
    real, world.now_ms = world.now_ms, world.now_ms + 3_600_000
    world.append(log_pb2.LogEntry(revoked=log_pb2.Revoked(participant="mallory")))
    world.witness("alpha")
    world.now_ms = real + 3_600_000
    world.append(log_pb2.LogEntry(revoked=log_pb2.Revoked(participant="mallet")))

    def late() -> list[tuple[int, ...]]:
        report = verify(
            [Entry(*row) for row in world.entries()],
            None,
            world.memberships,
            world.governance_key,
            checkpoints=world.checkpoints(),
        )
        assert report.ok
        return [a.seqs for a in anomalies([], report) if a.kind == "back-dated"]

    assert late() == []
    witness = world.witnesses["beta"]
    witness._clock = lambda: (world.now_ms + 7_200_000) / 1000  # real time is two hours later than the log's clock
    world.witness("beta")
    world.append(log_pb2.LogEntry(revoked=log_pb2.Revoked(participant="malice")))
    assert late() == [(seq + 2,)]


def test_a_request_with_a_false_time_is_refused(second: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every agent sees the time that the log gives a request. (The last test: the log's clock is wrong from here.)"""
    original = records.requested

    def back_dated(*arguments: object) -> log_pb2.LogEntry:
        entry = original(*arguments)  # type: ignore[arg-type]
        entry.at_ms += 3600 * 1000
        return entry

    monkeypatch.setattr(records, "requested", back_dated)
    with second.session() as session, pytest.raises(CohortiumError) as refused:
        session.query(COUNT, rho=0.01)
    assert {r.rule for r in refused.value.refusals} == {"log"}
