"""A coordinator that logs something else than what was signed: each institution refuses, at once or at the next query.

What the log says of a request is held against the analyst's signature, the plan that follows from it and the processing
activity that governance put its purpose under; what it says of a decision against the institution's own word, which the
next head has to show. Requests and decisions are recorded falsely by an otherwise honest coordinator, over real wires.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.consortium import Consortium, consortium

from analytics_client.agent import link
from analytics_client.agent.owed import Owed
from analytics_server.coordinator import records
from analytics_server.coordinator.hub import AgentConnection
from analytics_server.coordinator.rounds import SignedDecision
from analytics_server.coordinator.witnessing import Witnessing
from protos.v1 import agent_pb2, analyst_pb2, log_pb2
from queries.errors import LogError
from trust.identity import keys as keys_of
from trust.tlog.merkle import leaf_hash
from trust.transcript import frame

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
"""
ACTIVITIES = """
[activities.surveillance]
category = "public health"
purposes = ["weekly counts"]
"""
INSTITUTIONS = ("ash", "birch", "cedar")
COUNT = "SELECT COUNT(*) AS n FROM people"
Change = Callable[[log_pb2.LogEntry], None]


@pytest.fixture(scope="module", autouse=True)
def _soon_back() -> Iterator[None]:
    """Who refused a log connects anew: without the waits that spare a coordinator which is away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link, "LAST_DELAY", 0.2)
        yield


@contextmanager
def founded(tmp_path: Path) -> Iterator[Consortium]:
    (tmp_path / "data.csv").write_text("id,age\n" + "".join(f"p{i},{i % 90}\n" for i in range(200)))
    files = {name: {"people": f'path = "{tmp_path}/data.csv"'} for name in INSTITUTIONS}
    with consortium(tmp_path, [SCHEMA], files) as built:
        with (built.folder / "server" / "governance" / "governance.toml").open("a") as file:
            file.write(ACTIVITIES)
        built.publish()
        built.wait_until_served("people", len(INSTITUTIONS))
        yield built


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Consortium]:
    with founded(tmp_path) as built:
        yield built


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """For tests after which everything is as before."""
    with founded(tmp_path_factory.mktemp("shared")) as built:
        yield built


def ask(running: Consortium, purpose: str = "weekly counts") -> tuple[str, ...]:
    with running.session() as session:
        return tuple(session.query(COUNT, rho=0.5, purpose=purpose).survivors)


def refused(running: Consortium) -> None:
    """A query that every institution refuses for what the log says, and that costs none of them anything."""
    assert running.coordinator_object is not None
    connected, before = running.coordinator_object._hub.all(), spent(running)
    with running.session() as session, pytest.raises(LogError) as caught:
        session.query(COUNT, rho=0.5, purpose="weekly counts")
    assert {refusal.rule for refusal in caught.value.refusals} == {"log"}, caught.value
    assert len(caught.value.refusals) == len(INSTITUTIONS)
    assert spent(running) == before
    back(running, connected)  # who refuses a log connects anew


def spent(running: Consortium) -> list[int]:
    found = []
    for institution in INSTITUTIONS:
        with closing(sqlite3.connect(running.folder / institution / "ledger.sqlite")) as connection:
            found += [row[0] for row in connection.execute("SELECT rho_nano FROM account ORDER BY analyst")]
    return found


def set_request(**values: Any) -> Change:
    def change(entry: log_pb2.LogEntry) -> None:
        for name, value in values.items():
            setattr(entry.requested, name, value)

    return change


def another_actor(entry: log_pb2.LogEntry) -> None:
    entry.actor = "olga"


@pytest.mark.parametrize(
    "change",
    [
        set_request(purpose="fraud detection"),
        set_request(activity="research"),
        set_request(activity="", category=""),
        set_request(category="research"),
        set_request(shape="COUNT of nothing"),
        set_request(minimum_cohort=2),
        set_request(rho_nano=1),
        set_request(analyst="olga"),
        set_request(envelope_hash=bytes(32)),
        another_actor,
    ],
    ids=["purpose", "activity", "no activity", "category", "shape", "cohort", "cost", "analyst", "hash", "actor"],
)
def test_a_request_that_is_recorded_falsely_is_answered_by_nobody(
    shared: Consortium, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    original = records.requested

    def false(*arguments: Any) -> log_pb2.LogEntry:
        entry = original(*arguments)
        change(entry)
        return entry

    monkeypatch.setattr(records, "requested", false)
    refused(shared)


def test_after_every_false_record_the_true_one_is_answered(shared: Consortium) -> None:
    assert ask(shared) == INSTITUTIONS
    assert ask(shared, "a purpose of no activity") == INSTITUTIONS


def set_decision(**values: Any) -> Change:
    def change(entry: log_pb2.LogEntry) -> None:
        for name, value in values.items():
            setattr(entry.decided, name, value)

    return change


def edited_statement(entry: log_pb2.LogEntry) -> None:
    """The record follows from the statement, but the institution did not sign that one."""
    answer = agent_pb2.Answer.FromString(entry.decided.statement)
    decision = agent_pb2.Decision.FromString(answer.decision)
    decision.policy_hash = entry.decided.policy_hash = bytes(32)
    answer.decision = decision.SerializeToString(deterministic=True)
    entry.decided.statement = answer.SerializeToString(deterministic=True)


KEY = Ed25519PrivateKey.generate()


def own(round_id: bytes, key: Ed25519PrivateKey = KEY) -> bytes:
    decision = agent_pb2.Decision(
        institution="ash", request_id=b"q", round_id=round_id, allowed=True, rule="1", rho_nano_after=5, epoch=1
    ).SerializeToString(deterministic=True)
    answer = agent_pb2.Answer(decision=decision, signature=key.sign(frame("decision", decision)))
    return answer.SerializeToString(deterministic=True)


def recorded(statement: bytes, change: Change = lambda _: None) -> log_pb2.LogEntry:
    decision = agent_pb2.Decision.FromString(agent_pb2.Answer.FromString(statement).decision)
    entry = records.decided(SignedDecision(decision, statement))
    change(entry)
    return entry


def show(owed: Owed, entry: log_pb2.LogEntry | None, due: Mapping[bytes, bytes] | None = None) -> None:
    """Show an institution a log of one entry, or none of its entries. `due`: when this head came, else now."""
    leaf = b"" if entry is None else entry.SerializeToString(deterministic=True)
    proofs = [] if entry is None else [analyst_pb2.LogProof(seq=0, leaf=leaf)]
    keys = [keys_of.public_bytes(Ed25519PrivateKey.generate()), keys_of.public_bytes(KEY)]
    owed.check(
        proofs, owed.due() if due is None else due, institution="ash", keys=lambda: keys, size=1, root=leaf_hash(leaf)
    )


@pytest.mark.parametrize(
    "change",
    [
        set_decision(policy_hash=bytes(32)),
        set_decision(allowed=False),
        set_decision(rule="another rule"),
        set_decision(rho_nano_before=7),
        set_decision(rho_nano_after=0),
        set_decision(institution="somebody"),
        set_decision(statement=b""),
        set_decision(statement=b"\xff"),
        edited_statement,
        another_actor,
    ],
    ids=["policy", "denied", "rule", "before", "after", "institution", "none", "junk", "statement", "actor"],
)
@pytest.mark.parametrize("due", [True, False])
def test_every_false_record_of_a_decision_is_found(change: Change, due: bool) -> None:
    owed = Owed()
    if due:
        owed.add(b"r", own(b"r"))
    with pytest.raises(LogError):
        show(owed, recorded(own(b"r"), change))
    assert len(owed.due()) == due
    show(owed, recorded(own(b"r")))
    assert owed.due() == {}


def test_what_is_owed_is_missed_until_it_is_shown() -> None:
    owed = Owed()
    show(owed, recorded(own(b"early")))
    owed.add(b"early", own(b"early"))
    assert owed.due() == {}
    owed.add(b"r", own(b"r"))
    assert [own.round_id for own in owed.named()] == [b"r"]
    for other in (None, recorded(own(b"early"))):
        with pytest.raises(LogError, match="does not show"):
            show(owed, other)
    with pytest.raises(LogError, match="did not sign"):
        show(owed, recorded(own(b"r", Ed25519PrivateKey.generate())))
    other_kind = log_pb2.LogEntry(at_ms=1, actor="ash", requested=log_pb2.Requested())
    with pytest.raises(LogError):
        show(owed, other_kind)
    show(owed, recorded(own(b"r")))
    show(owed, None)


def test_a_head_that_came_while_an_earlier_one_was_read_need_not_show_it_again() -> None:
    owed = Owed()
    owed.add(b"r", own(b"r"))
    due = owed.due()  # two heads have come, and none was looked at
    with pytest.raises(LogError, match="does not show"):
        show(owed, None, due)
    show(owed, recorded(own(b"r")), due)
    show(owed, None, due)
    assert owed.due() == {}


@pytest.mark.parametrize("change", [set_decision(policy_hash=bytes(32)), edited_statement], ids=["policy", "statement"])
def test_a_decision_that_is_recorded_falsely_is_the_last_one(
    running: Consortium, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    original = records.decided

    def false(signed: SignedDecision) -> log_pb2.LogEntry:
        entry = original(signed)
        change(entry)
        return entry

    monkeypatch.setattr(records, "decided", false)
    monkeypatch.setattr(Witnessing, "catch_up", nothing)
    assert ask(running) == INSTITUTIONS  # nobody can know yet
    refused(running)
    monkeypatch.undo()
    refused(running)  # a coordinator that is honest from now on: what it logged stays


async def nothing(_witnessing: Witnessing) -> None:
    """No heads between queries: a coordinator need not send any."""


def test_a_decision_that_is_not_shown_is_missed(running: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by silence nor by breaking the connection does a coordinator get round showing it."""

    def forgotten(_witnessing: Witnessing, _first: int, _institutions: Sequence[str]) -> None:
        """Logs what it likes, shows nothing."""

    async def found(_witnessing: Witnessing, _institution: str, owed: Sequence[agent_pb2.OwnDecision]) -> list[int]:
        asked.append(len(owed))
        return []

    asked: list[int] = []
    with monkeypatch.context() as lies:
        lies.setattr(Witnessing, "catch_up", nothing)
        lies.setattr(Witnessing, "logged", forgotten)
        lies.setattr(Witnessing, "look_up", found)
        assert ask(running) == INSTITUTIONS
        hang_up(running)
        refused(running)
        assert asked
        assert set(asked) == {1}
    hang_up(running)  # from now on the coordinator is honest: it looks up what was not shown
    assert ask(running) == INSTITUTIONS
    assert ask(running) == INSTITUTIONS


