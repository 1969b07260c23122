"""A newcomer that lies, against the desk that issues certificates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509 as cx509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from analytics_server import governance
from analytics_server.audit.log import AuditLog
from analytics_server.config import ServerConfig
from analytics_server.coordinator.enrolment import EnrolmentDesk, invite
from analytics_server.store import Store
from protos.v1 import enrolment_pb2
from queries.errors import CohortiumError, IdentityError, SignatureError
from trust.identity import enrolment, keys, x509
from trust.identity.invitation import Invitation

NOW = datetime.now(UTC)


class Desk:
    def __init__(self, config: ServerConfig, store: Store, log: AuditLog) -> None:
        self.config, self.store, self.log = config, store, log
        self.desk = EnrolmentDesk(config, store, log)

    def invite(self, participant: str, role: str = "agent") -> Invitation:
        return invite(
            self.store,
            self.log,
            self.config,
            role=role,
            participant=participant,
            organisation=f"Hospital {participant}",
            valid_hours=1,
            now=NOW,
        )

    def enrol(self, request: enrolment_pb2.EnrolRequest) -> enrolment_pb2.EnrolResponse:
        return self.desk.enrol(request, NOW)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    config = governance.initialise(
        tmp_path / "server",
        consortium="heart-study",
        address="localhost:7443",
        enrolment_address="localhost:7444",
        governance=None,
        store="state.sqlite",
        minimum_cohort=3,
        colluders=1,
        now=NOW,
    )
    with governance.opened(config) as (store, log):
        yield Desk(config, store, log)


def honest(invitation: Invitation, key: Ed25519PrivateKey) -> enrolment_pb2.EnrolRequest:
    """An honest agent's request, but for the proof."""
    epoch_key = keys.public_bytes(X25519PrivateKey.generate())
    return enrolment_pb2.EnrolRequest(
        invitation_id=invitation.id,
        secret=invitation.secret,
        csr=x509.make_request(keys.generate_tls_key()),
        identity_key=keys.public_bytes(key),
        epoch_key=epoch_key,
        epoch_key_signature=keys.sign_epoch_key(key, "heart-study", invitation.participant, epoch_key),
        at=int(NOW.timestamp()),
    )


def still_good(desk: Desk, invitation: Invitation) -> None:
    """The refused attempt did not use the invitation up."""
    key = Ed25519PrivateKey.generate()
    request = honest(invitation, key)
    enrolment.prove_enrolment(request, "heart-study", key)
    assert desk.enrol(request).participant == invitation.participant


