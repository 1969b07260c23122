"""Published known answers carried through the product's own functions, so that none can stray from its standard.

`test_secagg_primitives` holds the library's primitives to the same standards; here it is the wrappers: derivation, key
agreement, masks, sealed shares, signatures. Where a wrapper frames its input, the frame is put in the vector's place
or the expected value is computed beside it from a vector-tested primitive.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protos.v1 import secagg_pb2 as pb
from queries.errors import SignatureError
from trust import transcript
from trust.identity import envelope
from trust.identity import keys as identity_keys
from trust.secagg import keys, masks
from trust.secagg.messages import NONCE_BYTES
from trust.secagg.parameters import Member
from trust.secagg.refusals import BadSignature
from trust.secagg.rehearsal import Consortium, Rehearsal

vectors = pytest.importorskip("cryptography_vectors", reason="cryptography-vectors brings them: make setup")
ZERO_SALT = ("KDF/rfc-5869-HKDF-SHA256.txt", "KDF/hkdf-generated.txt")


def cases(path: str) -> Iterator[dict[str, str]]:
    """The cases of a file of `NAME = value` lines; a case starts at COUNT."""
    case: dict[str, str] = {}
    with vectors.open_vector_file(path, "r") as file:
        for line in file:
            name, equals, value = (part.strip() for part in line.partition("="))
            if line.startswith(("#", "[")) or not equals:
                continue
            if name.lower() == "count" and case:
                yield case
                case = {}
            case[name.lower()] = value
    yield case


# --- HKDF, RFC 5869 --------------------------------------------------------------------------------------------------


def test_derive_is_hkdf_of_rfc_5869_where_the_salt_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [case for path in ZERO_SALT for case in cases(path) if not case["salt"]]
    assert [int(case["l"]) for case in known] == [42, 1200]
    for case in known:
        monkeypatch.setattr(transcript, "frame", lambda *_, info=case["info"]: bytes.fromhex(info))
        found = transcript.derive(bytes.fromhex(case["ikm"]), "a/label", length=int(case["l"]))
        assert found.hex() == case["okm"]


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 sections 2.2 and 2.3, written out."""
    extracted, block, out = hmac.digest(salt or bytes(32), secret, hashlib.sha256), b"", b""
    while len(out) < length:
        block = hmac.digest(extracted, block + info + bytes([len(out) // 32 + 1]), hashlib.sha256)
        out += block
    return out[:length]


def test_the_derivation_written_out_here_gives_every_answer_of_rfc_5869() -> None:
    known = list(cases("KDF/rfc-5869-HKDF-SHA256.txt"))
    assert len(known) == 3
    for case in known:
        ikm, salt, info = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info"))
        assert hkdf(ikm, salt, info, int(case["l"])).hex() == case["okm"]


# --- X25519, RFC 7748 ------------------------------------------------------------------------------------------------


def test_the_round_key_is_the_scalar_that_the_secret_derives_to() -> None:
    secret = 7
    raw = hkdf(secret.to_bytes(32, "big"), b"", transcript.frame("secagg/round-key", bytes(32), b"a"), 32)
    assert keys.round_private_key(secret, bytes(32), "a").private_bytes_raw() == raw


def test_pair_keys_agree_as_rfc_7748_says() -> None:
    known = list(cases("asymmetric/X25519/rfc7748.txt"))
    assert len(known) >= 2
    for case in known:
        private = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["input_scalar"]))
        pair = keys.PairKeys(private)
        for _ in range(2):  # made, then remembered
            assert pair.secret(bytes.fromhex(case["input_u"])).hex() == case["output_u"]


# --- AES-256-CTR, RFC 3686 and NIST SP 800-38A ----------------------------------------------------------------------


def ctr(key: bytes, size: int) -> bytes:
    """Key stream of AES-256-CTR, counting from zero."""
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_mask_is_the_key_stream_of_one_derived_key_a_segment(dtype: str, sign: int) -> None:
    """Over the end of a segment, where the key changes and the counter starts again."""
    shared, round_id, roster = bytes(range(32)), bytes(32), b"r" * 32
    segment_key = keys.pair_mask_keys(shared, round_id, roster, "b", "a")
    derived = [
        hkdf(
            shared,
            b"",
            transcript.frame("secagg/pair-mask", round_id, roster, b"a", b"b", number.to_bytes(8, "big")),
            32,
        )
        for number in range(2)
    ]
    tail = 1 << 12
    size = masks.SEGMENT_BYTES + tail
    vector = np.arange(size // np.dtype(dtype).itemsize, dtype=dtype)
    expected = np.frombuffer(ctr(derived[0], masks.SEGMENT_BYTES) + ctr(derived[1], tail), dtype=dtype)
    expected = vector + expected if sign > 0 else vector - expected
    masks.apply_masks(vector, [masks.MaskStream(segment_key, sign)])
    assert np.array_equal(vector, expected)


def test_an_upload_alone_in_its_masks_is_the_self_mask_of_the_standard() -> None:
    """A whole upload: masks of peers taken off, what is left is vector and AES-256-CTR under the derived key."""
    consortium = Consortium("abc")
    rehearsal = Rehearsal(consortium, consortium.parameters(length=5))
    rehearsal.join("abc")
    agent, vector = rehearsal.agents["b"], rehearsal.vectors["b"]
    round_id, roster = rehearsal.parameters.round_id, agent._roster_hash
    assert agent._dealt is not None
    seed = agent._dealt.seeds[0].to_bytes(32, "big")
    shared = dict(agent._shared)
    masked = np.frombuffer(b"".join(agent.masked_chunks(vector)), dtype="<u8")

    def stream(secret: bytes, label: str, *context: bytes) -> np.ndarray:
        info = transcript.frame(label, round_id, roster, *context, bytes(8))
        return np.frombuffer(ctr(hkdf(secret, b"", info, 32), vector.nbytes), dtype="<u8")

    expected = vector + stream(seed, "secagg/self-mask", b"b")
    expected = expected - stream(shared["a"], "secagg/pair-mask", b"a", b"b")
    expected = expected + stream(shared["c"], "secagg/pair-mask", b"b", b"c")
    assert np.array_equal(masked, expected)


# --- AES-256-GCM, NIST CAVS ------------------------------------------------------------------------------------------


def seal_by_hand(key: bytes, nonce: bytes, plain: bytes, context: bytes) -> bytes:
    """GCM from its parts (NIST SP 800-38D): CTR from counter 2, GHASH, and the encrypted counter 1."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - GCM's hash key is defined by it
    h = int.from_bytes(block.update(bytes(16)), "big")
    body = Cipher(algorithms.AES(key), modes.CTR(nonce + (2).to_bytes(4, "big"))).encryptor().update(plain)

    def times(x: int, y: int) -> int:
        product = 0
        for bit in range(127, -1, -1):
            product ^= y if x >> bit & 1 else 0
            y = (y >> 1) ^ (0xE1 << 120 if y & 1 else 0)
        return product

    padded = b"".join(part + bytes(-len(part) % 16) for part in (context, body))
    padded += (8 * len(context)).to_bytes(8, "big") + (8 * len(body)).to_bytes(8, "big")
    ghash = 0
    for start in range(0, len(padded), 16):
        ghash = times(ghash ^ int.from_bytes(padded[start : start + 16], "big"), h)
    first = Cipher(algorithms.AES(key), modes.CTR(nonce + (1).to_bytes(4, "big"))).encryptor().update(bytes(16))
    return body + (ghash ^ int.from_bytes(first, "big")).to_bytes(16, "big")


def test_sealing_written_out_here_gives_the_answers_of_nist() -> None:
    known = [c for c in cases("ciphers/AES/GCM/gcmEncryptExtIV256.rsp") if len(c["iv"]) == 24 and len(c["tag"]) == 32]
    assert len(known) > 100
    for case in known[::25]:
        key, iv, plain, aad = (bytes.fromhex(case[name]) for name in ("key", "iv", "pt", "aad"))
        assert seal_by_hand(key, iv, plain, aad).hex() == case["ct"] + case["tag"]
        assert AESGCM(key).encrypt(iv, plain, aad).hex() == case["ct"] + case["tag"]


def test_a_dealt_share_is_sealed_as_nist_says() -> None:
    rehearsal = Rehearsal(Consortium("abc"))
    rehearsal.join("abc")
    p, consortium = rehearsal.parameters, rehearsal.consortium
    join = next(message for member, step, message in rehearsal.received if (member, step) == ("a", "join"))
    sealed = pb.Join.FromString(join).shares[p.positions["b"]].sealed
    pair = consortium.pair_keys["b"].secret(consortium.members["a"].epoch_key)
    key = hkdf(pair, b"", transcript.frame("secagg/seal", p.membership_hash, p.round_id, b"a", b"b"), 32)
    nonce, context = sealed[:NONCE_BYTES], transcript.frame("secagg/sealed", p.round_id, b"a", b"b")
    held = rehearsal.agents["b"]._held["a"]  # what the receiver took from it
    assert seal_by_hand(key, nonce, held.pack(), context) == sealed[NONCE_BYTES:]


# --- Ed25519, RFC 8032 -----------------------------------------------------------------------------------------------


def signatures(count: int) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """Secret key, public key, message and signature, from the authors' own list."""
    with vectors.open_vector_file("asymmetric/Ed25519/sign.input", "r") as file:
        for line in file.read().splitlines()[1 : count + 1]:
            secret, public, message, signed = (bytes.fromhex(part) for part in line.split(":")[:4])
            yield secret[:32], public, message, signed[:64]


def test_every_verifier_takes_the_published_signatures_and_no_other() -> None:
    known = list(signatures(100))
    assert len(known) == 100
    for secret, public, message, signature in known:
        member = Member("h", "an organisation", public, bytes(32))
        keys.verify(member, signature, message, what="JOIN", party="h")
        identity_keys.verify(public, signature, message, what="a decision")
        assert Ed25519PrivateKey.from_private_bytes(secret).sign(message) == signature
        wrong = signature[:-1] + bytes([signature[-1] ^ 1])
        with pytest.raises(BadSignature):
            keys.verify(member, wrong, message, what="JOIN", party="h")
        with pytest.raises(SignatureError):
            identity_keys.verify(public, signature, message + b"x", what="a decision")


def test_an_envelope_carries_the_deterministic_signature_of_its_framed_payload() -> None:
    """A payload that makes the frame equal to no vector still has one right signature, RFC 8032 being deterministic."""
    secret, public, message, _ = next(signatures(1))
    signed = envelope.sign("application/x", message, Ed25519PrivateKey.from_private_bytes(secret))
    framed = b"DSSEv1 13 application/x %d %b" % (len(message), message)
    assert Ed25519PrivateKey.from_private_bytes(secret).sign(framed) in signed
    assert envelope.verify(signed, "application/x", public) == message
