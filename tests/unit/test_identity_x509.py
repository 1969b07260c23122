from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as cx509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from harness.identity import Authority

from queries.errors import IdentityError
from trust.identity import keys, x509
from trust.identity.names import Peer, check_consortium, check_organisation, check_participant, parse_uri

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def request_for(key: object, name: str = "newcomer", algorithm: SHA256 | None = None) -> bytes:
    subject = cx509.Name([cx509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = cx509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)  # type: ignore[arg-type]  # any kind, on purpose


def test_leaf_names_its_peer_and_leads_to_the_root() -> None:
    authority = Authority(now=NOW)
    _, chain = authority.leaf("agent", "h1")
    peer = x509.peer_of(x509.verify_chain(chain, authority.root, NOW))
    assert (peer.consortium, peer.role, peer.id) == ("heart-study", "agent", "h1")
    assert peer.uri == "spiffe://heart-study/agent/h1"
    assert int(peer.serial, 16) == cx509.load_pem_x509_certificates(chain)[0].serial_number


def test_leaf_ends_after_ninety_days_or_with_its_issuer() -> None:
    authority = Authority(now=NOW)
    late = NOW + timedelta(days=700)
    chains = [authority.leaf("agent", "h1", now)[1] for now in (NOW, late)]
    ends = [cx509.load_pem_x509_certificates(chain)[0].not_valid_after_utc for chain in chains]
    assert ends == [NOW + timedelta(days=90), authority.issuing.not_valid_after_utc]


def test_chain_of_another_consortium_is_refused() -> None:
    ours, theirs = Authority(now=NOW), Authority(now=NOW)
    _, chain = theirs.leaf("agent", "h1")
    with pytest.raises(IdentityError, match="does not come from this consortium"):
        x509.verify_chain(chain, ours.root, NOW)


def test_leaf_signed_by_a_leaf_is_refused() -> None:
    authority = Authority(now=NOW)
    key_pem, chain = authority.leaf("agent", "h1")
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    leaf = cx509.load_pem_x509_certificates(chain)[0]
    key = load_pem_private_key(key_pem, None)
    forged_key = keys.generate_tls_key()
    forged = x509.issue_leaf(leaf, key, forged_key.public_key(), Peer("heart-study", "operator", "root"), NOW)  # type: ignore[arg-type]  # load_pem gives a union
    with pytest.raises(IdentityError):
        x509.verify_chain(x509.to_pem(forged, leaf), authority.root, NOW)


@pytest.mark.parametrize("days", [-1, 91])
def test_chain_outside_its_validity_is_refused(days: int) -> None:
    authority = Authority(now=NOW)
    _, chain = authority.leaf("agent", "h1")
    with pytest.raises(IdentityError, match="not valid now"):
        x509.verify_chain(chain, authority.root, NOW + timedelta(days=days))


def test_authorities_cannot_be_extended() -> None:
    authority = Authority(now=NOW)
    for certificate, length in ((authority.root, 1), (authority.issuing, 0)):
        constraints = certificate.extensions.get_extension_for_class(cx509.BasicConstraints)
        assert constraints.critical
        assert constraints.value.path_length == length
        assert constraints.value.ca


def test_only_a_coordinator_may_serve() -> None:
    authority = Authority(now=NOW)
    for role in ("agent", "analyst", "auditor", "steward", "operator", "coordinator"):
        leaf = cx509.load_pem_x509_certificates(authority.leaf(role, "x")[1])[0]
        usage = list(leaf.extensions.get_extension_for_class(cx509.ExtendedKeyUsage).value)
        dns = leaf.extensions.get_extension_for_class(cx509.SubjectAlternativeName).value.get_values_for_type(
            cx509.DNSName
        )
        serves = role == "coordinator"
        assert (cx509.ExtendedKeyUsageOID.SERVER_AUTH in usage) == serves
        assert (dns == ["coordinator.heart-study.internal"]) == serves


def test_request_for_p256_gives_its_key() -> None:
    key = keys.generate_tls_key()
    assert x509.check_request(x509.make_request(key)) == key.public_key()


@pytest.mark.parametrize("kind", ["p384", "rsa", "ed25519"])
def test_request_for_another_kind_of_key_is_refused(kind: str) -> None:
    key, algorithm = {
        "p384": (generate_private_key(SECP384R1()), SHA256()),
        "rsa": (rsa.generate_private_key(public_exponent=65537, key_size=2048), SHA256()),
        "ed25519": (Ed25519PrivateKey.generate(), None),
    }[kind]
    with pytest.raises(IdentityError, match="P-256"):
        x509.check_request(request_for(key, algorithm=algorithm))


def test_request_not_signed_by_its_own_key_is_refused() -> None:
    request = cx509.load_pem_x509_csr(x509.make_request(keys.generate_tls_key())).public_bytes(Encoding.DER)
    # Flip a bit in the last byte of the signature's s: the DER stays well-formed.
    forged = request[:-1] + bytes([request[-1] ^ 1])
    pem = cx509.load_der_x509_csr(forged).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="not signed by its own key"):
        x509.check_request(pem)


@pytest.mark.parametrize("garbage", [b"", b"hello", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_garbage_for_a_request_is_refused(garbage: bytes) -> None:
    with pytest.raises(IdentityError, match="cannot be read"):
        x509.check_request(garbage)


@pytest.mark.parametrize(
    "uri",
    [
        "https://heart-study/agent/h1",
        "spiffe://heart-study/agent/h1/more",
        "spiffe://heart-study/king/h1",
        "spiffe://heart-study/agent/",
        "spiffe://Heart/agent/h1",
        "spiffe://heart-study/agent/h1\n",
        "spiffe://heart-study/agent/../x",
        "",
    ],
)
def test_uri_that_this_software_would_not_write_is_refused(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_uri(uri)


def test_names_are_checked() -> None:
    assert check_consortium("a-1") == "a-1"
    assert check_participant("h1.north_2") == "h1.north_2"
    assert check_organisation("Städtisches Klinikum") == "Städtisches Klinikum"
    for name in ("", "A", "-a", "a-", "a" * 41, "a b", "a\n"):
        with pytest.raises(IdentityError):
            check_consortium(name)
    for name in ("", "Ada", ".a", "a/b", "a" * 64, "ä"):
        with pytest.raises(IdentityError):
            check_participant(name)
    for name in ("", " a", "a  b", "a\tb", "x" * 201):
        with pytest.raises(IdentityError):
            check_organisation(name)
