"""The role that a coordinator on PostgreSQL should run as: it adds records and cannot change or remove one.

The owner of the tables makes and upgrades them (`create`, `upgrade`); the coordinator then connects as another role,
which has SELECT and INSERT on records, and no right to drop a trigger. Must not know: who logs in as what.
"""

from __future__ import annotations

import re

from sqlalchemy import text

from analytics_server.store import engine as engines
from queries.errors import ConfigError

RECORDS = ("audit_entry", "audit_node", "checkpoint", "cosignature", "membership", "dataset", "job_round")
"""Read and added to. `shard` and what it allows to be deleted is the owner's: sealing is no part of serving."""
READ = ("alembic_version", "shard")
CHANGING = {
    "participant": "INSERT, UPDATE, DELETE",
    "identity": "INSERT, UPDATE, DELETE",
    "identity_proof": "INSERT, UPDATE, DELETE",
    "key_change": "INSERT, UPDATE",
    "audit_index": "INSERT, DELETE",
    "audit_posting": "INSERT, DELETE",
}
GUARDED = {
    "request": "INSERT, UPDATE (state, release, failure, instance)",
    "invitation": "INSERT, UPDATE (redeemed_at)",
}
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def grant_writer(url: str, role: str) -> None:
    """Give an existing role what a coordinator needs, connecting as the tables' owner. Raise ConfigError elsewhere."""
    parsed = engines.parse(url)
    if parsed.drivername == "sqlite":
        raise ConfigError("SQLite has no roles", hint="protect the file by its owner and permissions")
    if not _ROLE.fullmatch(role):
        raise ConfigError(f"{role!r} is no name of a role", hint="lower-case letters, digits and _")
    engine = engines.make_engine(parsed)
    try:
        with engines.explained(), engine.begin() as connection:
            for table in READ:
                connection.execute(text(f"GRANT SELECT ON {table} TO {role}"))
            for table in RECORDS:
                connection.execute(text(f"GRANT SELECT, INSERT ON {table} TO {role}"))
            for table, rights in (CHANGING | GUARDED).items():
                connection.execute(text(f"GRANT SELECT, {rights} ON {table} TO {role}"))
    finally:
        engine.dispose()
