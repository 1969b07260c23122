"""Training jobs in the ledger: paid whole before the first round, round by round used up, the rest given back.

Functions over an open transaction of `ledger`. A job's round is an ordinary request there, so that all its rules hold
(one vector, no second answer); only its cost comes out of what the job holds. What was not used may return because the
filter looks at one fixed order, where every round's cost simply adds up (docs/privacy.md). Must not know: models, data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from analytics_client.agent import ledger_file as file
from analytics_client.agent.ledger_file import dump, job, job_request, load, request
from queries.accounting import Curve
from queries.errors import PolicyDenied, ProtocolViolation, RoundError

STOPPED = "stopped by a steward"


@dataclass(frozen=True, slots=True)
class JobHold:
    """A job as it is paid: `slots` rounds of equal cost, together `charge`, until `expires_at` (unix seconds)."""

    id: bytes
    digest: bytes
    slots: int
    charge: Curve
    rho_nano: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class JobEntry:
    """A job in the ledger: how many of its rounds are charged or reserved; `reason` says why it ended, "" while not."""

    id: bytes
    dataset: str
    analyst: str
    slots: int
    used: int
    rho_nano: int
    expires_at: int
    reason: str


def known(connection: sa.Connection, hold: JobHold, dataset: str, analyst: str) -> bool:
    """Return whether the job is held already.

    Raise ProtocolViolation where it differs, PolicyDenied where a steward stopped it, RoundError where it ended.
    """
    row = connection.execute(file.FIND_JOB, {"job_id": hold.id}).first()
    if row is None:
        return False
    stated = (hold.digest, dataset, analyst, hold.slots, dump(hold.charge), hold.rho_nano, hold.expires_at)
    if (row.digest, row.dataset, row.analyst, row.slots, row.cost, row.rho_nano, row.expires_at) != stated:
        raise ProtocolViolation("another job was seen under this request id", party="coordinator")
    if row.ended and row.reason.startswith(STOPPED):
        raise PolicyDenied(
            f"this job was {row.reason}", rule="stopped", hint="ask the steward; the others may go on without them"
        )
    if row.ended:
        raise RoundError(f"this job has ended here: {row.reason}", hint="sign a new one; it is charged anew")
    return True


def add(connection: sa.Connection, hold: JobHold, dataset: str, analyst: str) -> None:
    """Record a job whose whole cost was just spent."""
    connection.execute(
        job.insert().values(
            id=hold.id, digest=hold.digest, dataset=dataset, analyst=analyst, slots=hold.slots,
            cost=dump(hold.charge), rho_nano=hold.rho_nano, expires_at=hold.expires_at, ended=0, reason="",
        )
    )  # fmt: skip


def check_slot(connection: sa.Connection, hold: JobHold) -> None:
    """Raise RoundError where no paid round of the job is left."""
    if connection.execute(file.SLOTS_TAKEN, {"job_id": hold.id}).scalar_one() >= hold.slots:
        raise RoundError("all rounds that this job paid for are used", hint="sign a new job; it is charged anew")


def link(connection: sa.Connection, hold: JobHold, request_id: bytes) -> None:
    """Record that a request is a round of the job."""
    connection.execute(job_request.insert().values(request=request_id, job=hold.id))


def pays_for(connection: sa.Connection, request_id: bytes) -> bool:
    """Return whether a running job holds the cost of this request."""
    row = connection.execute(file.JOB_OF_REQUEST, {"step": request_id}).first()
    return row is not None and not row.ended


def end(connection: sa.Connection, job_id: bytes, reason: str) -> tuple[Any, Curve, int] | None:
    """End a job. Return its row with the cost and the rho of its unused rounds; None where there is nothing to end."""
    row = connection.execute(file.FIND_JOB, {"job_id": job_id}).first()
    if row is None or row.ended:
        return None
    unused = row.slots - connection.execute(file.SLOTS_TAKEN, {"job_id": job_id}).scalar_one()
    connection.execute(job.update().where(job.c.id == job_id).values(ended=1, reason=reason))
    each = [nano // row.slots for nano in load(row.cost).nano]  # exact: a job's cost is its slots times one round's
    # What the division of rho leaves over is given back with the rounds that are not used.
    rest = row.rho_nano - (row.slots - unused) * (row.rho_nano // row.slots)
    return row, Curve(tuple(unused * nano for nano in each)), rest


def begins_with(connection: sa.Connection, digits: str) -> list[Any]:
    """Return the rows of the running jobs whose id begins with these hexadecimal digits; none for no digits."""
    rows = connection.execute(sa.select(job).where(job.c.ended == 0))
    return [row for row in rows if digits and row.id.hex().startswith(digits.lower())]


def expired(connection: sa.Connection, now: int) -> list[bytes]:
    """Return the running jobs whose requests have expired: no further round of them can be accepted."""
    return list(connection.execute(sa.select(job.c.id).where(job.c.ended == 0, job.c.expires_at < now)).scalars())


def entries(connection: sa.Connection) -> tuple[JobEntry, ...]:
    """Return every job, those that run first."""
    used = (
        sa.select(sa.func.count())
        .select_from(job_request.join(request, request.c.id == job_request.c.request))
        .where(job_request.c.job == job.c.id, request.c.state != "released")
        .scalar_subquery()
        .label("used")
    )
    rows = connection.execute(sa.select(job, used).order_by(job.c.ended, job.c.expires_at.desc()))
    return tuple(
        JobEntry(r.id, r.dataset, r.analyst, r.slots, r.used, r.rho_nano, r.expires_at, r.reason) for r in rows
    )
