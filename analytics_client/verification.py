"""When an analyst believes a released answer: the coordinator's word is checked against everything public.

The sum cannot be checked (that is the point of masking it), but all around it can: that it is of the request that was
asked, by members in force, with the noise that plan and cohort demand, and that its exact bytes are in the audit log
under a head that the log's key signed. Pure: no network, no clock, no files.
"""

from __future__ import annotations

from dataclasses import dataclass

from protos.v1 import analyst_pb2, log_pb2, query_pb2
from queries.errors import LogError, ProtocolViolation
from queries.noise import NoiseShape
from trust.identity.membership import MembershipDocument
from trust.question import AnyPlan, model_hash
from trust.release import release_hash
from trust.secagg import default_threshold
from trust.tlog.checkpoint import open_checkpoint
from trust.tlog.merkle import leaf_hash, verify_inclusion
from trust.tlog.notes import Verifier

COORDINATOR = "coordinator"
TELL = "do not use this answer; tell the auditor"


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release that agrees with everything public. `log_size` and `log_root` are of the head it is included under."""

    release: query_pb2.Release
    noise: NoiseShape
    log_seq: int
    log_size: int
    log_root: bytes
    log_note: bytes


def verify_release(
    progress: analyst_pb2.Progress, *, request_id: bytes, plan: AnyPlan, rho_nano: int, membership: MembershipDocument
) -> VerifiedRelease:
    """Return the release that `progress` carries.

    Raise ProtocolViolation where it is not an answer to this request by this membership, LogError where the log does
    not hold it.
    """
    release = query_pb2.Release()
    try:
        release.ParseFromString(progress.release)
    except Exception as error:  # protobuf's DecodeError has a different path in each of its back ends
        raise _violation("sent a release that cannot be read") from error
    if release.request_id != request_id:
        raise _violation("answered another request than the one asked")
    if release.rho_nano != rho_nano:
        raise _violation("released at another privacy cost than the one signed")
    noise = _verify_cohort(release, plan, membership)
    if len(release.sums) != plan.length:
        raise _violation(f"released {len(release.sums)} numbers where the query has {plan.length}")
    size, root = _verify_logged(progress, request_id, membership)
    return VerifiedRelease(release, noise, progress.proof.seq, size, root, progress.checkpoint)


def _verify_cohort(release: query_pb2.Release, plan: AnyPlan, membership: MembershipDocument) -> NoiseShape:
    """Check who answered; return the noise that such a cohort's release carries."""
    survivors = list(release.survivors)
    if len(set(survivors)) != len(survivors) or not len(survivors) <= release.invited <= len(membership.institutions):
        raise _violation("released a sum with an impossible cohort")
    for survivor in survivors:
        membership.institution(survivor)
    if release.colluders != membership.colluders or release.threshold != default_threshold(release.invited):
        raise _violation("released a sum of a round with other parameters than the membership's")
    organisations = {membership.institution(survivor).organisation for survivor in survivors}
    if len(survivors) < release.threshold:
        raise _violation(f"released a sum of only {len(survivors)} institutions")
    if len(organisations) < membership.minimum_cohort:
        raise _violation(f"released a sum of only {len(organisations)} organisations")
    noise = plan.noise(
        release.rho_nano, threshold=release.threshold, colluders=release.colluders, invited=release.invited
    )
    if release.refine_bits != noise.refine_bits:
        raise _violation("released a sum on another lattice than the plan's")
    return noise


def _verify_logged(
    progress: analyst_pb2.Progress, request_id: bytes, membership: MembershipDocument
) -> tuple[int, bytes]:
    """Check that the log holds these exact bytes as the release of this request; return the head's size and root."""
    origin = membership.log_origin
    head = open_checkpoint(progress.checkpoint, origin, Verifier(origin, membership.log_key))
    proof = progress.proof
    verify_inclusion(leaf_hash(proof.leaf), proof.seq, head.size, list(proof.hashes), head.root)
    entry = log_pb2.LogEntry()
    try:
        entry.ParseFromString(proof.leaf)
    except Exception as error:  # as above
        raise LogError(f"entry {proof.seq} of the log cannot be read", hint=TELL) from error
    released = entry.released
    if entry.WhichOneof("event") != "released" or released.request_id != request_id:
        raise LogError(f"entry {proof.seq} of the log is not the release of this request", hint=TELL)
    if released.release_hash != release_hash(progress.release):
        raise LogError(f"entry {proof.seq} of the log records another release than the one received", hint=TELL)
    release = query_pb2.Release.FromString(progress.release)
    if released.model_hash and released.model_hash != (release.model_hash or model_hash(release.model)):
        raise LogError(f"entry {proof.seq} of the log records another model than the one received", hint=TELL)
    return head.size, head.root


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"the coordinator {what}", party=COORDINATOR, hint=TELL)
