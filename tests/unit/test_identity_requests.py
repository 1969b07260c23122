from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.identity import CONSORTIUM, hospitals, payload

from protos.v1 import query_pb2
from queries.errors import ClockError, IdentityError, QueryError, SignatureError
from queries.limits import MAX_QUERY_BYTES
from trust.identity import envelope, keys, membership
from trust.identity.membership import MembershipDocument, Person
from trust.identity.requests import PAYLOAD_TYPE, build_request, verify_request
from trust.transcript import digest

GOVERNANCE, ADA = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NOW = 1_800_000_000
FIELDS = {
    "consortium": CONSORTIUM,
    "analyst": "ada",
    "purpose": "heart failure audit",
    "dataset": "patients",
    "schema_hash": bytes(range(32)),
    "query": b"encoded",
    "rho_nano": 5_000_000,
    "minimum_cohort": 3,
    "now": NOW,
}


@pytest.fixture(scope="module")
def members() -> MembershipDocument:
    people = [
        Person("ada", ("analyst",), keys.public_bytes(ADA)),
        Person("olga", ("auditor",), keys.public_bytes(Ed25519PrivateKey.generate())),
    ]
    signed = membership.sign(payload([h.listed() for h in hospitals(3)], people), GOVERNANCE)
    return membership.verify(signed, keys.public_bytes(GOVERNANCE))


def altered(**changes: object) -> bytes:
    """A request as a dishonest client would sign it."""
    _, signed = build_request(key=ADA, **FIELDS)
    message = query_pb2.QueryRequest.FromString(envelope.unverified_payload(signed, PAYLOAD_TYPE))
    for name, value in changes.items():
        setattr(message, name, value)
    return envelope.sign(PAYLOAD_TYPE, message.SerializeToString(), ADA)


def test_request_comes_back_as_it_was_signed(members: MembershipDocument) -> None:
    request_id, signed = build_request(key=ADA, **FIELDS)
    verified = verify_request(signed, members, CONSORTIUM, NOW + 5)
    for name in FIELDS.keys() - {"now"}:
        assert getattr(verified, name) == FIELDS[name]
    assert verified.roles == ("analyst",)
    assert verified.issued_at == NOW
    assert verified.expires_at == NOW + 600
    assert verified.envelope == signed
    assert verified.request_id == request_id == digest("request-id", verified.payload)


def test_same_question_twice_is_two_requests() -> None:
    assert build_request(key=ADA, **FIELDS)[0] != build_request(key=ADA, **FIELDS)[0]


def test_clock_ahead_is_told_by_how_much(members: MembershipDocument) -> None:
    _, signed = build_request(key=ADA, **(FIELDS | {"now": NOW + 1800}))
    with pytest.raises(ClockError, match="30 minutes in the future"):
        verify_request(signed, members, CONSORTIUM, NOW)
    assert verify_request(signed, members, CONSORTIUM, NOW + 1500)


def test_expired_request_is_told_since_when(members: MembershipDocument) -> None:
    _, signed = build_request(key=ADA, **FIELDS)
    assert verify_request(signed, members, CONSORTIUM, NOW + 600)
    with pytest.raises(ClockError, match="expired 60 seconds ago"):
        verify_request(signed, members, CONSORTIUM, NOW + 660)


def test_someone_who_is_no_analyst_is_refused(members: MembershipDocument) -> None:
    olga = Ed25519PrivateKey.generate()
    people = [Person("olga", ("auditor",), keys.public_bytes(olga))]
    document = membership.verify(
        membership.sign(payload([h.listed() for h in hospitals(3)], people), GOVERNANCE), keys.public_bytes(GOVERNANCE)
    )
    _, signed = build_request(key=olga, **(FIELDS | {"analyst": "olga"}))
    with pytest.raises(IdentityError, match="no analyst"):
        verify_request(signed, document, CONSORTIUM, NOW)
    with pytest.raises(IdentityError, match="nobody in epoch 1"):
        verify_request(altered(analyst="eve"), members, CONSORTIUM, NOW)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"purpose": ""}, "purpose"),
        ({"purpose": "a\nb"}, "purpose"),
        ({"purpose": "x" * 201}, "purpose"),
        ({"schema_hash": b"short"}, "schema hash"),
        ({"nonce": b""}, "nonce"),
        ({"query": b""}, "encoded query"),
        ({"query": bytes(MAX_QUERY_BYTES + 1)}, "encoded query"),
        ({"rho_nano": 0}, "privacy cost"),
        ({"minimum_cohort": 2}, "minimum cohort"),
        ({"expires_at": NOW}, "lives between"),
        ({"expires_at": NOW + 86_401}, "lives between"),
    ],
)
def test_form_that_no_honest_client_sends_is_refused(members: MembershipDocument, change, complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        verify_request(altered(**change), members, CONSORTIUM, NOW)


def test_honest_client_is_stopped_before_it_signs() -> None:
    with pytest.raises(QueryError, match="purpose"):
        build_request(key=ADA, **(FIELDS | {"purpose": " "}))


def test_bytes_that_are_no_request_are_refused(members: MembershipDocument) -> None:
    with pytest.raises(SignatureError, match="not a query request"):
        verify_request(envelope.sign(PAYLOAD_TYPE, b"\xff\xff", ADA), members, CONSORTIUM, NOW)
