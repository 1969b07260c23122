"""A coordinator that lies to one agent, over a live consortium: what it sends is altered on its way into the stream.

Four institutions, of which one is lied to. It must refuse, for the right reason, without spending anything; the three
others, who hear the truth, still answer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.consortium import Consortium, consortium

from analytics_server.coordinator.hub import AgentConnection
from analytics_server.coordinator.rounds import Deadlines
from protos.v1 import agent_pb2, log_pb2, query_pb2, secagg_pb2
from trust.identity import envelope as dsse
from trust.identity.requests import PAYLOAD_TYPE
from trust.secagg import parse_parameters
from trust.tlog import notes
from trust.tlog.checkpoint import parse

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
Lie = Callable[[agent_pb2.Announce], None]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    folder: Path = tmp_path_factory.mktemp("liar")
    files = {}
    for name in INSTITUTIONS:
        path = folder / f"{name}.csv"
        path.write_text("id,age\n" + "".join(f"{name}{i},{i % 90}\n" for i in range(50)))
        files[name] = {"people": f'path = "{path}"'}
    with consortium(folder, [SCHEMA], files, deadlines=Deadlines(join=1.5)) as built:
        yield built


@pytest.fixture
def lie_to(running: Consortium, monkeypatch: pytest.MonkeyPatch) -> Callable[[Lie], None]:
    """Alter every announcement to the victim from now on."""
    original = AgentConnection.send

    def install(lie: Lie) -> None:
        def send(connection: AgentConnection, message: agent_pb2.ToAgent) -> None:
            if connection.id == VICTIM and message.HasField("announce"):
                altered = agent_pb2.ToAgent()
                altered.CopyFrom(message)
                lie(altered.announce)
                message = altered
            original(connection, message)

        monkeypatch.setattr(AgentConnection, "send", send)

    return install


def spent(running: Consortium, institution: str) -> int:
    with sqlite3.connect(running.folder / institution / "ledger.sqlite") as connection:
        row = connection.execute("SELECT rho_nano FROM account WHERE analyst = ''").fetchone()
    return row[0] if row else 0


def refused_rule(running: Consortium) -> str:
    """Under which rule the victim refused last, as it signed it into the log."""
    from analytics_server.store import Store

    store = Store.open(running.config.store_url)
    try:
        with store.read() as uow:
            entries = [log_pb2.LogEntry.FromString(row.leaf) for row in uow.leaves(0, 10_000)]
    finally:
        store.close()
    decided = [e.decided for e in entries if e.WhichOneof("event") == "decided" and e.decided.institution == VICTIM]
    assert not decided[-1].allowed
    return str(decided[-1].rule)


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def inclusion_hash(announce: agent_pb2.Announce) -> None:
    announce.inclusion.hashes[0] = flip(announce.inclusion.hashes[0])


def another_leaf(announce: agent_pb2.Announce) -> None:
    entry = log_pb2.LogEntry.FromString(announce.inclusion.leaf)
    entry.requested.rho_nano += 1
    announce.inclusion.leaf = entry.SerializeToString(deterministic=True)


def another_position(announce: agent_pb2.Announce) -> None:
    announce.inclusion.seq -= 1


def head_by_another_key(announce: agent_pb2.Announce) -> None:
    text = notes.parse(announce.head.checkpoint).text
    name = notes.parse(announce.head.checkpoint).lines[0].name
    announce.head.checkpoint = notes.sign(text, notes.Signer(name, Ed25519PrivateKey.generate()))


def head_with_another_root(announce: agent_pb2.Announce) -> None:
    lines = announce.head.checkpoint.split(b"\n")
    lines[2] = lines[3][:1] + lines[2][1:]
    announce.head.checkpoint = b"\n".join(lines)


def consistency_hash(announce: agent_pb2.Announce) -> None:
    announce.head.consistency[0] = flip(announce.head.consistency[0])


def forged_signature(announce: agent_pb2.Announce) -> None:
    announce.request.signatures[0].signature = flip(announce.request.signatures[0].signature)


def cheaper_request(announce: agent_pb2.Announce) -> None:
    request = query_pb2.QueryRequest.FromString(announce.request.payload)
    request.rho_nano //= 2
    announce.request.payload = request.SerializeToString(deterministic=True)


def request_signed_by_the_coordinator(announce: agent_pb2.Announce) -> None:
    forged = dsse.sign(PAYLOAD_TYPE, announce.request.payload, Ed25519PrivateKey.generate())
    announce.request.ParseFromString(forged)


def altered(change: Callable[[secagg_pb2.RoundParameters], Any]) -> Lie:
    def lie(announce: agent_pb2.Announce) -> None:
        parameters = secagg_pb2.RoundParameters.FromString(announce.parameters)
        change(parameters)
        announce.parameters = parameters.SerializeToString(deterministic=True)

    return lie


def set_to(**values: Any) -> Lie:
    def change(parameters: secagg_pb2.RoundParameters) -> None:
        for name, value in values.items():
            setattr(parameters, name, value)

    return altered(change)


def only_two_others(parameters: secagg_pb2.RoundParameters) -> None:
    del parameters.invited[2:]
    parameters.threshold = 2


# Lies about the round's parameters change its id: the victim's refusal then names a round that the coordinator does not
# run, and all that can be seen from outside is that it takes no part and spends nothing.
@pytest.mark.parametrize(
    ("lie", "rule"),
    [
        (inclusion_hash, "log"),
        (another_leaf, "log"),
        (another_position, "log"),
        (head_by_another_key, "log"),
        (head_with_another_root, "log"),
        (consistency_hash, "log"),
        (forged_signature, "signature"),
        (cheaper_request, "signature"),
        (request_signed_by_the_coordinator, "signature"),
        (set_to(length=7), None),
        (set_to(ring_bits=32), None),
        (set_to(colluders=0), None),
        (set_to(threshold=2), None),
        (set_to(threshold=1), None),
        (set_to(membership_hash=bytes(32)), None),
        (set_to(request_id=bytes(32)), None),
        (set_to(minimum_cohort=2), None),
        (altered(only_two_others), None),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_a_lie_to_one_agent_is_refused_and_costs_it_nothing(
    running: Consortium, lie_to: Callable[[Lie], None], lie: Lie, rule: str | None
) -> None:
    running.wait_until_served("people", len(INSTITUTIONS))  # after a lie about the log it connects anew
    before = spent(running, VICTIM)
    lie_to(lie)
    with running.session() as session:
        result = session.query(COUNT, rho=0.5)
    assert VICTIM not in result.survivors
    assert len(result.survivors) == 3
    assert spent(running, VICTIM) == before
    if rule is not None:
        assert refused_rule(running) == rule


def test_after_every_lie_the_agent_still_answers_the_truth(running: Consortium) -> None:
    running.wait_until_served("people", len(INSTITUTIONS))
    with running.session() as session:
        assert session.query(COUNT, rho=0.5).survivors == INSTITUTIONS


async def replay(running: Consortium, connection: AgentConnection, announce: agent_pb2.Announce) -> None:
    """Announce something again, under the newest head, with all proofs as an honest coordinator makes them."""
    assert running.coordinator_object is not None
    witnessing = running.coordinator_object._witnessing
    request = query_pb2.QueryRequest.FromString(announce.request.payload)
    seen = parse(notes.parse(request.seen).text).size if request.seen else 0
    async with witnessing.turn:
        heads = await witnessing.latest(announce.inclusion.seq, seen=seen)
        announce.head.CopyFrom(heads.show(connection))
        announce.inclusion.hashes[:] = heads.inclusion
        announce.seen_consistency[:] = heads.seen_consistency
        connection.send(agent_pb2.ToAgent(announce=announce))


def test_a_second_round_of_a_request_gets_no_second_answer(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Averaging many rounds of one request would cost one charge: every agent refuses all but the first."""
    announced: list[agent_pb2.Announce] = []
    original = AgentConnection.send

    def send(connection: AgentConnection, message: agent_pb2.ToAgent) -> None:
        if connection.id == VICTIM and message.HasField("announce"):
            kept = agent_pb2.Announce()
            kept.CopyFrom(message.announce)
            announced.append(kept)
        original(connection, message)

    monkeypatch.setattr(AgentConnection, "send", send)
    running.wait_until_served("people", len(INSTITUTIONS))
    with running.session() as session:
        session.query(COUNT, rho=0.5)
    monkeypatch.undo()
    before = spent(running, VICTIM)
    assert running.coordinator_object is not None
    connection = running.coordinator_object._hub.get(VICTIM)
    assert connection is not None
    answers: list[agent_pb2.Answer] = []

    class Listener:
        def on_message(self, _member: str, message: agent_pb2.FromAgent) -> None:
            answers.append(message.answer)

        def lost(self, _member: str) -> None:
            raise AssertionError("the agent left")

    for number, nonce in enumerate((None, bytes(range(32))), start=1):
        again = agent_pb2.Announce()
        again.CopyFrom(announced[0])
        if nonce is not None:
            set_to(nonce=nonce)(again)
        round_id = parse_parameters(again.parameters).round_id
        connection.rounds[round_id] = Listener()
        assert running.coordinator is not None
        asyncio.run_coroutine_threadsafe(replay(running, connection, again), running.coordinator._loop).result(10)
        _wait(answers, number)
    decisions = [agent_pb2.Decision.FromString(answer.decision) for answer in answers]
    assert [(decision.allowed, decision.code) for decision in decisions] == [(False, "protocol"), (False, "round")]
    assert all(not answer.join for answer in answers)
    assert spent(running, VICTIM) == before


def _wait(answers: list[agent_pb2.Answer], number: int) -> None:
    end = time.monotonic() + 10
    while len(answers) < number:
        assert time.monotonic() < end, "no answer"
        time.sleep(0.01)
