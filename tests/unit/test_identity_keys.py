from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from queries.errors import ConfigError, IdentityError, SignatureError
from trust.identity import files, keys

# RFC 8032, section 7.1, TEST 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_public_half_is_raw_and_named_by_its_hash() -> None:
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    assert keys.public_bytes(key) == PUBLIC
    assert keys.key_id(PUBLIC) == "21fe31dfa154a261626bf854046fd227"
    assert keys.fingerprint(PUBLIC).replace(" ", "") == keys.key_id(PUBLIC)


def test_saved_key_comes_back_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    key = Ed25519PrivateKey.generate()
    keys.save(path, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load_signing_key(path).private_bytes_raw() == key.private_bytes_raw()
    assert [p.name for p in tmp_path.iterdir()] == ["identity.key"]


def test_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    keys.save(path, Ed25519PrivateKey.generate())
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        keys.save(path, Ed25519PrivateKey.generate())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["identity.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    keys.save(path, Ed25519PrivateKey.generate())
    path.chmod(mode)
    with pytest.raises(ConfigError, match="open to other users") as caught:
        keys.load_signing_key(path)
    assert "chmod 600" in caught.value.hint


def test_wrong_kind_of_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    keys.save(path, X25519PrivateKey.generate())
    with pytest.raises(ConfigError, match="Ed25519"):
        keys.load_signing_key(path)
    with pytest.raises(ConfigError, match="P-256"):
        keys.load_tls_key(path)
    keys.save(tmp_path / "b.key", generate_private_key(SECP384R1()))
    with pytest.raises(ConfigError, match="P-256"):
        keys.load_tls_key(tmp_path / "b.key")
    with pytest.raises(ConfigError, match="X25519"):
        keys.load_epoch_key(tmp_path / "b.key")


def test_missing_and_damaged_key_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.key is missing"):
        keys.load_signing_key(tmp_path / "none.key")
    files.write_new(tmp_path / "bad.key", b"-----BEGIN nonsense", secret=True)
    with pytest.raises(ConfigError, match="not a private key"):
        keys.load_signing_key(tmp_path / "bad.key")


def test_replaced_file_has_the_new_content_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "document"
    files.write_new(path, b"old", secret=False)
    files.replace(path, b"new", secret=True)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["document"]


def test_verify_raises_for_signature_message_or_key_that_differ() -> None:
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    signature = key.sign(b"message")
    keys.verify(PUBLIC, signature, b"message", what="it")
    other = keys.public_bytes(Ed25519PrivateKey.generate())
    for public, signed, message in [(PUBLIC, signature, b"massage"), (other, signature, b"message"), (b"", b"", b"")]:
        with pytest.raises(SignatureError, match="signature of it"):
            keys.verify(public, signed, message, what="it")


def test_epoch_key_signature_binds_consortium_and_institution() -> None:
    identity, epoch = Ed25519PrivateKey.generate(), keys.public_bytes(X25519PrivateKey.generate())
    signature = keys.sign_epoch_key(identity, "heart", "h1", epoch)
    public = keys.public_bytes(identity)
    keys.verify_epoch_key(public, signature, "heart", "h1", epoch)
    other = keys.public_bytes(X25519PrivateKey.generate())
    for consortium, institution, key in [("lung", "h1", epoch), ("heart", "h2", epoch), ("heart", "h1", other)]:
        with pytest.raises(SignatureError):
            keys.verify_epoch_key(public, signature, consortium, institution, key)


@pytest.mark.parametrize(
    "weak",
    [
        bytes(32),
        (1).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ],
)
def test_epoch_key_of_small_order_is_refused(weak: bytes) -> None:
    identity = Ed25519PrivateKey.generate()
    signature = keys.sign_epoch_key(identity, "heart", "h1", weak)
    with pytest.raises(IdentityError, match="no usable X25519"):
        keys.verify_epoch_key(keys.public_bytes(identity), signature, "heart", "h1", weak)
