"""One request while it is being asked: which cohort, how often begun anew, and its latest round.

A query asks for one sum, a training job for one a round; both go through here, so that every round is announced under a
head of the log that holds its request, and every decision is in the log before anything is revealed. Must not know:
what sums mean, how requests end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from random import SystemRandom

import structlog

from analytics_server.audit.log import AuditLog
from analytics_server.coordinator import records
from analytics_server.coordinator.database import Database
from analytics_server.coordinator.directory import Directory
from analytics_server.coordinator.hub import Hub
from analytics_server.coordinator.live import Live
from analytics_server.coordinator.outcomes import RoundFailed, RoundRestart
from analytics_server.coordinator.rounds import Deadlines, Round
from analytics_server.coordinator.witnessing import Heads, Witnessing
from protos.v1 import agent_pb2, envelope_pb2, log_pb2
from queries.errors import CohortiumError, QuorumError
from queries.training.plan import JobPlan
from trust.identity.requests import VerifiedRequest
from trust.lanes import lanes_of
from trust.question import AnyPlan
from trust.secagg import default_threshold, make_parameters
from trust.secagg.masks import Ring

SMALLEST_COHORT = 3
MAX_ATTEMPTS = 3
logger = structlog.get_logger("cohortium.coordinator")


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that may be asked, with the plan it stands for."""

    verified: VerifiedRequest
    envelope: bytes
    plan: AnyPlan


@dataclass(frozen=True, slots=True)
class Tools:
    """What running a request takes. `spool` is the folder in which large uploads wait until they are complete.

    `instance` is this process's number among the coordinators of the store.
    """

    database: Database
    log: AuditLog
    directory: Directory
    hub: Hub
    witnessing: Witnessing
    deadlines: Deadlines
    spool: Path
    instance: int


