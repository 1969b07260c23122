"""Signed bytes: DSSE envelopes with one Ed25519 signature (https://github.com/secure-systems-lab/dsse, v1.0.2).

What is signed is PAE(type, payload); a verifier hands back exactly the bytes it checked and nothing is re-serialised.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos.v1 import envelope_pb2
from queries.errors import SignatureError
from trust.identity import keys

MAX_BYTES = 4 << 20


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's PAE: version, type and payload, each with its length."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the serialised envelope."""
    envelope = envelope_pb2.Envelope(payload_type=payload_type, payload=payload)
    signature = key.sign(pre_authentication_encoding(payload_type, payload))
    envelope.signatures.add(key_id=keys.key_id(keys.public_bytes(key)), signature=signature)
    return envelope.SerializeToString(deterministic=True)


def verify(envelope: bytes, payload_type: str, public_key: bytes) -> bytes:
    """Return the payload that the holder of this raw Ed25519 key signed as this type, or raise SignatureError."""
    parsed = _parse(envelope, payload_type)
    what = payload_type.partition("/")[2] or "the envelope"
    keys.verify(
        public_key,
        parsed.signatures[0].signature,
        pre_authentication_encoding(payload_type, parsed.payload),
        what=what,
    )
    return parsed.payload


def unverified_payload(envelope: bytes, payload_type: str) -> bytes:
    """Return the payload without any check of who signed it: only to learn whose key `verify` needs."""
    return _parse(envelope, payload_type).payload


def parse(envelope: bytes) -> envelope_pb2.Envelope:
    """Return the parts of an envelope, nothing verified. Raises SignatureError where these bytes are none."""
    if len(envelope) > MAX_BYTES:
        raise SignatureError(f"a signed envelope of {len(envelope)} bytes is too large")
    parsed = envelope_pb2.Envelope()
    try:
        parsed.ParseFromString(envelope)
    except Exception:  # protobuf raises its own DecodeError, whose import path differs between its back ends
        raise SignatureError("these bytes are not a signed envelope") from None
    return parsed


def _parse(envelope: bytes, payload_type: str) -> envelope_pb2.Envelope:
    parsed = parse(envelope)
    if parsed.payload_type != payload_type:
        raise SignatureError(f"expected a signed {payload_type}, got {parsed.payload_type[:80]!r}")
    if len(parsed.signatures) != 1:
        raise SignatureError(f"an envelope carries one signature, this one {len(parsed.signatures)}")
    return parsed
