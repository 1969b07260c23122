"""Large vectors over real connections: wide statistics in lanes, and a coordinator that is slower than its agents."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.consortium import consortium
from harness.identity import Authority, serving
from harness.noiseless import remove_noise

from analytics_client.agent import announced as announced_checks
from analytics_client.agent import responder
from analytics_client.agent.chunks import encode_chunk, open_uploads
from analytics_server.coordinator.agent_service import AgentServicer
from analytics_server.coordinator.chunks import add_agent_servicer
from analytics_server.coordinator.hub import AgentConnection, Hub
from analytics_server.coordinator.rounds import Deadlines, Round
from trust.rpc.channel import connect_aio
from trust.rpc.server import Gate, mutual_credentials
from trust.secagg import Member, RoundParameters
from trust.secagg.rehearsal import Consortium

WARDS, BINS, PERSONS = 100, 10_000, 300
SCHEMA = f"""
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.ward]
type = "category"
categories = [{", ".join(f'"w{number}"' for number in range(WARDS))}]
nullable = false
[columns.dose]
type = "number"
lower = 0
upper = {BINS}
nullable = false
"""
QUESTION = f"SELECT ward, HISTOGRAM(dose, {BINS}) AS n FROM people GROUP BY ward"


def write_people(folder: Path, name: str, truth: np.ndarray[Any, Any]) -> dict[str, str]:
    """Persons of one institution, counted in `truth`; return its agent's table."""
    generator = np.random.default_rng(sum(name.encode()))
    wards, doses = generator.integers(0, WARDS, PERSONS), generator.uniform(0, BINS, PERSONS)
    np.add.at(truth, (wards, doses.astype(np.int64)), 1)
    path = folder / f"{name}.csv"
    rows = (f"{name}{i},w{ward},{dose!r}\n" for i, (ward, dose) in enumerate(zip(wards, doses.tolist(), strict=True)))
    path.write_text("id,ward,dose\n" + "".join(rows))
    return {"people": f'path = "{path}"'}


def test_a_million_counters_travel_in_lanes_and_come_out_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.zeros((WARDS, BINS), dtype=np.int64)
    files = {name: write_people(tmp_path, name, truth) for name in ("ash", "birch", "cedar")}
    announced: list[RoundParameters] = []
    check = announced_checks.check_shape

    def note(parameters: RoundParameters, verified: Any, plan: Any) -> Any:
        announced.append(parameters)
        return check(parameters, verified, plan)

    monkeypatch.setattr(responder, "check_shape", note)
    deadlines = Deadlines(join=20, upload=60, confirm=20, reveal=20)
    with consortium(tmp_path, [SCHEMA], files, deadlines=deadlines) as running, running.session() as session:
        noisy = session.query(QUESTION, rho=1)
        remove_noise(monkeypatch)
        exact = session.query(QUESTION, rho=1)
    (counted,) = exact.table.outputs
    assert (np.asarray(counted.value).reshape(WARDS, BINS) == truth).all()
    (counted,) = noisy.table.outputs
    errors = np.asarray(counted.value).reshape(WARDS, BINS) - truth
    deviation = float(np.asarray(counted.standard_error).ravel()[0])
    assert 0.98 < errors.std() / deviation < 1.02
    assert np.abs(errors).max() < 7 * deviation, "no sum has run over into its neighbour"
    travelled = {p.ring_bits * p.length for p in announced}
    assert travelled == {16 * WARDS * BINS}, "bits a vector takes: a quarter of one entry per element"


class StuckSink:
    """Takes chunks when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.taken = self.copied = 0

    def feed(self, chunk: bytes | memoryview) -> None:
        self.go.wait(60)
        self.taken += len(chunk)
        self.copied += 0 if isinstance(chunk, memoryview) else len(chunk)


class StuckRound(Round):
    """A round whose disk has stopped."""

    def __init__(self, sink: StuckSink, hub: Hub, members: dict[str, Member], parameters: bytes) -> None:
        super().__init__(parameters, members=members, hub=hub, deadlines=Deadlines(), on_step=lambda *_: None)
        self.sink = sink

    def upload_of(self, member: str) -> Any:  # noqa: ARG002 - there is one member only
        return self.sink


class Door:
    """As much of the coordinator's directory as the service asks."""

    def __init__(self, consortium_name: str) -> None:
        self.gate = Gate(consortium_name, lambda _peer: False)


def resident_mib() -> float:
    """Memory that this process holds."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


async def test_a_coordinator_that_stops_reading_stops_the_sender() -> None:
    authority, hub, sink = Authority(), Hub(), StuckSink()
    institutions = Consortium("abc")
    round_ = StuckRound(sink, hub, institutions.members, institutions.parameters(length=1 << 24))
    connection = AgentConnection(id="a", sent_size=0)
    connection.rounds[round_.id] = round_
    hub.register(connection)
    nothing: Any = None  # all that it needs here are the hub and the door
    servicer = AgentServicer(
        hub=hub,
        directory=Door(authority.consortium),  # type: ignore[arg-type]
        witnessing=nothing,
        statements=nothing,
        jobs=nothing,
    )
    key, chain = authority.leaf("coordinator", "coordinator")
    chunks, sent, data = 96, 0, bytes(1 << 20)

    async def send(call: Any) -> None:
        nonlocal sent
        for _ in range(chunks):
            await call.write(encode_chunk(round_.id, data))
            sent += 1
        await call.done_writing()

    with serving(
        lambda server: add_agent_servicer(servicer, server),
        mutual_credentials(key, chain, authority.ca),
    ) as address:
        channel = await connect_aio(address, authority.identity("agent", "a"))
        try:
            call = open_uploads(channel)
            before = resident_mib()
            sending = asyncio.create_task(send(call))
            while sent == 0:
                await asyncio.sleep(0.05)
            last = -1
            while last != sent:  # until a second goes by without any progress
                last = sent
                await asyncio.sleep(1)
            stalled, grown = sent, resident_mib() - before
            sink.go.set()
            await sending
            await call
        finally:
            sink.go.set()
            await channel.close(None)
    assert stalled <= 16, "MiB are on their way at most, in both processes and the kernel between them"
    assert grown < 24, "MiB in this process, which holds both sides"
    assert sink.taken == chunks * len(data), "once the reader goes on, everything arrives"
    assert sink.copied == 0, "bytes that were not handed on where the transport had put them"
