"""A client's connection to its coordinator: what is published, verified, and requests that outlive a lost line.

Must not know: what is asked, what an answer says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from analytics_client import profile as profiles
from analytics_client.pins import Pins
from protos.v1 import analyst_pb2, analyst_pb2_grpc, envelope_pb2
from queries.accounting import NANO, epsilon_to_rho_nano
from queries.builder import Table
from queries.errors import (
    BudgetError,
    CohortiumError,
    LogError,
    ProtocolViolation,
    Refusal,
    ServiceError,
    UnknownName,
)
from queries.schema import Dataset
from trust.identity.dataset import verify_dataset
from trust.identity.membership import MembershipDocument
from trust.identity.requests import MAX_LIFETIME
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
    epsilon: float = 0.0
    """Of a training job: what its released rounds have cost."""
    loss: float | None = None
    """Of a training job: the loss at the start of the latest round, with its noise; None where none was paid for."""
    measure: tuple[str, float] | None = None
    """Of a training job, with step "evaluated": the measure that tells best how it goes on, by its name."""


@dataclass(frozen=True)
class Overview:
    """What was published when it was last fetched: the membership in force, and datasets by name."""

    membership: MembershipDocument
    listings: dict[str, Listing]
    at: float


class Connection:
    """An open connection; a context manager. It may be used from several threads."""

    def __init__(self, profile: profiles.Profile) -> None:
        self.profile = profile
        self._pins = Pins(profile.folder)
        self._key = profile.identity_key()
        self._channel = channels.connect(profile.address, profile.tls())
        self._stub = analyst_pb2_grpc.AnalystStub(self._channel)
        self._lock = threading.Lock()
        self._overview: Overview | None = None

    def __enter__(self) -> Self:
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
        """Submit and follow. Where the connection is lost on the way, ask for the request's last state instead.

        A job runs for long: it is submitted again, which follows it from its first round; what was told is not told
        twice.
        """
        request = analyst_pb2.SubmitRequest(request=envelope_pb2.Envelope.FromString(envelope), steps=steps)
        submitted, told, failures = False, 0, 0
        while True:
            again = told
            try:
                with translated(self.profile.address):
                    for progress in joined(
                        self._stub.Submit(request, timeout=MAX_LIFETIME if job else channels.ROUND_DEADLINE_S)
                    ):
                        submitted, failures = True, 0
                        if job and progress.step in {"round", "evaluated"}:
                            if again:
                                again -= 1
                                continue
                            told += 1
                        yield progress
                return
            except ServiceError:
                failures += 1
                if not submitted or failures > RESUME_ATTEMPTS:
                    raise
            if not job:
                yield self._resume(request_id)
                return
            time.sleep(RESUME_PAUSE_S)

    def _resume(self, request_id: bytes) -> analyst_pb2.Progress:
        """Return the last state of a request after the connection was lost: the coordinator may be restarting."""
        for attempt in range(1, RESUME_ATTEMPTS + 1):
            try:
                with translated(self.profile.address):
                    request = analyst_pb2.ResultRequest(request_id=request_id)
                    for last in joined(self._stub.Result(request, timeout=channels.ROUND_DEADLINE_S)):
                        return last
                    raise ServiceError("the coordinator tells nothing of the request", hint="tell your operator")
            except ServiceError:
                if attempt == RESUME_ATTEMPTS:
                    raise
                time.sleep(RESUME_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    # --- what is published ---------------------------------------------------------------------------------------

    def _published(self, *, fresh_s: float = float("inf")) -> Overview:
        """Return membership and datasets, verified; fetched again where older than `fresh_s` seconds."""
        with self._lock:
            known = self._overview
            # A rotated key is in force from some moment on, and the old one no longer: look every time until then.
            if known is None or time.monotonic() - known.at > fresh_s or self.profile.rotating:
                known = self._overview = self._fetch()
            return known

    def _fetch(self) -> Overview:
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
        return Overview(membership, listings, time.monotonic())

    def _listing(self, name: str, overview: Overview) -> Listing:
        try:
            return overview.listings[name]
        except KeyError:
            raise UnknownName("dataset", name, overview.listings) from None


def joined(messages: Iterable[analyst_pb2.Progress]) -> Iterator[analyst_pb2.Progress]:
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
        left = LONGEST_RELEASE_BYTES  # of each: a job has many
        yield progress


def rho_nano_of(epsilon: float | None, rho: float | None, delta: float) -> int:
    """Return a cost in units of 10^-9 of rho. Raise BudgetError unless exactly one of the two is given and possible."""
    if (epsilon is None) == (rho is None):
        raise BudgetError("say what the answer may cost: either epsilon or rho", hint="for example epsilon=0.5")
    if epsilon is not None:
        return epsilon_to_rho_nano(epsilon, delta)
    assert rho is not None  # noqa: S101 - one of the two is given
    if not 1 / NANO <= rho <= 100:  # also refuses NaN
        raise BudgetError("rho must be between 1e-9 and 100", hint="0.01 is a careful start")
    return int(rho * NANO)


def error_of(failure: analyst_pb2.Failure) -> CohortiumError:
    """Return the error a failed request ended with."""
    refusals = tuple(Refusal(r.institution, r.rule, r.message) for r in failure.refusals)
    rule = refusals[0].rule if refusals else ""
    error = from_code(failure.code, failure.message, failure.hint, {"rule": rule})
    error.refusals = refusals
    error.charged = failure.charged
    return error
