"""The audit entries that the coordinator writes about requests. No result, literal or exact count is ever in one."""

from __future__ import annotations

import time
from collections.abc import Iterable

from analytics_server.coordinator.outcomes import Dropout, SignedDecision
from protos.v1 import agent_pb2, log_pb2
from trust import logged
from trust.identity.activity import Activity
from trust.identity.requests import VerifiedRequest
from trust.question import model_hash
from trust.release import release_hash

COORDINATOR = "coordinator"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def requested(request: VerifiedRequest, shape: str, activity: Activity | None) -> log_pb2.LogEntry:
    """A request was received; written before anyone is asked. `activity` is what its purpose belongs to."""
    return log_pb2.LogEntry(
        at_ms=_now_ms(),
        actor=request.analyst,
        requested=logged.requested(request, shape, activity),
    )


def decided(signed: SignedDecision) -> log_pb2.LogEntry:
    """An institution allowed or denied a request."""
    decision = signed.decision
    return log_pb2.LogEntry(
        at_ms=_now_ms(), actor=decision.institution, decided=logged.decided(decision, signed.statement)
    )


def denied_here(request: VerifiedRequest, rule: str) -> log_pb2.LogEntry:
    """The coordinator's own policy denied a request; nobody was asked. Its decisions name no institution."""
    return log_pb2.LogEntry(
        at_ms=_now_ms(),
        actor=COORDINATOR,
        decided=log_pb2.Decided(request_id=request.request_id, allowed=False, rule=rule),
    )


def round_ended(
    request_id: bytes,
    round_id: bytes,
    *,
    invited: Iterable[str],
    roster: Iterable[str],
    survivors: Iterable[str],
    dropouts: Iterable[Dropout],
    outcome: str,
) -> log_pb2.LogEntry:
    """A round is over, one way or the other."""
    return log_pb2.LogEntry(
        at_ms=_now_ms(),
        actor=COORDINATOR,
        round_ended=log_pb2.RoundEnded(
            request_id=request_id,
            round_id=round_id,
            invited=invited,
            roster=roster,
            survivors=survivors,
            dropouts=[log_pb2.Dropout(institution=d.institution, step=d.step, reason=d.reason) for d in dropouts],
            outcome=outcome,
        ),
    )


def released(
    request: VerifiedRequest,
    release: bytes,
    survivors: int,
    *,
    job: agent_pb2.JobRound | None = None,
    rho_nano: int | None = None,
) -> log_pb2.LogEntry:
    """A noisy sum was published; its hash, not its values. Of a job one round's, with its share of the cost."""
    return log_pb2.LogEntry(
        at_ms=_now_ms(),
        actor=COORDINATOR,
        released=log_pb2.Released(
            request_id=request.request_id,
            release_hash=release_hash(release),
            mechanism="discrete gaussian, distributed, zCDP",
            rho_nano=request.rho_nano if rho_nano is None else rho_nano,
            survivors=survivors,
            slot=0 if job is None else job.slot,
            model_hash=b"" if job is None else model_hash(job.model),
        ),
    )


def stated(content: agent_pb2.StatementContent, statement: bytes) -> log_pb2.LogEntry:
    """An institution said something of itself; `statement` are the exact signed bytes."""
    return log_pb2.LogEntry(
        at_ms=_now_ms(),
        actor=content.institution,
        stated=log_pb2.Stated(
            institution=content.institution,
            about=content.about,
            text=content.text,
            subject=content.subject,
            statement=statement,
        ),
    )


def failed(request_id: bytes, reason: str, *, charged: bool) -> log_pb2.LogEntry:
    """A request ended without a release."""
    return log_pb2.LogEntry(
        at_ms=_now_ms(),
        actor=COORDINATOR,
        failed=log_pb2.Failed(request_id=request_id, reason=reason, charged=charged),
    )