class Asking:
    """Asks institutions for the sums of one request. `enter` puts it into the log, and is called once, first."""

    def __init__(self, checked: Checked, live: Live, tools: Tools, enter: Callable[[], Awaitable[Heads]]) -> None:
        self._checked = checked
        self._live = live
        self._tools = tools
        self._enter = enter
        self._heads: Heads | None = None
        self._round: Round | None = None
        self._excluded: set[str] = set()
        self._spent = False
        self._cut: CohortiumError | None = None
        self._finishing: asyncio.Task[Ring] | None = None

    @property
    def logged(self) -> bool:
        """Whether the request is in the log."""
        return self._heads is not None

    @property
    def round(self) -> Round:
        """The latest round. There must have been one."""
        assert self._round is not None  # noqa: S101 - callers have a sum, which a round gave
        return self._round

    @property
    def latest(self) -> Round | None:
        """The latest round, None before the first."""
        return self._round

    @property
    def charged(self) -> bool:
        """Whether institutions have spent budget in any round."""
        return self._spent or (self._round is not None and self._round.charged)

    def spent_before(self) -> None:
        """Rounds of an earlier process have spent budget."""
        self._spent = True

    @property
    def analyst(self) -> str:
        """Who asks."""
        return self._checked.verified.analyst

    def cut_off(self, error: CohortiumError) -> None:
        """End what is being asked, wherever it stands, with this error: the analyst may not ask any more."""
        self._cut = error
        if self._finishing is not None:
            self._finishing.cancel()

    def check_cut(self) -> None:
        """Raise RoundFailed where it was cut off: nothing more is asked, and nothing released."""
        if self._cut is not None:
            raise RoundFailed(self._cut, charged=self.charged)

    async def enter(self) -> None:
        """Put the request into the log, unless it is there."""
        if self._heads is None:
            async with self._tools.witnessing.turn:
                self._heads = await self._enter()
            self._live.step("logged", ())

    async def sum(self, job: agent_pb2.JobRound | None = None) -> Ring:
        """Return the sum of one round, begun anew without whoever is found cheating. `job`: which round of a job it is.

        Raises RoundFailed (also where the request is cut off), or what `_new_round` and too many refusals raise.
        """
        self._spent = self.charged
        self._round = None
        request = envelope_pb2.Envelope.FromString(self._checked.envelope)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if self._heads is not None:
                self.check_cut()
            async with self._tools.witnessing.turn:
                if self._heads is None:
                    self._heads = await self._enter()
                    self._live.step("logged", ())
                else:
                    self._heads = await self._tools.witnessing.latest(self._heads.seq, seen=self._heads.seen)
                if not self._tools.witnessing.covers(self._heads):  # a decision was logged while this was written
                    self._heads = await self._tools.witnessing.latest(self._heads.seq, seen=self._heads.seen)
                round_ = self._round = self._new_round(job)
                round_.head = self._heads.size, self._heads.root
                round_.start()
                self._tools.witnessing.announce(
                    round_.invited, round_.encoded_parameters, request, self._heads, job=job
                )
            try:
                return await self._finish(round_)
            except RoundRestart as restart:
                self._excluded.update(restart.accused)
                await self._log_restart(round_, restart.accused)
                logger.warning(
                    "round restarted",
                    request=self._checked.verified.request_id.hex()[:12],
                    without=sorted(self._excluded),
                )
                if attempt == MAX_ATTEMPTS:
                    raise RoundFailed(
                        QuorumError("the round was restarted too often", hint="see the log for who was accused"),
                        charged=False,
                    ) from restart
        raise AssertionError("the last attempt returns or raises")

    async def _finish(self, round_: Round) -> Ring:
        """Wait for the round's sum; raise RoundFailed where the request is cut off meanwhile."""
        self.check_cut()  # since the round was announced
        self._finishing = asyncio.create_task(round_.finish(partial(self._log_decisions, round_)))
        try:
            sums = await self._finishing
        except asyncio.CancelledError:
            self.check_cut()
            raise
        finally:
            self._finishing = None
        self.check_cut()
        return sums

    def _new_round(self, job: agent_pb2.JobRound | None) -> Round:
        """Choose the cohort: every member that serves the dataset now and was not found cheating."""
        membership = self._tools.directory.in_force()
        verified, plan = self._checked.verified, self._checked.plan
        members = {i: m for i, m in self._tools.directory.members.items() if i not in self._excluded}
        if isinstance(plan, JobPlan) and plan.job.institutions:
            members = {i: m for i, m in members.items() if i in plan.job.institutions}
        invited = self._tools.hub.serving(verified.dataset, verified.schema_hash, members)
        need = max(SMALLEST_COHORT, verified.minimum_cohort, membership.minimum_cohort)
        if isinstance(plan, JobPlan):
            invited = drawn(invited, {i: members[i].organisation for i in invited}, plan.job.fraction, need)
        organisations = {members[i].organisation for i in invited}
        if len(organisations) < need:
            raise QuorumError(
                f"{verified.dataset!r} is served by {len(organisations) or 'no'} "
                f"{'organisation' if len(organisations) == 1 else 'organisations'} now"
                f"{' (' + ', '.join(invited) + ')' if invited else ''}; this query needs {need}",
                hint="wait for more to connect: cohortium datasets shows who serves what. Nothing was spent",
            )
        threshold = default_threshold(len(invited))
        if isinstance(plan, JobPlan) and job is not None:
            plan = plan.of_slot(job.slot)
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
            rungs=noise.rungs,
        )
        return Round(
            parameters,
            members={i: members[i] for i in invited},
            hub=self._tools.hub,
            deadlines=self._tools.deadlines,
            on_step=self._live.step,
            spool=self._tools.spool,
            seconds=plan.job.round_seconds if isinstance(plan, JobPlan) else 0,
        )

    async def _log_decisions(self, round_: Round) -> None:
        decisions = dict(sorted(round_.decisions.items()))
        if not decisions:
            return
        entries = [records.decided(decision) for decision in decisions.values()]
        first = await self._tools.database.write(lambda uow: self._tools.log.append_in(uow, entries))
        self._tools.witnessing.logged(first, tuple(decisions))

    async def _log_restart(self, round_: Round, accused: tuple[str, ...]) -> None:
        """Write who was found cheating, before the next round begins without them."""
        outcome = f"restarted without {', '.join(accused)}"
        self.close(outcome)
        await self._tools.database.write(lambda uow: self._tools.log.append_in(uow, [ended(round_, outcome)]))

    def close(self, outcome: str) -> None:
        """Tell the cohort that the latest round is over, so that it forgets its secrets and frees what it reserved."""
        if self._round is None:
            return
        message = agent_pb2.RoundClosed(round_id=self._round.id, outcome=outcome)
        for member in self._round.to_be_told:
            if connection := self._tools.hub.get(member):
                connection.send(agent_pb2.ToAgent(closed=message))


def drawn(serving: tuple[str, ...], organisations: Mapping[str, str], fraction: float, need: int) -> tuple[str, ...]:
    """Return the share `fraction` of the institutions, at random, sorted; all for 0 or 1.

    Never so few that less than `need` organisations are among them, as long as there are so many.
    """
    if not 0 < fraction < 1:
        return serving
    order = SystemRandom().sample(serving, len(serving))
    enough = ceil(fraction * len(serving) - 1e-9)
    chosen: list[str] = []
    for institution in order:
        if len(chosen) >= enough and len({organisations[i] for i in chosen}) >= need:
            break
        chosen.append(institution)
    return tuple(sorted(chosen))


def ended(round_: Round, outcome: str) -> log_pb2.LogEntry:
    """Return the log entry of a round that is over."""
    return records.round_ended(
        round_.parameters.request_id,
        round_.id,
        invited=round_.invited,
        roster=round_.roster,
        survivors=round_.survivors,
        dropouts=round_.losses,
        outcome=outcome,
    )
