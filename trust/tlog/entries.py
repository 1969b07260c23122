"""What a leaf of the audit log says: columns to search by, and one line for a person to read.

Both sides read leaves through this module, so that the coordinator's search table, an auditor's export and a printed
line agree. A leaf holds no result, no literal and no exact count, hence nothing here does. Must not know: databases,
trees, signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from google.protobuf.message import DecodeError

from protos.v1 import log_pb2
from queries.errors import LogError

KINDS = tuple(field.name for field in log_pb2.LogEntry.DESCRIPTOR.oneofs_by_name["event"].fields)
"""Every event name, in the order of the protobuf."""
UNKNOWN = "unknown"
"""The kind of an entry written by a newer version."""
NO_ENTRY = "these bytes are not an entry of the audit log"


@dataclass(frozen=True, slots=True)
class Columns:
    """One entry, flat. "" and None stand for what this kind of entry does not say; times are unix milliseconds."""

    at_ms: int
    kind: str
    actor: str
    analyst: str = ""
    purpose: str = ""
    dataset: str = ""
    institution: str = ""
    request_id: str = ""
    outcome: str = ""
    rho_nano: int | None = None


def decode(leaf: bytes) -> log_pb2.LogEntry:
    """Parse a leaf. Raise LogError on bytes that are no LogEntry."""
    entry = log_pb2.LogEntry()
    try:
        entry.ParseFromString(leaf)
    except DecodeError as error:
        raise LogError(NO_ENTRY) from error
    return entry


def decode_all(leaves: Sequence[bytes]) -> Iterator[log_pb2.LogEntry | None]:
    """Parse leaves in their order; None stands for bytes that are no LogEntry.

    Some are parsed at a time as one message, where all of them are entries, which is faster: each is a field of it, as
    long as the leaf, and so means there what it means alone.
    """
    starts = range(0, len(leaves), _TOGETHER)
    return chain.from_iterable(_decode_some(leaves[first : first + _TOGETHER]) for first in starts)


def _decode_some(leaves: Sequence[bytes]) -> Iterable[log_pb2.LogEntry | None]:
    try:
        return log_pb2.LogEntries.FromString(b"".join([_FIELD[len(leaf)] + leaf for leaf in leaves])).entries
    except (DecodeError, IndexError):
        return map(_decode_or_none, leaves)


def _decode_or_none(leaf: bytes) -> log_pb2.LogEntry | None:
    try:
        return log_pb2.LogEntry.FromString(leaf)
    except DecodeError:
        return None


_TOGETHER = 512
"""So few that they stay in the processor's cache."""
_FIELD = [
    bytes([1 << 3 | 2, size] if size < 0x80 else [1 << 3 | 2, size & 0x7F | 0x80, size >> 7]) for size in range(0x4000)
]
"""Size of a leaf -> the tag and length of field 1 that come before it; a longer leaf is parsed by itself."""


def encode(entry: log_pb2.LogEntry) -> bytes:
    """Serialise an entry once, at the moment it is appended. Raise LogError on one without time, actor or event."""
    if entry.WhichOneof("event") is None or not entry.actor or entry.at_ms <= 0:
        raise LogError("an audit entry needs a time, an actor and an event")
    return entry.SerializeToString(deterministic=True)


def columns(entry: log_pb2.LogEntry) -> Columns:
    """Return what an entry can be found by."""
    kind = entry.WhichOneof("event") or UNKNOWN
    found: dict[str, Any] = {"at_ms": entry.at_ms, "kind": kind, "actor": entry.actor}
    if kind == UNKNOWN:
        return Columns(**found)
    event = getattr(entry, kind)
    names = event.DESCRIPTOR.fields_by_name
    for name in ("analyst", "purpose", "dataset", "institution", "rho_nano"):
        if name in names:
            found[name] = getattr(event, name)
    if "request_id" in names:
        found["request_id"] = event.request_id.hex()
    found["outcome"] = _OUTCOMES[kind](event) if kind in _OUTCOMES else ""
    return Columns(**found)


_OUTCOMES: dict[str, Callable[[Any], str]] = {
    "decided": lambda event: "allowed" if event.allowed else "denied",
    "round_ended": lambda event: str(event.outcome.partition(":")[0]),
    "released": lambda _: "released",
    "failed": lambda _: "failed",
    "stated": lambda event: str(event.about),
}


def sentence(seq: int, entry: log_pb2.LogEntry) -> str:
    """Return one line for a person: number, time (UTC), who, what."""
    kind = entry.WhichOneof("event")
    text = _SENTENCES[kind](getattr(entry, kind)) if kind else "did something this version cannot read"
    return _printable(f"{seq:>6}  {moment(entry.at_ms)[:19].replace('T', ' ')}  {entry.actor}: {text}")


