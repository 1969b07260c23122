"""Invitation tokens: everything a newcomer needs, in one line of text that is pasted once.

`cohortium-invite-v1.` and base64url of length (2 bytes), serialised Invitation, checksum (6 bytes of SHA-256). The
token carries the root certificate itself, so the newcomer never fetches anything over a connection it cannot verify.
Length and checksum catch slips of the clipboard, not attackers: the secret and TLS do that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field

from protos.v1 import enrolment_pb2
from queries.errors import InvitationError
from trust.identity.names import PARTICIPANT_ROLES, check_consortium, check_participant
from trust.transcript import digest

PREFIX = "cohortium-invite-v1."
_CHECKSUM_BYTES = 6
_MAX_TEXT = 16_384


@dataclass(frozen=True, slots=True)
class Invitation:
    """One person or agent may join once, until `expires_at` (unix seconds). `ca` is the root certificate in DER."""

    consortium: str
    address: str
    ca: bytes = field(repr=False)
    governance_key: bytes = field(repr=False)
    id: str
    secret: bytes = field(repr=False)
    participant: str
    role: str
    expires_at: int
    recovery: bool = False
    """Whether it gives another key to somebody enrolled before."""
    issuer: str = ""
    """The identity provider that has to vouch for the person, "" for none, and what the consortium is called there."""
    client_id: str = ""

    @property
    def secret_hash(self) -> bytes:
        """What the coordinator stores in the secret's place."""
        return secret_hash(self.id, self.secret)

    def to_token(self) -> str:
        """Return the text that is handed to the newcomer. It is a secret until it is used."""
        body = enrolment_pb2.Invitation(
            consortium=self.consortium,
            address=self.address,
            ca=self.ca,
            governance_key=self.governance_key,
            invitation_id=self.id,
            secret=self.secret,
            participant=self.participant,
            role=self.role,
            expires_at=self.expires_at,
            recovery=self.recovery,
            issuer=self.issuer,
            client_id=self.client_id,
        ).SerializeToString(deterministic=True)
        framed = len(body).to_bytes(2, "big") + body + _checksum(body)
        return PREFIX + _encode(framed)

    @classmethod
    def from_token(cls, text: str) -> Invitation:
        """Parse a token, ignoring white space and line breaks in it. Raises InvitationError saying what is wrong."""
        message = enrolment_pb2.Invitation()
        try:
            message.ParseFromString(_unframe(text))
            check_consortium(message.consortium)
            check_participant(message.participant)
        except InvitationError:
            raise
        except (
            Exception
        ) as error:  # protobuf's DecodeError or a malformed name: both only by design of the token's maker
            raise InvitationError("the invitation's content is malformed", hint="ask for a new invitation") from error
        if message.role not in PARTICIPANT_ROLES or len(message.governance_key) != 32 or not message.ca:
            raise InvitationError("the invitation's content is malformed", hint="ask for a new invitation")
        return cls(
            consortium=message.consortium,
            address=message.address,
            ca=message.ca,
            governance_key=message.governance_key,
            id=message.invitation_id,
            secret=message.secret,
            participant=message.participant,
            role=message.role,
            expires_at=message.expires_at,
            recovery=message.recovery,
            issuer=message.issuer,
            client_id=message.client_id,
        )


def new_secret() -> tuple[str, bytes]:
    """Return a fresh invitation id (16 hex digits) and secret (32 bytes)."""
    return secrets.token_hex(8), secrets.token_bytes(32)


def secret_hash(invitation_id: str, secret: bytes) -> bytes:
    """Return 32 bytes from which the secret cannot be found; the secret has 256 bits, so no slow hash is needed."""
    return digest("invitation-secret", invitation_id.encode(), secret)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECKSUM_BYTES]


def _encode(framed: bytes) -> str:
    return base64.urlsafe_b64encode(framed).decode().rstrip("=")


def _decode(encoded: str) -> bytes:
    whole = encoded[:-1] if len(encoded) % 4 == 1 else encoded  # a single leftover character holds no whole byte
    try:
        return base64.b64decode(whole + "=" * (-len(whole) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _unframe(text: str) -> bytes:
    compact = "".join(text.split())
    if not compact.startswith(PREFIX):
        raise InvitationError("this is not an invitation", hint=f"paste the whole token, which begins with {PREFIX}")
    encoded = compact[len(PREFIX) :]
    if len(encoded) > _MAX_TEXT:
        raise InvitationError("the invitation is too long", hint="paste the token alone")
    framed = _decode(encoded)
    wanted = int.from_bytes(framed[:2], "big") + 2 + _CHECKSUM_BYTES
    if 2 <= len(framed) < wanted:
        raise InvitationError("the invitation is cut short", hint="copy the whole token, it is one long line")
    body, checksum = framed[2:-_CHECKSUM_BYTES], framed[-_CHECKSUM_BYTES:]
    if _encode(framed) != encoded or len(framed) != wanted or _checksum(body) != checksum:
        raise InvitationError("the invitation has a typing error", hint="copy the token again instead of typing it")
    return body
