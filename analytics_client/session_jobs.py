"""The part of a session that trains: jobs asked for, followed, stopped, and their models verified round by round.

Must not know: how models are shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Unpack

from analytics_client import evidence
from analytics_client.connection import (
    DEFAULT_PURPOSE,
    FRESH_S,
    SMALLEST_COHORT,
    Connection,
    Listing,
    Overview,
    Progress,
    error_of,
    joined,
    rho_nano_of,
)
from analytics_client.jobs import JobAsked, JobListing, job_listing, job_of
from analytics_client.training import (
    EvaluationResult,
    JobExplanation,
    Trained,
    VerifiedRounds,
    cost_of_job,
    evaluation_of,
    explain_job,
    model_of,
    verify_rounds,
)
from analytics_client.training.rounds import Verification
from protos.v1 import analyst_pb2, query_pb2
from queries.errors import (
    BudgetError,
    CohortiumError,
    QueryError,
    ServiceError,
)
from queries.training.course import loss_of
from queries.training.encode import decode_job, encode_job
from queries.training.evaluation import headline
from queries.training.plan import JobPlan, make_job_plan, stated_rho_nano
from trust.identity.requests import MAX_LIFETIME, build_request
from trust.rpc import channel as channels
from trust.rpc.errors import translated

SECONDS_PER_NUMBER = 1e-6
"""Beside what every call may take: fetching the rounds of a large model is a matter of megabytes a second."""


class JobSession(Connection):
    """A connection that trains."""

    def explain_job(
        self, model: str, *, epsilon: float | None = None, rho: float | None = None, **asked: Unpack[JobAsked]
    ) -> JobExplanation:
        """Return what a training job would disclose and cost. Nothing is asked or spent. Arguments as for `train`."""
        overview = self._published(fresh_s=0)
        plan, listing = self._job_plan(model, overview, epsilon, rho, asked)
        return explain_job(
            plan,
            cost_of_job(plan),
            institutions=listing.serving,
            colluders=overview.membership.colluders,
            minimum_cohort=overview.membership.minimum_cohort,
        )

    def train(
        self,
        model: str,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        purpose: str = DEFAULT_PURPOSE,
        minimum_cohort: int = SMALLEST_COHORT,
        lifetime: int = MAX_LIFETIME,
        on_progress: Callable[[Progress], None] | None = None,
        **asked: Unpack[JobAsked],
    ) -> Trained:
        """Train a regression over the institutions' data, and return it once all its rounds are verified.

        `model` is linear, logistic, multinomial, poisson, cox, mlp, cnn, kmeans, boosting or package; see `JobAsked`
        for what else there is to say, and `query` for the rest and for what it raises. A job that ends early raises
        too; `model` has what it had reached.
        """
        overview = self._published(fresh_s=FRESH_S)
        plan, listing = self._job_plan(model, overview, epsilon, rho, asked)
        request_id, before = self._run_job(
            plan, listing, overview, purpose, minimum_cohort, lifetime=lifetime, on_progress=on_progress
        )
        return model_of(plan, self._rounds(request_id, plan, log_size_before=before), request_id)

    def evaluate(
        self,
        model: Trained,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        purpose: str = DEFAULT_PURPOSE,
        minimum_cohort: int = SMALLEST_COHORT,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> EvaluationResult:
        """Measure a model: accuracy, AUC and calibration, or RMSE, or the C-index, each with an interval.

        On the rows that its job held out, or on all where it held out none. One round, at a cost of its own; one more
        is kept to spare and given back. Raise as `query`.
        """
        overview = self._published(fresh_s=FRESH_S)
        listing = self._listing(model.job.dataset, overview)
        dataset = listing.dataset
        scored = tuple(model.theta.tolist())
        job = replace(model.job, scored=scored, rounds=1, spare_rounds=1, evaluate_every=0, patience=0)
        # The spare round doubles what is set aside; the one that is used costs what was asked for.
        plan = make_job_plan(job, dataset, 2 * rho_nano_of(epsilon, rho, dataset.delta))
        request_id, before = self._run_job(plan, listing, overview, purpose, minimum_cohort, on_progress=on_progress)
        return evaluation_of(plan, self._rounds(request_id, plan, log_size_before=before), request_id)

    def _run_job(
        self,
        plan: JobPlan,
        listing: Listing,
        overview: Overview,
        purpose: str,
        minimum_cohort: int,
        *,
        lifetime: int = MAX_LIFETIME,
        on_progress: Callable[[Progress], None] | None,
    ) -> tuple[bytes, int]:
        """Sign, submit and follow a job to its end. Return its id, and the size of the log before it."""
        request_id, envelope = build_request(
            key=self._key,
            consortium=self.profile.consortium,
            analyst=self.profile.id,
            purpose=purpose,
            dataset=plan.dataset.name,
            schema_hash=listing.schema_hash,
            job=encode_job(plan.job),
            rho_nano=plan.rho_nano,
            minimum_cohort=max(minimum_cohort, overview.membership.minimum_cohort),
            now=int(time.time()),
            seen=self._seen(overview.membership),
            membership=overview.membership,
            lifetime=lifetime,
        )
        before = self._pins.log_size
        told = self._told(request_id, plan, on_progress)
        self._follow(request_id, self._run(request_id, envelope, steps=told is not None, job=True), told)
        return request_id, before

    def watch(self, request_id: str, on_progress: Callable[[Progress], None] | None = None) -> Trained:
        """Follow one of this analyst's jobs to its end, and return the model. Raise as `train`."""
        status = self._job(request_id)
        told = None if on_progress is None else self._told(status.request_id, self._plan_of(status), on_progress)
        if status.state == "running":  # the same request again follows the first one
            envelope = status.request.SerializeToString(deterministic=True)
            reports = self._run(status.request_id, envelope, steps=told is not None, job=True)
        else:
            reports = iter([self._resume(status.request_id)])
        self._follow(status.request_id, reports, told)
        return self.model(request_id)

    def jobs(self) -> list[JobListing]:
        """Return this analyst's training jobs, those that run first."""
        with translated(self.profile.address):
            response = self._stub.Jobs(analyst_pb2.JobsRequest(), timeout=channels.CALL_DEADLINE_S)
        found = [job_listing(status) for status in response.jobs]
        return sorted(found, key=lambda job: (job.state != "running", -job.issued_at))

    def stop(self, request_id: str) -> None:
        """End one of this analyst's jobs after the round in hand; what it did not use is given back."""
        status = self._job(request_id)
        with translated(self.profile.address):
            self._stub.Stop(analyst_pb2.StopRequest(request_id=status.request_id), timeout=channels.CALL_DEADLINE_S)

    def model(self, request_id: str, *, rounds: int | None = None) -> Trained:
        """Return the model that one of this analyst's jobs has reached, verified anew. `request_id`: its first digits.

        With `rounds` the one that it had reached after so many, to be evaluated beside later ones. Raise QueryError
        where no round, or not as many, has been released, and as `query`.
        """
        status = self._job(request_id)
        plan = self._plan_of(status)
        return model_of(plan, self._rounds(status.request_id, plan, first=rounds), status.request_id)

    def _plan_of(self, status: analyst_pb2.JobStatus) -> JobPlan:
        signed = query_pb2.QueryRequest.FromString(status.request.payload)
        overview = self._published(fresh_s=FRESH_S)
        listing = self._listing(signed.dataset, overview)
        if listing.schema_hash != signed.schema_hash:
            raise QueryError(
                f"dataset {signed.dataset!r} has a newer description than the one this job was made for",
                hint="its coefficients cannot be read with another one",
            )
        return make_job_plan(decode_job(signed.job), listing.dataset, signed.rho_nano)

    def _job(self, request_id: str) -> analyst_pb2.JobStatus:
        with translated(self.profile.address):
            response = self._stub.Jobs(analyst_pb2.JobsRequest(), timeout=channels.CALL_DEADLINE_S)
        found = [status for status in response.jobs if request_id and status.request_id.hex().startswith(request_id)]
        if len(found) != 1:
            raise QueryError(
                f"{'no' if not found else 'more than one'} job of yours begins with {request_id[:64]!r}",
                hint="cohortium jobs lists them",
            )
        status: analyst_pb2.JobStatus = found[0]
        return status

    def _job_plan(
        self, model: str, overview: Overview, epsilon: float | None, rho: float | None, asked: JobAsked
    ) -> tuple[JobPlan, Listing]:
        listing = self._listing(asked["dataset"], overview)
        dataset = listing.dataset
        if "method" in asked:
            if rho is not None:
                raise BudgetError("training by gradients takes epsilon, or noise_multiplier", hint="leave rho out")
            job = job_of(model, dataset, asked, epsilon)
            return make_job_plan(job, dataset, stated_rho_nano(job, dataset)), listing
        job = job_of(model, dataset, asked)
        return make_job_plan(job, dataset, rho_nano_of(epsilon, rho, dataset.delta)), listing

    def _follow(
        self,
        request_id: bytes,
        reports: Iterator[analyst_pb2.Progress],
        told: Callable[[analyst_pb2.Progress], None] | None,
    ) -> None:
        """Follow a job to its end. Raise the error that it ended with."""
        last = None
        for progress in reports:
            last = progress
            if told is not None:
                told(progress)
        if last is not None and last.step == "failed":
            raise error_of(last.failure)
        if last is None or last.step != "released":
            raise ServiceError(
                "the coordinator ended the job without a result", hint=f"cohortium watch {request_id.hex()[:12]}"
            )

    def _told(
        self, request_id: bytes, plan: JobPlan, on_progress: Callable[[Progress], None] | None
    ) -> Callable[[analyst_pb2.Progress], None] | None:
        """Return what tells `on_progress` of a job. Of rounds that come whole, and hold, it reads the loss.

        What does not hold here is left to the end, where every round is verified under the membership then in force.
        """
        if on_progress is None:
            return None
        verification = Verification(request_id=request_id, plan=plan, membership=self._published().membership)
        rounds, evaluations, whole = 0, 0, True

        def tell(progress: analyst_pb2.Progress) -> None:
            nonlocal rounds, evaluations, whole
            loss, measure = None, None
            evaluated = progress.step == "evaluated"
            # The end of a job with evaluations is a report of its own: the last round came before it.
            if evaluated or progress.step == "round" or (progress.step == "released" and plan.evaluation is None):
                rounds, evaluations = rounds + (not evaluated), evaluations + evaluated
                whole = whole and bool(progress.release)
                try:
                    released = verification.take(progress) if whole else None
                except CohortiumError:
                    released, whole = None, False
                if released is not None and evaluated and plan.evaluation is not None:
                    measure = headline(plan.evaluation, released.sums)
                elif released is not None:
                    loss = loss_of(plan, released)
            spent = plan.epsilon(rounds + evaluations) if rounds else 0.0
            who, why = tuple(progress.institutions), progress.failure.message
            on_progress(Progress(progress.step, who, rounds, why, spent, loss, measure))

        return tell

    def _rounds(
        self, request_id: bytes, plan: JobPlan, *, log_size_before: int = 0, first: int | None = None
    ) -> VerifiedRounds:
        with translated(self.profile.address):
            request = analyst_pb2.RoundsRequest(request_id=request_id)
            seconds = channels.ROUND_DEADLINE_S + plan.slots * plan.length * SECONDS_PER_NUMBER
            rounds = list(joined(self._stub.Rounds(request, timeout=seconds)))
        if first is not None:
            rounds = _first(rounds, first)
        membership = self._published(fresh_s=0).membership
        with evidence.kept(self.profile.folder, self.profile.id, [membership.envelope], self.profile.governance_key):
            verified = verify_rounds(rounds, request_id=request_id, plan=plan, membership=membership)
            if verified.rounds:
                self._pins.accept_log_head(
                    verified.log_size, verified.log_root, after=log_size_before, note=verified.log_note
                )
        return verified


def _first(rounds: list[analyst_pb2.Progress], count: int) -> list[analyst_pb2.Progress]:
    """Return what a job had released after so many rounds of training, with the evaluations of that model."""
    ends = [place for place, progress in enumerate(rounds) if progress.step != "evaluated"]
    if not 1 <= count <= len(ends):
        raise QueryError(f"the job has released {len(ends)} rounds, not {count}")
    return rounds[: ends[count] if count < len(ends) else len(rounds)]
