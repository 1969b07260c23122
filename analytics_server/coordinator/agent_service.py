"""The service agents call: one control stream each, and uploads.

Translates between gRPC and the hub's connections; which step a message belongs to is the round's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from analytics_server.coordinator.chunks import Chunk
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import AgentConnection, Hub
from analytics_server.coordinator.jobs import JobDesk, closed
from analytics_server.coordinator.rounds import Round
from analytics_server.coordinator.statements import Statements
from analytics_server.coordinator.witnessing import Witnessing
from protos.v1 import agent_pb2, agent_pb2_grpc, envelope_pb2
from queries.errors import ClockError, CohortiumError, ProtocolViolation, ServiceError
from trust.identity.names import Peer
from trust.identity.requests import SKEW
from trust.rpc.server import peer as peer_of
from trust.rpc.server import serves
from trust.secagg import LateMessage

EOF = grpc.aio.EOF  # type: ignore[attr-defined]  # missing from grpc's stubs
SMALL_CHUNK = 1 << 16
"""Bytes below which a chunk is handled on the event loop: handing it to a thread would cost more."""
logger = structlog.get_logger("cohortium.coordinator")

Context = grpc.aio.ServicerContext[Any, Any]


class AgentServicer(agent_pb2_grpc.AgentLinkServicer):
    """Connect and Upload."""

    def __init__(
        self,
        *,
        hub: Hub,
        directory: Directory,
        witnessing: Witnessing,
        statements: Statements,
        jobs: JobDesk,
    ) -> None:
        self.gate = directory.gate
        self._hub = hub
        self._directory = directory
        self._witnessing = witnessing
        self._statements = statements
        self._jobs = jobs

    @serves("agent")
    async def Connect(  # noqa: N802 - named by the service definition
        self, _messages: AsyncIterator[agent_pb2.FromAgent], context: Context
    ) -> None:
        """Register the agent and pass messages both ways until one side ends the stream."""
        peer = peer_of(context)
        first = await context.read()
        if not isinstance(first, agent_pb2.FromAgent) or first.WhichOneof("message") != "hello":
            raise ProtocolViolation("an agent's first message is its hello", party=peer.id)
        _check_clock(first.hello.at, peer)
        connection = AgentConnection(id=peer.id, sent_size=first.hello.log_size)
        connection.cosigned = await self._witnessing.newest_of(peer.id)
        connection.recorded = await self._witnessing.look_up(peer.id, first.hello.owed)
        self._hub.register(connection)
        logger.info("agent connected", institution=peer.id, version=first.hello.version[:40])
        reader = asyncio.create_task(self._read(context, connection))
        try:
            self.welcome(connection)
            for ended in await self._jobs.ended():  # while it was away
                connection.send(closed(ended))
            while (message := await connection.outgoing.get()) is not None:
                await context.write(message)
            if reader.done():
                reader.result()
        finally:
            reader.cancel()
            self._hub.unregister(connection)
            logger.info("agent disconnected", institution=peer.id)

    def welcome(self, connection: AgentConnection) -> None:
        """Send what governance published, once the membership in force names the agent."""
        if not self._directory.is_member(Peer(self._directory.consortium, "agent", connection.id)):
            logger.info("agent waits for the next membership epoch", institution=connection.id)
            return
        connection.send(
            agent_pb2.ToAgent(
                welcome=agent_pb2.Welcome(
                    membership=envelope_pb2.Envelope.FromString(self._directory.membership_envelope),
                    datasets=[envelope_pb2.Envelope.FromString(p.envelope) for p in self._directory.datasets.values()],
                    at=int(time.time()),
                    cosigned=connection.cosigned,
                )
            )
        )
        connection.welcomed = True

    async def _read(self, context: Context, connection: AgentConnection) -> None:
        try:
            while (message := await context.read()) is not EOF:
                if message.WhichOneof("message") == "statement":
                    await self._statements.take(connection, message.statement)
                else:
                    self._dispatch(message, connection)
        finally:
            connection.outgoing.put_nowait(None)

    def _dispatch(self, message: agent_pb2.FromAgent, connection: AgentConnection) -> None:
        match message.WhichOneof("message"):
            case "serving":
                connection.serving = {d.dataset: d.schema_hash for d in message.serving.datasets}
                logger.info("agent serves", institution=connection.id, datasets=sorted(connection.serving))
            case "answer":
                if message.answer.HasField("cosignature"):
                    self._witnessing.cosigned(connection.id, message.answer.cosignature)
                if listener := connection.rounds.get(message.answer.round_id):
                    listener.on_message(connection.id, message)
            case "round":
                if listener := connection.rounds.get(message.round.round_id):
                    listener.on_message(connection.id, message)
            case "cosignature":
                self._witnessing.cosigned(connection.id, message.cosignature)
            case other:
                raise ProtocolViolation(f"institution {connection.id} sent {other!r} out of turn", party=connection.id)

    @serves("agent")
    async def Upload(  # noqa: N802 - named by the service definition
        self, _messages: AsyncIterator[Chunk], context: Context
    ) -> agent_pb2.UploadReceipt:
        """Feed masked vectors to their rounds, for as long as the agent is connected.

        A vector counts only when its manifest verifies. One that does not drops its sender from that round; chunks for
        a round that is over, or that dropped the sender, are read and forgotten.
        """
        peer = peer_of(context)
        message = await context.read()
        while message is not EOF:
            if len(message.data) <= SMALL_CHUNK:
                await self._take(peer.id, message)
                message = await context.read()
            else:  # the next chunk comes in while this one is worked on; a third waits at the sender
                following = asyncio.ensure_future(context.read())
                try:
                    await self._take(peer.id, message)
                    message = await following
                finally:
                    following.cancel()
        return agent_pb2.UploadReceipt()

    async def _take(self, member: str, message: Chunk) -> None:
        connection = self._hub.get(member)
        round_ = connection.rounds.get(message.round_id) if connection is not None else None
        if not isinstance(round_, Round):
            return
        try:
            sink = round_.upload_of(member)
            if sink is None:
                return
            if len(message.data) <= SMALL_CHUNK:
                sink.feed(message.data)
            else:
                await asyncio.to_thread(sink.feed, message.data)
            if message.manifest:
                await round_.take_manifest(member, sink, message.manifest)
        except LateMessage:
            return  # a slow member is not a bad one
        except ServiceError as error:
            logger.error("an upload was dropped", institution=member, reason=error.message, hint=error.hint)
            round_.drop(member, error.message)
        except CohortiumError as error:
            round_.drop(member, error.message)


def _check_clock(at: int, peer: Peer) -> None:
    skew = time.time() - at
    if abs(skew) > SKEW:
        raise ClockError(
            f"the clock of {peer.id} is {abs(skew) / 60:.0f} minutes {'behind' if skew > 0 else 'ahead of'}"
            " the coordinator's",
            hint="set both by NTP: expiry cannot be judged otherwise",
        )
