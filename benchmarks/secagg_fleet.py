"""The process of some institutions in whole rounds that are timed: a real link each, and a vector that is at hand."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from secagg_consortium import (
    BARE,
    CONSORTIUM,
    DATASET,
    SCHEMA_HASH,
    Case,
    Keys,
    read_members,
    run,
    vector_of,
)

from analytics_client.agent.active import ActiveRound
from analytics_client.agent.link import Link
from analytics_client.agent.owed import Owed
from analytics_server.config import load
from protos.v1 import agent_pb2
from trust.identity import membership
from trust.identity.membership import MembershipDocument
from trust.secagg import AgentRound, Member, PairKeys
from trust.secagg.masks import Ring
from trust.transcript import frame


class BenchResponder:
    """Stands in for the agent's `Responder`: says yes to every round, with a vector that is at hand."""

    serving = {DATASET: SCHEMA_HASH}  # noqa: RUF012 - the attribute that the link reads

    def __init__(self, me: Keys, document: MembershipDocument, members: dict[str, Member], fleet: Fleet) -> None:
        self._me = me
        self._identity_key = Ed25519PrivateKey.from_private_bytes(me.identity)
        self._epoch_key = X25519PrivateKey.from_private_bytes(me.epoch)
        self._pair_keys = PairKeys(self._epoch_key)
        self._document = document
        self._members = members
        self._fleet = fleet

    def statements(self) -> list[tuple[int, agent_pb2.Statement]]:
        """There is no log to say anything in."""
        return []

    def may_go_on(self, _active: ActiveRound) -> bool:
        """Nobody is revoked here."""
        return True

    def end_jobs_of_the_gone(self) -> None:
        """There are no jobs."""

    def answer(
        self, announce: agent_pb2.Announce, _due: Mapping[bytes, bytes]
    ) -> tuple[agent_pb2.Answer, ActiveRound | None, None]:
        core = AgentRound(
            announce.parameters,
            me=self._me.name,
            identity_key=self._identity_key,
            epoch_key=self._epoch_key,
            pair_keys=self._pair_keys,
            members=self._members,
            minimum_cohort=self._document.minimum_cohort,
            colluders=self._document.colluders,
        )
        decision = agent_pb2.Decision(
            institution=self._me.name, round_id=core.round_id, request_id=core.parameters.request_id, allowed=True
        ).SerializeToString(deterministic=True)
        answer = agent_pb2.Answer(
            round_id=core.round_id,
            decision=decision,
            signature=self._identity_key.sign(frame("decision", decision)),
            join=core.join(),
        )
        vector: Future[Any] = Future()
        vector.set_result(self._fleet.vectors[self._me.name])
        return answer, ActiveRound(core, core.parameters.request_id, vector), None

    def upload(self, active: ActiveRound) -> Iterator[bytes]:
        case = self._fleet.case
        if self._me.name in case.gone:
            self._fleet.vanish(self._me.name)
            return iter(())
        chunks = active.core.masked_chunks(active.vector.result())
        if not case.masked_ahead:
            return chunks
        ahead = [bytes(chunk) for chunk in chunks]
        self._fleet.barrier.wait()
        return iter(ahead)

    def reveal(self, active: ActiveRound, confirmations: bytes) -> bytes:
        return active.core.on_confirmations(confirmations)

    def end(self, active: ActiveRound) -> None:
        active.core.close()


