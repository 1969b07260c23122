"""The service agents call: one control stream each, and uploads.

Translates between gRPC and the hub's connections; which step a message belongs to is the round's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import AgentConnection, Hub
from analytics_server.coordinator.rounds import Round
from protos.v1 import agent_pb2, agent_pb2_grpc, envelope_pb2
from queries.errors import ClockError, CohortiumError, ProtocolViolation
from trust.identity.names import Peer
from trust.identity.requests import SKEW
from trust.rpc.server import peer as peer_of
from trust.rpc.server import serves

SMALL_CHUNK = 1 << 16
"""Bytes below which a chunk is handled on the event loop: handing it to a thread would cost more."""
logger = structlog.get_logger("cohortium.coordinator")

Context = grpc.aio.ServicerContext[object, object]


class AgentServicer(agent_pb2_grpc.AgentLinkServicer):
    """Connect and Upload."""

    def __init__(
        self,
        *,
        hub: Hub,
        directory: Directory,
        on_cosignature: Callable[[str, agent_pb2.Cosignature], None],
    ) -> None:
        self.gate = directory.gate
        self._hub = hub
        self._directory = directory
        self._on_cosignature = on_cosignature

    @serves("agent")
    async def Connect(  # noqa: N802 - named by the service definition
        self, request_iterator: AsyncIterator[agent_pb2.FromAgent], context: Context
    ) -> AsyncIterator[agent_pb2.ToAgent]:
        """Register the agent and pass messages both ways until one side ends the stream."""
        peer = peer_of(context)
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("message") != "hello":
            raise ProtocolViolation("an agent's first message is its hello", party=peer.id)
        _check_clock(first.hello.at, peer)
        connection = AgentConnection(id=peer.id, sent_size=first.hello.log_size)
        self._hub.register(connection)
        logger.info("agent connected", institution=peer.id, version=first.hello.version[:40])
        reader = asyncio.create_task(self._read(request_iterator, connection))
        try:
            self.welcome(connection)
            while (message := await connection.outgoing.get()) is not None:
                yield message
            if error := reader.exception() if reader.done() and not reader.cancelled() else None:
                raise error
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
                )
            )
        )
        connection.welcomed = True

    async def _read(self, messages: AsyncIterator[agent_pb2.FromAgent], connection: AgentConnection) -> None:
        try:
            async for message in messages:
                self._dispatch(message, connection)
        finally:
            connection.outgoing.put_nowait(None)

    def _dispatch(self, message: agent_pb2.FromAgent, connection: AgentConnection) -> None:
        match message.WhichOneof("message"):
            case "serving":
                connection.serving = {d.dataset: d.schema_hash for d in message.serving.datasets}
                logger.info("agent serves", institution=connection.id, datasets=sorted(connection.serving))
            case "answer":
                if listener := connection.rounds.get(message.answer.round_id):
                    listener.on_message(connection.id, message)
            case "round":
                if listener := connection.rounds.get(message.round.round_id):
                    listener.on_message(connection.id, message)
            case "cosignature":
                self._on_cosignature(connection.id, message.cosignature)
            case other:
                raise ProtocolViolation(f"institution {connection.id} sent {other!r} out of turn", party=connection.id)

    @serves("agent")
    async def Upload(  # noqa: N802 - named by the service definition
        self, request_iterator: AsyncIterator[agent_pb2.UploadChunk], context: Context
    ) -> agent_pb2.UploadReceipt:
        """Feed one masked vector to its round; it counts only when its manifest verifies."""
        peer = peer_of(context)
        message = await anext(aiter(request_iterator), None)
        connection = self._hub.get(peer.id)
        round_ = connection.rounds.get(message.round_id) if message is not None and connection is not None else None
        if not isinstance(round_, Round):
            raise ProtocolViolation("there is no such round, or it is over", party=peer.id)
        try:
            sink = round_.start_upload(peer.id)
            while message is not None:
                if len(message.data) <= SMALL_CHUNK:
                    sink.feed(message.data)
                else:
                    await asyncio.to_thread(sink.feed, message.data)
                if message.manifest:
                    sink.finish(message.manifest)
                    round_.finish_upload(peer.id)
                    return agent_pb2.UploadReceipt()
                message = await anext(aiter(request_iterator), None)
            raise ProtocolViolation(f"institution {peer.id} ended its upload without a manifest", party=peer.id)
        except CohortiumError as error:
            round_.drop(peer.id, error.message)
            raise


def _check_clock(at: int, peer: Peer) -> None:
    skew = time.time() - at
    if abs(skew) > SKEW:
        raise ClockError(
            f"the clock of {peer.id} is {abs(skew) / 60:.0f} minutes {'behind' if skew > 0 else 'ahead of'}"
            " the coordinator's",
            hint="set both by NTP: expiry cannot be judged otherwise",
        )
