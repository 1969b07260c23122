"""An analyst's signed request, as the coordinator and every agent each verify it.

The signature covers exact bytes with audience, purpose, nonce and expiry; the request's id is a digest of those bytes,
so one request cannot pass for another. Knows nothing of what the query says or whether policy allows it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos.v1 import query_pb2
from queries.errors import ClockError, IdentityError, LogError, QueryError, SignatureError
from queries.limits import MAX_JOB_BYTES, MAX_QUERY_BYTES
from trust.identity import envelope as dsse
from trust.identity.membership import MINIMUM_COHORT, MembershipDocument
from trust.tlog.checkpoint import Checkpoint, open_checkpoint
from trust.tlog.notes import Verifier
from trust.transcript import digest

PAYLOAD_TYPE = "application/vnd.cohortium.query-request.v1+protobuf"
LIFETIME = 600
"""Seconds for which a request may be answered, unless its analyst says otherwise."""
MAX_LIFETIME = 86_400
SKEW = 300
"""Seconds by which two clocks may disagree."""
_MAX_PURPOSE = 200
_NONCE_BYTES = 16
_MAX_HEAD = 4096


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request whose signature, audience, freshness and form were checked. Payload and envelope are exact bytes.

    It carries either a query or a training job, encoded; the other one is empty.
    """

    request_id: bytes
    consortium: str
    analyst: str
    roles: tuple[str, ...]
    purpose: str
    dataset: str
    schema_hash: bytes
    query: bytes
    job: bytes
    rho_nano: int
    minimum_cohort: int
    issued_at: int
    expires_at: int
    seen: Checkpoint | None
    """The newest head of the log that the analyst has seen; the log's own signature on it is verified."""
    seen_note: bytes = field(repr=False)
    epoch: int
    membership_hash: bytes
    """The newest membership that the analyst has seen; 0 and empty where the request does not say."""
    payload: bytes = field(repr=False)
    envelope: bytes = field(repr=False)


def build_request(
    *,
    key: Ed25519PrivateKey,
    consortium: str,
    analyst: str,
    purpose: str,
    dataset: str,
    schema_hash: bytes,
    query: bytes = b"",
    job: bytes = b"",
    rho_nano: int,
    minimum_cohort: int,
    now: int,
    lifetime: int = LIFETIME,
    seen: bytes = b"",
    membership: MembershipDocument | None = None,
) -> tuple[bytes, bytes]:
    """Return (request id, envelope bytes) signed by the analyst's identity key.

    Either `query` or `job` is given. `now` is in unix seconds, `lifetime` in seconds, `rho_nano` in 10^-9 of zCDP.
    `membership` is the newest one that the analyst has seen, `seen` the newest signed head of the log (see
    `trust.tlog.gossip`). Raises QueryError where `verify_request` would refuse the form.
    """
    message = query_pb2.QueryRequest(
        consortium=consortium,
        analyst=analyst,
        purpose=purpose,
        dataset=dataset,
        schema_hash=schema_hash,
        query=query,
        job=job,
        rho_nano=rho_nano,
        minimum_cohort=minimum_cohort,
        issued_at=now,
        expires_at=now + lifetime,
        nonce=secrets.token_bytes(_NONCE_BYTES),
        seen=seen,
        epoch=0 if membership is None else membership.epoch,
        membership_hash=b"" if membership is None else membership.hash,
    )
    _check_form(message)
    payload = message.SerializeToString(deterministic=True)
    return request_id(payload), dsse.sign(PAYLOAD_TYPE, payload, key)


def request_id(payload: bytes) -> bytes:
    """Return the 32 bytes that name a request: a digest of its signed payload."""
    return digest("request-id", payload)


