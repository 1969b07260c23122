"""What the store gives back: plain frozen rows. Times are unix seconds unless the name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

State: TypeAlias = Literal["running", "released", "failed"]
ChangeState: TypeAlias = Literal["pending", "published", "withdrawn"]


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """An invitation at the moment it was redeemed."""

    id: str
    role: str
    participant: str
    organisation: str
    expires_at: int
    recovery_reason: str = ""
    """Why somebody enrolled before gets another key; "" for a newcomer."""
    service: str = ""
    """What a service account may do (`trust.identity.service`), "" for a person or an agent."""
    person: str = ""
    """Whom an identity provider has to vouch for (`trust.identity.oidc`), "" for nobody."""


@dataclass(frozen=True, slots=True)
class ParticipantRow:
    """Whoever has enrolled. Epoch key and its signature are empty for people."""

    id: str
    role: str
    organisation: str
    identity_key: bytes
    epoch_key: bytes
    epoch_key_signature: bytes
    certificate_serial: str
    revoked: bool
    tls_key: str = ""
    """SHA-256 of the only TLS key that may connect, in hex; "" where any certificate of this id may."""
    service: str = ""


@dataclass(frozen=True, slots=True)
class KeyChangeRow:
    """An identity key that replaces another under one id. `reason` is empty for a rotation, `old_signature` else."""

    participant: str
    number: int
    old_key: bytes
    new_key: bytes
    epoch_key: bytes
    epoch_key_signature: bytes
    old_signature: bytes
    reason: str
    state: ChangeState


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """The person behind a pseudonymous id."""

    id: str
    name: str
    contact: str


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A published dataset description: the exact governance-signed envelope."""

    name: str
    schema_hash: bytes
    envelope: bytes


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request and how far it got. `seqs` are its log entries, ascending, `instance` the process that runs it."""

    request_id: bytes
    analyst: str
    dataset: str
    envelope: bytes
    expires_at: int
    state: State
    release: bytes | None
    failure: bytes | None
    seqs: tuple[int, ...]
    instance: int


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Entries `first` up to, not with, `end`, that were moved into a sealed file, and the head that ends them.

    `peaks` are the complete subtrees over the first `end` entries, largest first; `file` is in the folder of shards.
    """

    first: int
    end: int
    root: bytes
    note: bytes
    peaks: tuple[bytes, ...]
    file: str
    file_hash: bytes
    expired_at: int | None


class LogRow(NamedTuple):
    """One entry of the log."""

    seq: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A signed head of the log. `note` has the log's own signature; cosignatures are kept apart."""

    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class CosignatureRow:
    """A witness's signature line over the checkpoint of `size`."""

    size: int
    witness: str
    line: str
