"""What binds a published result to the audit log: the hash of its exact bytes. Must not know what the sums mean."""

from __future__ import annotations

from trust.transcript import digest


def release_hash(release: bytes) -> bytes:
    """32 bytes that name the exact bytes of a `Release`; the log's `released` entry carries them."""
    return digest("release", release)


def request_envelope_hash(payload: bytes) -> bytes:
    """32 bytes that name the exact payload of a signed request; the log's `requested` entry carries them."""
    return digest("request-envelope", payload)
