"""The life of a request at the coordinator: checked, logged, announced, aggregated, released, logged again.

Every request that passes the checks is in the log before anyone is asked, and ends there: released or failed. Must not
know: gRPC (services call in), how a round's messages travel (`rounds`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from analytics_server.audit.log import AuditLog
from analytics_server.coordinator import records
from analytics_server.coordinator.database import Database
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.live import Live
from analytics_server.coordinator.rounds import Deadlines, Round, RoundFailed, RoundRestart
from analytics_server.coordinator.witnessing import Heads, Witnessing
from analytics_server.store import RequestRow, UnitOfWork
from protos.v1 import agent_pb2, analyst_pb2, envelope_pb2, log_pb2, query_pb2
from queries.errors import (
    CohortiumError,
    IdentityError,
    PolicyDenied,
    QueryError,
    QuorumError,
    ServiceError,
    SignatureError,
)
from queries.plan import Plan
from queries.policy import decide
from queries.resolve import shape
from trust.identity.names import Peer
from trust.identity.requests import VerifiedRequest, verify_request
from trust.lanes import lanes_of
from trust.question import facts_of, plan_of
from trust.secagg import default_threshold, make_parameters
from trust.secagg.masks import Ring
from trust.secagg.packing import unpack
from trust.secagg.parameters import LARGEST_FULL_GRAPH

SMALLEST_COHORT = 3
MAX_ATTEMPTS = 3
SHOWN_DROPOUTS = 5
INTERRUPTED = QuorumError(
    "the coordinator stopped in the middle of this round, and nothing was released",
    hint="institutions that had sent their masked sums keep the charge, the others do not; ask again",
)
logger = structlog.get_logger("cohortium.coordinator")


@dataclass(frozen=True, slots=True)
class _Checked:
    """A request that may be asked, with the plan it stands for."""

    verified: VerifiedRequest
    envelope: bytes
    plan: Plan


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
    ) -> None:
        """`spool` is the folder in which large uploads wait until they are complete."""
        self._database = database
        self._log = log
        self._directory = directory
        self._hub = hub
        self._witnessing = witnessing
        self._deadlines = deadlines
        self._spool = spool
        self._live: dict[bytes, Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- taking in -----------------------------------------------------------------------------------------------

    async def submit(self, envelope: envelope_pb2.Envelope, peer: Peer) -> AsyncIterator[analyst_pb2.Progress]:
        """Check, log and run a request, reporting every step. The same request again reports on the first one."""
        checked = await self._check(envelope.SerializeToString(deterministic=True), peer)
        request_id = checked.verified.request_id
        live = self._live.get(request_id)
        if live is None:
            live = self._live[request_id] = Live(request_id)
            task = asyncio.create_task(self._run(checked, live))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        async for progress in live.follow():
            yield progress

    async def result(self, request_id: bytes, peer: Peer) -> analyst_pb2.Progress:
        """Return the end of one of the analyst's own requests, waiting for it where it is still running."""
        if live := self._live.get(request_id):
            async for _ in live.follow():
                """Its end is in the store when it is reported."""
        row = await self._database.read(lambda uow: uow.request(request_id))
        if row is None or row.analyst != peer.id or (stored := _stored(row)) is None:
            raise IdentityError(
                "there is no such request of yours", hint="cohortium audit log --kind requested lists them"
            )
        return stored

    async def _check(self, envelope: bytes, peer: Peer) -> _Checked:
        """Everything that can be said without asking anyone. Raises the error that the analyst reads.

        What is not a well-formed request of a member leaves no trace; one that the coordinator's policy denies does.
        """
        membership = self._directory.require_member(peer)
        verified = verify_request(envelope, membership, membership.consortium, int(time.time()))
        if verified.analyst != peer.id:
            raise IdentityError(
                f"the request is signed by {verified.analyst!r} but sent by {peer.id!r}",
                hint="submit with the profile that signed",
            )
        published = self._directory.dataset(verified.dataset)
        if verified.schema_hash != published.schema_hash:
            raise QueryError(
                f"dataset {verified.dataset!r} has a newer description than the one this request was made for",
                hint="fetch it again (cohortium describe) and ask again",
            )
        plan = plan_of(verified, published.dataset)
        cohort = max(verified.minimum_cohort, membership.minimum_cohort)
        facts = facts_of(verified, plan, minimum_cohort=cohort, colluders=membership.colluders)
        decision = decide(self._directory.coordinator_policy(), facts)
        if not decision.allowed:
            entries = [records.requested(verified, shape(plan.query)), records.denied_here(verified, decision.rule)]
            await self._database.write(lambda uow: self._log.append_in(uow, entries))
            raise PolicyDenied(decision.message, rule=f"coordinator: {decision.rule}", hint=decision.hint)
        return _Checked(verified, envelope, plan)

    # --- running -------------------------------------------------------------------------------------------------

    async def _run(self, checked: _Checked, live: Live) -> None:
        """Run one request to its end; whatever happens, the end is in the log and in the store."""
        request_id = checked.verified.request_id
        round_: Round | None = None
        heads: Heads | None = None
        try:
            request = envelope_pb2.Envelope.FromString(checked.envelope)
            excluded: set[str] = set()
            for attempt in range(1, MAX_ATTEMPTS + 1):
                async with self._witnessing.turn:
                    if heads is None:
                        entered = await self._enter(checked)
                        if isinstance(entered, analyst_pb2.Progress):
                            live.end(entered)
                            return
                        heads = entered
                        live.step("logged", ())
                    else:
                        heads = await self._witnessing.latest(heads.seq)
                    round_ = self._new_round(checked, live, excluded)
                    round_.start()
                    self._witnessing.announce(round_.invited, round_.encoded_parameters, request, heads)
                try:
                    sums = await round_.finish(partial(self._log_decisions, round_))
                    break
                except RoundRestart as restart:
                    excluded.update(restart.accused)
                    assert round_ is not None  # noqa: S101 - a restart is raised by a round that exists
                    await self._log_restart(round_, restart.accused)
                    logger.warning("round restarted", request=request_id.hex()[:12], without=sorted(excluded))
                    if attempt == MAX_ATTEMPTS:
                        raise RoundFailed(
                            QuorumError("the round was restarted too often", hint="see the log for who was accused"),
                            charged=False,
                        ) from restart
            assert round_ is not None  # noqa: S101 - the loop ends by break or by raising
            await self._release(checked, live, round_, sums)
            self._close(round_, "released")
        except RoundFailed as failure:
            await self._fail(live, round_, failure.error, charged=failure.charged)
        except CohortiumError as error:
            if heads is None:  # it is not in the log, and nobody was asked
                live.end(_failure(request_id, error))
            else:
                await self._fail(live, round_, error, charged=round_ is not None and round_.charged)
        except Exception as error:  # a bug: the analyst must not wait for ever, nor read what may quote anything
            logger.error("request failed", request=request_id.hex()[:12], error=type(error).__name__)
            failed = ServiceError("the coordinator failed on this request", hint="tell your operator")
            await self._fail(live, round_, failed, charged=round_ is not None and round_.charged)
        finally:
            self._live.pop(request_id, None)

    async def _enter(self, checked: _Checked) -> Heads | analyst_pb2.Progress:
        """Write the request to the log before anyone is asked; return the head that covers it, with its proofs.

        For a request that has ended before, return its end, and write nothing.
        """
        verified = checked.verified

        def work(uow: UnitOfWork) -> Heads | analyst_pb2.Progress:
            try:
                uow.add_request(
                    request_id=verified.request_id,
                    analyst=verified.analyst,
                    dataset=verified.dataset,
                    envelope=checked.envelope,
                    expires_at=verified.expires_at,
                )
            except SignatureError:
                known = uow.request(verified.request_id)
                if known is None or (stored := _stored(known)) is None:
                    raise
                return stored
            seq = self._log.append_in(uow, [records.requested(verified, shape(checked.plan.query))])
            return self._witnessing.prove(uow, seq)

        return await self._database.write(work)

    def _new_round(self, checked: _Checked, live: Live, excluded: set[str]) -> Round:
        """Choose the cohort: every member that serves the dataset now and was not found cheating."""
        membership = self._directory.in_force()
        verified = checked.verified
        members = {i: m for i, m in self._directory.members.items() if i not in excluded}
        invited = self._hub.serving(verified.dataset, verified.schema_hash, members)
        need = max(SMALLEST_COHORT, verified.minimum_cohort, membership.minimum_cohort)
        organisations = {members[i].organisation for i in invited}
        if len(organisations) < need:
            raise QuorumError(
                f"{verified.dataset!r} is served by {len(organisations) or 'no'} "
                f"{'organisation' if len(organisations) == 1 else 'organisations'} now"
                f"{' (' + ', '.join(invited) + ')' if invited else ''}; this query needs {need}",
                hint="wait for more to connect: cohortium datasets shows who serves what. Nothing was spent",
            )
        if len(invited) > LARGEST_FULL_GRAPH:
            raise QuorumError(
                f"{verified.dataset!r} is served by {len(invited)} institutions, and a cohort has at most"
                f" {LARGEST_FULL_GRAPH}",
                hint="publish the dataset for fewer institutions",
            )
        threshold = default_threshold(len(invited))
        plan = checked.plan
        # Also refuses now, before anyone is asked, what every agent would refuse.
        noise = plan.noise(verified.rho_nano, threshold=threshold, colluders=membership.colluders, invited=len(invited))
        lanes = lanes_of(plan, noise, len(invited))
        parameters = make_parameters(
            membership_hash=membership.hash,
            request_id=verified.request_id,
            invited=invited,
            minimum_cohort=need,
            colluders=membership.colluders,
            length=lanes.elements(plan.length),
            ring_bits=lanes.ring_bits,
            threshold=threshold,
        )
        return Round(
            parameters,
            members={i: members[i] for i in invited},
            hub=self._hub,
            deadlines=self._deadlines,
            on_step=live.step,
            spool=self._spool,
        )

    async def _log_decisions(self, round_: Round) -> None:
        entries = [records.decided(d) for _, d in sorted(round_.decisions.items())]
        if not entries:
            return
        await self._database.write(lambda uow: self._log.append_in(uow, entries))

    async def _log_restart(self, round_: Round, accused: tuple[str, ...]) -> None:
        """Write who was found cheating, before the next round begins without them."""
        outcome = f"restarted without {', '.join(accused)}"
        self._close(round_, outcome)
        await self._database.write(lambda uow: self._log.append_in(uow, [self._ended(round_, outcome)]))

    async def _release(self, checked: _Checked, live: Live, round_: Round, sums: Ring) -> None:
        parameters = round_.parameters
        noise = checked.plan.noise(
            checked.verified.rho_nano,
            threshold=parameters.threshold,
            colluders=parameters.colluders,
            invited=len(parameters.invited),
        )
        lanes = lanes_of(checked.plan, noise, len(parameters.invited))
        release = query_pb2.Release(
            request_id=checked.verified.request_id,
            sums=unpack(sums, lanes, checked.plan.length).tolist(),
            refine_bits=noise.refine_bits,
            invited=len(parameters.invited),
            threshold=parameters.threshold,
            colluders=parameters.colluders,
            survivors=round_.survivors,
            rho_nano=checked.verified.rho_nano,
        ).SerializeToString(deterministic=True)
        entries = [self._ended(round_, "released"), records.released(checked.verified, release, len(round_.survivors))]

        def work(uow: UnitOfWork) -> analyst_pb2.Progress:
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
            uow.finish_request(
                checked.verified.request_id, "released", release=progress.SerializeToString(), failure=None
            )
            return progress

        live.end(await self._database.write(work))

    async def _fail(self, live: Live, round_: Round | None, error: CohortiumError, *, charged: bool) -> None:
        progress = _failure(live.request_id, error, charged=charged)
        failure = progress.failure
        if isinstance(error, QuorumError) and round_ is not None:
            failure.message += _dropped_out(round_)
        entries: list[log_pb2.LogEntry] = []
        if round_ is not None:
            entries.append(self._ended(round_, f"failed: {error.code}"))
            for member, signed in sorted(round_.decisions.items()):
                decision = signed.decision
                if not decision.allowed:
                    failure.refusals.add(institution=member, rule=decision.rule, message=decision.message)
        entries.append(records.failed(live.request_id, error.code, charged=charged))

        def work(uow: UnitOfWork) -> None:
            self._log.append_in(uow, entries)
            uow.finish_request(live.request_id, "failed", release=None, failure=progress.SerializeToString())

        try:
            await self._database.write(work)
        except CohortiumError as lost:  # a full disk must not leave the analyst waiting
            logger.error("the end of a request was not stored: the next start ends it", reason=lost.message)
        finally:
            live.end(progress)
            if round_ is not None:
                self._close(round_, f"failed: {error.code}")

    def _ended(self, round_: Round, outcome: str) -> log_pb2.LogEntry:
        return records.round_ended(
            round_.parameters.request_id,
            round_.id,
            invited=round_.invited,
            roster=round_.roster,
            survivors=round_.survivors,
            dropouts=round_.losses,
            outcome=outcome,
        )

    def _close(self, round_: Round, outcome: str) -> None:
        """Tell the cohort that the round is over, so that it forgets its secrets and frees what it reserved."""
        for member in round_.to_be_told:
            if connection := self._hub.get(member):
                connection.send(agent_pb2.ToAgent(closed=agent_pb2.RoundClosed(round_id=round_.id, outcome=outcome)))

    # --- starting and stopping -----------------------------------------------------------------------------------

    async def recover(self) -> int:
        """End, with a clear status, every request that an earlier process left running. Returns how many."""

        def work(uow: UnitOfWork) -> int:
            interrupted = uow.running_requests()
            for row in interrupted:
                progress = _failure(row.request_id, INTERRUPTED, charged=True)
                self._log.append_in(uow, [records.failed(row.request_id, "interrupted", charged=True)])
                uow.finish_request(row.request_id, "failed", release=None, failure=progress.SerializeToString())
            return len(interrupted)

        return await self._database.write(work)

    async def stop(self) -> None:
        """Cancel what is running; `recover` ends it at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _failure(request_id: bytes, error: CohortiumError, *, charged: bool = False) -> analyst_pb2.Progress:
    failure = analyst_pb2.Failure(code=error.code, message=error.message, hint=error.hint, charged=charged)
    return analyst_pb2.Progress(request_id=request_id, step="failed", failure=failure)


def _stored(row: RequestRow) -> analyst_pb2.Progress | None:
    """The end of a request as it was reported, or None while it runs."""
    stored = row.release if row.state == "released" else row.failure
    return None if stored is None else analyst_pb2.Progress.FromString(stored)


def _dropped_out(round_: Round) -> str:
    """Say who left a round that came to nothing, when and why: a few of them, in half a line each."""
    said = [f"{d.institution} dropped out at {d.step} ({d.reason})" for d in round_.losses]
    more = [f"and {len(said) - SHOWN_DROPOUTS} more"] if len(said) > SHOWN_DROPOUTS else []
    return "".join(f"; {words}" for words in said[:SHOWN_DROPOUTS] + more)
