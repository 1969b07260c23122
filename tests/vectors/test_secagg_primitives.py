"""Published known answers for the primitives, through the calls that the protocol makes."""

from __future__ import annotations

import hashlib
import hmac
import os

import numpy as np
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trust import ed25519
from trust.secagg import masks
from trust.secagg.keys import exchange
from trust.transcript import derive, frame

vectors = pytest.importorskip("cryptography_vectors", reason="cryptography-vectors brings them: make setup")


def read(*path: str) -> str:
    with vectors.open_vector_file("/".join(path), "r") as file:
        return str(file.read())


def cases(*path: str) -> list[dict[str, str]]:
    """The cases of a file of `NAME = value` lines; a case starts at COUNT."""
    found: list[dict[str, str]] = []
    for line in read(*path).splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if line.startswith(("#", "[")) or not equals:
            continue
        if name.lower() == "count":
            found.append({})
        elif found:
            found[-1][name.lower()] = value
    return found


def test_hkdf_sha256_of_rfc_5869() -> None:
    known = cases("KDF", "rfc-5869-HKDF-SHA256.txt")
    assert len(known) >= 3
    for case in known:
        kdf = HKDF(hashes.SHA256(), int(case["l"]), bytes.fromhex(case["salt"]), bytes.fromhex(case["info"]))
        assert kdf.derive(bytes.fromhex(case["ikm"])).hex() == case["okm"]


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (b"\x00", "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
    ],
)
def test_vectors_are_hashed_by_blake3(content: bytes, known: str) -> None:
    """By the test vectors of its authors; a vector that comes in pieces has the hash of the whole."""
    assert blake3(content).hexdigest() == known
    whole, pieces = os.urandom(3_000_000), blake3()
    for start in range(0, len(whole), 77_777):
        pieces.update(memoryview(whole)[start : start + 77_777])
    assert pieces.digest() == blake3(whole).digest()


def test_derive_is_hkdf_sha256_without_salt_over_the_frame() -> None:
    """RFC 5869 sections 2.2 and 2.3, written out."""
    secret, info = b"a secret", frame("a/label", b"one", b"two")
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    first = hmac.digest(extracted, info + b"\x01", hashlib.sha256)
    second = hmac.digest(extracted, first + info + b"\x02", hashlib.sha256)
    assert derive(secret, "a/label", b"one", b"two") == first
    assert derive(secret, "a/label", b"one", b"two", length=48) == (first + second)[:48]


def test_x25519_of_rfc_7748() -> None:
    known = cases("asymmetric", "X25519", "rfc7748.txt")
    assert len(known) >= 3
    for case in known:
        private = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["input_scalar"]))
        assert exchange(private, bytes.fromhex(case["input_u"])).hex() == case["output_u"]


@pytest.mark.parametrize("point", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")])
def test_x25519_refuses_points_of_small_order(point: bytes) -> None:
    with pytest.raises(ValueError, match="shared key"):
        exchange(X25519PrivateKey.generate(), point)


def test_masks_are_aes_256_ctr_of_rfc_3686(monkeypatch: pytest.MonkeyPatch) -> None:
    known = cases("ciphers", "AES", "CTR", "aes-256-ctr.txt")
    assert len(known) >= 3
    for case in known:
        plain, cipher = (bytes.fromhex(case[name]) for name in ("plaintext", "ciphertext"))
        size = len(plain) // 4 * 4
        monkeypatch.setattr(masks, "_COUNTER", bytes.fromhex(case["iv"]))  # a round always starts at zero
        vector = np.zeros(size // 4, dtype="<u4")
        key = bytes.fromhex(case["key"])
        masks.apply_masks(vector, [masks.MaskStream(lambda _segment, key=key: key, 1)])
        assert vector.tobytes() == bytes(a ^ b for a, b in zip(plain[:size], cipher[:size], strict=True))


def test_aes_256_gcm_of_nist_cavs() -> None:
    known = [
        c
        for c in cases("ciphers", "AES", "GCM", "gcmEncryptExtIV256.rsp")
        if len(c["iv"]) == 24 and len(c["tag"]) == 32
    ]
    assert len(known) > 100
    for case in known:
        key, iv, plain, aad = (bytes.fromhex(case[name]) for name in ("key", "iv", "pt", "aad"))
        assert AESGCM(key).encrypt(iv, plain, aad).hex() == case["ct"] + case["tag"]


def test_ed25519_of_its_authors() -> None:
    lines = read("asymmetric", "Ed25519", "sign.input").splitlines()[:200]
    assert len(lines) == 200
    for line in lines:
        secret, public, message, signed, *_ = (bytes.fromhex(part) for part in line.split(":"))
        signature = signed[:64]
        assert Ed25519PrivateKey.from_private_bytes(secret[:32]).sign(message) == signature
        ed25519.verify(public, signature, message)
        with pytest.raises(ed25519.InvalidSignature):
            ed25519.verify(public, signature[:-1] + bytes([signature[-1] ^ 1]), message)
