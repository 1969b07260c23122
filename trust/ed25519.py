"""The one place where an Ed25519 signature is checked (RFC 8032), by libsodium. Signing is left to `cryptography`.

Half of what an institution computes in a round of secure aggregation is checking signatures, and libsodium takes half
the time that OpenSSL does. It accepts no more: besides a scalar that is not reduced it refuses keys and nonces of small
order, and keys whose encoding is not the valid one. Must not know: who signs what.
"""

from __future__ import annotations

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey


class InvalidSignature(Exception):
    """The signature is not one of this key over this message, or key or signature have another length than theirs."""


def verify(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Return if the 64-byte signature of `message` is by the raw 32-byte key. Raises InvalidSignature.

    Other threads run meanwhile: the interpreter's lock is released.
    """
    try:
        VerifyKey(public_key).verify(message, signature)
    except (CryptoError, ValueError, TypeError) as error:
        raise InvalidSignature("an Ed25519 signature does not verify") from error
