"""The life of a request at the coordinator: checked, logged, announced, aggregated, released, logged again.

Every request that passes the checks is in the log before anyone is asked, and ends there: released or failed. Must not
know: gRPC (services call in), how a round's messages travel (`rounds`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog

from analytics_server.audit.log import AuditLog
from analytics_server.coordinator import records
from analytics_server.coordinator.admission import admit
from analytics_server.coordinator.asking import Asking, Checked, Tools, ended
from analytics_server.coordinator.database import Database
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.ends import dropped_out, failure_of, stored_end
from analytics_server.coordinator.gossip import seen_size, show_witnessed
from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.jobs import JobDesk
from analytics_server.coordinator.live import Live
from analytics_server.coordinator.outcomes import RoundFailed
from analytics_server.coordinator.rounds import Deadlines, Round
from analytics_server.coordinator.witnessing import Heads, Witnessing
from analytics_server.store import RequestRow, UnitOfWork
from protos.v1 import analyst_pb2, envelope_pb2, log_pb2, query_pb2
from queries.errors import (
    CohortiumError,
    IdentityError,
    QuorumError,
    ServiceError,
    SignatureError,
)
from queries.plan import Plan
from queries.training.plan import JobPlan
from queries.withheld import withhold
from trust.identity.names import Peer
from trust.identity.requests import verify_request
from trust.lanes import read_sums
from trust.question import plan_of, shape_of
from trust.secagg.masks import Ring

INTERRUPTED = QuorumError(
    "the coordinator stopped in the middle of this round, and nothing was released",
    hint="institutions that had sent their masked sums keep the charge, the others do not; ask again",
)
LOOK_AGAIN_S = 2.0
logger = structlog.get_logger("cohortium.coordinator")


class AlreadyEnded(Exception):
    """The request had ended before; `progress` is its end as it was reported."""

    def __init__(self, progress: analyst_pb2.Progress) -> None:
        super().__init__("ended before")
        self.progress = progress


class RunsElsewhere(Exception):
    """Another coordinator of this store runs the request."""


class RequestDesk:
    """Takes requests in, runs them, and answers for them after a disconnect or a restart."""

    def __init__(
        self,
        *,
        database: Database,
        log: AuditLog,
        directory: Directory,
        hub: Hub,
        witnessing: Witnessing,
        deadlines: Deadlines,
        spool: Path,
        instance: int,
    ) -> None:
        """`spool` is the folder in which large uploads wait until they are complete, `instance` this process's number
        among the coordinators of the store.
        """
        self._database = database
        self._log = log
        self._directory = directory
        self._hub = hub
        self._witnessing = witnessing
        self._tools = Tools(database, log, directory, hub, witnessing, deadlines, spool, instance)
        self._live: dict[bytes, Live] = {}
        self._asking: dict[bytes, Asking] = {}
        self._unstored: dict[bytes, Callable[[UnitOfWork], object]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.jobs = JobDesk(self._tools)

    # --- taking in -----------------------------------------------------------------------------------------------

    async def submit(self, envelope: envelope_pb2.Envelope, peer: Peer) -> AsyncIterator[analyst_pb2.Progress]:
        """Check, log and run a request, reporting every step. The same request again reports on the first one."""
        checked = await admit(envelope.SerializeToString(deterministic=True), peer, self._tools)
        request_id = checked.verified.request_id
        live = self._live.get(request_id)
        if live is None:
            live = self._start(checked)
        async for progress in live.follow():
            yield progress

    async def result(self, request_id: bytes, peer: Peer) -> analyst_pb2.Progress:
        """Return the end of one of the analyst's own requests, waiting for it where it is still running."""
        if live := self._live.get(request_id):
            async for _ in live.follow():
                """Its end is in the store when it is reported."""
        row = await self._database.read(lambda uow: uow.request(request_id))
        if row is not None and row.analyst == peer.id and row.state == "running":  # elsewhere, or just being taken up
            return await self._end_elsewhere(request_id)
        if row is None or row.analyst != peer.id or (stored := stored_end(row)) is None:
            raise IdentityError(
                "there is no such request of yours", hint="cohortium audit log --kind requested lists them"
            )
        return stored

    def _is_elsewhere(self, row: RequestRow) -> bool:
        return row.instance != self._tools.instance

    # --- running -------------------------------------------------------------------------------------------------

    def _start(self, checked: Checked, enter: Callable[[], Awaitable[Heads]] | None = None) -> Live:
        live = self._live[checked.verified.request_id] = Live(checked.verified.request_id)
        task = asyncio.create_task(self._run(checked, live, enter))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return live

    async def _run(self, checked: Checked, live: Live, enter: Callable[[], Awaitable[Heads]] | None) -> None:
        """Run one request to its end; whatever happens, the end is in the log and in the store."""
        request_id = checked.verified.request_id
        asking = Asking(checked, live, self._tools, partial(self._enter, checked) if enter is None else enter)
        self._asking[request_id] = asking
        try:
            if isinstance(checked.plan, JobPlan):
                live.end(await self.jobs.run(checked.verified, checked.plan, asking, live))
                return
            sums = await asking.sum()
            await self._release(checked, live, asking.round, sums)
            asking.close("released")
        except AlreadyEnded as ended:
            live.end(ended.progress)
        except RunsElsewhere:
            try:
                live.end(await self._end_elsewhere(request_id))
            except CohortiumError as error:  # the store fails: whoever follows must not wait for ever
                live.end(failure_of(request_id, error))
        except RoundFailed as failure:
            await self._fail(live, asking, failure.error, charged=failure.charged)
        except CohortiumError as error:
            if not asking.logged:  # it is not in the log, and nobody was asked
                live.end(failure_of(request_id, error))
            else:
                await self._fail(live, asking, error, charged=asking.charged)
        except Exception as error:  # a bug: the analyst must not wait for ever, nor read what may quote anything
            logger.error("request failed", request=request_id.hex()[:12], error=type(error).__name__)
            failed = ServiceError("the coordinator failed on this request", hint="tell your operator")
            await self._fail(live, asking, failed, charged=asking.charged)
        finally:
            if self._live.get(request_id) is live:
                del self._live[request_id]
            if self._asking.get(request_id) is asking:
                del self._asking[request_id]

    def cut_off(self) -> None:
        """End the running requests of whoever may not ask any more, by what the directory says now."""
        for request_id, asking in self._asking.items():
            if not self._directory.may_ask(asking.analyst):
                logger.warning("a request was cut off", request=request_id.hex()[:12], analyst=asking.analyst)
                asking.cut_off(
                    IdentityError(f"{asking.analyst!r} was revoked while this ran", hint="ask your operator")
                )
                self.jobs.cut_off(request_id)

    async def _enter(self, checked: Checked) -> Heads:
        """Write the request to the log before anyone is asked; return the head that covers it, with its proofs.

        Raises AlreadyEnded for a request that has ended before, RunsElsewhere for one that another coordinator runs,
        and writes nothing.
        """
        verified = checked.verified
        activity = self._directory.in_force().activity(verified.purpose)

        def work(uow: UnitOfWork) -> Heads | analyst_pb2.Progress | RunsElsewhere:
            try:
                uow.add_request(
                    request_id=verified.request_id,
                    analyst=verified.analyst,
                    dataset=verified.dataset,
                    envelope=checked.envelope,
                    expires_at=verified.expires_at,
                    instance=self._tools.instance,
                )
            except SignatureError:
                known = uow.request(verified.request_id)
                if known is None:
                    raise
                if (stored := stored_end(known)) is not None:
                    return stored
                if self._is_elsewhere(known):
                    return RunsElsewhere()
                raise
            seq = self._log.append_in(uow, [records.requested(verified, shape_of(checked.plan), activity)])
            return self._witnessing.prove(uow, seq, seen=seen_size(verified))

        entered = await self._database.write(work)
        if isinstance(entered, analyst_pb2.Progress):
            raise AlreadyEnded(entered)
        if isinstance(entered, RunsElsewhere):
            raise entered
        return entered

    async def _release(self, checked: Checked, live: Live, round_: Round, sums: Ring) -> None:
        parameters = round_.parameters
        noise = checked.plan.noise(
            checked.verified.rho_nano,
            threshold=parameters.threshold,
            colluders=parameters.colluders,
            invited=len(parameters.invited),
        )

        def work(uow: UnitOfWork) -> analyst_pb2.Progress:
            # here, off the event loop: a million numbers take long
            released = read_sums(checked.plan, noise, len(parameters.invited), sums, round_.layer_keys)
            if isinstance(checked.plan, Plan):
                released = withhold(checked.plan, released, noise)
            release = query_pb2.Release(
                request_id=checked.verified.request_id,
                sums=released.tolist(),
                refine_bits=noise.refine_bits,
                invited=len(parameters.invited),
                threshold=parameters.threshold,
                colluders=parameters.colluders,
                survivors=round_.survivors,
                rho_nano=checked.verified.rho_nano,
            ).SerializeToString(deterministic=True)
            uow.check_runs(checked.verified.request_id, self._tools.instance)
            entries = [ended(round_, "released"), records.released(checked.verified, release, len(round_.survivors))]
            seq = self._log.append_in(uow, entries) + 1
            checkpoint = self._log.head(uow)
            progress = analyst_pb2.Progress(
                request_id=checked.verified.request_id,
                step="released",
                institutions=round_.survivors,
                release=release,
                checkpoint=checkpoint.note,
                proof=analyst_pb2.LogProof(seq=seq, leaf=uow.leaf(seq), hashes=uow.inclusion(seq, checkpoint.size)),
            )
            show_witnessed(progress, round_, uow, checkpoint.size)
            uow.finish_request(
                checked.verified.request_id, "released", release=progress.SerializeToString(), failure=None
            )
            return progress

        live.end(await self._database.write(work))

    async def _fail(self, live: Live, asking: Asking, error: CohortiumError, *, charged: bool) -> None:
        progress = failure_of(live.request_id, error, charged=charged)
        failure, round_ = progress.failure, asking.latest
        if isinstance(error, QuorumError) and round_ is not None:
            failure.message += dropped_out(round_)
        entries: list[log_pb2.LogEntry] = []
        if round_ is not None:
            entries.append(ended(round_, f"failed: {error.code}"))
            for member, signed in sorted(round_.decisions.items()):
                decision = signed.decision
                if not decision.allowed:
                    failure.refusals.add(institution=member, rule=decision.rule, message=decision.message)
        entries.append(records.failed(live.request_id, error.code, charged=charged))

        def work(uow: UnitOfWork) -> bool:
            row = uow.request(live.request_id)
            if row is None or row.state != "running" or self._is_elsewhere(row):
                return False  # this process was silent, and another has seen to the request
            self._log.append_in(uow, entries)
            uow.finish_request(live.request_id, "failed", release=None, failure=progress.SerializeToString())
            return True

        try:
            if not await self._database.write(work):
                progress = await self._end_elsewhere(live.request_id)
        except CohortiumError as lost:  # a full disk must not leave the analyst waiting
            self._unstored[live.request_id] = work
            logger.error("the end of a request is not stored yet", reason=lost.message, hint=lost.hint)
        finally:
            live.end(progress)
            asking.close(f"failed: {error.code}")

    # --- starting and stopping -----------------------------------------------------------------------------------

    async def see_to_orphans(self, *, starting: bool = False) -> int:
        """End, with a clear status, every query that a process left running which is dead; go on with training jobs.

        So too with what this process could not take up because its store failed. A job of another coordinator waits for
        one that its institutions are connected to. Ends that could not be stored are stored. Returns how many queries
        were ended.
        """
        await self._store_ends()
        if not await self._database.read(self._others_run):
            return 0

        def work(uow: UnitOfWork) -> tuple[int, list[tuple[RequestRow, Checked]]]:
            interrupted, adopted = 0, []
            left = [row for row in uow.running_requests() if self._is_lost(row)]
            for row in (*uow.orphaned_requests(self._tools.instance), *left):
                job = self._as_job(row)
                if job is None:
                    progress = failure_of(row.request_id, INTERRUPTED, charged=True)
                    self._log.append_in(uow, [records.failed(row.request_id, "interrupted", charged=True)])
                    uow.finish_request(row.request_id, "failed", release=None, failure=progress.SerializeToString())
                    interrupted += 1
                elif starting or self._is_served(job):
                    uow.adopt_request(row.request_id, self._tools.instance)
                    adopted.append((row, job))
            return interrupted, adopted

        interrupted, adopted = await self._database.write(work)
        for row, job in adopted:
            self._start(job, partial(self._witnessing.latest, row.seqs[0], seen=seen_size(job.verified)))
            logger.info("resumed", request=row.request_id.hex()[:12])
        if interrupted:
            logger.warning("ended requests that another run left open", requests=interrupted)
        return interrupted

    def _others_run(self, uow: UnitOfWork) -> bool:
        return any(self._is_elsewhere(row) or self._is_lost(row) for row in uow.running_requests())

    def _is_lost(self, row: RequestRow) -> bool:
        """Whether this process should run a request that still runs by the store, and does not.

        It does from before the request is stored until after its end is: so what the store's thread finds here holds.
        """
        known = self._live.keys() | self._unstored.keys()
        return not self._is_elsewhere(row) and row.request_id not in known

    def _as_job(self, row: RequestRow) -> Checked | None:
        """Return a running request as a job to go on with; None where it is none, or not valid any more."""
        try:
            membership = self._directory.in_force()
            verified = verify_request(row.envelope, membership, membership.consortium, int(time.time()))
            published = self._directory.dataset(verified.dataset)
            if (
                not self._directory.may_ask(verified.analyst)
                or not verified.job
                or verified.schema_hash != published.schema_hash
            ):
                return None
            return Checked(verified, row.envelope, plan_of(verified, published.dataset))
        except CohortiumError as error:
            logger.warning("not resumed", request=row.request_id.hex()[:12], reason=error.message)
            return None

    def _is_served(self, job: Checked) -> bool:
        verified = job.verified
        return bool(self._hub.serving(verified.dataset, verified.schema_hash, self._directory.members))

    async def _store_ends(self) -> None:
        """Store the ends of requests that a full disk or a lost database kept from being stored."""
        for request_id, work in list(self._unstored.items()):
            await self._database.write(work)
            self._unstored.pop(request_id, None)
            logger.info("the end of a request is stored now", request=request_id.hex()[:12])

    async def _end_elsewhere(self, request_id: bytes) -> analyst_pb2.Progress:
        """Return the end of a request that another coordinator runs, or this one does not yet, once it has one."""
        loop, grown = asyncio.get_running_loop(), asyncio.Event()

        def listener() -> None:  # called from the thread that appended
            loop.call_soon_threadsafe(grown.set)

        unsubscribe = self._log.subscribe(listener)
        try:
            while True:
                grown.clear()
                row = await self._database.read(lambda uow: uow.request(request_id))
                if row is not None and (stored := stored_end(row)) is not None:
                    return stored
                try:
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await grown.wait()
                except TimeoutError:
                    continue  # without a notice too: it may have been lost with the connection
        finally:
            unsubscribe()

    async def stop(self) -> None:
        """Cancel what is running; the next start ends it, or another coordinator."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
