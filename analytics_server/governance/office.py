"""A governance folder, read: who may sign for the consortium, and what was decided for it.

Must not know: what is published, who has enrolled.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics_server.audit.log import AuditLog
from analytics_server.config import ServerConfig
from analytics_server.store import SHARDS, Store, UnitOfWork
from protos.v1 import log_pb2
from queries.errors import ConfigError
from trust.identity import files, keys, membership
from trust.identity.activity import Activity, check_activities
from trust.identity.council import Council
from trust.identity.membership import MembershipDocument

FOLDER = "governance"
COUNCIL = "council.toml"
SIGNING_KEY, FILE = "governance.key", "governance.toml"
VALID_DAYS = 90


@dataclass(frozen=True, slots=True)
class Governance:
    """A governance folder, read: the signing key and what was decided."""

    consortium: str
    minimum_cohort: int
    colluders: int
    valid_days: int
    """For how long a membership holds from when it is signed."""
    activities: tuple[Activity, ...]
    key: Ed25519PrivateKey | None
    """None where a council governs: then documents are proposed, signed elsewhere, and published."""


@contextmanager
def opened(config: ServerConfig) -> Iterator[tuple[Store, AuditLog]]:
    """Open the store and log of a coordinator's folder, beside a coordinator that may be running."""
    store = Store.open(config.store_url, config.folder / SHARDS)
    try:
        yield store, AuditLog(store, config.log_signer(), config.log_origin)
    finally:
        store.close()


def open_governance(path: Path, config: ServerConfig) -> Governance:
    """Read a governance folder. Raises ConfigError where it is absent or of another consortium."""
    if (path / COUNCIL).exists():
        if load_council(path / COUNCIL).governance_key != config.governance_key:
            raise ConfigError(f"the council in {path} does not govern consortium {config.consortium!r}")
        return decided(path, config)
    if not (path / SIGNING_KEY).exists():
        raise ConfigError(
            f"there are no governance keys in {path}", hint="name the folder they were moved to: --governance FOLDER"
        )
    key = keys.load_signing_key(path / SIGNING_KEY)
    if keys.public_bytes(key) != config.governance_key:
        raise ConfigError(
            f"the keys in {path} do not govern consortium {config.consortium!r}", hint="name another folder"
        )
    return replace(decided(path, config), key=key)


def decided(path: Path, config: ServerConfig) -> Governance:
    """Read what was decided, without any key. Raises ConfigError where it is damaged or of another consortium."""
    try:
        read = tomllib.loads(files.read(path / FILE).decode())
        valid_days = read.get("valid_days", VALID_DAYS)
        activities = _activities(read.get("activities", {}))
        governance = Governance(
            read["consortium"], read["minimum_cohort"], read["colluders"], valid_days, activities, None
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path / FILE} is damaged", hint="compare docs/operating.md") from None
    numbers = (governance.minimum_cohort, governance.colluders, governance.valid_days)
    if governance.consortium != config.consortium or not all(type(n) is int and 1 <= n < 1000 for n in numbers):
        raise ConfigError(
            f"{path / FILE} does not fit consortium {config.consortium!r}", hint="compare docs/operating.md"
        )
    return governance


def current_membership(uow: UnitOfWork, config: ServerConfig) -> MembershipDocument | None:
    """Return the newest published membership, verified, or None before the first."""
    envelope = uow.latest_membership()
    if envelope is None:
        return None
    return membership.verify(envelope, config.governance_key, consortium=config.consortium)


def _activities(read: dict[str, dict[str, Any]]) -> tuple[Activity, ...]:
    """Return the tables [activities.NAME] of `governance.toml`. Raises IdentityError where they cannot be."""
    found = tuple(
        Activity(name, table["category"], table.get("legal_basis", ""), tuple(sorted(table["purposes"])))
        for name, table in sorted(read.items())
    )
    check_activities(found)
    return found


def load_council(path: Path) -> Council:
    """Read a council: `threshold = 2` and `[members]` with a public key in hex for each name. Raises ConfigError."""
    try:
        read = tomllib.loads(files.read(path).decode())
        threshold, members = read["threshold"], [bytes.fromhex(key) for key in read["members"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} describes no council", hint='threshold = 2, then [members] with lines like ada = "HEX KEY"'
        ) from error
    if type(threshold) is not int:
        raise ConfigError(f"{path} describes no council", hint="threshold is a number of members")
    return Council.of(threshold, members)


def stamped(actor: str, entry: log_pb2.LogEntry) -> log_pb2.LogEntry:
    """Return the entry with its actor and the present moment filled in."""
    entry.actor, entry.at_ms = actor, time.time_ns() // 1_000_000
    return entry
