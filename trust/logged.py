"""What the log has to say of what somebody signed: the coordinator writes it, institutions and verifiers hold it to it.

Each record is a function of signed bytes and of what governance published, so there is one right record, and every
other one is a lie. Must not know: who appends, where entries are kept.
"""

from __future__ import annotations

from protos.v1 import agent_pb2, log_pb2
from trust.identity.activity import Activity
from trust.identity.requests import VerifiedRequest
from trust.release import request_envelope_hash


def requested(request: VerifiedRequest, shape: str, activity: Activity | None) -> log_pb2.Requested:
    """Return the record of a request. `shape` is its plan's, `activity` the one that its purpose belongs to."""
    return log_pb2.Requested(
        request_id=request.request_id,
        envelope_hash=request_envelope_hash(request.payload),
        analyst=request.analyst,
        purpose=request.purpose,
        dataset=request.dataset,
        shape=shape,
        rho_nano=request.rho_nano,
        minimum_cohort=request.minimum_cohort,
        activity="" if activity is None else activity.name,
        category="" if activity is None else activity.category,
    )


def decided(decision: agent_pb2.Decision, statement: bytes) -> log_pb2.Decided:
    """Return the record of an institution's decision; `statement` are the exact bytes that it signed."""
    return log_pb2.Decided(
        request_id=decision.request_id,
        institution=decision.institution,
        allowed=decision.allowed,
        rule=decision.rule or decision.code,
        statement=statement,
        rho_nano_before=decision.rho_nano_before,
        rho_nano_after=decision.rho_nano_after,
        policy_hash=decision.policy_hash,
    )
