"""Unambiguous framing for everything that is hashed, signed or fed to a KDF.

`frame` is injective: a domain label with the protocol version, the number of parts, and every part with its length.
Nothing in this package hashes or signs bytes that were not framed here (or by DSSE, which frames likewise).
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PREFIX = b"cohortium/v1/"


def frame(label: str, *parts: bytes) -> bytes:
    """Return label and parts as one byte string from which both can be read back in one way only."""
    head = PREFIX + label.encode()
    out = [len(head).to_bytes(8, "big"), head, len(parts).to_bytes(8, "big")]
    for part in parts:
        out += (len(part).to_bytes(8, "big"), part)
    return b"".join(out)


def digest(label: str, *parts: bytes) -> bytes:
    """SHA-256 of the frame: 32 bytes."""
    return hashlib.sha256(frame(label, *parts)).digest()


def derive(secret: bytes, label: str, *context: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt; the frame of label and context is the info."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=frame(label, *context)).derive(secret)


def integer(value: int) -> bytes:
    """Return a non-negative integer below 2^64 as eight big-endian bytes, for use as a part."""
    return value.to_bytes(8, "big")