def verify_request(
    envelope: bytes, membership: MembershipDocument, consortium: str, now: int, skew: int = SKEW
) -> VerifiedRequest:
    """Return the request if an analyst of this membership signed it for this consortium and it is fresh.

    Raises SignatureError, IdentityError (no analyst, wrong consortium, a membership or service account
    past its end), ClockError (expired,
    or from the future by more than `skew` seconds), QueryError (a field no honest client would send).
    """
    membership.check_age(now)
    claimed = _parse(dsse.unverified_payload(envelope, PAYLOAD_TYPE))
    person = membership.person(claimed.analyst)
    payload = dsse.verify(envelope, PAYLOAD_TYPE, person.identity_key)
    if "analyst" not in person.roles:
        raise IdentityError(f"{person.id!r} is no analyst", hint="ask your operator for the role")
    if claimed.consortium != consortium or membership.consortium != consortium:
        raise IdentityError(f"the request is for consortium {claimed.consortium[:80]!r}, not {consortium!r}")
    _check_form(claimed)
    _check_time(claimed, now, skew)
    if person.service is not None:
        person.service.check_time(person.id, now)
        person.service.check_dataset(person.id, claimed.dataset)
    return VerifiedRequest(
        request_id=request_id(payload),
        consortium=claimed.consortium,
        analyst=claimed.analyst,
        roles=person.roles,
        purpose=claimed.purpose,
        dataset=claimed.dataset,
        schema_hash=claimed.schema_hash,
        query=claimed.query,
        job=claimed.job,
        rho_nano=claimed.rho_nano,
        minimum_cohort=claimed.minimum_cohort,
        issued_at=claimed.issued_at,
        expires_at=claimed.expires_at,
        seen=_seen(claimed.seen, membership),
        seen_note=claimed.seen,
        epoch=claimed.epoch,
        membership_hash=claimed.membership_hash,
        payload=payload,
        envelope=envelope,
    )


def _parse(payload: bytes) -> query_pb2.QueryRequest:
    message = query_pb2.QueryRequest()
    try:
        message.ParseFromString(payload)
    except Exception:  # protobuf raises its own DecodeError, whose import path differs between its back ends
        raise SignatureError("these bytes are not a query request") from None
    return message


def _seen(note: bytes, membership: MembershipDocument) -> Checkpoint | None:
    if not note:
        return None
    try:
        return open_checkpoint(note, membership.log_origin, Verifier(membership.log_origin, membership.log_key))
    except LogError as error:
        raise QueryError("the request carries a head that the log's key did not sign", hint="ask again") from error


def _check_form(message: query_pb2.QueryRequest) -> None:
    if not message.purpose.strip() or len(message.purpose) > _MAX_PURPOSE or not message.purpose.isprintable():
        raise QueryError("a request needs a purpose", hint=f"one printable line of at most {_MAX_PURPOSE} characters")
    if len(message.schema_hash) != 32 or len(message.nonce) != _NONCE_BYTES:
        raise QueryError("a request's schema hash or nonce has the wrong length", hint="update this software")
    if message.job and message.query:
        raise QueryError("a request asks a query or a training job, not both")
    if len(message.job) > MAX_JOB_BYTES:
        raise QueryError(f"an encoded job takes at most {MAX_JOB_BYTES} bytes", hint="use fewer terms or times")
    if not message.job and not 1 <= len(message.query) <= MAX_QUERY_BYTES:
        raise QueryError(f"an encoded query takes 1 to {MAX_QUERY_BYTES} bytes", hint="ask for less in one query")
    if len(message.seen) > _MAX_HEAD:
        raise QueryError("the request's head of the log is too long", hint="update this software")
    if len(message.membership_hash) != (32 if message.epoch else 0):
        raise QueryError("the request's membership hash has the wrong length", hint="update this software")
    if message.rho_nano < 1:
        raise QueryError("a request needs a privacy cost above zero")
    if message.minimum_cohort < MINIMUM_COHORT:
        raise QueryError(f"the minimum cohort is at least {MINIMUM_COHORT} institutions")
    if not 1 <= message.expires_at - message.issued_at <= MAX_LIFETIME:
        raise QueryError(f"a request lives between 1 and {MAX_LIFETIME} seconds")


def _check_time(message: query_pb2.QueryRequest, now: int, skew: int) -> None:
    if message.issued_at - now > skew:
        raise ClockError(
            f"the request was signed {_minutes(message.issued_at - now)} in the future by the clock here",
            hint="set the analyst's clock, or this one, by NTP",
        )
    if now > message.expires_at:
        raise ClockError(
            f"the request expired {_minutes(now - message.expires_at)} ago by the clock here",
            hint="ask again; if it happens at once, set the clocks by NTP",
        )


def _minutes(seconds: int) -> str:
    return f"{seconds} seconds" if seconds < 120 else f"{seconds // 60} minutes"
