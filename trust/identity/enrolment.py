"""What a newcomer proves when it enrols, and anyone enrolled when it renews a certificate.

Both sign, with their identity key, a frame of every field they send and of the consortium they send it to. Knows no
connection and no store.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos.v1 import enrolment_pb2
from queries.errors import ClockError
from trust.identity import keys
from trust.identity.requests import SKEW
from trust.identity.succession import verify_rotation
from trust.transcript import digest, frame, integer


def prove_enrolment(request: enrolment_pb2.EnrolRequest, consortium: str, key: Ed25519PrivateKey) -> None:
    """Fill in the proof of a request that is otherwise complete."""
    request.proof = key.sign(_enrolment(request, consortium))


def check_enrolment(request: enrolment_pb2.EnrolRequest, consortium: str) -> None:
    """Raise SignatureError unless the sender holds the identity key that it sent."""
    keys.verify(request.identity_key, request.proof, _enrolment(request, consortium), what="the enrolment")


def vouching_nonce(consortium: str, invitation_id: str, identity_key: bytes) -> str:
    """Return the nonce that an ID token carries to vouch for this key and this invitation, and for no other."""
    commitment = digest("vouched-key", consortium.encode(), invitation_id.encode(), identity_key)
    return base64.urlsafe_b64encode(commitment).decode().rstrip("=")


def prove_renewal(request: enrolment_pb2.RenewRequest, consortium: str, key: Ed25519PrivateKey) -> None:
    """Fill in the proof of a request that is otherwise complete."""
    request.proof = key.sign(_renewal(request, consortium))


def check_renewal(request: enrolment_pb2.RenewRequest, consortium: str, identity_key: bytes) -> None:
    """Raise SignatureError unless the sender holds the identity key that was enrolled."""
    keys.verify(identity_key, request.proof, _renewal(request, consortium), what="the renewal")


def prove_rotation(request: enrolment_pb2.RotateRequest, consortium: str, new_key: Ed25519PrivateKey) -> None:
    """Fill in the proof of a request that is otherwise complete, the old key's signature included."""
    request.proof = new_key.sign(_rotation(request, consortium))


def check_rotation(request: enrolment_pb2.RotateRequest, consortium: str, old_key: bytes) -> None:
    """Raise SignatureError unless the sender holds the key in force and the one that is to follow it."""
    verify_rotation(consortium, request.participant, old_key, request.new_key, request.old_signature)
    keys.verify(request.new_key, request.proof, _rotation(request, consortium), what="the key rotation")


def check_clock(theirs: int, ours: int, *, skew: int = SKEW) -> None:
    """Raise ClockError, saying by how much, where the sender's unix seconds are too far from ours."""
    off = theirs - ours
    if abs(off) <= skew:
        return
    size = f"{abs(off) / 60:.0f} minutes" if abs(off) < 7200 else f"{abs(off) / 3600:.0f} hours"
    raise ClockError(
        f"your clock is {size} {'ahead of' if off > 0 else 'behind'} the coordinator's",
        hint="set your machine's clock by NTP, or tell your operator if yours is right",
    )


def _enrolment(request: enrolment_pb2.EnrolRequest, consortium: str) -> bytes:
    return frame(
        "enrol",
        consortium.encode(),
        request.invitation_id.encode(),
        request.secret,
        request.csr,
        request.identity_key,
        request.epoch_key,
        request.epoch_key_signature,
        request.id_token.encode(),
        _time(request.at),
    )


def _renewal(request: enrolment_pb2.RenewRequest, consortium: str) -> bytes:
    return frame("renew", consortium.encode(), request.participant.encode(), request.csr, _time(request.at))


def _rotation(request: enrolment_pb2.RotateRequest, consortium: str) -> bytes:
    return frame(
        "rotate",
        consortium.encode(),
        request.participant.encode(),
        request.new_key,
        request.epoch_key,
        request.epoch_key_signature,
        request.old_signature,
        _time(request.at),
    )


def _time(at: int) -> bytes:
    return integer(
        at & 0xFFFFFFFFFFFFFFFF
    )  # two's complement: a clock before 1970 is refused for its skew, not for this
