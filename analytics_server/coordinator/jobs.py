"""Training jobs at the coordinator: round after round under one request, and what is known of them afterwards.

A job is a request that asks for many sums, each at the model that the release before it gives. Every release is stored
and logged in one transaction before the next round begins, so a restart goes on after the last of them. A round that
fails takes one of the spare rounds; where too few institutions are there, the job waits until it expires. Must not
know: how a round goes, who may ask.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np
import structlog

from analytics_server.coordinator import records
from analytics_server.coordinator.asking import Asking, Tools, ended
from analytics_server.coordinator.ends import dropped_out, failure_of
from analytics_server.coordinator.gossip import show_witnessed
from analytics_server.coordinator.live import Live
from analytics_server.coordinator.outcomes import RoundFailed
from analytics_server.coordinator.witnessing import PIECE
from analytics_server.store import UnitOfWork
from protos.v1 import agent_pb2, analyst_pb2, envelope_pb2, query_pb2
from queries.errors import IdentityError, QuorumError, RoundError
from queries.training import newton
from queries.training.design import Floats
from queries.training.plan import JobPlan
from queries.training.way import Way
from trust.identity.names import Peer
from trust.identity.requests import VerifiedRequest
from trust.lanes import read_sums
from trust.question import model_hash
from trust.secagg.masks import Ring

PAUSE_S = 1.0
"""Between tries while too few institutions are connected or answer."""
PATIENCE = 3
"""Rounds in a row that may fail without costing anything before the job waits longer between tries."""
TOLD_BYTES = 8 << 10
"""Longest release that is told, and kept in memory, while its job runs."""
logger = structlog.get_logger("cohortium.coordinator")


class JobDesk:
    """Runs jobs, tells of them, and stops them."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._running: dict[bytes, _Job] = {}

    async def run(self, verified: VerifiedRequest, plan: JobPlan, asking: Asking, live: Live) -> analyst_pb2.Progress:
        """Run a job to its end, from where it stands in the store. Return the end as it is stored.

        Raises what a round raises where the job cannot go on; the caller writes that down as its end.
        """
        job = self._running[verified.request_id] = _Job(verified, plan, asking, live, self._tools)
        try:
            return await job.run()
        finally:
            if self._running.get(verified.request_id) is job:
                del self._running[verified.request_id]
            message = closed(verified.request_id)
            if asking.logged and not job.cancelled:  # else it runs elsewhere, or goes on after the restart
                for connection in self._tools.hub.all():
                    if connection.welcomed:
                        connection.send(message)

    async def rounds(self, request_id: bytes, peer: Peer) -> list[analyst_pb2.Progress]:
        """Return the releases of one of the analyst's own jobs."""

        def work(uow: UnitOfWork) -> list[bytes]:
            row = uow.request(request_id)
            if row is None or row.analyst != peer.id:
                raise IdentityError("there is no such job of yours", hint="cohortium jobs lists them")
            return uow.job_rounds(request_id)

        return [analyst_pb2.Progress.FromString(stored) for stored in await self._tools.database.read(work)]

    async def ended(self) -> list[bytes]:
        """Return the jobs that have ended and not expired: an agent that was away then may still hold their cost."""
        stored = await self._tools.database.read(lambda uow: uow.ended_unexpired(int(time.time())))
        return [request_id for request_id, envelope in stored if _is_job(envelope)]

    async def listed(self, peer: Peer) -> list[analyst_pb2.JobStatus]:
        """Return the analyst's own jobs in no particular order."""

        def work(uow: UnitOfWork) -> list[analyst_pb2.JobStatus]:
            found = []
            for row in uow.requests_of(peer.id):
                if not _is_job(row.envelope):
                    continue
                envelope = envelope_pb2.Envelope.FromString(row.envelope)
                failed = analyst_pb2.Progress.FromString(row.failure).failure if row.failure else None
                found.append(
                    analyst_pb2.JobStatus(
                        request_id=row.request_id,
                        state=row.state,
                        rounds=sum(_step(progress) != "evaluated" for progress in uow.job_rounds(row.request_id)),
                        request=envelope,
                        failure=failed,
                    )
                )
            return found

        return await self._tools.database.read(work)

    def stop(self, request_id: bytes, peer: Peer, *, steward: bool) -> None:
        """End a running job after the round in hand. Its analyst may, and every steward."""
        job = self._running.get(request_id)
        if job is None or not (steward or job.verified.analyst == peer.id):
            raise IdentityError("there is no such job of yours that runs", hint="cohortium jobs lists them")
        job.stop(f"stopped by {peer.id}")

    def cut_off(self, request_id: bytes) -> None:
        """Have a job that waits see at once that it was cut off."""
        if job := self._running.get(request_id):
            job.stop("cut off: its analyst was revoked")


