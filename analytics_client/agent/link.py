"""The agent's one connection: dials out, listens on the control stream, uploads, and dials again when it breaks.

Messages of one round are handled in order by one task each; announcements by one thread, in the order they came, since
each builds on the log head of the one before. Must not know: SQL, policy, what a query means (`responder` does).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import grpc.aio
import structlog

from analytics_client.agent.active import ActiveRound
from analytics_client.agent.chunks import encode_chunk, open_uploads
from analytics_client.agent.owed import Owed
from analytics_client.agent.responder import Responder
from analytics_client.agent.training.models import Models
from protos.v1 import agent_pb2, agent_pb2_grpc
from queries.errors import ClockError, CohortiumError, IdentityError, LogError, ServiceError
from trust.identity.requests import SKEW
from trust.rpc.channel import TlsIdentity, connect_aio
from trust.rpc.errors import translated
from trust.secagg import AgentState

T = TypeVar("T")
Prepare = Callable[[agent_pb2.Welcome], Responder]
"""Verify what governance published and load the data for it; blocks."""

FIRST_DELAY, LAST_DELAY = 0.2, 5.0
EOF = grpc.aio.EOF  # type: ignore[attr-defined]  # missing from grpc's stubs
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
        on_refused_log: Callable[[LogError], None],
        owed: Owed,
    ) -> None:
        self.address = address
        self.owed = owed
        self._identity = identity
        self.log_size = log_size
        self.prepare = prepare
        self.on_serving = on_serving
        self._on_refused_log = on_refused_log
        self.judge = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge")

    async def run(self) -> None:
        """Connect and serve; after a lost connection try again, at growing intervals. Returns never.

        Raises IdentityError, ClockError, ConfigError and DataError at once: waiting does not cure them.
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
            except LogError as error:
                # Nothing was answered under that head. A new connection starts from the size that was really seen: a
                # mistake is cured by it, and a forked or rewound log is refused, and reported here, again and again.
                await asyncio.to_thread(self._on_refused_log, error)
                logger.error("the audit log was refused", reason=error.message, hint=error.hint, retry_in_s=delay)
            if time.monotonic() - started > 2 * LAST_DELAY:
                delay = FIRST_DELAY
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY)

    def close(self) -> None:
        """Let the announcement in hand be finished."""
        self.judge.shutdown(wait=True)


