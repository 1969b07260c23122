"""C2SP cosignatures (c2sp.org/tlog-cosignature, Ed25519 form): a witness's timestamped word for a checkpoint.

The message starts with a fixed header, so an identity key that also signs other things cannot be led to sign one of
these by accident. A witness's key name is its participant id.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from queries.errors import LogError
from trust.tlog import notes

ED25519_COSIGNATURE = 0x04
_STAMP = 8
_SIGNATURE = 64


def _message(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


class CosignatureVerifier:
    """A witness's public key."""

    def __init__(self, name: str, public_key: bytes) -> None:
        self.name = notes.check_name(name)
        self.public_key = public_key
        self.key_id = notes.key_id(name, ED25519_COSIGNATURE, public_key)

    def verify(self, text: str, signature: bytes) -> None:
        """Raise LogError unless this is the witness's cosignature of the checkpoint `text`."""
        if len(signature) != _STAMP + _SIGNATURE:
            raise LogError(f"the cosignature of {self.name} is malformed")
        notes.check_signature(
            self.public_key, signature[_STAMP:], _message(text, timestamp(signature)), f"witness {self.name}"
        )

    def verify_line(self, text: str, line: str) -> int:
        """Check one line over the checkpoint `text`; return when it was made, unix seconds. Raise LogError."""
        parsed = notes.parse_line(line)
        if (parsed.name, parsed.key_id) != (self.name, self.key_id):
            raise LogError(f"the cosignature is not by the key of {self.name}")
        self.verify(text, parsed.signature)
        return timestamp(parsed.signature)


class Cosigner:
    """A witness's private key."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self.name = notes.check_name(name)
        self._private_key = private_key
        self.verifier = CosignatureVerifier(name, private_key.public_key().public_bytes_raw())

    def sign(self, text: str, at: int) -> notes.Line:
        """Return the line that cosigns the checkpoint `text` at unix second `at`.

        For a witness that has just checked and persisted that head; `witness.Witness` does so.
        """
        stamp = at.to_bytes(_STAMP, "big")
        return notes.Line(self.name, self.verifier.key_id, stamp + self._private_key.sign(_message(text, at)))


def timestamp(signature: bytes) -> int:
    """Return the unix second that a cosignature claims."""
    return int.from_bytes(signature[:_STAMP], "big")
