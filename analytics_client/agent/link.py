"""The agent's one connection: dials out, listens on the control stream, uploads, and dials again when it breaks.

Messages of one round are handled in order by one task each; announcements by one thread, in the order they came, since
each builds on the log head of the one before. Must not know: SQL, policy, what a query means (`responder` does).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, TypeVar

import grpc.aio
import structlog

from analytics_client.agent.responder import ActiveRound, Responder
from protos.v1 import agent_pb2, agent_pb2_grpc
from queries.errors import ClockError, CohortiumError, IdentityError, ServiceError
from trust.identity.requests import SKEW
from trust.rpc.channel import TlsIdentity, connect_aio
from trust.rpc.errors import translated

T = TypeVar("T")
Prepare = Callable[[agent_pb2.Welcome], Responder]
"""Verify what governance published and load the data for it; blocks."""

FIRST_DELAY, LAST_DELAY = 0.2, 5.0
SMALL = 1 << 16
"""Bytes below which work is done on the event loop: handing it to a thread would take longer."""
logger = structlog.get_logger("cohortium.agent")


class Link:
    """Keeps an agent connected until it is cancelled."""

    def __init__(
        self,
        *,
        address: str,
        identity: Callable[[], TlsIdentity],
        log_size: Callable[[], int],
        prepare: Prepare,
        on_serving: Callable[[tuple[str, ...]], None],
    ) -> None:
        self.address = address
        self._identity = identity
        self.log_size = log_size
        self.prepare = prepare
        self.on_serving = on_serving
        self.judge = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge")

    async def run(self) -> None:
        """Connect and serve; after a lost connection try again, at growing intervals. Returns never.

        Raises IdentityError, ClockError and ConfigError at once: waiting does not cure them.
        """
        delay = FIRST_DELAY
        while True:
            started = time.monotonic()
            try:
                identity = await asyncio.to_thread(self._identity)
                channel = await connect_aio(self.address, identity)
                try:
                    await _Stream(self, channel).serve()
                finally:
                    await channel.close(None)
                logger.warning("the coordinator closed the connection", retry_in_s=delay)
            except ServiceError as error:
                logger.warning("not connected", reason=error.message, hint=error.hint, retry_in_s=delay)
            if time.monotonic() - started > 2 * LAST_DELAY:
                delay = FIRST_DELAY
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY)

    def close(self) -> None:
        """Let the announcement in hand be finished."""
        self.judge.shutdown(wait=True)


class _Stream:
    """One connection's life."""

    def __init__(self, link: Link, channel: grpc.aio.Channel) -> None:
        self._link = link
        self._stub = agent_pb2_grpc.AgentLinkStub(channel)
        self._outgoing: asyncio.Queue[agent_pb2.FromAgent] = asyncio.Queue()
        self._responder: Responder | None = None
        self._rounds: dict[bytes, asyncio.Queue[agent_pb2.ToAgent]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        self._send(
            agent_pb2.FromAgent(
                hello=agent_pb2.Hello(log_size=self._link.log_size(), at=int(time.time()), version=version("cohortium"))
            )
        )
        call = self._stub.Connect(self._messages())
        try:
            with translated(self._link.address):
                async for message in call:
                    await self._handle(message)
        finally:
            call.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _messages(self) -> AsyncIterator[agent_pb2.FromAgent]:
        while True:
            yield await self._outgoing.get()

    def _send(self, message: agent_pb2.FromAgent) -> None:
        self._outgoing.put_nowait(message)

    async def _handle(self, message: agent_pb2.ToAgent) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                await self._welcome(message.welcome)
            case "announce" if self._responder is not None:
                await self._announced(self._responder, message.announce)
            case "head" if self._responder is not None:
                await self._witness(self._responder, message.head)
            case "round":
                if queue := self._rounds.get(message.round.round_id):
                    queue.put_nowait(message)
            case "closed":
                if queue := self._rounds.get(message.closed.round_id):
                    queue.put_nowait(message)
            case other:
                raise IdentityError(f"the coordinator sent {other!r} before it made this agent welcome")

    async def _in_judge(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._link.judge, work)

    async def _welcome(self, welcome: agent_pb2.Welcome) -> None:
        skew = welcome.at - time.time()
        if abs(skew) > SKEW:
            raise ClockError(
                f"the clock here is {abs(skew) / 60:.0f} minutes {'behind' if skew > 0 else 'ahead of'} the coordinator's",
                hint="set it by NTP: expiry cannot be judged otherwise",
            )
        self._responder = await self._in_judge(lambda: self._link.prepare(welcome))
        served = self._responder.serving
        self._send(
            agent_pb2.FromAgent(
                serving=agent_pb2.Serving(
                    datasets=[agent_pb2.Served(dataset=d, schema_hash=h) for d, h in served.items()]
                )
            )
        )
        self._link.on_serving(tuple(served))

    async def _witness(self, responder: Responder, head: agent_pb2.Head) -> None:
        cosignature = await self._in_judge(lambda: responder.witness(head))
        self._send(agent_pb2.FromAgent(cosignature=cosignature))

    async def _announced(self, responder: Responder, announce: agent_pb2.Announce) -> None:
        answer, active = await self._in_judge(lambda: responder.answer(announce))
        if active is not None:
            queue: asyncio.Queue[agent_pb2.ToAgent] = asyncio.Queue()
            self._rounds[active.id] = queue
            task = asyncio.create_task(self._round(responder, active, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._send(agent_pb2.FromAgent(answer=answer))

    # --- one round -----------------------------------------------------------------------------------------------

    async def _round(self, responder: Responder, active: ActiveRound, queue: asyncio.Queue[agent_pb2.ToAgent]) -> None:
        """Take a round through its steps until the coordinator closes it or the connection ends."""
        try:
            while True:
                message = await queue.get()
                if message.WhichOneof("message") == "closed":
                    return
                await self._step(responder, active, message.round.step, message.round.payload)
        except CohortiumError as error:
            logger.warning("left the round", round=active.id.hex()[:12], reason=error.message)
            self._reply(active, "abandon", error.message.encode())
        finally:
            del self._rounds[active.id]
            await asyncio.shield(asyncio.to_thread(responder.end, active))

    async def _step(self, responder: Responder, active: ActiveRound, step: str, payload: bytes) -> None:
        match step:
            case "roster":
                complaint = await _run(len(payload), active.core.on_roster, payload)
                self._reply(active, "ready" if complaint is None else "complaint", complaint or b"")
            case "upload":
                await self._upload(responder, active)
            case "survivors":
                self._reply(active, "confirm", await _run(len(payload), active.core.on_survivors, payload))
            case "confirmations":
                self._reply(active, "reveal", await asyncio.to_thread(responder.reveal, active, payload))
            case other:
                logger.warning("unknown step", step=other[:20], round=active.id.hex()[:12])

    def _reply(self, active: ActiveRound, step: str, payload: bytes) -> None:
        self._send(agent_pb2.FromAgent(round=agent_pb2.RoundMessage(round_id=active.id, step=step, payload=payload)))

    async def _upload(self, responder: Responder, active: ActiveRound) -> None:
        chunks = await asyncio.to_thread(responder.upload, active)
        size = active.core.parameters.vector_bytes

        async def messages() -> AsyncIterator[agent_pb2.UploadChunk]:
            """Yield the round id with the first chunk and the manifest with the last, which may be the same."""
            message = agent_pb2.UploadChunk(round_id=active.id)
            chunk = await _run(size, next, chunks, None)
            while chunk is not None:
                message.data = chunk
                chunk = await _run(size, next, chunks, None)
                if chunk is not None:
                    yield message
                    message = agent_pb2.UploadChunk()
            message.manifest = active.core.manifest()
            yield message

        with translated(self._link.address):
            await self._stub.Upload(messages())


async def _run(size: int, work: Callable[..., T], *arguments: Any) -> T:
    """Run what takes time in proportion to `size` bytes: at once where that is little, else in a thread."""
    return work(*arguments) if size <= SMALL else await asyncio.to_thread(work, *arguments)