class _Stream:
    """One connection's life: the control stream, and the stream that all uploads share."""

    def __init__(self, link: Link, channel: grpc.aio.Channel) -> None:
        self._link = link
        self._control, self._uploads = agent_pb2_grpc.AgentLinkStub(channel).Connect(), open_uploads(channel)
        self._control_turn, self._upload_turn = asyncio.Lock(), asyncio.Lock()
        self._to_judge: asyncio.Queue[tuple[agent_pb2.ToAgent, Mapping[bytes, bytes]]] = asyncio.Queue()
        self._models = Models()
        self._rounds: dict[bytes, asyncio.Queue[agent_pb2.ToAgent]] = {}
        self._active: dict[bytes, ActiveRound] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stated: set[int] = set()

    async def serve(self) -> None:
        """Serve until the connection ends. Raises what ended it."""
        with translated(self._link.address):
            hello = agent_pb2.Hello(
                log_size=self._link.log_size(),
                at=int(time.time()),
                version=version("cohortium"),
                owed=self._link.owed.named(),
            )
            try:
                await self._send(agent_pb2.FromAgent(hello=hello))
                jobs = [asyncio.create_task(job()) for job in (self._read, self._judge, self._watch_uploads)]
                self._tasks.update(jobs)
                ended, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
                for job in ended:
                    job.result()
            finally:
                self._control.cancel()
                self._uploads.cancel()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, message: agent_pb2.FromAgent) -> None:
        async with self._control_turn:
            await self._control.write(message)

    async def _read(self) -> None:
        """Pass messages on: what builds on the log's head to the judge, the rest to its round.

        The end of a round that is not known here is the judge's too: its announcement may still be in the queue.
        """
        while (message := await self._control.read()) is not EOF:
            match message.WhichOneof("message"):
                case "welcome" | "announce" | "head" | "job_closed" | "statement_logged":
                    self._to_judge.put_nowait((message, self._link.owed.due()))
                case "model_piece":
                    self._models.take(message.model_piece)
                case "round":
                    if queue := self._rounds.get(message.round.round_id):
                        if message.round.step == "confirmations":  # before which decisions are logged
                            self._link.owed.add(message.round.round_id, self._active[message.round.round_id].statement)
                        queue.put_nowait(message)
                case "closed":
                    if active := self._active.get(message.closed.round_id):
                        active.broken_off = (
                            message.closed.outcome or "closed"
                        )  # before its vector leaves, if it has not
                    if queue := self._rounds.get(message.closed.round_id):
                        queue.put_nowait(message)
                    else:
                        self._to_judge.put_nowait((message, {}))
                case other:
                    logger.warning("unknown message", kind=str(other)[:20])

    async def _watch_uploads(self) -> None:
        """The upload stream lives as long as the connection; its end is the connection's."""
        await self._uploads

    async def _judge(self) -> None:
        """Handle announcements and heads one after the other, in the order they came."""
        responder: Responder | None = None
        while True:
            message, due = await self._to_judge.get()
            kind = message.WhichOneof("message")
            if kind == "welcome":
                responder = await self._welcome(message.welcome)
            elif kind == "closed":
                if queue := self._rounds.get(message.closed.round_id):
                    queue.put_nowait(message)
            elif responder is None:
                raise IdentityError("the coordinator asked before it made this agent welcome")
            elif kind == "announce":
                self._models.fill(message.announce)
                await self._announced(responder, message.announce, due)
            elif kind == "job_closed":
                await self._in_judge(partial(responder.end_job, message.job_closed.request_id))
            elif kind == "statement_logged":
                await self._in_judge(partial(responder.stated, message.statement_logged.number))
            else:
                cosignature = await self._in_judge(partial(responder.witness, message.head, due))
                await self._send(agent_pb2.FromAgent(cosignature=cosignature))
            if responder is not None and kind in ("welcome", "announce", "head"):
                await self._state(responder)

    async def _state(self, responder: Responder) -> None:
        """Send what this institution has to say in the log and has not sent on this connection."""
        for number, statement in await self._in_judge(responder.statements):
            if number not in self._stated:
                self._stated.add(number)
                await self._send(agent_pb2.FromAgent(statement=statement))

    async def _in_judge(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._link.judge, work)

    async def _welcome(self, welcome: agent_pb2.Welcome) -> Responder:
        skew = welcome.at - time.time()
        if abs(skew) > SKEW:
            raise ClockError(
                f"the clock here is {abs(skew) / 60:.0f} minutes {'behind' if skew > 0 else 'ahead of'}"
                " the coordinator's",
                hint="set it by NTP: expiry cannot be judged otherwise",
            )
        responder = await self._in_judge(partial(self._link.prepare, welcome))
        await self._leave_rounds_of_the_gone(responder)
        served = responder.serving
        serving = [agent_pb2.Served(dataset=name, schema_hash=schema_hash) for name, schema_hash in served.items()]
        await self._send(agent_pb2.FromAgent(serving=agent_pb2.Serving(datasets=serving)))
        self._link.on_serving(tuple(served))
        return responder

    async def _leave_rounds_of_the_gone(self, responder: Responder) -> None:
        """Break off, wherever it stands, what was asked by somebody whom the new membership does not have."""
        for active in self._active.values():
            if not responder.may_go_on(active):
                active.broken_off = "its analyst was revoked"
                closed = agent_pb2.RoundClosed(round_id=active.id, outcome=active.broken_off)
                self._rounds[active.id].put_nowait(agent_pb2.ToAgent(closed=closed))
                logger.warning("left a round whose analyst was revoked", round=active.id.hex()[:12])
        await self._in_judge(responder.end_jobs_of_the_gone)

    async def _announced(self, responder: Responder, announce: agent_pb2.Announce, due: Mapping[bytes, bytes]) -> None:
        judging = asyncio.ensure_future(self._in_judge(partial(responder.answer, announce, due)))
        try:
            answer, active, refusal = await asyncio.shield(judging)
        except asyncio.CancelledError:  # nobody will hear the answer: what a yes has reserved must not stay so
            _, active, _ = await judging
            if active is not None:
                await asyncio.to_thread(responder.end, active)
            raise
        if active is not None:
            queue: asyncio.Queue[agent_pb2.ToAgent] = asyncio.Queue()
            self._rounds[active.id] = queue
            self._active[active.id] = active
            task = asyncio.create_task(self._round(responder, active, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self._send(agent_pb2.FromAgent(answer=answer))
        if refusal is not None:
            raise refusal

    # --- one round -----------------------------------------------------------------------------------------------

    async def _round(self, responder: Responder, active: ActiveRound, queue: asyncio.Queue[agent_pb2.ToAgent]) -> None:
        """Take a round through its steps, to REVEAL or until the coordinator closes it or the connection ends."""
        try:
            message = await queue.get()
            while message.WhichOneof("message") == "round":
                await self._step(responder, active, message.round.step, message.round.payload)
                if active.core.state is AgentState.REVEALED:
                    return
                message = await queue.get()
        except CohortiumError as error:
            logger.warning("left the round", round=active.id.hex()[:12], reason=error.message)
            await self._reply(active, "abandon", error.message.encode())
        finally:
            del self._rounds[active.id], self._active[active.id]
            if active.sent:
                responder.end(active)  # the ledger has nothing to give back
            else:
                await asyncio.shield(asyncio.to_thread(responder.end, active))

    async def _step(self, responder: Responder, active: ActiveRound, step: str, payload: bytes) -> None:
        match step:
            case "cohort":
                await self._reply(active, "join", await asyncio.to_thread(active.core.on_cohort, payload))
            case "roster":
                complaint = await _run(len(payload), active.core.on_roster, payload)
                await self._reply(active, "ready" if complaint is None else "complaint", complaint or b"")
            case "upload":
                await self._upload(responder, active)
            case "survivors":
                await self._reply(active, "confirm", await _run(len(payload), active.core.on_survivors, payload))
            case "confirmations":
                await self._reply(active, "reveal", await asyncio.to_thread(responder.reveal, active, payload))
            case other:
                logger.warning("unknown step", step=other[:20], round=active.id.hex()[:12])

    async def _reply(self, active: ActiveRound, step: str, payload: bytes) -> None:
        message = agent_pb2.RoundMessage(round_id=active.id, step=step, payload=payload)
        await self._send(agent_pb2.FromAgent(round=message))

    async def _upload(self, responder: Responder, active: ActiveRound) -> None:
        """Send the masked vector, the manifest with its last chunk: one chunk is on its way while the next is made."""
        chunks = await asyncio.to_thread(responder.upload, active)
        size = left = active.core.parameters.vector_bytes
        sending: asyncio.Task[None] | None = None
        try:
            while (data := await _run(size, next, chunks, None)) is not None:
                active.check()
                left -= len(data)
                message = encode_chunk(active.id, data, b"" if left else active.core.manifest())
                if sending is not None:
                    await sending
                sending = asyncio.create_task(self._send_chunk(message))
            if sending is not None:
                await sending
        finally:
            if sending is not None:
                sending.cancel()

    async def _send_chunk(self, message: bytes) -> None:
        async with self._upload_turn:
            await self._uploads.write(message)


async def _run(size: int, work: Callable[..., T], *arguments: Any) -> T:
    """Run what takes time in proportion to `size` bytes: at once where that is little, else in a thread."""
    return work(*arguments) if size <= SMALL else await asyncio.to_thread(work, *arguments)
