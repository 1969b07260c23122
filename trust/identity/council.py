"""Governance by a quorum: m of n people sign a document, and none of them can alone.

What participants pin stays 32 bytes: for a single governor the raw Ed25519 key, for a council a digest of its threshold
and its members' keys. An envelope that a council signed carries the council itself, so a verifier needs nothing else;
to pass off another council, or to find a key that is a given digest, means to find a preimage of SHA-256. Must not
know: what is signed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError

from protos.v1 import envelope_pb2, membership_pb2
from queries import schema
from queries.errors import ConfigError, SignatureError
from trust.identity import envelope as dsse
from trust.identity import keys
from trust.transcript import digest, integer

MOST_MEMBERS = 32
MEMBERSHIP = "application/vnd.cohortium.membership.v1+protobuf"
DATASET = "application/vnd.cohortium.dataset.v1+protobuf"


@dataclass(frozen=True, slots=True)
class Council:
    """`threshold` of the holders of `keys` (raw Ed25519, ascending) decide. Raise ConfigError on one that cannot."""

    threshold: int
    keys: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.keys) <= MOST_MEMBERS:
            raise ConfigError(
                f"a council of {len(self.keys)} cannot decide by {self.threshold}",
                hint=f"1 to all of at most {MOST_MEMBERS} members",
            )
        if list(self.keys) != sorted(set(self.keys)) or any(len(key) != 32 for key in self.keys):
            raise ConfigError("a council's keys are different 32-byte keys, in ascending order")

    @classmethod
    def of(cls, threshold: int, members: Sequence[bytes]) -> Council:
        """Return the council of these members' raw keys, in any order. Raise ConfigError."""
        return cls(threshold, tuple(sorted(members)))

    @property
    def governance_key(self) -> bytes:
        """The 32 bytes that participants pin."""
        return digest("governance-council", integer(self.threshold), *self.keys)

    def propose(self, payload_type: str, payload: bytes) -> bytes:
        """Return an envelope over the payload that nobody has signed yet."""
        return envelope_pb2.Envelope(
            payload_type=payload_type,
            payload=payload,
            council=envelope_pb2.Council(threshold=self.threshold, keys=self.keys),
        ).SerializeToString(deterministic=True)


def add_signature(envelope: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the envelope with one more signature. Raise SignatureError where the key is no member's, or has signed."""
    parsed = dsse.parse(envelope)
    public = keys.public_bytes(key)
    if public not in parsed.council.keys:
        raise SignatureError("this key is no member's of the council", hint="sign with a member's key")
    if keys.key_id(public) in {signature.key_id for signature in parsed.signatures}:
        raise SignatureError("this member has signed already", hint="pass the file on to another member")
    message = dsse.pre_authentication_encoding(parsed.payload_type, parsed.payload)
    parsed.signatures.add(key_id=keys.key_id(public), signature=key.sign(message))
    return parsed.SerializeToString(deterministic=True)


def kind(envelope: bytes) -> str:
    """Return the type of what an envelope holds; nothing is verified. Raise SignatureError where it is none."""
    return dsse.parse(envelope).payload_type


def count(envelope: bytes) -> tuple[int, int]:
    """Return how many signatures there are, unverified, and how many the council needs."""
    parsed = dsse.parse(envelope)
    return len(parsed.signatures), parsed.council.threshold


def describe(envelope: bytes) -> list[str]:
    """Return what a member would sign, in lines for a person. Raise SignatureError for what no council signs."""
    parsed = dsse.parse(envelope)
    try:
        if parsed.payload_type == MEMBERSHIP:
            document = membership_pb2.Membership.FromString(parsed.payload)
            everyone = [(i.id, f"institution, {i.organisation}", i.identity_key) for i in document.institutions]
            everyone += [(p.id, _kind_of(p), p.identity_key) for p in document.people]
            return [
                f"membership of {document.consortium}, epoch {document.epoch}: {len(everyone)} participants, "
                f"at least {document.minimum_cohort} institutions behind an answer, {document.colluders} may collude",
                f"log key {keys.fingerprint(document.log_key)}",
                *(f"  {name}, {role}, key {keys.fingerprint(key)}" for name, role, key in everyone),
                *(_changed(change) for change in document.key_changes if change.epoch == document.epoch),
            ]
        if parsed.payload_type == DATASET:
            dataset = schema.from_bytes(parsed.payload)
            return [f"dataset {dataset.name}, columns: {', '.join(column.name for column in dataset.columns)}"]
    except DecodeError as error:
        raise SignatureError("what is to be signed cannot be read") from error
    raise SignatureError(f"a council signs memberships and datasets, not {parsed.payload_type[:80]!r}")


def _kind_of(person: membership_pb2.Person) -> str:
    if not person.HasField("service"):
        return "person"
    days = (person.service.expires_at - int(time.time())) // 86_400
    return ascii(f"service account for {', '.join(person.service.datasets) or 'the log'}, {days} days")[1:-1]


def _changed(change: membership_pb2.KeyChange) -> str:
    why = "rotated by itself" if change.old_signature else f"RECOVERED BY YOU: {change.reason}"
    old, new = keys.fingerprint(change.old_key), keys.fingerprint(change.new_key)
    return ascii(f"  {change.id}: key {old} -> {new}, {why}")[1:-1]


def verify_governed(envelope: bytes, payload_type: str, governance_key: bytes) -> bytes:
    """Return the payload that governance signed as this type: the pinned key's holder, or the pinned council.

    Every signature has to verify, and to be of another member. Raise SignatureError.
    """
    parsed = dsse.parse(envelope)
    if not parsed.HasField("council"):
        return dsse.verify(envelope, payload_type, governance_key)
    if parsed.payload_type != payload_type:
        raise SignatureError(f"expected a signed {payload_type}, got {parsed.payload_type[:80]!r}")
    try:
        council = Council(parsed.council.threshold, tuple(parsed.council.keys))
    except ConfigError as error:
        raise SignatureError(f"the envelope names no possible council: {error.message}") from error
    if council.governance_key != governance_key:
        raise SignatureError("the envelope is of another council than the one that governs this consortium")
    members = {keys.key_id(key): key for key in council.keys}
    message = dsse.pre_authentication_encoding(parsed.payload_type, parsed.payload)
    signed: set[str] = set()
    for signature in parsed.signatures:
        member = members.get(signature.key_id)
        if member is None or signature.key_id in signed:
            raise SignatureError("the envelope is signed by somebody twice, or by who is no member of the council")
        keys.verify(member, signature.signature, message, what="a member of the council")
        signed.add(signature.key_id)
    if len(signed) < council.threshold:
        raise SignatureError(
            f"{len(signed)} of {len(council.keys)} members have signed, {council.threshold} must",
            hint="cohortium-server council sign FILE --key KEY",
        )
    return parsed.payload
