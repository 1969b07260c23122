"""Notes, checkpoints and cosignatures come back as they were written; anything else is refused, never misread."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import LogError
from trust.tlog import notes
from trust.tlog.checkpoint import Checkpoint, open_checkpoint, parse
from trust.tlog.cosignature import Cosigner

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1, max_size=20)
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="".join(map(chr, range(32)))) | st.just("\n")
).map(lambda text: text + "\n")
checkpoints = st.builds(
    Checkpoint,
    origin=names,
    size=st.integers(1, (1 << 63) - 1),
    root=st.binary(min_size=32, max_size=32),
)


@given(texts, names)
def test_signed_text_comes_back(text: str, name: str) -> None:
    signer = notes.Signer(name, KEY)
    note = notes.sign(text, signer)
    assert notes.open_note(note, signer.verifier) == text
    parsed = notes.parse(note)
    assert notes.build(parsed.text, parsed.lines) == note


@given(texts, st.sampled_from([chr(code) for code in range(32) if code != 10]))
def test_text_with_a_control_character_is_not_signed(text: str, control: str) -> None:
    with pytest.raises(LogError, match="control character"):
        notes.sign(control + text, notes.Signer("a", KEY))


@given(checkpoints)
def test_checkpoint_comes_back(head: Checkpoint) -> None:
    assert parse(head.text()) == head


@given(checkpoints, st.integers(0, (1 << 63) - 1), names)
def test_cosigned_checkpoint_opens_for_log_and_witness(head: Checkpoint, at: int, witness: str) -> None:
    signer, cosigner = notes.Signer(head.origin, KEY), Cosigner(witness, KEY)
    line = cosigner.sign(head.text(), at)
    note = notes.with_lines(notes.sign(head.text(), signer), [str(line)])
    assert open_checkpoint(note, head.origin, signer.verifier, cosigner.verifier) == head
    assert cosigner.verifier.verify_line(head.text(), str(line)) == at


@given(checkpoints, st.data())
def test_no_changed_byte_goes_unnoticed(head: Checkpoint, data: st.DataObject) -> None:
    signer = notes.Signer(head.origin, KEY)
    note = bytearray(notes.sign(head.text(), signer))
    at = data.draw(st.integers(0, len(note) - 1))
    note[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LogError):
        open_checkpoint(bytes(note), head.origin, signer.verifier)


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        parsed = notes.parse(data)
    except LogError:
        return
    assert notes.build(parsed.text, parsed.lines) == data
