"""Private keys: made where they are used, kept in files only their owner can read, never travelling.

Ed25519 signs (identities, governance, log heads), X25519 agrees (epoch keys), ECDSA P-256 is for TLS alone, because
gRPC's TLS does not take Ed25519 leaves. Knows nothing of certificates or of whose key it holds.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from queries.errors import ConfigError, IdentityError, SignatureError
from trust import ed25519
from trust.identity import files
from trust.transcript import frame

PrivateKey: TypeAlias = Ed25519PrivateKey | X25519PrivateKey | EllipticCurvePrivateKey


def generate_tls_key() -> EllipticCurvePrivateKey:
    """Return a fresh ECDSA P-256 key."""
    return generate_private_key(SECP256R1())


def public_bytes(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    """Return the raw public half, 32 bytes."""
    return key.public_key().public_bytes_raw()


def key_id(public: bytes) -> str:
    """Return the first 32 hex digits of SHA-256 of a raw public key: for finding and for showing, not for trusting."""
    return hashlib.sha256(public).hexdigest()[:32]


def fingerprint(public: bytes) -> str:
    """Return the key id in groups of four, for two people to compare by telephone."""
    digits = key_id(public)
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def to_pem(key: PrivateKey) -> bytes:
    """Return an unencrypted PKCS #8 PEM file's content."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def save(path: Path, key: PrivateKey) -> None:
    """Write a private key to a new file of mode 0600. Raises ConfigError rather than overwrite."""
    files.write_new(path, to_pem(key), secret=True)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key. Raises ConfigError: missing, readable by others, or another kind of key."""
    key = _load(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_kind(path, "an Ed25519")
    return key


def load_epoch_key(path: Path) -> X25519PrivateKey:
    """Read an X25519 private key. Raises ConfigError as `load_signing_key` does."""
    key = _load(path)
    if not isinstance(key, X25519PrivateKey):
        raise _other_kind(path, "an X25519")
    return key


def load_tls_key(path: Path) -> EllipticCurvePrivateKey:
    """Read an ECDSA P-256 private key. Raises ConfigError as `load_signing_key` does."""
    key = _load(path)
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise _other_kind(path, "an ECDSA P-256")
    return key


def verify(public: bytes, signature: bytes, message: bytes, *, what: str) -> None:
    """Return if the Ed25519 signature holds (RFC 8032); raise SignatureError naming `what` if it does not."""
    try:
        ed25519.verify(public, signature, message)
    except ed25519.InvalidSignature:
        raise SignatureError(f"the signature of {what} does not verify", hint="do not use it; ask its sender") from None


def sign_epoch_key(identity: Ed25519PrivateKey, consortium: str, institution: str, epoch_key: bytes) -> bytes:
    """Bind an institution's raw X25519 key to its identity, so that not even governance can swap it."""
    return identity.sign(_epoch_key_message(consortium, institution, epoch_key))


def verify_epoch_key(
    identity_key: bytes, signature: bytes, consortium: str, institution: str, epoch_key: bytes
) -> None:
    """Raise SignatureError unless the institution itself signed this epoch key; IdentityError where the key is weak."""
    verify(
        identity_key,
        signature,
        _epoch_key_message(consortium, institution, epoch_key),
        what=f"the epoch key of {institution!r}",
    )
    try:
        # A point of small order gives an all-zero secret with every partner, which `exchange` refuses (RFC 7748, 6.1).
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(epoch_key))
    except ValueError:
        raise IdentityError(f"the epoch key of {institution!r} is no usable X25519 key") from None


def _epoch_key_message(consortium: str, institution: str, epoch_key: bytes) -> bytes:
    return frame("epoch-key", consortium.encode(), institution.encode(), epoch_key)


def _load(path: Path) -> object:
    data = files.read_secret(path)
    try:
        return load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} is not a private key file", hint="restore it from a back-up") from None


def _other_kind(path: Path, wanted: str) -> ConfigError:
    return ConfigError(f"{path} does not hold {wanted} private key", hint="restore it from a back-up")
