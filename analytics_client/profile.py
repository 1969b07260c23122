"""A participant's folder: who it is, where its coordinator is, and the keys that never leave it.

    participant.json   id, role, consortium, addresses, governance key
    ca.pem             the consortium's root, from the invitation
    certificate.pem    own TLS chain               tls.key       its key
    identity.key       Ed25519                     epoch.key     X25519, agents only

Must not know: connections, and what a role does with its folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from queries.errors import ConfigError
from trust.identity import files, keys
from trust.rpc.channel import TlsIdentity

FILE = "participant.json"
VARIABLE = "COHORTIUM_PROFILE"
CA, CERTIFICATE = "ca.pem", "certificate.pem"
TLS_KEY, IDENTITY_KEY, EPOCH_KEY = "tls.key", "identity.key", "epoch.key"
NEXT = "keys-next"
"""A folder of keys that wait to take the place of those in force."""
READY = "ready"
"""In it: a mark that they do so now, whatever interrupts."""
_TEXTS = ("id", "role", "consortium", "address", "enrolment_address", "governance_key")


@dataclass(frozen=True, slots=True)
class Profile:
    """A participant of a consortium. `governance_key` is the raw Ed25519 key that it pinned when it enrolled."""

    folder: Path
    id: str
    role: str
    consortium: str
    address: str
    enrolment_address: str
    governance_key: bytes

    def identity_key(self) -> Ed25519PrivateKey:
        """Return the key that signs in this participant's name. Raises ConfigError."""
        return keys.load_signing_key(self.folder / IDENTITY_KEY)

    def epoch_key(self) -> X25519PrivateKey:
        """Return the key that an agent agrees pairwise secrets with. Raises ConfigError, also for people."""
        return keys.load_epoch_key(self.folder / EPOCH_KEY)

    @property
    def rotating(self) -> bool:
        """Whether a key waits to take over."""
        return (self.folder / NEXT / IDENTITY_KEY).exists()

    def next_identity_key(self) -> Ed25519PrivateKey | None:
        """Return the key that is to follow after a rotation, None where there is none. Raises ConfigError."""
        return keys.load_signing_key(self.folder / NEXT / IDENTITY_KEY) if self.rotating else None

    def take_up(self, listed: bytes) -> bool:
        """Put the rotated keys in force if `listed`, the raw key in the newest membership, is theirs; say whether."""
        following = self.next_identity_key()
        if following is None or keys.public_bytes(following) != listed:
            return False
        files.write_new(self.folder / NEXT / READY, b"", secret=False)
        take_up_ready(self.folder)
        return True

    def tls(self) -> TlsIdentity:
        """Return what `trust.rpc.channel.connect` needs. Raises ConfigError."""
        return TlsIdentity(
            consortium=self.consortium,
            ca=files.read(self.folder / CA),
            certificate=files.read(self.folder / CERTIFICATE),
            key=files.read_secret(self.folder / TLS_KEY),
        )

    def certificate_ends(self) -> datetime:
        """Return when the TLS certificate expires (UTC). Raises ConfigError."""
        try:
            return x509.load_pem_x509_certificates(files.read(self.folder / CERTIFICATE))[0].not_valid_after_utc
        except ValueError:
            raise ConfigError(
                f"{self.folder / CERTIFICATE} is no certificate", hint="restore the folder from a back-up"
            ) from None


def default_folder() -> Path:
    """Return the folder of a person who names none: $COHORTIUM_PROFILE, else ~/.cohortium."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path.home() / ".cohortium"


def load(folder: Path) -> Profile:
    """Read a participant's folder. Raises ConfigError where it is none, or damaged."""
    take_up_ready(folder)
    path = folder / FILE
    if not path.exists():
        raise ConfigError(f"{folder} is no participant's folder", hint="enrol with the invitation you were given")
    try:
        read = json.loads(files.read(path))
        texts = {name: read[name] for name in _TEXTS}
        governance_key = bytes.fromhex(texts.pop("governance_key"))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged", hint="restore the folder from a back-up") from None
    if len(governance_key) != 32 or not all(isinstance(text, str) for text in texts.values()):
        raise ConfigError(f"{path} is damaged", hint="restore the folder from a back-up")
    return Profile(folder=folder, governance_key=governance_key, **texts)


def take_up_ready(folder: Path) -> None:
    """Move keys that are marked ready into their places. Interrupted anywhere, the next call goes on."""
    waiting = folder / NEXT
    if not (waiting / READY).exists():
        return
    for path in sorted(waiting.iterdir()):
        if path.name != READY:
            path.replace(folder / path.name)
    files.sync_directory(folder)
    (waiting / READY).unlink()
    waiting.rmdir()
    files.sync_directory(folder)


def save(profile: Profile) -> None:
    """Write `participant.json` into the profile's folder, new. Raises ConfigError where there is one."""
    texts = {name: getattr(profile, name) for name in _TEXTS} | {"governance_key": profile.governance_key.hex()}
    files.write_new(profile.folder / FILE, json.dumps(texts, indent=2).encode() + b"\n", secret=False)
