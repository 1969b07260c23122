from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import CohortiumError, InvitationError, SignatureError
from trust.identity import envelope, keys
from trust.identity.invitation import PREFIX, Invitation
from trust.identity.names import PARTICIPANT_ROLES, Peer, parse_uri

KEY = Ed25519PrivateKey.generate()
PUBLIC = keys.public_bytes(KEY)
consortia = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
participants = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
invitations = st.builds(
    Invitation,
    consortium=consortia,
    address=st.text(max_size=100),
    ca=st.binary(min_size=1, max_size=800),
    governance_key=st.binary(min_size=32, max_size=32),
    id=st.text(max_size=20),
    secret=st.binary(max_size=64),
    participant=participants,
    role=st.sampled_from(PARTICIPANT_ROLES),
    expires_at=st.integers(-(2**63), 2**63 - 1),
    recovery=st.booleans(),
    issuer=st.text(max_size=40),
    client_id=st.text(max_size=20),
)


@given(invitations)
def test_invitation_survives_its_token(invitation: Invitation) -> None:
    assert Invitation.from_token(invitation.to_token()) == invitation


@given(st.text(max_size=300))
def test_any_text_is_either_an_invitation_or_refused_as_one(text: str) -> None:
    for candidate in (text, PREFIX + text):
        try:
            Invitation.from_token(candidate)
        except InvitationError:
            continue


@given(consortia, st.sampled_from(PARTICIPANT_ROLES), participants)
def test_peer_survives_its_uri(consortium: str, role: str, participant: str) -> None:
    peer = Peer(consortium, role, participant)
    assert parse_uri(peer.uri) == peer


@given(st.text(max_size=200))
def test_any_uri_is_parsed_or_refused(text: str) -> None:
    try:
        assert parse_uri(text).uri == text
    except CohortiumError:
        assert not text.startswith("spiffe://heart/agent/")


@given(st.text(max_size=50), st.binary(max_size=200), st.text(max_size=50), st.binary(max_size=200))
def test_pre_authentication_encoding_is_injective(kind: str, payload: bytes, kind2: str, payload2: bytes) -> None:
    same = envelope.pre_authentication_encoding(kind, payload) == envelope.pre_authentication_encoding(kind2, payload2)
    assert same == ((kind, payload) == (kind2, payload2))


@given(st.binary(max_size=200), st.data())
def test_flipped_bit_never_changes_what_verifies(payload: bytes, data: st.DataObject) -> None:
    signed = envelope.sign("text/plain", payload, KEY)
    bit = data.draw(st.integers(0, len(signed) * 8 - 1))
    flipped = bytearray(signed)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        assert envelope.verify(bytes(flipped), "text/plain", PUBLIC) == payload
    except SignatureError:
        return


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_an_envelope(garbage: bytes) -> None:
    try:
        envelope.verify(garbage, "text/plain", PUBLIC)
    except SignatureError:
        return
    raise AssertionError("garbage verified")
