"""Signed notes, checkpoints and cosignatures, byte for byte as their specifications have them."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from queries.errors import LogError
from trust.tlog import notes
from trust.tlog.checkpoint import Checkpoint, open_checkpoint, parse
from trust.tlog.cosignature import CosignatureVerifier, Cosigner
from trust.tlog.merkle import EMPTY_ROOT

# The example of golang.org/x/mod/sumdb/note, whose Ed25519 notes the specification describes.
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_LINE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
GO_NOTE = f"{GO_TEXT}\n\u2014 PeterNeumann {GO_LINE}\n".encode()
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_PUBLIC = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:]

# The example of c2sp.org/tlog-cosignature.
EXAMPLE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HEAD = Checkpoint("north/log", 42, bytes(32))


def test_go_example_is_reproduced_byte_for_byte() -> None:
    signer = notes.Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(GO_SEED))
    assert signer.verifier.public_key == GO_PUBLIC
    assert signer.verifier.key_id.hex() == "c74f20a3"
    assert notes.sign(GO_TEXT, signer) == GO_NOTE


def test_go_example_opens() -> None:
    assert notes.open_note(GO_NOTE, notes.Verifier("PeterNeumann", GO_PUBLIC)) == GO_TEXT


def test_published_checkpoint_example_parses_and_is_written_the_same() -> None:
    parsed = notes.parse(EXAMPLE)
    head = parse(parsed.text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert head.text() == parsed.text
    assert notes.build(parsed.text, parsed.lines) == EXAMPLE


def test_published_cosignature_example_carries_its_time() -> None:
    witness = notes.parse(EXAMPLE).lines[1]
    assert witness.name == "witness.example.com/w1"
    assert int.from_bytes(witness.signature[:8], "big") == 1679315147
    assert len(witness.signature) == 72


def test_cosignature_signs_header_time_and_text() -> None:
    line = Cosigner("alpha", KEY).sign(HEAD.text(), 1679315147)
    message = f"cosignature/v1\ntime 1679315147\n{HEAD.text()}".encode()
    KEY.public_key().verify(line.signature[8:], message)
    assert line.key_id == notes.key_id("alpha", 0x04, KEY.public_key().public_bytes_raw())
    assert line.key_id != notes.Signer("alpha", KEY).verifier.key_id


def test_cosignature_line_verifies_and_tells_its_time() -> None:
    cosigner = Cosigner("alpha", KEY)
    assert cosigner.verifier.verify_line(HEAD.text(), str(cosigner.sign(HEAD.text(), 1234))) == 1234


@pytest.mark.parametrize("at", [0, 4, 11, 12, 40, 75])
def test_cosignature_with_a_flipped_bit_is_refused(at: int) -> None:
    cosigner = Cosigner("alpha", KEY)
    line = cosigner.sign(HEAD.text(), 1234)
    blob = bytearray(line.key_id + line.signature)
    blob[at] ^= 1
    changed = notes.Line("alpha", bytes(blob[:4]), bytes(blob[4:]))
    with pytest.raises(LogError):
        cosigner.verifier.verify_line(HEAD.text(), str(changed))


def test_cosignature_of_another_head_is_refused() -> None:
    line = str(Cosigner("alpha", KEY).sign(HEAD.text(), 1234))
    other = Checkpoint("north/log", 43, bytes(32))
    with pytest.raises(LogError, match="does not verify"):
        CosignatureVerifier("alpha", KEY.public_key().public_bytes_raw()).verify_line(other.text(), line)


def test_note_needs_a_known_signature() -> None:
    note = notes.sign("hello\n", notes.Signer("a", KEY))
    with pytest.raises(LogError, match="not signed by b"):
        notes.open_note(note, notes.Verifier("b", KEY.public_key().public_bytes_raw()))


def test_bad_signature_of_a_known_key_spoils_a_note_that_another_key_signed() -> None:
    good, bad = notes.Signer("a", KEY), notes.Signer("b", Ed25519PrivateKey.generate())
    lie = notes.Line("b", bad.verifier.key_id, bytes(64))
    note = notes.build("hello\n", [good.sign("hello\n"), lie])
    assert notes.open_note(note, good.verifier) == "hello\n"
    with pytest.raises(LogError, match="signature of b"):
        notes.open_note(note, good.verifier, bad.verifier)


def test_text_may_hold_blank_lines() -> None:
    signer = notes.Signer("a", KEY)
    assert notes.open_note(notes.sign("one\n\ntwo\n", signer), signer.verifier) == "one\n\ntwo\n"


def test_lines_are_added_at_the_end() -> None:
    signer, cosigner = notes.Signer("north/log", KEY), Cosigner("alpha", KEY)
    note = notes.with_lines(notes.sign(HEAD.text(), signer), [str(cosigner.sign(HEAD.text(), 5))])
    assert open_checkpoint(note, "north/log", signer.verifier) == HEAD
    assert open_checkpoint(note, "north/log", cosigner.verifier) == HEAD


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\n\xe2\x80\x94 a AAAAAAA=",
        b"text\n\n- a AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 a AAAA\n",
        b"text\n\n\xe2\x80\x94 a !!!!\n",
        b"text\n\n\xe2\x80\x94 a+b AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94  AAAAAAA=\n",
        b"te\x01xt\n\n\xe2\x80\x94 a AAAAAAA=\n",
        b"te\xffxt\n\n\xe2\x80\x94 a AAAAAAA=\n",
        b"\n\xe2\x80\x94 a AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 a AAAAAAB=\n",  # the same bytes as AAAAAAA= in a sloppy decoder
        b"x" * (notes.MAX_NOTE + 1),
    ],
)
def test_malformed_notes_are_refused(note: bytes) -> None:
    with pytest.raises(LogError):
        notes.parse(note)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb"])
def test_names_that_notes_cannot_carry_are_refused(name: str) -> None:
    with pytest.raises(LogError, match="cannot name a key"):
        notes.Signer(name, KEY)


@pytest.mark.parametrize(
    "text",
    [
        "log\n1\n",
        "\n1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n01\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n-1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n\u0661\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n9999999999999999999\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n1\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "log\n1\nnot base64\n",
        "log\n1\n" + base64.b64encode(bytes(32)).decode() + "\nextension\n",
        "log\n0\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "log\n1\n" + base64.b64encode(bytes(32)).decode(),
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(LogError):
        parse(text)


def test_checkpoint_of_another_log_is_refused() -> None:
    signer = notes.Signer("north/log", KEY)
    with pytest.raises(LogError, match="of log 'north/log', not of 'south/log'"):
        open_checkpoint(notes.sign(HEAD.text(), signer), "south/log", signer.verifier)


def test_empty_log_has_a_checkpoint() -> None:
    empty = Checkpoint("north/log", 0, EMPTY_ROOT)
    assert parse(empty.text()) == empty
