"""An analyst's session with a consortium: what can be asked, what it would cost, and the answers.

    from analytics_client import connect
    with connect() as session:
        print(session.explain("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex", epsilon=0.5))
        result = session.query("SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex", epsilon=0.5)

A session trusts the coordinator with nothing: membership and descriptions are governance's, the plan is computed here,
the request is signed here, and an answer counts once it is found in the audit log. Must not know: how it is shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, Unpack

from analytics_client import profile as profiles
from analytics_client.dry_run import dry_run
from analytics_client.enrolment import renew_if_due
from analytics_client.explain import Explanation, cost_of, explain
from analytics_client.gossip import newest_epoch, verify_witnessed
from analytics_client.jobs import JobAsked, JobListing, job_listing, job_of
from analytics_client.pins import Pins
from analytics_client.result import Result
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
from analytics_client.verification import verify_release
from protos.v1 import analyst_pb2, analyst_pb2_grpc, envelope_pb2, query_pb2
from queries import ir
from queries.accounting import NANO, epsilon_to_rho_nano
from queries.builder import Builder, Table
from queries.encode import encode_query
from queries.errors import (
    BudgetError,
    CohortiumError,
    LogError,
    ProtocolViolation,
    QueryError,
    Refusal,
    ServiceError,
    UnknownName,
)
from queries.estimate import estimate
from queries.finish import Finish
from queries.plan import Plan, make_plan
from queries.resolve import shape as question_of
from queries.schema import Dataset
from queries.sql import ask
from queries.training.encode import decode_job, encode_job
from queries.training.plan import JobPlan, make_job_plan, stated_rho_nano
from queries.weights import weighted
from trust.identity.dataset import verify_dataset
from trust.identity.membership import MembershipDocument
from trust.identity.requests import MAX_LIFETIME, build_request
from trust.rpc import channel as channels
from trust.rpc.errors import from_code, translated
from trust.tlog.checkpoint import open_checkpoint
from trust.tlog.notes import Verifier

DEFAULT_PURPOSE = "exploration"
SMALLEST_COHORT = 3
FRESH_S = 30.0
"""How long what was published is taken as current before it is fetched again."""
LONGEST_RELEASE_BYTES = 64 << 20
"""More than the 10 bytes that each number of an answer takes at most, of as many as a question may have."""
RESUME_ATTEMPTS = 20
RESUME_PAUSE_S = 0.5
Question: TypeAlias = str | ir.Query | Builder


@dataclass(frozen=True, slots=True)
class Listing:
    """A published dataset, and the institutions that are connected and serve it now."""

    dataset: Dataset
    schema_hash: bytes
    serving: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of a query's life, and the institutions that have reached it."""

    step: str
    institutions: tuple[str, ...]
    rounds: int = 0
    """Of a training job: how many rounds are released."""
    reason: str = ""
    """Of a training job that waits, or tries a round again: why."""


@dataclass(frozen=True)
class _Overview:
    membership: MembershipDocument
    listings: dict[str, Listing]
    at: float


def connect(folder: str | Path | None = None) -> Session:
    """Open a session with the profile in `folder`; by default $COHORTIUM_PROFILE, else ~/.cohortium.

    Raise ConfigError where there is no profile, ServiceError within 5 seconds where the coordinator cannot be reached,
    IdentityError where either side does not accept the other.
    """
    profile = profiles.load(Path(folder) if folder is not None else profiles.default_folder())
    renew_if_due(profile)
    return Session(profile)