def test_names_in_the_certificate_request_are_ignored(desk: Desk) -> None:
    invitation, key = desk.invite("h1"), Ed25519PrivateKey.generate()
    request = honest(invitation, key)
    wish = [cx509.UniformResourceIdentifier("spiffe://heart-study/operator/root"), cx509.DNSName("coordinator")]
    request.csr = (
        cx509.CertificateSigningRequestBuilder()
        .subject_name(cx509.Name([cx509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .add_extension(cx509.SubjectAlternativeName(wish), critical=False)
        .add_extension(cx509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(cx509.ExtendedKeyUsage([cx509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(keys.generate_tls_key(), SHA256())
        .public_bytes(Encoding.PEM)
    )
    enrolment.prove_enrolment(request, "heart-study", key)
    leaf = cx509.load_pem_x509_certificates(desk.enrol(request).certificate_chain)[0]
    assert x509.peer_of(leaf).uri == "spiffe://heart-study/agent/h1"
    assert not leaf.extensions.get_extension_for_class(cx509.BasicConstraints).value.ca
    usage = list(leaf.extensions.get_extension_for_class(cx509.ExtendedKeyUsage).value)
    assert usage == [cx509.ExtendedKeyUsageOID.CLIENT_AUTH]


def test_identity_key_of_somebody_else_cannot_be_enrolled(desk: Desk) -> None:
    invitation = desk.invite("h1")
    request = honest(invitation, Ed25519PrivateKey.generate())
    enrolment.prove_enrolment(request, "heart-study", Ed25519PrivateKey.generate())
    with pytest.raises(SignatureError, match="enrolment"):
        desk.enrol(request)
    still_good(desk, invitation)


@pytest.mark.parametrize(
    "change",
    [
        {"csr": x509.make_request(keys.generate_tls_key())},
        {"secret": bytes(32)},
        {"invitation_id": "other"},
        {"at": int(NOW.timestamp()) + 1},
        {"epoch_key": keys.public_bytes(X25519PrivateKey.generate())},
        {"epoch_key_signature": bytes(64)},
        {"identity_key": keys.public_bytes(Ed25519PrivateKey.generate())},
        {"proof": b""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_field_can_be_changed_under_the_proof(desk: Desk, change: dict[str, object]) -> None:
    invitation, key = desk.invite("h1"), Ed25519PrivateKey.generate()
    request = honest(invitation, key)
    enrolment.prove_enrolment(request, "heart-study", key)
    for name, value in change.items():
        setattr(request, name, value)
    with pytest.raises(SignatureError):
        desk.enrol(request)
    still_good(desk, invitation)


def test_proof_for_another_consortium_does_not_count(desk: Desk) -> None:
    invitation, key = desk.invite("h1"), Ed25519PrivateKey.generate()
    request = honest(invitation, key)
    enrolment.prove_enrolment(request, "lung-study", key)
    with pytest.raises(SignatureError):
        desk.enrol(request)


def test_epoch_key_signed_under_another_name_is_refused(desk: Desk) -> None:
    invitation, key = desk.invite("h1"), Ed25519PrivateKey.generate()
    request = honest(invitation, key)
    request.epoch_key_signature = keys.sign_epoch_key(key, "heart-study", "h2", request.epoch_key)
    enrolment.prove_enrolment(request, "heart-study", key)
    with pytest.raises(SignatureError, match="epoch key of 'h1'"):
        desk.enrol(request)
    still_good(desk, invitation)


def test_agent_without_an_epoch_key_and_analyst_with_one_are_refused(desk: Desk) -> None:
    key = Ed25519PrivateKey.generate()
    agent = honest(desk.invite("h1"), key)
    agent.epoch_key = agent.epoch_key_signature = b""
    analyst = honest(desk.invite("ada", "analyst"), key)
    for request in (agent, analyst):
        enrolment.prove_enrolment(request, "heart-study", key)
        with pytest.raises(IdentityError):
            desk.enrol(request)


def test_unsuitable_tls_key_costs_no_invitation(desk: Desk) -> None:
    invitation, key = desk.invite("h1"), Ed25519PrivateKey.generate()
    request = honest(invitation, key)
    name = cx509.Name([cx509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = cx509.CertificateSigningRequestBuilder().subject_name(name)
    request.csr = builder.sign(generate_private_key(SECP384R1()), SHA256()).public_bytes(Encoding.PEM)
    enrolment.prove_enrolment(request, "heart-study", key)
    with pytest.raises(IdentityError, match="P-256"):
        desk.enrol(request)
    still_good(desk, invitation)


def test_one_identity_key_under_two_names_is_refused(desk: Desk) -> None:
    key = Ed25519PrivateKey.generate()
    first, second = honest(desk.invite("h1"), key), honest(desk.invite("h2"), key)
    for request in (first, second):
        enrolment.prove_enrolment(request, "heart-study", key)
    desk.enrol(first)
    with pytest.raises(IdentityError, match=r"identity key .* already enrolled"):
        desk.enrol(second)


def test_stranger_cannot_renew_in_anothers_name(desk: Desk) -> None:
    invitation, key = desk.invite("h1"), Ed25519PrivateKey.generate()
    request = honest(invitation, key)
    enrolment.prove_enrolment(request, "heart-study", key)
    desk.enrol(request)
    renewal = enrolment_pb2.RenewRequest(
        participant="h1", csr=x509.make_request(keys.generate_tls_key()), at=int(NOW.timestamp())
    )
    enrolment.prove_renewal(renewal, "heart-study", Ed25519PrivateKey.generate())
    with pytest.raises(SignatureError):
        desk.desk.renew(renewal, NOW)
    enrolment.prove_renewal(renewal, "heart-study", key)
    assert desk.desk.renew(renewal, NOW).participant == "h1"
    renewal.participant = "h2"
    with pytest.raises(CohortiumError):
        desk.desk.renew(renewal, NOW)


@pytest.mark.parametrize("request_", [enrolment_pb2.EnrolRequest(), enrolment_pb2.EnrolRequest(at=-(2**63))])
def test_empty_request_is_refused_in_words(desk: Desk, request_: enrolment_pb2.EnrolRequest) -> None:
    with pytest.raises(IdentityError):
        desk.enrol(request_)
