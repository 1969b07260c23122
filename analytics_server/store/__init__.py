"""The coordinator's durable state in SQL: SQLite by default, PostgreSQL at scale, the same code on both.

`Store.begin()` and `Store.read()` give a `UnitOfWork`, one transaction; everything else here is how that is kept.
"""

from analytics_server.store.rows import (
    CheckpointRow,
    CosignatureRow,
    DatasetRow,
    IdentityRow,
    InvitationRow,
    KeyChangeRow,
    LogRow,
    ParticipantRow,
    RequestRow,
    ShardRow,
)
from analytics_server.store.store import SHARDS, Store, UnitOfWork

__all__ = [
    "SHARDS",
    "CheckpointRow",
    "CosignatureRow",
    "DatasetRow",
    "IdentityRow",
    "InvitationRow",
    "KeyChangeRow",
    "LogRow",
    "ParticipantRow",
    "RequestRow",
    "ShardRow",
    "Store",
    "UnitOfWork",
]