class Fleet:
    """The institutions that share one process, each with its own `Link`."""

    def __init__(self, folder: Path, names: Sequence[str], address: str, governance_key: bytes) -> None:
        self._members = {m.name: m for m in read_members(folder) if m.name in set(names)}
        self._address = address
        self._governance_key = governance_key
        self._judge = ThreadPoolExecutor(1)
        self._links: dict[str, asyncio.Task[None]] = {}
        self._verified: tuple[bytes, MembershipDocument, dict[str, Member]] | None = None
        self._responders: dict[str, BenchResponder] = {}
        self.case = Case(0, 0)
        self.vectors: dict[str, Ring] = {}
        self.barrier = threading.Barrier(1)

    def connect(self, names: Sequence[str]) -> None:
        """Connect these of the institutions that are not connected, and disconnect all others."""
        for name in [n for n in self._links if n not in names]:
            self._links.pop(name).cancel()
        self._loop = asyncio.get_running_loop()
        for name in (n for n in names if n in self._members and n not in self._links):
            self._start(name)

    def _start(self, name: str, address: str = "") -> None:
        task = self._links[name] = asyncio.create_task(self._link(self._members[name], address).run())
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A link ends by being cancelled only: a bench with an institution less would wait for ever."""
        if not task.cancelled():
            print("an institution's link ended:", repr(task.exception()), flush=True)
            os._exit(1)

    def _link(self, me: Keys, address: str) -> Link:
        link = Link(
            address=address or self._address,
            identity=lambda: me.tls,
            log_size=lambda: 0,
            prepare=lambda welcome: self._prepare(me, welcome),  # type: ignore[arg-type, return-value]  # a stand-in
            on_serving=lambda _: None,
            on_refused_log=lambda _: None,
            owed=Owed(),
        )
        link.judge.shutdown()
        link.judge = self._judge
        return link

    def _prepare(self, me: Keys, welcome: agent_pb2.Welcome) -> BenchResponder:
        envelope = welcome.membership.SerializeToString(deterministic=True)
        if self._verified is None or self._verified[0] != envelope:
            document = membership.verify(envelope, self._governance_key, consortium=CONSORTIUM)
            members = {i.id: Member(i.id, i.organisation, i.identity_key, i.epoch_key) for i in document.institutions}
            self._verified = envelope, document, members
        if me.name not in self._responders:  # its pair keys outlive a connection, as an agent's do
            self._responders[me.name] = BenchResponder(me, *self._verified[1:], self)
        return self._responders[me.name]

    def prepare(self, case: Case) -> None:
        """Make the vectors of the next round."""
        self.case = case
        mine = [name for name in case.names if name in self._members]
        self.vectors = {name: vector_of(name, case.length, case.dtype) for name in mine}
        self.barrier = threading.Barrier(max(1, len(mine)))

    def vanish(self, name: str) -> None:
        """Drop the connection, as a power cut would; called from a worker thread."""
        self._loop.call_soon_threadsafe(lambda: self._links.pop(name).cancel())

    async def relay(self, name: str) -> Relay:
        """Connect one institution through a relay that counts its bytes."""
        relay = await Relay.start(self._address)
        if name in self._links:
            self._links.pop(name).cancel()
        self._start(name, relay.address)
        return relay

    async def bare(self, streams: int, chunks: int, chunk_bytes: int) -> None:
        """Send as much over as many bare streams as a round of the same shape uploads."""
        from trust.rpc.channel import connect_aio

        members = list(self._members.values())[:streams]
        channels = [await connect_aio(self._address, member.tls) for member in members]
        data = os.urandom(chunk_bytes)

        async def send(channel: grpc.aio.Channel) -> None:
            call = channel.stream_unary(BARE)()
            for _ in range(chunks):
                await call.write(data)
            await call.done_writing()
            await call

        await asyncio.gather(*(send(channel) for channel in channels))
        for channel in channels:
            await channel.close(None)

    async def close(self) -> None:
        for task in self._links.values():
            task.cancel()
        await asyncio.gather(*self._links.values(), return_exceptions=True)


class Relay:
    """Passes bytes between an agent and the coordinator, and counts those that the agent sends."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.address = ""
        self.sent = 0
        self._pumps: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, target: str) -> Relay:
        relay = cls(target)
        server = await asyncio.start_server(relay._accept, "127.0.0.1", 0)
        relay.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return relay

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        for source, sink, counted in ((reader, back, True), (there, writer, False)):
            task = asyncio.create_task(self._pump(source, sink, counted))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counted: bool) -> None:
        while data := await source.read(1 << 16):
            self.sent += len(data) if counted else 0
            sink.write(data)
            await sink.drain()
        sink.close()


def fleet_process(folder: Path, names: Sequence[str], address: str, pipe: Connection) -> None:
    """Connect institutions, and do what the pipe says; every answer is sent when it is done."""

    async def main() -> None:
        fleet = Fleet(folder, names, address, load(folder / "server").governance_key)
        relay: Relay | None = None
        while True:
            command, *arguments = await asyncio.to_thread(pipe.recv)
            answer: object = None
            match command:
                case "connect":
                    fleet.connect(*arguments)
                case "prepare":
                    fleet.prepare(*arguments)
                case "cpu":
                    answer = time.process_time()
                case "memory":
                    answer = forget_peak()
                case "peak":
                    answer = memory()
                case "relay":
                    relay = await fleet.relay(*arguments) if arguments[0] in names else None
                case "sent":
                    answer = relay.sent if relay else 0
                case "bare":
                    await fleet.bare(*arguments)
                case "stop":
                    await fleet.close()
                    return
            pipe.send(answer)

    run(main)


def memory() -> tuple[int, int]:
    """Bytes of memory that this process holds, and the most that it held."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return held, peak


def forget_peak() -> tuple[int, int]:
    """`memory`, after the peak was set back to what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory()
