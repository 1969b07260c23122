"""The life of a request at the coordinator: checked, logged, announced, aggregated, released, logged again.

Every request that passes the checks is in the log before anyone is asked, and ends there: released or failed. Must not
know: gRPC (services call in), how a round's messages travel (`rounds`).
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import structlog

from analytics_server.audit.log import AuditLog
from analytics_server.coordinator import records
from analytics_server.coordinator.database import Database
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.rounds import Deadlines, Round, RoundFailed, RoundRestart
from analytics_server.store import UnitOfWork
from protos.v1 import agent_pb2, analyst_pb2, envelope_pb2, log_pb2, query_pb2
from queries.accounting import rho_to_epsilon
from queries.encode import decode_query
from queries.errors import CohortiumError, IdentityError, LogError, PolicyDenied, QueryError, QuorumError
from queries.ir import Query
from queries.plan import Plan, make_plan
from queries.policy import RequestFacts, decide
from queries.resolve import columns_used, operations_used, shape
from trust.identity.requests import VerifiedRequest, verify_request
from trust.identity.names import Peer
from trust.secagg import default_threshold, make_parameters
from trust.secagg.masks import Ring

SMALLEST_COHORT = 3
MAX_ATTEMPTS = 3
logger = structlog.get_logger("cohortium.coordinator")


@dataclass(frozen=True, slots=True)
class _Checked:
    """A request that may be asked, with the plan it stands for."""

    verified: VerifiedRequest
    envelope: bytes
    query: Query
    plan: Plan


class _Live:
    """A running request: what has been reported of it, and who follows."""

    def __init__(self, request_id: bytes) -> None:
        self.request_id = request_id
        self._reports: list[analyst_pb2.Progress] = []
        self._more = asyncio.Event()
        self.over = False

    def report(self, progress: analyst_pb2.Progress, *, last: bool = False) -> None:
        progress.request_id = self.request_id
        self._reports.append(progress)
        self.over = last
        self._more.set()
        self._more = asyncio.Event()

    def step(self, step: str, institutions: Iterable[str]) -> None:
        self.report(analyst_pb2.Progress(step=step, institutions=sorted(institutions)))

    async def follow(self) -> AsyncIterator[analyst_pb2.Progress]:
        seen = 0
        while True:
            more = self._more
            while seen < len(self._reports):
                yield self._reports[seen]
                seen += 1
            if self.over:
                return
            await more.wait()


class RequestDesk:
    """Takes requests in, runs them, and answers for them after a disconnect or a restart."""

    def __init__(
        self, *, database: Database, log: AuditLog, directory: Directory, hub: Hub, deadlines: Deadlines
    ) -> None:
        self._database = database
        self._log = log
        self._directory = directory
        self._hub = hub
        self._deadlines = deadlines
        self._live: dict[bytes, _Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._announcing = asyncio.Lock()

    # --- taking in -----------------------------------------------------------------------------------------------

    async def submit(self, envelope: envelope_pb2.Envelope, peer: Peer) -> AsyncIterator[analyst_pb2.Progress]:
        """Check, log and run a request, reporting every step. The same request again reports on the first one."""
        checked = self._check(envelope.SerializeToString(deterministic=True), peer)
        request_id = checked.verified.request_id
        if request_id not in self._live:
            live = self._live[request_id] = _Live(request_id)
            try:
                known = await self._database.read(lambda uow: self._stored(uow, request_id))
                if known is not None:
                    del self._live[request_id]
                    yield known
                    return
            except BaseException:
                self._live.pop(request_id, None)
                raise
            task = asyncio.create_task(self._run(checked, live))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        async for progress in self._live[request_id].follow():
            yield progress

    async def result(self, request_id: bytes, peer: Peer) -> analyst_pb2.Progress:
        """Return the last state of the analyst's own request; wait for one that is running."""
        if live := self._live.get(request_id):
            await self._require_owner(request_id, peer)
            async for progress in live.follow():
                last = progress
            return last
        await self._require_owner(request_id, peer)
        stored = await self._database.read(lambda uow: self._stored(uow, request_id))
        if stored is None:
            raise IdentityError(
                "there is no such request of yours", hint="cohortium audit log --kind requested lists them"
            )
        return stored

    async def _require_owner(self, request_id: bytes, peer: Peer) -> None:
        row = await self._database.read(lambda uow: uow.request(request_id))
        if row is None or row.analyst != peer.id:
            raise IdentityError(
                "there is no such request of yours", hint="cohortium audit log --kind requested lists them"
            )

    def _check(self, envelope: bytes, peer: Peer) -> _Checked:
        """Everything that can be said without asking anyone. Raises the error that the analyst reads."""
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
        query = decode_query(verified.query)
        if query.dataset != verified.dataset:
            raise QueryError(f"the request names dataset {verified.dataset!r} but its query another one")
        plan = make_plan(query, published.dataset)
        decision = decide(
            self._directory.coordinator_policy(),
            RequestFacts(
                analyst=verified.analyst,
                roles=frozenset(verified.roles),
                purpose=verified.purpose,
                dataset=verified.dataset,
                columns=columns_used(plan.query),
                operations=operations_used(plan.query),
                rho_nano=verified.rho_nano,
                epsilon=rho_to_epsilon(verified.rho_nano / 1e9, published.dataset.delta),
                minimum_cohort=max(verified.minimum_cohort, membership.minimum_cohort),
                colluders=membership.colluders,
                at=datetime.now().astimezone(),
            ),
        )
        if not decision.allowed:
            raise PolicyDenied(decision.message, rule=f"coordinator: {decision.rule}", hint=decision.hint)
        return _Checked(verified, envelope, plan.query, plan)

    def _stored(self, uow: UnitOfWork, request_id: bytes) -> analyst_pb2.Progress | None:
        row = uow.request(request_id)
        if row is None or row.state == "running":
            return None
        stored = row.release if row.state == "released" else row.failure
        progress = analyst_pb2.Progress()
        progress.ParseFromString(stored or b"")
        return progress

    # --- running -------------------------------------------------------------------------------------------------

    async def _run(self, checked: _Checked, live: _Live) -> None:
        """Run one request to its end; whatever happens, the end is in the log and in the store."""
        request_id = checked.verified.request_id
        round_: Round | None = None
        try:
            seq = await self._enter(checked, live)
            excluded: set[str] = set()
            for attempt in range(1, MAX_ATTEMPTS + 1):
                try:
                    round_ = self._new_round(checked, live, excluded)
                    sums = await round_.run(
                        partial(self._announce, checked, round_, seq), partial(self._log_decisions, round_)
                    )
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
            await self._fail(live, round_, error, charged=False)
        except Exception:  # a bug or a full disk: the analyst must not wait for ever
            logger.exception("request failed", request=request_id.hex()[:12])
            await self._fail(live, round_, QuorumError("the coordinator failed"), charged=False)
        finally:
            self._live.pop(request_id, None)

    async def _enter(self, checked: _Checked, live: _Live) -> int:
        """Write the request to the log before anyone is asked. Returns its sequence number."""
        verified = checked.verified

        def work(uow: UnitOfWork) -> int:
            uow.add_request(
                request_id=verified.request_id,
                analyst=verified.analyst,
                dataset=verified.dataset,
                envelope=checked.envelope,
                expires_at=verified.expires_at,
            )
            seq = self._log.append_in(uow, [records.requested(verified, shape(checked.query))])
            self._log.head(uow)
            return seq

        seq = await self._database.write(work)
        live.step("logged", ())
        return seq

    def _new_round(self, checked: _Checked, live: _Live, excluded: set[str]) -> Round:
        """Choose the cohort: every member that serves the dataset now and was not found cheating."""
        membership = self._directory.in_force()
        verified = checked.verified
        members = {i: m for i, m in self._directory.members.items() if i not in excluded}
        invited = self._hub.serving(verified.dataset, verified.schema_hash, members)
        need = max(SMALLEST_COHORT, verified.minimum_cohort, membership.minimum_cohort)
        organisations = {members[i].organisation for i in invited}
        if len(organisations) < need:
            raise QuorumError(
                f"{len(organisations) or 'no'} organisations serve {verified.dataset!r} now"
                f"{' (' + ', '.join(invited) + ')' if invited else ''}; this query needs {need}",
                hint="wait for more institutions to connect; cohortium datasets shows who serves what. Nothing was spent",
            )
        threshold = default_threshold(len(invited))
        shape_ = checked.plan.noise(
            verified.rho_nano, threshold=threshold, colluders=membership.colluders, invited=len(invited)
        )
        del shape_  # computed to refuse now, before anyone is asked, what every agent would refuse
        parameters = make_parameters(
            membership_hash=membership.hash,
            request_id=verified.request_id,
            invited=invited,
            minimum_cohort=need,
            colluders=membership.colluders,
            length=checked.plan.length,
            threshold=threshold,
        )
        return Round(
            parameters,
            members={i: members[i] for i in invited},
            hub=self._hub,
            deadlines=self._deadlines,
            on_step=live.step,
        )

    async def _announce(self, checked: _Checked, round_: Round, seq: int) -> None:
        """Send the request to its cohort with the proof that it is in the log.

        One announcement at a time: each agent's consistency proof starts from the head it was sent before.
        """
        async with self._announcing:
            connections = [c for i in round_.invited if (c := self._hub.get(i)) is not None]
            heads = await self._heads({c.sent_size for c in connections}, seq)
            request = envelope_pb2.Envelope()
            request.ParseFromString(checked.envelope)
            for connection in connections:
                connection.send(
                    agent_pb2.ToAgent(
                        announce=agent_pb2.Announce(
                            parameters=round_.encoded_parameters,
                            request=request,
                            head=heads.head(connection.sent_size),
                            inclusion=analyst_pb2.LogProof(seq=seq, leaf=heads.leaf, hashes=heads.inclusion),
                        )
                    )
                )
                connection.sent_size = max(connection.sent_size, heads.size)

    async def show_head(self) -> None:
        """Send the latest head to every agent that has not seen it, so that releases are witnessed too."""
        async with self._announcing:
            behind = [c for c in self._hub.all() if c.welcomed]
            heads = await self._heads({c.sent_size for c in behind}, None)
            for connection in behind:
                if connection.sent_size < heads.size:
                    connection.send(agent_pb2.ToAgent(head=heads.head(connection.sent_size)))
                    connection.sent_size = heads.size

    async def keep_cosignatures(self, received: list[tuple[str, agent_pb2.Cosignature]]) -> None:
        """Store what agents cosigned outside of a round."""

        await self._database.write(lambda uow: self._keep(uow, received))

    def _keep(self, uow: UnitOfWork, received: Iterable[tuple[str, agent_pb2.Cosignature]]) -> None:
        for member, cosignature in received:
            known = self._directory.members.get(member)
            try:
                if known is not None:
                    self._log.add_cosignature(uow, cosignature.size, member, known.identity_key, cosignature.line)
            except LogError as error:
                logger.warning("cosignature not kept", institution=member, reason=error.message)

    async def _heads(self, sizes: set[int], seq: int | None) -> _Heads:
        def work(uow: UnitOfWork) -> _Heads:
            checkpoint = self._log.head(uow)
            size = checkpoint.size
            return _Heads(
                size=size,
                note=checkpoint.note,
                consistency={old: tuple(uow.consistency(old, size)) for old in sizes if 0 < old < size},
                inclusion=() if seq is None else tuple(uow.inclusion(seq, size)),
                leaf=b"" if seq is None else uow.leaf(seq),
            )

        return await self._database.write(work)

    async def _log_decisions(self, round_: Round) -> None:
        entries = [records.decided(d) for _, d in sorted(round_.decisions.items())]
        if not entries:
            return
        cosignatures = list(round_.cosignatures.items())

        def work(uow: UnitOfWork) -> None:
            self._log.append_in(uow, entries)
            self._log.head(uow)
            self._keep(uow, cosignatures)

        await self._database.write(work)

    async def _log_restart(self, round_: Round, accused: tuple[str, ...]) -> None:
        """Write who was found cheating, before the next round begins without them."""
        outcome = f"restarted without {', '.join(accused)}"
        self._close(round_, outcome)
        await self._database.write(lambda uow: self._log.append_in(uow, [self._ended(round_, outcome)]))

    async def _release(self, checked: _Checked, live: _Live, round_: Round, sums: Ring) -> None:
        parameters = round_.parameters
        noise = checked.plan.noise(
            checked.verified.rho_nano,
            threshold=parameters.threshold,
            colluders=parameters.colluders,
            invited=len(parameters.invited),
        )
        release = query_pb2.Release(
            request_id=checked.verified.request_id,
            sums=sums.view(np.int64).tolist(),
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

        live.report(await self._database.write(work), last=True)

    async def _fail(self, live: _Live, round_: Round | None, error: CohortiumError, *, charged: bool) -> None:
        failure = analyst_pb2.Failure(code=error.code, message=error.message, hint=error.hint, charged=charged)
        entries: list[log_pb2.LogEntry] = []
        if round_ is not None:
            entries.append(self._ended(round_, f"failed: {error.code}"))
            for member, signed in sorted(round_.decisions.items()):
                decision = signed.decision
                if not decision.allowed:
                    failure.refusals.add(institution=member, rule=decision.rule, message=decision.message)
        entries.append(records.failed(live.request_id, error.code, charged=charged))
        progress = analyst_pb2.Progress(request_id=live.request_id, step="failed", failure=failure)

        def work(uow: UnitOfWork) -> None:
            self._log.append_in(uow, entries)
            self._log.head(uow)
            uow.finish_request(live.request_id, "failed", release=None, failure=progress.SerializeToString())

        try:
            await self._database.write(work)
        finally:  # a full disk must not leave the analyst waiting; the restart will log the end of this request
            live.report(progress, last=True)
            if round_ is not None:
                self._close(round_, f"failed: {error.code}")

    def _ended(self, round_: Round, outcome: str) -> log_pb2.LogEntry:
        return records.round_ended(
            round_.parameters.request_id,
            round_.id,
            invited=round_.invited,
            roster=round_.roster,
            survivors=round_.survivors,
            dropouts=round_.dropouts,
            outcome=outcome,
        )

    def _close(self, round_: Round, outcome: str) -> None:
        """Tell the cohort that the round is over, so that it forgets its secrets and frees what it reserved."""
        for member in round_.invited:
            if connection := self._hub.get(member):
                connection.send(agent_pb2.ToAgent(closed=agent_pb2.RoundClosed(round_id=round_.id, outcome=outcome)))

    # --- starting and stopping -----------------------------------------------------------------------------------

    async def recover(self) -> int:
        """End, with a clear status, every request that an earlier process left running. Returns how many."""

        def work(uow: UnitOfWork) -> int:
            interrupted = uow.running_requests()
            for row in interrupted:
                failure = analyst_pb2.Failure(
                    code=QuorumError.code,
                    message="the coordinator stopped in the middle of this round, and nothing was released",
                    hint="institutions that had revealed their shares by then keep the charge, the others do not;"
                    " ask again under a new request",
                    charged=True,
                )
                progress = analyst_pb2.Progress(request_id=row.request_id, step="failed", failure=failure)
                self._log.append_in(uow, [records.failed(row.request_id, "interrupted", charged=True)])
                uow.finish_request(row.request_id, "failed", release=None, failure=progress.SerializeToString())
            if interrupted:
                self._log.head(uow)
            return len(interrupted)

        return await self._database.write(work)

    async def stop(self) -> None:
        """Cancel what is running; `recover` ends it at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Heads:
    """The latest head, and the proofs that lead to it from the sizes that agents have seen."""

    size: int
    note: bytes
    consistency: dict[int, tuple[bytes, ...]]
    inclusion: tuple[bytes, ...]
    leaf: bytes

    def head(self, old_size: int) -> agent_pb2.Head:
        return agent_pb2.Head(checkpoint=self.note, old_size=old_size, consistency=self.consistency.get(old_size, ()))
