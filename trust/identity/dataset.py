"""Dataset descriptions as governance publishes them: the exact bytes of a `queries.schema.Dataset`, signed."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from queries import schema
from trust.identity import envelope as dsse
from trust.identity.council import verify_governed

PAYLOAD_TYPE = "application/vnd.cohortium.dataset.v1+protobuf"


def sign_dataset(schema_bytes: bytes, governance_key: Ed25519PrivateKey) -> bytes:
    """Return the envelope over bytes made by `schema.to_bytes`. Raises SchemaError where they describe no dataset."""
    schema.from_bytes(schema_bytes)
    return dsse.sign(PAYLOAD_TYPE, schema_bytes, governance_key)


def verify_dataset(envelope: bytes, governance_key: bytes) -> tuple[schema.Dataset, bytes]:
    """Return the dataset and its schema hash. Raises SignatureError (not governance's) or SchemaError (malformed)."""
    payload = verify_governed(envelope, PAYLOAD_TYPE, governance_key)
    return schema.from_bytes(payload), schema.schema_hash(payload)
