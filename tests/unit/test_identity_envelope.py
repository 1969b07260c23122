from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos.v1 import envelope_pb2
from queries.errors import SchemaError, SignatureError
from queries.schema import Categorical, Column, Dataset, schema_hash, to_bytes
from trust.identity import envelope, keys
from trust.identity.dataset import PAYLOAD_TYPE, sign_dataset, verify_dataset

KEY = Ed25519PrivateKey.generate()
PUBLIC = keys.public_bytes(KEY)


def test_pre_authentication_encoding_is_that_of_the_specification() -> None:
    # The example of the DSSE protocol's section "Test vectors".
    encoded = envelope.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_payload_comes_back_exactly_for_the_right_key_and_type() -> None:
    signed = envelope.sign("text/plain", b"\x00payload\xff", KEY)
    assert envelope.verify(signed, "text/plain", PUBLIC) == b"\x00payload\xff"
    assert envelope.unverified_payload(signed, "text/plain") == b"\x00payload\xff"
    assert envelope_pb2.Envelope.FromString(signed).signatures[0].key_id == keys.key_id(PUBLIC)


def test_other_key_and_other_type_are_refused() -> None:
    signed = envelope.sign("text/plain", b"payload", KEY)
    with pytest.raises(SignatureError, match="does not verify"):
        envelope.verify(signed, "text/plain", keys.public_bytes(Ed25519PrivateKey.generate()))
    with pytest.raises(SignatureError, match="expected a signed text/html"):
        envelope.verify(signed, "text/html", PUBLIC)


@pytest.mark.parametrize("signatures", [0, 2])
def test_envelope_with_another_number_of_signatures_is_refused(signatures: int) -> None:
    parsed = envelope_pb2.Envelope.FromString(envelope.sign("text/plain", b"payload", KEY))
    copies = [parsed.signatures[0]] * signatures
    altered = envelope_pb2.Envelope(payload_type="text/plain", payload=b"payload", signatures=copies)
    with pytest.raises(SignatureError, match="one signature"):
        envelope.verify(altered.SerializeToString(), "text/plain", PUBLIC)


def test_garbage_and_giants_are_refused() -> None:
    with pytest.raises(SignatureError, match="not a signed envelope"):
        envelope.verify(b"\xff\xff\xff", "text/plain", PUBLIC)
    with pytest.raises(SignatureError, match="too large"):
        envelope.verify(bytes(envelope.MAX_BYTES + 1), "text/plain", PUBLIC)


def test_dataset_description_is_verified_and_named_by_its_exact_bytes() -> None:
    data = to_bytes(Dataset("patients", (Column("sex", Categorical(("female", "male"))),)))
    dataset, hashed = verify_dataset(sign_dataset(data, KEY), PUBLIC)
    assert dataset.name == "patients"
    assert hashed == schema_hash(data)
    with pytest.raises(SignatureError):
        verify_dataset(sign_dataset(data, Ed25519PrivateKey.generate()), PUBLIC)


def test_bytes_that_describe_no_dataset_are_neither_signed_nor_accepted() -> None:
    with pytest.raises(SchemaError):
        sign_dataset(b"\xff", KEY)
    with pytest.raises(SchemaError):
        verify_dataset(envelope.sign(PAYLOAD_TYPE, b"", KEY), PUBLIC)
