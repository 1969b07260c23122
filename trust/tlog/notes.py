"""C2SP signed notes (c2sp.org/signed-note): text signed by one or more named Ed25519 keys.

A note is bytes: the text, a blank line, signature lines. Nothing of a note is to be believed before `open_note` has
returned it. Must not know: what a text says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from queries.errors import LogError
from trust import ed25519

ED25519 = 0x01
"""Signature type of plain Ed25519 note signatures."""
MAX_NOTE = 1 << 20
MAX_SIGNATURES = 10_000
"""One per witness of the largest membership."""
_DASH = "\u2014"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Line:
    """One signature line: `blob` is the four bytes of the key ID, then what that type of signature holds."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"{_DASH} {self.name} {base64.b64encode(self.key_id + self.signature).decode()}"


class NoteVerifier(Protocol):
    """A trusted key. `name` and `key_id` select the lines that are its."""

    name: str
    key_id: bytes

    def verify(self, text: str, signature: bytes) -> None:
        """Raise LogError unless `signature` is this key's over `text`."""


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    """Return the four bytes that name a key: SHA-256(name || newline || type || key), cut."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:4]


def check_name(name: str) -> str:
    """Return a key's name; raise LogError on one that a note cannot carry."""
    if name.split() != [name] or "+" in name or _holds_control(name):  # split: at whatever Unicode calls a space
        raise LogError(f"{name!r} cannot name a key in a signed note", hint="no spaces and no plus sign")
    return name


def check_signature(public_key: bytes, signature: bytes, message: bytes, who: str) -> None:
    """Raise LogError unless this raw Ed25519 key signed `message`."""
    try:
        ed25519.verify(public_key, signature, message)
    except ed25519.InvalidSignature as error:
        raise LogError(f"the signature of {who} does not verify") from error


class Verifier:
    """A public key whose plain signatures count."""

    def __init__(self, name: str, public_key: bytes) -> None:
        self.name = check_name(name)
        self.public_key = public_key
        self.key_id = key_id(name, ED25519, public_key)

    def verify(self, text: str, signature: bytes) -> None:
        """Raise LogError unless `signature` is this key's over `text`."""
        check_signature(self.public_key, signature, text.encode(), self.name)


class Signer:
    """A named private key that signs texts."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self.name = check_name(name)
        self._private_key = private_key
        self.verifier = Verifier(name, private_key.public_key().public_bytes_raw())

    def sign(self, text: str) -> Line:
        """Return this key's signature line over `text`."""
        return Line(self.name, self.verifier.key_id, self._private_key.sign(text.encode()))


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note. Not verified: see `open_note`."""

    text: str
    lines: tuple[Line, ...]


def build(text: str, lines: Sequence[Line]) -> bytes:
    """Return the note of `text` under these signature lines."""
    if not text.endswith("\n") or _holds_control(text):
        raise LogError("the text of a signed note ends in a newline and holds no other control character")
    return (text + "\n" + "".join(f"{line}\n" for line in lines)).encode()


def sign(text: str, *signers: Signer) -> bytes:
    """Return `text` signed by every signer."""
    return build(text, [signer.sign(text) for signer in signers])


def parse(note: bytes) -> Note:
    """Take a note apart, without any verification. Raise LogError where it is malformed."""
    if len(note) > MAX_NOTE:
        raise LogError("the signed note is too large")
    try:
        whole = note.decode()
    except UnicodeDecodeError as error:
        raise LogError("the signed note is not UTF-8") from error
    if _holds_control(whole):
        raise LogError("the signed note holds a control character")
    head, blank, tail = whole.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise LogError("the signed note has no signatures")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise LogError("the signed note has too many signatures")
    return Note(head + "\n", tuple(parse_line(line) for line in lines))


def _holds_control(text: str) -> bool:
    return _CONTROL.search(text) is not None


def parse_line(line: str) -> Line:
    """Take one signature line apart. Raise LogError where it is malformed."""
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LogError("a signature line of the note is malformed") from error
    canonical = base64.b64encode(blob).decode() == encoded  # base64 has other spellings of the same bytes
    if dash != _DASH or len(blob) < 5 or not canonical:
        raise LogError("a signature line of the note is malformed")
    return Line(check_name(name), blob[:4], blob[4:])


def open_note(note: bytes, *verifiers: NoteVerifier) -> str:
    """Return the text of a note that at least one of the keys signed.

    Lines of unknown keys are ignored. One that claims a known key and does not verify spoils the note: LogError.
    """
    parsed = parse(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    verified = False
    for line in parsed.lines:
        verifier = known.get((line.name, line.key_id))
        if verifier is not None:
            verifier.verify(parsed.text, line.signature)
            verified = True
    if not verified:
        names = ", ".join(sorted({verifier.name for verifier in verifiers}))
        raise LogError(f"the note is not signed by {names or 'anyone trusted'}")
    return parsed.text


def with_lines(note: bytes, lines: Sequence[str]) -> bytes:
    """Return the note with more signature lines added at its end."""
    parsed = parse(note)
    return build(parsed.text, [*parsed.lines, *(parse_line(line) for line in lines)])
