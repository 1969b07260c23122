"""What must not pass for a signature, and that nothing passes here which OpenSSL would not take."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from trust import ed25519

ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19
IDENTITY = (1).to_bytes(32, "little")
"""The neutral point: whoever has it as a key signs everything, where keys of small order are let in."""


def refused(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        ed25519.verify(public, signature, message)
    except ed25519.InvalidSignature:
        return True
    return False


def refused_by_openssl(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return True
    return False


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_what_was_signed_verifies_and_nothing_else_does(secret: bytes, message: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(secret)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    ed25519.verify(public, signature, message)
    assert refused(public, signature, message + b"\0")
    assert refused(signature[:32], signature, message)


@given(st.binary(max_size=40), st.integers(0, 511), st.integers(0, 255))
def test_one_other_bit_in_key_or_signature_is_refused(message: bytes, of_signature: int, of_key: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1")
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert refused(public, flipped(signature, of_signature), message)
    assert refused(flipped(public, of_key), signature, message)


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")


def test_the_same_scalar_one_order_higher_is_refused() -> None:
    """RFC 8032, 5.1.7: a signature has one valid form."""
    key = Ed25519PrivateKey.generate()
    signature = key.sign(b"once")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    again = signature[:32] + scalar.to_bytes(32, "little")
    assert refused(key.public_key().public_bytes_raw(), again, b"once")


def test_a_key_of_small_order_signs_nothing() -> None:
    forged = IDENTITY + bytes(32)
    assert not refused_by_openssl(IDENTITY, forged, b"anything"), "the forgery is none"
    assert refused(IDENTITY, forged, b"anything")


def test_a_key_that_is_not_reduced_is_refused() -> None:
    assert refused((FIELD + 1).to_bytes(32, "little"), IDENTITY + bytes(32), b"anything")


def test_nothing_passes_that_openssl_refuses() -> None:
    """Over the edges of both encodings: points of small order and unreduced ones, scalars about zero and the order."""
    key = Ed25519PrivateKey.generate()
    signature = key.sign(b"message")
    honest = key.public_key().public_bytes_raw()
    ys = (0, 1, 2, FIELD - 1, FIELD, FIELD + 1, 2**255 - 1)
    points = [(y | sign << 255).to_bytes(32, "little") for y in ys for sign in (0, 1)]
    scalars = [n.to_bytes(32, "little") for n in (0, 1, ORDER - 1, ORDER, ORDER + 1, 2**256 - 1)]
    passed = 0
    for public in (*points, honest):
        for nonce in (*points, signature[:32]):
            for scalar in (*scalars, signature[32:]):
                if not refused(public, nonce + scalar, b"message"):
                    passed += 1
                    assert not refused_by_openssl(public, nonce + scalar, b"message")
    assert passed == 1, "only what the honest key signed"


@pytest.mark.parametrize(("key_bytes", "signature_bytes"), [(0, 64), (31, 64), (33, 64), (32, 0), (32, 63), (32, 65)])
def test_other_lengths_are_refused(key_bytes: int, signature_bytes: int) -> None:
    assert refused(bytes(key_bytes), bytes(signature_bytes), b"message")