def test_another_decision_in_its_place_is_refused(running: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    original, entries = Witnessing.logged, dict[str, int]()

    def earlier(witnessing: Witnessing, first: int, institutions: Sequence[str]) -> None:
        """Shows each institution the decision that it was shown first."""
        for seq, institution in enumerate(institutions, first):
            original(witnessing, entries.setdefault(institution, seq), (institution,))

    monkeypatch.setattr(Witnessing, "logged", earlier)
    monkeypatch.setattr(Witnessing, "catch_up", nothing)
    assert ask(running) == INSTITUTIONS
    assert ask(running) == INSTITUTIONS  # the first was shown, as it should be
    refused(running)


def test_nothing_is_owed_after_an_honest_query(running: Consortium) -> None:
    for _ in range(3):
        assert ask(running) == INSTITUTIONS
    end = time.monotonic() + 30
    while any(agent._owed.due() for agent in running.agent_objects.values()):  # the next head shows it
        assert time.monotonic() < end
        time.sleep(0.05)


def hang_up(running: Consortium) -> None:
    """Close every control stream, and wait until all are back."""
    assert running.coordinator is not None
    assert running.coordinator_object is not None
    gone = running.coordinator_object._hub.all()
    for connection in gone:
        running.coordinator._loop.call_soon_threadsafe(connection.outgoing.put_nowait, None)
    back(running, gone)


def back(running: Consortium, gone: Sequence[AgentConnection]) -> None:
    """Wait until every institution is there by another connection."""
    assert running.coordinator_object is not None
    end = time.monotonic() + 30
    while any(connection in gone for connection in running.coordinator_object._hub.all()):
        assert time.monotonic() < end
        time.sleep(0.02)
    running.wait_until_served("people", len(INSTITUTIONS))
