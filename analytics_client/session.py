"""An analyst's session with a consortium: what can be asked, what it would cost, and the answers.

    from analytics_client import connect
    with connect() as session:
        print(session.explain("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex", epsilon=0.5))
        result = session.query("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex", epsilon=0.5)

A session trusts the coordinator with nothing: membership and descriptions are governance's, the plan is computed here,
the request is signed here, and an answer counts once it is found in the audit log. Must not know: how it is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from analytics_client import evidence
from analytics_client import profile as profiles
from analytics_client.connection import (
    DEFAULT_PURPOSE,
    FRESH_S,
    SMALLEST_COHORT,
    Listing,
    Overview,
    Progress,
    error_of,
    rho_nano_of,
)
from analytics_client.dry_run import dry_run
from analytics_client.enrolment import renew_if_due
from analytics_client.explain import Explanation, cost_of, explain
from analytics_client.gossip import newest_epoch, verify_witnessed
from analytics_client.result import Result
from analytics_client.session_jobs import JobSession
from analytics_client.verification import verify_release
from protos.v1 import analyst_pb2
from queries import ir
from queries.builder import Builder
from queries.encode import encode_query
from queries.errors import QueryError, ServiceError
from queries.estimate import estimate
from queries.finish import Finish
from queries.plan import Plan, make_plan
from queries.resolve import shape as question_of
from queries.sql import ask
from queries.weights import weighted
from trust.identity.requests import build_request
from trust.rpc import channel as channels
from trust.rpc.errors import translated

__all__ = ["Listing", "Progress", "Question", "Session", "connect"]
Question: TypeAlias = str | ir.Query | Builder


def connect(folder: str | Path | None = None) -> Session:
    """Open a session with the profile in `folder`; by default $COHORTIUM_PROFILE, else ~/.cohortium.

    Raise ConfigError where there is no profile, ServiceError within 5 seconds where the coordinator cannot be reached,
    IdentityError where either side does not accept the other.
    """
    profile = profiles.load(Path(folder) if folder is not None else profiles.default_folder())
    renew_if_due(profile)
    return Session(profile)


class Session(JobSession):
    """An open session; a context manager. One session may be used from several threads."""

    def explain(
        self,
        question: Question,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Explanation:
        """Return what a question would disclose and cost if it were asked now. Nothing is asked or spent."""
        overview = self._published(fresh_s=0)
        plan, listing, _finish = self._plan(question, overview, weights)
        return explain(
            plan,
            rho_nano_of(epsilon, rho, plan.dataset.delta),
            institutions=listing.serving,
            colluders=overview.membership.colluders,
            left=self._left(plan.dataset.name),
        )

    def _left(self, dataset: str) -> dict[str, int]:
        """Return what this analyst could still spend at institutions, by what the log says; nothing for others."""
        if self.profile.role != "analyst":
            return {}
        with translated(self.profile.address):
            request = analyst_pb2.LeftRequest(dataset=dataset)
            response = self._stub.Left(request, timeout=channels.CALL_DEADLINE_S)
        return {item.institution: item.rho_nano for item in response.left}

    def dry_run(
        self,
        question: Question,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        weights: Mapping[str, float] | None = None,
        rows: int = 1000,
        seed: int = 0,
    ) -> Result:
        """Return an answer of the same shape as `query` would, from `rows` invented rows: nobody is asked.

        The rows are drawn from the published description alone, by `seed`; the noise is what the cost would give, anew
        each time. The result says that it is a mock. Raise what `explain` raises, and ConfigError where the agents'
        engine is not installed.
        """
        overview = self._published(fresh_s=FRESH_S)
        plan, listing, finish = self._plan(question, overview, weights)
        rho_nano = rho_nano_of(epsilon, rho, plan.dataset.delta)
        result = dry_run(
            plan,
            cost_of(rho_nano, plan.dataset.delta),
            rho_nano,
            institutions=max(len(listing.serving), SMALLEST_COHORT, overview.membership.minimum_cohort),
            colluders=overview.membership.colluders,
            rows=rows,
            seed=seed,
        )
        return replace(result, table=finish(result.table))

    def query(
        self,
        question: Question,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        weights: Mapping[str, float] | None = None,
        purpose: str = DEFAULT_PURPOSE,
        minimum_cohort: int = SMALLEST_COHORT,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Ask, and return the verified answer. Exactly one of `epsilon` (at the dataset's delta) and `rho` is its cost.

        Outputs share it evenly, or by `weights`: one of weight 2 has half the noise of one of weight 1 in what it is
        computed from; outputs that are not named have weight 1.

        Raise QueryError (cannot be asked), BudgetError or PolicyDenied (an institution or the coordinator says no),
        QuorumError (too few answer), ServiceError; `refusals` and `charged` of the error say who refused and whether
        the budget is spent all the same. ProtocolViolation and LogError mean that the answer must not be used.
        """
        overview = self._published(fresh_s=FRESH_S)
        plan, listing, finish = self._plan(question, overview, weights)
        rho_nano = rho_nano_of(epsilon, rho, plan.dataset.delta)
        request_id, envelope = build_request(
            key=self._key,
            consortium=self.profile.consortium,
            analyst=self.profile.id,
            purpose=purpose,
            dataset=plan.dataset.name,
            schema_hash=listing.schema_hash,
            query=encode_query(plan.query),
            rho_nano=rho_nano,
            minimum_cohort=max(minimum_cohort, overview.membership.minimum_cohort),
            now=int(time.time()),
            seen=self._seen(overview.membership),
            membership=overview.membership,
        )
        before = self._pins.log_size
        last = None
        for progress in self._run(request_id, envelope, steps=on_progress is not None):
            last = progress
            if on_progress is not None:
                on_progress(Progress(progress.step, tuple(progress.institutions)))
        if last is None or last.step not in {"released", "failed"}:
            raise ServiceError("the coordinator ended the query without a result", hint="tell your operator")
        if last.step == "failed":
            raise error_of(last.failure)
        result = self._accept(last, request_id, plan, rho_nano, log_size_before=before)
        return replace(result, table=finish(result.table))

    def _accept(
        self, last: analyst_pb2.Progress, request_id: bytes, plan: Plan, rho_nano: int, *, log_size_before: int
    ) -> Result:
        """Verify a release against the membership in force and the log, and estimate from it."""
        membership = self._published().membership
        unknown = any(i not in membership.identity_keys for i in last.institutions)
        if unknown or newest_epoch(last) > membership.epoch:
            membership = self._published(fresh_s=0).membership  # a newer epoch may have come in between
        verified = verify_release(last, request_id=request_id, plan=plan, rho_nano=rho_nano, membership=membership)
        with evidence.kept(self.profile.folder, self.profile.id, [membership.envelope], self.profile.governance_key):
            verify_witnessed(
                last,
                verified.release.survivors,
                request_id=request_id,
                membership=membership,
                head=(verified.log_size, verified.log_root),
            )
            self._pins.accept_log_head(
                verified.log_size, verified.log_root, after=log_size_before, note=verified.log_note
            )
        survivors = tuple(verified.release.survivors)
        return Result(
            table=estimate(plan, list(verified.release.sums), verified.noise, len(survivors)),
            dataset=plan.dataset.name,
            question=question_of(plan.query),
            request_id=request_id.hex(),
            cost=cost_of(rho_nano, plan.dataset.delta),
            survivors=survivors,
            invited=verified.release.invited,
            log_seq=verified.log_seq,
            log_size=verified.log_size,
        )

    def _plan(
        self, question: Question, overview: Overview, weights: Mapping[str, float] | None
    ) -> tuple[Plan, Listing, Finish]:
        finish = Finish()
        if isinstance(question, str):
            asked = ask(question, {name: listing.dataset for name, listing in overview.listings.items()})
            query, finish = asked.query, asked.finish
        elif isinstance(question, Builder):
            query = question.build()
        elif isinstance(question, ir.Query):
            query = question
        else:
            raise QueryError(
                "a question is SQL text or a finished expression", hint="end an expression with .agg(n=count())"
            )
        listing = self._listing(query.dataset, overview)
        return make_plan(weighted(query, weights) if weights else query, listing.dataset), listing, finish
