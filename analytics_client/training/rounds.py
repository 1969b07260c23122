"""A job's releases, each found in the audit log, in their order, and asked at the model those before it give.

The model is computed here; the coordinator's own computation is only compared with it. Must not know: the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from analytics_client.gossip import verify_witnessed
from analytics_client.verification import COORDINATOR, TELL, verify_release
from protos.v1 import analyst_pb2, query_pb2
from queries.errors import ProtocolViolation, QueryError
from queries.training import newton
from queries.training.design import Floats
from queries.training.evaluation import Evaluation, evaluate
from queries.training.plan import JobPlan
from queries.training.way import Way
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
class EvaluatedRound:
    """What the model of a job was worth after `round.number` rounds of training."""

    round: Round
    evaluation: Evaluation


@dataclass(frozen=True)
class VerifiedRounds:
    """A job's releases, in order, with the newest log head that covers them.

    `evaluations` are those on the way; `stopped` says that they ended the job by its own rule.
    """

    rounds: tuple[Round, ...]
    releases: tuple[newton.Released, ...]
    theta: Floats
    diverged: bool
    log_size: int
    log_root: bytes
    log_note: bytes
    evaluations: tuple[EvaluatedRound, ...] = ()
    stopped: bool = False


def verify_rounds(
    progresses: Iterable[analyst_pb2.Progress], *, request_id: bytes, plan: JobPlan, membership: MembershipDocument
) -> VerifiedRounds:
    """Return the job's rounds. Raise as `verify_release` for any, and ProtocolViolation where they are no sequence."""
    verification = Verification(request_id=request_id, plan=plan, membership=membership)
    for progress in progresses:
        verification.take(progress)
    return verification.result()


class Verification:
    """Rounds of a job, verified one after the other as they come."""

    def __init__(self, *, request_id: bytes, plan: JobPlan, membership: MembershipDocument) -> None:
        self._request_id = request_id
        self._plan = plan
        self._membership = membership
        self._way = Way(plan)
        self._rounds: list[Round] = []
        self._releases: list[newton.Released] = []
        self._evaluations: list[EvaluatedRound] = []
        self._last_seq = -1
        self._head: tuple[int, bytes, bytes] = 0, b"", b""
        self._diverged = False

    def take(self, progress: analyst_pb2.Progress) -> newton.Released:
        """Verify the next round, and return what it released. Raise as `verify_rounds`."""
        plan = self._plan.of_slot(_slot_of(progress))
        verified = verify_release(
            progress, request_id=self._request_id, plan=plan, rho_nano=plan.rho_nano, membership=self._membership
        )
        release = verified.release
        verify_witnessed(
            progress,
            release.survivors,
            request_id=self._request_id,
            membership=self._membership,
            head=(verified.log_size, verified.log_root),
        )
        if self._diverged or not self._way.expects(release.slot) or verified.log_seq <= self._last_seq:
            raise _violation("released rounds of a job out of their order")
        named = set(plan.job.institutions)
        if named and not set(release.survivors) <= named:
            raise _violation("asked institutions that the job does not name")
        asked_at = self._asked_at(release)
        survivors = len(release.survivors)
        sums, deviation = plan.read(np.asarray(release.sums, dtype=np.int64), verified.noise, survivors)
        released = newton.Released(asked_at, sums, deviation, survivors)
        number = self._way.trained + (not plan.evaluates)
        round_ = Round(number, release.slot, tuple(release.survivors), release.invited, verified.log_seq)
        if plan.evaluates:
            self._evaluations.append(EvaluatedRound(round_, evaluate(plan, sums, deviation)))
        else:
            self._releases.append(released)
            self._rounds.append(round_)
        self._last_seq = verified.log_seq
        if verified.log_size > self._head[0]:
            self._head = verified.log_size, verified.log_root, verified.log_note
        try:
            self._way.take(release.slot, released)
        except QueryError:  # the model before it is the last good one; nothing may follow
            self._diverged = True
        return released

    def _asked_at(self, release: query_pb2.Release) -> Floats:
        """Return the model that a round was asked at: the one that the releases before it give."""
        model = release.model
        if release.model_hash:
            model = self._plan.encode_model(self._way.theta)
            if model_hash(model) != release.model_hash:
                raise _violation("asked a round of a job at another model than the releases before it give")
        asked_at = self._plan.decode_model(model)
        if not np.allclose(asked_at, self._way.theta, rtol=_AGREE, atol=_AGREE):
            raise _violation("asked a round of a job at another model than the releases before it give")
        return asked_at

    def result(self) -> VerifiedRounds:
        """Return the rounds so far."""
        rounds, releases, evaluations = tuple(self._rounds), tuple(self._releases), tuple(self._evaluations)
        way = self._way
        return VerifiedRounds(rounds, releases, way.theta, self._diverged, *self._head, evaluations, way.over)


def _slot_of(progress: analyst_pb2.Progress) -> int:
    """Return which round a release is of; one that cannot be read is refused by whoever verifies it."""
    release = query_pb2.Release()
    try:
        release.ParseFromString(progress.release)
    except Exception:  # protobuf's DecodeError has a different path in each of its back ends
        return 0
    return release.slot


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"the coordinator {what}", party=COORDINATOR, hint=TELL)
