"""The private CA: root, issuing CA, certificate requests, leaves (RFC 5280), all ECDSA P-256.

A certificate tells who connects. It grants nothing: rights come from the membership document. So the issuing key may
stay with the coordinator, while the root's key lives in the governance folder.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from queries.errors import IdentityError
from trust.identity.names import Peer, parse_uri

ROOT_LIFETIME = timedelta(days=3652)
ISSUING_LIFETIME = timedelta(days=730)
LEAF_LIFETIME = timedelta(days=90)
BACKDATE = timedelta(minutes=5)
"""Certificates begin a little in the past: the reader's clock may be behind the writer's."""


def server_name(consortium: str) -> str:
    """Return the DNS name in every coordinator's leaf, which clients check instead of the address they dial.

    The identity is "the coordinator of this consortium": it survives a new address, a tunnel or a forwarded port.
    """
    return f"coordinator.{consortium}.internal"


def make_root(consortium: str, key: EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """Return the self-signed root certificate of a consortium, valid ten years."""
    name = _name(f"{consortium} root CA")
    builder = _builder(name, name, key.public_key(), now, ROOT_LIFETIME)
    return _as_authority(builder, key.public_key(), key.public_key(), path_length=1).sign(key, SHA256())


def make_issuing(
    root: x509.Certificate,
    root_key: EllipticCurvePrivateKey,
    public_key: EllipticCurvePublicKey,
    consortium: str,
    now: datetime,
) -> x509.Certificate:
    """Return the issuing CA's certificate: signed by the root, valid two years, itself unable to make further CAs."""
    builder = _builder(_name(f"{consortium} issuing CA"), root.subject, public_key, now, ISSUING_LIFETIME)
    return _as_authority(builder, public_key, root_key.public_key(), path_length=0).sign(root_key, SHA256())


def make_request(key: EllipticCurvePrivateKey) -> bytes:
    """Return a PEM certificate signing request. It names nobody: the invitation does."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_name("newcomer"))
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )


def check_request(pem: bytes) -> EllipticCurvePublicKey:
    """Return the public key of a request that proves possession of it; names and extensions in it are ignored.

    Raises IdentityError: not a request, signature wrong, or a key other than ECDSA P-256.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        signed = request.is_signature_valid
    except (
        Exception
    ) as error:  # malformed DER surfaces as ValueError, TypeError, UnsupportedAlgorithm or InvalidVersion
        raise IdentityError("the certificate request cannot be read", hint="enrol with a current version") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise IdentityError(
            "the certificate request must be for an ECDSA P-256 key", hint="enrol with a current version"
        )
    if not signed:
        raise IdentityError("the certificate request is not signed by its own key")
    return key


def issue_leaf(
    issuing: x509.Certificate,
    issuing_key: EllipticCurvePrivateKey,
    public_key: EllipticCurvePublicKey,
    peer: Peer,
    now: datetime,
    *,
    hosts: Sequence[str] = (),
) -> x509.Certificate:
    """Return a TLS certificate for the peer, valid 90 days or as long as its issuer.

    A coordinator's may serve, under `server_name` and the given DNS names or IP addresses; any other's may only call.
    """
    serves = peer.role == "coordinator"
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(peer.uri)]
    usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if serves:
        names += [x509.DNSName(server_name(peer.consortium)), *(_host(host) for host in hosts)]
        usage = [ExtendedKeyUsageOID.SERVER_AUTH]
    end = min(now + LEAF_LIFETIME, issuing.not_valid_after_utc)
    return (
        _builder(_name(peer.id), issuing.subject, public_key, now, end - now)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key.public_key()), critical=False)
        .sign(issuing_key, SHA256())
    )


def peer_of(certificate: x509.Certificate) -> Peer:
    """Return who a leaf names. Raises IdentityError unless it carries exactly one SPIFFE URI of ours."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        raise IdentityError("this certificate names no participant of a consortium") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError("this certificate names no participant of a consortium")
    peer = parse_uri(uris[0])
    return Peer(peer.consortium, peer.role, peer.id, serial(certificate), key_hash(certificate.public_key()))


def key_hash(key: CertificatePublicKeyTypes) -> str:
    """Return SHA-256 of a public key's SubjectPublicKeyInfo, in hex: which key a certificate is for."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def serial(certificate: x509.Certificate) -> str:
    """Return the serial number in lower-case hex, as it is stored and compared."""
    return f"{certificate.serial_number:x}"


def verify_chain(chain_pem: bytes, root: x509.Certificate, now: datetime) -> x509.Certificate:
    """Return the leaf of a PEM chain (leaf, issuing CA) that leads to the root. Raises IdentityError.

    For the newcomer's look at what it was given; connections are checked by TLS itself.
    """
    try:
        leaf, issuing = x509.load_pem_x509_certificates(chain_pem)
        constraints = issuing.extensions.get_extension_for_class(x509.BasicConstraints).value
        issuing.verify_directly_issued_by(root)
        leaf.verify_directly_issued_by(issuing)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise IdentityError("the certificate does not come from this consortium's CA") from None
    if not constraints.ca:
        raise IdentityError("the certificate was issued by a key that is no CA")
    for certificate in (leaf, issuing):
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise IdentityError("the certificate is not valid now", hint="check this machine's clock")
    return leaf


def to_pem(*certificates: x509.Certificate) -> bytes:
    """Return the certificates in PEM, in this order."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _as_authority(
    builder: x509.CertificateBuilder,
    public_key: EllipticCurvePublicKey,
    issuer_key: EllipticCurvePublicKey,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