def moment(at_ms: int) -> str:
    """Return unix milliseconds as ISO 8601 in UTC; a leaf may hold a time that no calendar has."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return "an impossible time"


def _printable(text: str) -> str:
    """Escape control characters: a name in a leaf must not be able to drive the auditor's terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _short(value: bytes) -> str:
    return value.hex()[:12]


def _cost(rho_nano: int) -> str:
    return f"rho {rho_nano / 1e9:g}"


def _some(names: Any) -> str:
    return ", ".join(names) or "nobody"


def _decided(event: log_pb2.Decided) -> str:
    verdict = "allowed" if event.allowed else "denied"
    rule = f" under rule {event.rule}" if event.rule else ""
    rule += f" of policy {_short(event.policy_hash)}" if event.policy_hash else ""
    spent = f"; spent {_cost(event.rho_nano_before)} -> {_cost(event.rho_nano_after)}" if event.allowed else ""
    return f"{event.institution} {verdict} request {_short(event.request_id)}{rule}{spent}"


def _round_ended(event: log_pb2.RoundEnded) -> str:
    lost = "".join(f"; {d.institution} dropped out at {d.step} ({d.reason})" for d in event.dropouts)
    survivors = _some(event.survivors)
    return f"round {_short(event.round_id)} of request {_short(event.request_id)} {event.outcome}: {survivors}{lost}"


_SENTENCES: dict[str, Callable[[Any], str]] = {
    "log_started": lambda e: f"started the log of {e.consortium}",
    "invited": lambda e: (
        f"invited {e.participant} as {e.role}"
        + (f" again, to replace a lost key ({e.recovery_reason})" if e.recovery_reason else "")
    ),
    "enrolled": lambda e: (
        f"enrolled {e.participant} as {e.role}{', a service account' if e.service else ''}, "
        f"identity key {_short(e.identity_key)}" + (f", vouched for by {e.vouched_by}" if e.vouched_by else "")
    ),
    "service_scoped": lambda e: (
        f"let service account {e.participant} ask of {_some(e.datasets)} until {moment(e.expires_at * 1000)[:10]}"
    ),
    "revoked": lambda e: f"revoked {e.participant}" + (f" ({e.reason})" if e.reason else ""),
    "membership_published": lambda e: f"published membership epoch {e.epoch}, {_short(e.membership_hash)}",
    "dataset_published": lambda e: f"published dataset {e.dataset}, schema {_short(e.schema_hash)}",
    "requested": lambda e: (
        f"asked {e.dataset} for {e.shape or 'something'}, purpose {e.purpose or 'not given'!r}"
        f"{f' ({e.activity}, {e.category})' if e.activity else ''}, "
        f"{_cost(e.rho_nano)}, at least {e.minimum_cohort} institutions, request {_short(e.request_id)}"
    ),
    "decided": _decided,
    "round_ended": _round_ended,
    "released": lambda e: (
        f"released request {_short(e.request_id)} from {e.survivors} institutions, {e.mechanism}, "
        f"{_cost(e.rho_nano)}, hash {_short(e.release_hash)}"
    ),
    "failed": lambda e: (
        f"request {_short(e.request_id)} failed: {e.reason or 'no reason given'}"
        f" ({'charged' if e.charged else 'nothing charged'})"
    ),
    "stated": lambda e: f"stated on its {e.about}: {e.text}" + (f" (sha256 {_short(e.subject)})" if e.subject else ""),
    "key_change_asked": lambda e: (
        f"asked for another key of {e.participant}: {_short(e.old_key)} -> {_short(e.new_key)}"
        + (f" ({e.reason})" if e.reason else "")
    ),
    "key_changed": lambda e: (
        f"{'replaced' if e.reason else 'took up'} the key of {e.participant}: {_short(e.old_key)} -> "
        f"{_short(e.new_key)}, from epoch {e.epoch}" + (f" ({e.reason})" if e.reason else "")
    ),
    "shard_sealed": lambda e: f"sealed entries {e.first} to {e.end - 1} in a file (sha256 {_short(e.file_hash)})",
    "shard_expired": lambda e: f"deleted entries {e.first} to {e.end - 1} after their time; the root stays",
    "identity_changed": lambda e: f"{'erased' if e.erased else 'wrote down'} who is behind {e.participant}",
    "log_read": lambda e: f"read the log, {e.what or 'everything'}, entries {e.first} to {e.last}",
}