def closed(request_id: bytes) -> agent_pb2.ToAgent:
    """Return what tells an agent that a job is over."""
    return agent_pb2.ToAgent(job_closed=agent_pb2.JobClosed(request_id=request_id))


class _Job:
    """One running job."""

    def __init__(self, verified: VerifiedRequest, plan: JobPlan, asking: Asking, live: Live, tools: Tools) -> None:
        self.verified = verified
        self.cancelled = False
        self._plan = plan
        self._asking = asking
        self._live = live
        self._tools = tools
        self._stopped = asyncio.Event()
        self._reason = ""
        self._waits_for = ""

    def stop(self, reason: str) -> None:
        self._reason = reason
        self._stopped.set()

    async def run(self) -> analyst_pb2.Progress:
        try:
            return await self._rounds()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def _rounds(self) -> analyst_pb2.Progress:
        await self._asking.enter()
        stored = await self._tools.database.read(lambda uow: uow.job_rounds(self.verified.request_id))
        done = [analyst_pb2.Progress.FromString(progress) for progress in stored]
        for progress in done:
            self._live.report(_report(progress))
        way = Way(self._plan)
        for progress in done:
            self._asking.spent_before()
            release = query_pb2.Release.FromString(progress.release)
            way.take(release.slot, self._read(release, self._asked_at(release, way.theta)))
        free_failures = 0
        while (slot := way.slot) is not None:
            if self._stopped.is_set():
                raise RoundError(f"the job was {self._reason}", hint="cohortium model shows what it had reached")
            job = agent_pb2.JobRound(slot=slot, model=self._plan.encode_model(way.theta))
            try:
                sums = await self._asking.sum(job)
            except (RoundFailed, RoundError) as failure:
                used = await self._failed(failure)
                free_failures = 0 if used else free_failures + 1
                if used:
                    way.skip(slot)
                await self._pause(free_failures)
                continue
            free_failures, self._waits_for = 0, ""
            release = await self._released(job, sums)
            released = self._read(release, self._plan.decode_model(job.model))
            last = way.ends_with(slot, released)
            progress = await self._release(job, release, last=last)
            self._asking.close("released")
            if last and progress.step == "released":
                return _without_release(progress)
            self._live.report(_report(progress))
            if last:
                return _end_of(progress)
            way.take(slot, released)
        return await self._end()  # its last evaluation failed: the model stands

    def _asked_at(self, release: query_pb2.Release, theta: Floats) -> Floats:
        """Return the model that a stored round was asked at: it holds it, or it follows from those before."""
        return self._plan.decode_model(release.model or self._plan.encode_model(theta))

    def _read(self, release: query_pb2.Release, theta: Floats) -> newton.Released:
        plan = self._plan.of_slot(release.slot)
        noise = plan.noise(
            release.rho_nano, threshold=release.threshold, colluders=release.colluders, invited=release.invited
        )
        survivors = len(release.survivors)
        sums, deviation = plan.read(np.asarray(release.sums, dtype=np.int64), noise, survivors)
        return newton.Released(theta, sums, deviation, survivors)

    async def _failed(self, failure: RoundFailed | RoundError) -> int:
        """Write a failed round down. Return 1 where its slot is used up, 0 where nobody spent anything on it.

        Raises where trying again would not help.
        """
        error = failure.error if isinstance(failure, RoundFailed) else failure
        round_ = self._asking.latest
        if round_ is None:  # too few are connected: nobody was asked
            if error.message != self._waits_for:
                self._waits_for = error.message
                waiting = failure_of(self.verified.request_id, error).failure
                self._live.report(
                    analyst_pb2.Progress(request_id=self.verified.request_id, step="waiting", failure=waiting)
                )
            return 0
        # An institution answered this slot before, to a coordinator that then stopped: it never will again.
        denied = [signed.decision for signed in round_.decisions.values() if not signed.decision.allowed]
        used_before = any(decision.code == RoundError.code for decision in denied)
        if not isinstance(error, RoundError):
            raise error
        outcome = f"failed: {error.code}"
        entry = ended(round_, outcome)
        await self._tools.database.write(lambda uow: self._tools.log.append_in(uow, [entry]))
        self._asking.close(outcome)
        reason = failure_of(self.verified.request_id, error).failure
        self._live.report(analyst_pb2.Progress(request_id=self.verified.request_id, step="retried", failure=reason))
        logger.warning(
            "a job's round failed",
            request=self.verified.request_id.hex()[:12],
            reason=error.message + dropped_out(round_),
        )
        return int(round_.charged or used_before)

    async def _pause(self, failures: int) -> None:
        """Wait a while, longer where it goes on; raise where the job expires meanwhile."""
        if time.time() > self.verified.expires_at:
            raise QuorumError("the job expired while it waited for institutions", hint="sign a new one")
        seconds = PAUSE_S if failures <= PATIENCE else 10 * PAUSE_S
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return

    async def _released(self, job: agent_pb2.JobRound, sums: Ring) -> query_pb2.Release:
        """Return what a round releases."""
        round_ = self._asking.round
        parameters, plan = round_.parameters, self._plan.of_slot(job.slot)
        noise = plan.noise(
            self.verified.rho_nano,
            threshold=parameters.threshold,
            colluders=parameters.colluders,
            invited=len(parameters.invited),
        )
        counters = await asyncio.to_thread(read_sums, plan, noise, len(parameters.invited), sums, round_.layer_keys)
        large = len(job.model) > PIECE
        return query_pb2.Release(
            request_id=self.verified.request_id,
            sums=counters.tolist(),
            refine_bits=noise.refine_bits,
            invited=len(parameters.invited),
            threshold=parameters.threshold,
            colluders=parameters.colluders,
            survivors=round_.survivors,
            rho_nano=self.verified.rho_nano,
            slot=job.slot,
            model=b"" if large else job.model,
            model_hash=model_hash(job.model) if large else b"",
        )

    async def _release(
        self, job: agent_pb2.JobRound, release: query_pb2.Release, *, last: bool
    ) -> analyst_pb2.Progress:
        """Store and log one round's release, and with the last one the job's end."""
        round_, plan = self._asking.round, self._plan.of_slot(job.slot)
        encoded = release.SerializeToString(deterministic=True)
        entries = [
            ended(round_, "released"),
            records.released(self.verified, encoded, len(round_.survivors), job=job, rho_nano=plan.round_rho_nano),
        ]

        def work(uow: UnitOfWork) -> analyst_pb2.Progress:
            uow.check_runs(self.verified.request_id, self._tools.instance)
            seq = self._tools.log.append_in(uow, entries) + 1
            checkpoint = self._tools.log.head(uow)
            progress = analyst_pb2.Progress(
                request_id=self.verified.request_id,
                step="evaluated" if plan.evaluates else "released" if last else "round",
                institutions=round_.survivors,
                release=encoded,
                checkpoint=checkpoint.note,
                proof=analyst_pb2.LogProof(seq=seq, leaf=uow.leaf(seq), hashes=uow.inclusion(seq, checkpoint.size)),
            )
            show_witnessed(progress, round_, uow, checkpoint.size)
            uow.add_job_round(self.verified.request_id, progress.SerializeToString())
            if last:
                self._finish(uow, _end_of(progress))
            return progress

        return await self._tools.database.write(work)

    def _finish(self, uow: UnitOfWork, end: analyst_pb2.Progress) -> None:
        uow.finish_request(self.verified.request_id, "released", release=end.SerializeToString(), failure=None)

    async def _end(self) -> analyst_pb2.Progress:
        """Store the job's end without another release."""
        end = analyst_pb2.Progress(request_id=self.verified.request_id, step="released")

        def work(uow: UnitOfWork) -> None:
            uow.check_runs(self.verified.request_id, self._tools.instance)
            self._finish(uow, end)

        await self._tools.database.write(work)
        return end


def _is_job(envelope: bytes) -> bool:
    payload = envelope_pb2.Envelope.FromString(envelope).payload
    return bool(query_pb2.QueryRequest.FromString(payload).job)


def _step(progress: bytes) -> str:
    return analyst_pb2.Progress.FromString(progress).step


def _report(progress: analyst_pb2.Progress) -> analyst_pb2.Progress:
    """Return a round as it is told while the job runs: with a small release, from which a follower reads the loss."""
    return progress if len(progress.release) <= TOLD_BYTES else _without_release(progress)


def _end_of(progress: analyst_pb2.Progress) -> analyst_pb2.Progress:
    """Return the end of a job, of its last round's report."""
    return analyst_pb2.Progress(request_id=progress.request_id, step="released", institutions=progress.institutions)


def _without_release(progress: analyst_pb2.Progress) -> analyst_pb2.Progress:
    """Return a round's report without what it released, which whoever needs it fetches: it may be large."""
    return analyst_pb2.Progress(request_id=progress.request_id, step=progress.step, institutions=progress.institutions)