class Session:
    """An open session; a context manager. One session may be used from several threads."""

    def __init__(self, profile: profiles.Profile) -> None:
        self.profile = profile
        self._pins = Pins(profile.folder)
        self._key = profile.identity_key()
        self._channel = channels.connect(profile.address, profile.tls())
        self._stub = analyst_pb2_grpc.AnalystStub(self._channel)
        self._lock = threading.Lock()
        self._overview: _Overview | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Requests that were submitted run on and stay in the log."""
        self._channel.close()

    # --- what there is -------------------------------------------------------------------------------------------

    @property
    def membership(self) -> MembershipDocument:
        """The membership in force, as governance signed it."""
        return self._published().membership

    def datasets(self) -> list[Listing]:
        """Return the published datasets by name, and who serves each at this moment."""
        listings = self._published(fresh_s=0).listings
        return [listings[name] for name in sorted(listings)]

    def describe(self, name: str) -> Dataset:
        """Return the published description of a dataset. Raise UnknownName, suggesting the nearest."""
        return self._listing(name, self._published()).dataset

    def table(self, name: str) -> Table:
        """Return a dataset to build a question from: `session.table("patients").filter(_.age >= 18).agg(n=count())`."""
        return Table(self.describe(name))

    # --- asking --------------------------------------------------------------------------------------------------

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
            _rho_nano(epsilon, rho, plan.dataset.delta),
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
        rho_nano = _rho_nano(epsilon, rho, plan.dataset.delta)
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
        rho_nano = _rho_nano(epsilon, rho, plan.dataset.delta)
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
            raise _error_of(last.failure)
        result = self._accept(last, request_id, plan, rho_nano, log_size_before=before)
        return replace(result, table=finish(result.table))

    # --- training ------------------------------------------------------------------------------------------------

    def explain_job(
        self, model: str, *, epsilon: float | None = None, rho: float | None = None, **asked: Unpack[JobAsked]
    ) -> JobExplanation:
        """Return what a training job would disclose and cost. Nothing is asked or spent. Arguments as for `train`."""
        overview = self._published(fresh_s=0)
        plan, listing = self._job_plan(model, overview, epsilon, rho, asked)
        return explain_job(
            plan, cost_of_job(plan), institutions=listing.serving, colluders=overview.membership.colluders
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

        `model` is linear, logistic, multinomial, poisson, cox, mlp or cnn; see `JobAsked` for what else there is to
        say, and `query` for the rest and for what it raises. A job that ends early raises too; `model` has what it had
        reached.
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
        job = replace(model.job, scored=tuple(model.theta.tolist()), rounds=1, spare_rounds=1)
        # The spare round doubles what is set aside; the one that is used costs what was asked for.
        plan = make_job_plan(job, dataset, 2 * _rho_nano(epsilon, rho, dataset.delta))
        request_id, before = self._run_job(plan, listing, overview, purpose, minimum_cohort, on_progress=on_progress)
        return evaluation_of(plan, self._rounds(request_id, plan, log_size_before=before), request_id)

    def _run_job(
        self,
        plan: JobPlan,
        listing: Listing,
        overview: _Overview,
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
        self._follow(request_id, self._run(request_id, envelope, steps=on_progress is not None, job=True), on_progress)
        return request_id, before

    def watch(self, request_id: str, on_progress: Callable[[Progress], None] | None = None) -> Trained:
        """Follow one of this analyst's jobs to its end, and return the model. Raise as `train`."""
        status = self._job(request_id)
        self._follow(status.request_id, iter([self._resume(status.request_id)]), on_progress)
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

    def model(self, request_id: str) -> Trained:
        """Return the model that one of this analyst's jobs has reached, verified anew. `request_id`: its first digits.

        Raise QueryError where no round has been released, and as `query`.
        """
        status = self._job(request_id)
        signed = query_pb2.QueryRequest.FromString(status.request.payload)
        overview = self._published(fresh_s=FRESH_S)
        listing = self._listing(signed.dataset, overview)
        if listing.schema_hash != signed.schema_hash:
            raise QueryError(
                f"dataset {signed.dataset!r} has a newer description than the one this job was made for",
                hint="its coefficients cannot be read with another one",
            )
        plan = make_job_plan(decode_job(signed.job), listing.dataset, signed.rho_nano)
        return model_of(plan, self._rounds(status.request_id, plan), status.request_id)

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
        self, model: str, overview: _Overview, epsilon: float | None, rho: float | None, asked: JobAsked
    ) -> tuple[JobPlan, Listing]:
        listing = self._listing(asked["dataset"], overview)
        dataset = listing.dataset
        if "method" in asked:
            if rho is not None:
                raise BudgetError("training by gradients takes epsilon, or noise_multiplier", hint="leave rho out")
            job = job_of(model, dataset, asked, epsilon)
            return make_job_plan(job, dataset, stated_rho_nano(job, dataset)), listing
        job = job_of(model, dataset, asked)
        return make_job_plan(job, dataset, _rho_nano(epsilon, rho, dataset.delta)), listing

    def _follow(
        self,
        request_id: bytes,
        reports: Iterator[analyst_pb2.Progress],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """Follow a job to its end. Raise the error that it ended with."""
        last, rounds = None, 0
        for progress in reports:
            last = progress
            rounds += progress.step in {"round", "released"}
            if on_progress is not None:
                on_progress(Progress(progress.step, tuple(progress.institutions), rounds, progress.failure.message))
        if last is not None and last.step == "failed":
            raise _error_of(last.failure)
        if last is None or last.step != "released":
            raise ServiceError(
                "the coordinator ended the job without a result", hint=f"cohortium watch {request_id.hex()[:12]}"
            )

    def _rounds(self, request_id: bytes, plan: JobPlan, *, log_size_before: int = 0) -> VerifiedRounds:
        with translated(self.profile.address):
            request = analyst_pb2.RoundsRequest(request_id=request_id)
            rounds = list(_joined(self._stub.Rounds(request, timeout=channels.ROUND_DEADLINE_S)))
        membership = self._published(fresh_s=0).membership
        verified = verify_rounds(rounds, request_id=request_id, plan=plan, membership=membership)
        if verified.rounds:
            self._pins.accept_log_head(
                verified.log_size, verified.log_root, after=log_size_before, note=verified.log_note
            )
        return verified

    def _seen(self, membership: MembershipDocument) -> bytes:
        """Return the newest head seen, to be held against the institutions'; none where the log has a new key."""
        note = self._pins.log_note
        try:
            open_checkpoint(note, membership.log_origin, Verifier(membership.log_origin, membership.log_key))
        except LogError:
            return b""
        return note

    def _run(
        self, request_id: bytes, envelope: bytes, *, steps: bool, job: bool = False
    ) -> Iterator[analyst_pb2.Progress]:
        """Submit and follow. Where the connection is lost on the way, ask for the request's last state instead."""
        request = analyst_pb2.SubmitRequest(request=envelope_pb2.Envelope.FromString(envelope), steps=steps)
        submitted = False
        try:
            with translated(self.profile.address):
                for progress in _joined(
                    self._stub.Submit(request, timeout=MAX_LIFETIME if job else channels.ROUND_DEADLINE_S)
                ):
                    submitted = True
                    yield progress
        except ServiceError:
            if not submitted:
                raise
            yield self._resume(request_id)

    def _resume(self, request_id: bytes) -> analyst_pb2.Progress:
        """Return the last state of a request after the connection was lost: the coordinator may be restarting."""
        for attempt in range(1, RESUME_ATTEMPTS + 1):
            try:
                with translated(self.profile.address):
                    request = analyst_pb2.ResultRequest(request_id=request_id)
                    for last in _joined(self._stub.Result(request, timeout=channels.ROUND_DEADLINE_S)):
                        return last
                    raise ServiceError("the coordinator tells nothing of the request", hint="tell your operator")
            except ServiceError:
                if attempt == RESUME_ATTEMPTS:
                    raise
                time.sleep(RESUME_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def _accept(
        self, last: analyst_pb2.Progress, request_id: bytes, plan: Plan, rho_nano: int, *, log_size_before: int
    ) -> Result:
        """Verify a release against the membership in force and the log, and estimate from it."""
        membership = self._published().membership
        unknown = any(i not in membership.identity_keys for i in last.institutions)
        if unknown or newest_epoch(last) > membership.epoch:
            membership = self._published(fresh_s=0).membership  # a newer epoch may have come in between
        verified = verify_release(last, request_id=request_id, plan=plan, rho_nano=rho_nano, membership=membership)
        verify_witnessed(
            last,
            verified.release.survivors,
            request_id=request_id,
            membership=membership,
            head=(verified.log_size, verified.log_root),
        )
        self._pins.accept_log_head(verified.log_size, verified.log_root, after=log_size_before, note=verified.log_note)
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

    # --- what is published ---------------------------------------------------------------------------------------

    def _published(self, *, fresh_s: float = float("inf")) -> _Overview:
        """Return membership and datasets, verified; fetched again where older than `fresh_s` seconds."""
        with self._lock:
            known = self._overview
            # A rotated key is in force from some moment on, and the old one no longer: look every time until then.
            if known is None or time.monotonic() - known.at > fresh_s or self.profile.rotating:
                known = self._overview = self._fetch()
            return known

    def _fetch(self) -> _Overview:
        with translated(self.profile.address):
            response = self._stub.Overview(analyst_pb2.OverviewRequest(), timeout=channels.CALL_DEADLINE_S)
        governance_key = self.profile.governance_key
        membership = self._pins.accept_membership(
            response.membership.SerializeToString(deterministic=True),
            governance_key,
            consortium=self.profile.consortium,
        )
        membership.check_age(int(time.time()))
        if self.profile.take_up(membership.identity_keys.get(self.profile.id, b"")):
            self._key = self.profile.identity_key()
        listings = {}
        for item in response.datasets:
            dataset, schema_hash = verify_dataset(item.dataset.SerializeToString(deterministic=True), governance_key)
            listings[dataset.name] = Listing(dataset, schema_hash, tuple(sorted(item.serving)))
        return _Overview(membership, listings, time.monotonic())

    def _listing(self, name: str, overview: _Overview) -> Listing:
        try:
            return overview.listings[name]
        except KeyError:
            raise UnknownName("dataset", name, overview.listings) from None

    def _plan(
        self, question: Question, overview: _Overview, weights: Mapping[str, float] | None
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


def _joined(messages: Iterable[analyst_pb2.Progress]) -> Iterator[analyst_pb2.Progress]:
    """Yield the reports of a stream, the release whole: a large one comes in pieces before its report."""
    pieces: list[bytes] = []
    left = LONGEST_RELEASE_BYTES
    for progress in messages:
        if progress.release:
            pieces.append(progress.release)
            left -= len(progress.release)
            if left < 0:
                raise ProtocolViolation(
                    "the coordinator sends more than any question can be answered with", party="coordinator"
                )
        if progress.step == "release":
            continue
        if len(pieces) > 1:
            progress.release = b"".join(pieces)
        pieces.clear()
        yield progress


def _rho_nano(epsilon: float | None, rho: float | None, delta: float) -> int:
    """Return a cost in units of 10^-9 of rho. Raise BudgetError unless exactly one of the two is given and possible."""
    if (epsilon is None) == (rho is None):
        raise BudgetError("say what the answer may cost: either epsilon or rho", hint="for example epsilon=0.5")
    if epsilon is not None:
        return epsilon_to_rho_nano(epsilon, delta)
    assert rho is not None  # noqa: S101 - one of the two is given
    if not 1 / NANO <= rho <= 100:  # also refuses NaN
        raise BudgetError("rho must be between 1e-9 and 100", hint="0.01 is a careful start")
    return int(rho * NANO)


def _error_of(failure: analyst_pb2.Failure) -> CohortiumError:
    """Return the error a failed request ended with."""
    refusals = tuple(Refusal(r.institution, r.rule, r.message) for r in failure.refusals)
    rule = refusals[0].rule if refusals else ""
    error = from_code(failure.code, failure.message, failure.hint, {"rule": rule})
    error.refusals = refusals
    error.charged = failure.charged
    return error
