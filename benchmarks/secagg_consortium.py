"""A consortium of hundreds of institutions on one machine, to time whole rounds of secure aggregation.

Real, the product's own code: governance, CA and membership in a real store; one TLS certificate, identity key, epoch
key, connection and `Link` per institution; the coordinator's `AgentServicer`, `Hub`, `Directory` and `Round`; every
message of a round as it travels in production, over mTLS on loopback, on uvloop as in production.

Left out, because it is no part of the aggregation: the analyst's request, policy, ledger, log and their disk writes,
the data and its noise (a vector is at hand when the round begins). Different from production: the institutions share
processes, so they also share one verified copy of the membership and one thread for their announcements.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import structlog
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from analytics_client.agent.link import Link
from analytics_client.agent.responder import ActiveRound
from analytics_server import governance
from analytics_server.config import load
from analytics_server.coordinator.agent_service import AgentServicer
from analytics_server.coordinator.chunks import add_agent_servicer
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.outcomes import RoundFailed
from analytics_server.coordinator.rounds import Deadlines, Round
from analytics_server.store import Store
from protos.v1 import agent_pb2, envelope_pb2
from trust.identity import keys, membership, x509
from trust.identity.membership import MembershipDocument
from trust.identity.names import Peer
from trust.rpc import server as rpc
from trust.rpc.channel import TlsIdentity
from trust.secagg import AgentRound, Member, PairKeys, make_parameters
from trust.secagg.masks import Ring
from trust.transcript import frame

CONSORTIUM, DATASET, SCHEMA_HASH = "bench", "vectors", bytes(32)
PATIENCE = Deadlines(join=900, upload=900, confirm=900, reveal=900)
"""Nobody is left behind for being slow: a case takes as long as it takes."""
BARE = "/bench.Bare/Stream"


@dataclass(frozen=True)
class Case:
    """One round: how many institutions with vectors of how many entries, and who vanishes before it uploads."""

    institutions: int
    length: int
    ring_bits: int = 32
    dropouts: int = 0
    masked_ahead: bool = False
    """Mask before the first chunk leaves, all at one time, so that what follows is upload alone."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name_of(i) for i in range(self.institutions))

    @property
    def gone(self) -> frozenset[str]:
        """The last ones vanish: in a graph or a sum they are no different from others."""
        return frozenset(self.names[self.institutions - self.dropouts :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<u{self.ring_bits // 8}")


def name_of(number: int) -> str:
    return f"h{number:04d}"


def vector_of(name: str, length: int, dtype: np.dtype[Any]) -> Ring:
    """The vector of one institution: an odd multiple of the same random vector, so that any sum is cheap to check."""
    number = int(name[1:])
    return _base(length, dtype) * dtype.type(2 * number + 1) + dtype.type(number)


def sum_of(names: Collection[str], length: int, dtype: np.dtype[Any]) -> Ring:
    """What the vectors of these institutions add up to."""
    numbers = [int(name[1:]) for name in names]
    return _base(length, dtype) * dtype.type(sum(2 * n + 1 for n in numbers)) + dtype.type(sum(numbers))


def _base(length: int, dtype: np.dtype[Any]) -> Ring:
    return np.random.default_rng(7).integers(0, 1 << (8 * dtype.itemsize), length, dtype=dtype)


# --- founding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keys:
    """An institution's folder, in memory."""

    name: str
    identity: bytes
    epoch: bytes
    tls: TlsIdentity


def found(folder: Path, institutions: int) -> None:
    """Make a consortium's folder with everyone enrolled and published, and `members.pickle` with their keys."""
    now = datetime.now(UTC)
    config = governance.initialise(
        folder / "server",
        consortium=CONSORTIUM,
        address="127.0.0.1:1",
        enrolment_address="127.0.0.1:2",
        governance=None,
        store="state.sqlite",
        minimum_cohort=3,
        colluders=1,
        now=now,
    )
    issuing, issuing_key = config.issuer()
    members = []
    with governance.opened(config) as (store, log):
        with store.begin() as uow:
            for number in range(institutions):
                name = name_of(number)
                identity, epoch, tls = (
                    Ed25519PrivateKey.generate(),
                    X25519PrivateKey.generate(),
                    keys.generate_tls_key(),
                )
                leaf = x509.issue_leaf(issuing, issuing_key, tls.public_key(), Peer(CONSORTIUM, "agent", name), now)
                epoch_key = keys.public_bytes(epoch)
                uow.add_participant(
                    id=name,
                    role="agent",
                    organisation=f"organisation of {name}",
                    identity_key=keys.public_bytes(identity),
                    epoch_key=epoch_key,
                    epoch_key_signature=keys.sign_epoch_key(identity, CONSORTIUM, name, epoch_key),
                    certificate_serial=x509.serial(leaf),
                )
                ca = x509.to_pem(config.ca())
                brought = TlsIdentity(CONSORTIUM, ca, x509.to_pem(leaf, issuing), keys.to_pem(tls))
                members.append(Keys(name, identity.private_bytes_raw(), epoch.private_bytes_raw(), brought))
        office = governance.open_governance(folder / "server" / governance.FOLDER, config)
        governance.publish_membership(store, log, config, office, now=int(now.timestamp()))
    (folder / "members.pickle").write_bytes(pickle.dumps(members))


def read_members(folder: Path) -> list[Keys]:
    members: list[Keys] = pickle.loads((folder / "members.pickle").read_bytes())  # noqa: S301 - written by `found`
    return members


# --- the coordinator's process ---------------------------------------------------------------------------------------


class TimedRound(Round):
    """A round that notes when its first chunk came in and when its last upload was complete."""

    first_chunk = last_upload = 0.0

    def upload_of(self, member: str) -> Any:
        self.first_chunk = self.first_chunk or time.perf_counter()
        return super().upload_of(member)

    def finish_upload(self, member: str) -> None:
        super().finish_upload(member)
        self.last_upload = time.perf_counter()


class NoLog:
    """Stands where the log's services do."""

    async def newest_of(self, _institution: str) -> bytes:
        return b""

    def cosigned(self, _institution: str, _cosignature: object) -> None:
        """There is no head to cosign."""

    async def ended(self) -> list[bytes]:
        return []


class BenchCoordinator:
    """The services that agents connect to, and rounds without a request behind them."""

    def __init__(self, folder: Path) -> None:
        self._config = load(folder / "server")
        self._directory = Directory(self._config.consortium, self._config.governance_key)
        store = Store.open(self._config.store_url)
        with store.read() as uow:
            self._directory.reload(uow)
        store.close()
        self._hub = Hub()
        self._server = rpc.new_server()
        self.bare = BareStreams()

    async def start(self) -> int:
        tls = self._config.tls()
        servicer = AgentServicer(
            hub=self._hub,
            directory=self._directory,
            witnessing=NoLog(),  # type: ignore[arg-type]  # rounds alone are measured
            statements=NoLog(),  # type: ignore[arg-type]  # likewise
            jobs=NoLog(),  # type: ignore[arg-type]  # likewise
        )
        add_agent_servicer(servicer, self._server)
        self._server.add_generic_rpc_handlers((self.bare,))
        port = rpc.bind(self._server, "127.0.0.1:0", rpc.mutual_credentials(tls.key, tls.chain, tls.ca))
        await self._server.start()
        return port

    async def stop(self) -> None:
        await self._server.stop(0)

    async def expect(self, connected: int) -> None:
        """Return once exactly so many institutions are connected and serve."""
        while sum(bool(c.serving) for c in self._hub.all()) != connected or len(self._hub.all()) != connected:
            await asyncio.sleep(0.02)

    async def round(self, case: Case) -> dict[str, Any]:
        """Run one round and check its sum; returns seconds, the survivors' number and when uploads began and ended."""
        document = self._directory.in_force()
        parameters = make_parameters(
            membership_hash=document.hash,
            request_id=os.urandom(32),
            invited=case.names,
            minimum_cohort=document.minimum_cohort,
            colluders=document.colluders,
            length=case.length,
            ring_bits=case.ring_bits,
        )
        steps: dict[str, float] = {}
        cpu, start = time.process_time(), time.perf_counter()
        round_ = TimedRound(
            parameters,
            members={name: self._directory.members[name] for name in case.names},
            hub=self._hub,
            deadlines=PATIENCE,
            on_step=lambda step, _who: steps.__setitem__(step, round(time.perf_counter() - start, 3)),
        )
        round_.start()
        announce = agent_pb2.ToAgent(
            announce=agent_pb2.Announce(parameters=parameters, request=envelope_pb2.Envelope())
        )
        for name in case.names:
            connection = self._hub.get(name)
            assert connection is not None, name
            connection.send(announce)
        try:
            total = await round_.finish(_nothing_to_log)
        except RoundFailed as failure:
            raise AssertionError(f"{failure}: {round_.dropouts[:3]}") from failure
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        assert set(round_.survivors) == set(case.names) - case.gone, round_.dropouts[:3]
        assert np.array_equal(total, sum_of(round_.survivors, case.length, case.dtype)), "the sum is wrong"
        return {
            "seconds": seconds,
            "cpu": cpu,
            "steps": steps,
            "upload_seconds": round_.last_upload - round_.first_chunk,
        }


async def _nothing_to_log() -> None:
    """Decisions go into the log in production."""


class BareStreams(grpc.GenericRpcHandler):
    """Streams of raw bytes under the same mTLS, read and forgotten: the fastest that this transport receives."""

    def __init__(self) -> None:
        self.first = self.last = 0.0
        self.received = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.stream_unary_rpc_method_handler(self._drain) if handler_call_details.method == BARE else None

    async def _drain(self, _messages: AsyncIterator[bytes], context: Any) -> bytes:
        while (message := await context.read()) is not grpc.aio.EOF:
            self.first = self.first or time.perf_counter()
            self.received += len(message)
        self.last = time.perf_counter()
        return b""


def coordinator_process(folder: Path, pipe: Connection) -> None:
    """Serve, and do what the pipe says: ("expect", n), ("round", Case), ("bare",), ("stop",)."""

    async def main() -> None:
        bench = BenchCoordinator(folder)
        pipe.send(await bench.start())
        while True:
            command, *arguments = await asyncio.to_thread(pipe.recv)
            match command:
                case "expect":
                    pipe.send(await bench.expect(*arguments))
                case "round":
                    pipe.send(await bench.round(*arguments))
                case "bare":
                    bare = bench.bare
                    pipe.send((bare.received, bare.last - bare.first))
                    bare.first, bare.received = 0.0, 0
                case "stop":
                    await bench.stop()
                    return

    _run(main)


# --- the institutions' processes -------------------------------------------------------------------------------------


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

    def answer(self, announce: agent_pb2.Announce) -> tuple[agent_pb2.Answer, ActiveRound | None, None]:
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

    _run(main)


def memory() -> tuple[int, int]:
    """Bytes of memory that this process holds, and the most that it held."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return held, peak


def forget_peak() -> tuple[int, int]:
    """`memory`, after the peak was set back to what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory()


def _run(main: Callable[[], Any]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
