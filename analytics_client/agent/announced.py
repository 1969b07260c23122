"""What an announcement must be before policy and budget are asked, and how a refusal is told.

Pure checks against what this institution knows: its membership, the log's head that it witnessed, the plan that follows
from the request. Must not know: ledger, policy, sources, rounds in progress.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog

from analytics_client.agent.approvals import Question
from protos.v1 import agent_pb2, analyst_pb2, log_pb2
from queries.errors import (
    CohortiumError,
    ConfigError,
    DataError,
    IdentityError,
    LogError,
    PolicyDenied,
    QueryError,
    ServiceError,
)
from queries.noise import NoiseShape
from trust import logged
from trust.identity.activity import Activity, activity_of
from trust.identity.membership import MembershipDocument
from trust.identity.requests import SKEW, VerifiedRequest
from trust.lanes import lanes_of
from trust.question import AnyPlan, shape_of
from trust.secagg import RoundParameters
from trust.secagg.packing import Lanes
from trust.tlog.entries import decode
from trust.tlog.merkle import leaf_hash, verify_inclusion
from trust.tlog.witness import Witness
from trust.transcript import digest, integer

logger = structlog.get_logger("cohortium.agent")


def check_epoch(verified: VerifiedRequest, ours: MembershipDocument) -> None:
    """Whoever asks may not know a newer membership than this agent: the coordinator would be withholding it."""
    if verified.epoch > ours.epoch:
        raise IdentityError(
            f"analyst {verified.analyst!r} knows membership epoch {verified.epoch}, this institution was shown "
            f"epoch {ours.epoch}: the coordinator withholds the newer one",
            hint="ask again; if it stays so, tell governance: somebody who was revoked may still be answered",
        )
    if verified.epoch == ours.epoch and verified.membership_hash != ours.hash:
        raise IdentityError(
            f"analyst {verified.analyst!r} was shown another membership of epoch {ours.epoch}",
            hint="governance signed two histories: tell the auditor",
        )


def included(proof: analyst_pb2.LogProof, witness: Witness) -> log_pb2.LogEntry:
    """Return the entry that is proved to be under the head just witnessed. Raises LogError where none is."""
    verify_inclusion(leaf_hash(proof.leaf), proof.seq, witness.size, list(proof.hashes), witness.root)
    entry = decode(proof.leaf)
    entry.DiscardUnknownFields()  # those of later versions
    return entry


def check_logged(
    entry: log_pb2.LogEntry, verified: VerifiedRequest, shape: str, activities: Mapping[int, Sequence[Activity]]
) -> None:
    """No log, no answer: the log must record the very request that was signed, every word of it.

    `activities` are those of each membership that this agent has seen, by epoch. Which one was in force when the entry
    was written is not known here, but that it is none before the one that the analyst knew. Where this agent has not
    seen all of those, only a verification of the log can tell.
    """
    epochs = range(verified.epoch, max(activities, default=0) + 1)
    known = [activities[epoch] for epoch in epochs if epoch in activities]
    record, said = entry.requested, {(entry.requested.activity, entry.requested.category)}
    belongs = [activity_of(listed, verified.purpose) for listed in known]
    right = {("", "") if activity is None else (activity.name, activity.category) for activity in belongs}
    expected = logged.requested(verified, shape, None)
    expected.activity, expected.category = record.activity, record.category
    if entry.actor != verified.analyst or record != expected:
        raise LogError("the log records another request than the one that was announced")
    if len(known) == len(epochs) and not said <= right:
        raise LogError(
            "the log puts this request under another processing activity than governance did for its purpose"
        )
    if not verified.issued_at - SKEW <= entry.at_ms / 1000 <= time.time() + SKEW:
        raise LogError("the log gives this request a time at which it was not made")


def check_shape(parameters: RoundParameters, verified: VerifiedRequest, plan: AnyPlan) -> tuple[NoiseShape, Lanes]:
    """Return noise and lanes of the round. Raise QueryError where it is announced with others than its question's."""
    noise = plan.noise(
        verified.rho_nano,
        threshold=parameters.threshold,
        colluders=parameters.colluders,
        invited=len(parameters.invited),
    )
    lanes = lanes_of(plan, noise, len(parameters.invited))
    if (parameters.length, parameters.ring_bits) != (lanes.elements(plan.length), lanes.ring_bits):
        raise QueryError("the announced vector is not the one this query stands for")
    if parameters.rungs != noise.rungs:
        raise QueryError("the announced round would open other layers of noise than this query's")
    return noise, lanes


def question_of(verified: VerifiedRequest, plan: AnyPlan, rule: str) -> Question:
    """Return what a steward would be asked to approve: all that was signed, less the nonce and the times."""
    cost, cohort = integer(verified.rho_nano), integer(verified.minimum_cohort)
    who = (verified.analyst.encode(), verified.purpose.encode(), verified.dataset.encode())
    what = (verified.schema_hash, verified.query, verified.job, cost, cohort)
    return Question(
        id=digest("question", verified.consortium.encode(), *who, *what),
        analyst=verified.analyst,
        dataset=verified.dataset,
        purpose=verified.purpose,
        shape=shape_of(plan),
        rho_nano=verified.rho_nano,
        rule=rule,
    )


def deny(decision: agent_pb2.Decision, error: CohortiumError) -> None:
    """Write a refusal. What is wrong with local files is for the steward's eyes; others learn only that it is so."""
    request = decision.request_id.hex()[:12]
    decision.allowed = False
    if isinstance(error, ConfigError | DataError):
        logger.error("cannot answer", request=request, reason=error.message, hint=error.hint)
        decision.code = decision.rule = ServiceError.code
        decision.message = f"the agent of {decision.institution} cannot answer now"
        decision.hint = "its steward finds the reason in the agent's own log"
        return
    decision.code, decision.message, decision.hint = error.code, error.message, error.hint
    decision.rule = error.rule if isinstance(error, PolicyDenied) else error.code
    level = logger.error if isinstance(error, LogError) else logger.info
    level("refused", request=request, rule=decision.rule, reason=error.message)
