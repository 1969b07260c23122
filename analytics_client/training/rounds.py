"""A job's releases, each found in the audit log, in their order, and asked at the model those before it give.

The model is computed here; the coordinator's own computation is only compared with it. Must not know: the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analytics_client.gossip import verify_witnessed
from analytics_client.verification import COORDINATOR, TELL, verify_release
from protos.v1 import analyst_pb2
from queries.errors import ProtocolViolation, QueryError
from queries.training import newton
from queries.training.course import make_course
from queries.training.design import Floats
from queries.training.plan import JobPlan
from trust.identity.membership import MembershipDocument
from trust.question import model_hash

_AGREE = 1e-6


@dataclass(frozen=True, slots=True)
class Round:
    """A verified round: whose data are in it, and where it is logged."""

    number: int
    slot: int
    survivors: tuple[str, ...]
    invited: int
    log_seq: int


@dataclass(frozen=True)
class VerifiedRounds:
    """A job's releases, in order, with the newest log head that covers them."""

    rounds: tuple[Round, ...]
    releases: tuple[newton.Released, ...]
    theta: Floats
    diverged: bool
    log_size: int
    log_root: bytes
    log_note: bytes


def verify_rounds(
    progresses: Sequence[analyst_pb2.Progress], *, request_id: bytes, plan: JobPlan, membership: MembershipDocument
) -> VerifiedRounds:
    """Return the job's rounds. Raise as `verify_release` for any, and ProtocolViolation where they are no sequence."""
    rounds: list[Round] = []
    releases: list[newton.Released] = []
    course, diverged = make_course(plan), False
    size, root, note, last_slot, last_seq = 0, b"", b"", -1, -1
    for number, progress in enumerate(progresses):
        verified = verify_release(
            progress, request_id=request_id, plan=plan, rho_nano=plan.rho_nano, membership=membership
        )
        release = verified.release
        verify_witnessed(
            progress,
            release.survivors,
            request_id=request_id,
            membership=membership,
            head=(verified.log_size, verified.log_root),
        )
        if diverged or not last_slot < release.slot < plan.slots or verified.log_seq <= last_seq:
            raise _violation("released rounds of a job out of their order")
        named = set(plan.job.institutions)
        if named and not set(release.survivors) <= named:
            raise _violation("asked institutions that the job does not name")
        if release.model_hash:
            own = plan.encode_model(course.theta)
            if model_hash(own) != release.model_hash:
                raise _violation("asked a round of a job at another model than the releases before it give")
            release.model = own
        asked_at = plan.decode_model(release.model)
        if not np.allclose(asked_at, course.theta, rtol=_AGREE, atol=_AGREE):
            raise _violation("asked a round of a job at another model than the releases before it give")
        survivors = len(release.survivors)
        sums, deviation = plan.read(np.asarray(release.sums, dtype=np.int64), verified.noise, survivors)
        releases.append(newton.Released(asked_at, sums, deviation, survivors))
        rounds.append(Round(number + 1, release.slot, tuple(release.survivors), release.invited, verified.log_seq))
        last_slot, last_seq = release.slot, verified.log_seq
        if verified.log_size > size:
            size, root, note = verified.log_size, verified.log_root, verified.log_note
        try:
            course.take(releases[-1])
        except QueryError:  # the model before it is the last good one; nothing may follow
            diverged = True
    return VerifiedRounds(tuple(rounds), tuple(releases), course.theta, diverged, size, root, note)


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"the coordinator {what}", party=COORDINATOR, hint=TELL)
