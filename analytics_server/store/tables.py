"""The tables, as SQLAlchemy sees them. The migrations make them; a test holds the two together.

Which of them are append-only, and how that is enforced, is said in `migrations/versions/0001_initial.py`. Must not
know: what a query, a membership or a signature means; those are bytes here.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

METADATA = MetaData()
BIG: TypeEngine[int] = BigInteger().with_variant(Integer, "sqlite")  # SQLite's rowid alias has to be spelled INTEGER

invitation = Table(
    "invitation",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("participant", Text, nullable=False),
    Column("organisation", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("redeemed_at", BigInteger),
    Column("recovery_reason", Text, nullable=False, server_default=""),
    Column("service", Text, nullable=False, server_default=""),
    Column("person", Text, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)

# Whom a pseudonymous id of the log stands for: the one table about people that may be edited (erasure).
participant = Table(
    "participant",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("organisation", Text, nullable=False),
    Column("identity_key", LargeBinary, nullable=False, unique=True),
    Column("epoch_key", LargeBinary, nullable=False),
    Column("epoch_key_signature", LargeBinary, nullable=False),
    Column("certificate_serial", Text, nullable=False),
    Column("revoked", Integer, nullable=False, server_default="0"),
    Column("tls_key", Text, nullable=False, server_default=""),
    Column("service", Text, nullable=False, server_default=""),
)

# Identity keys that followed each other under one id; the next membership takes up what is pending.
key_change = Table(
    "key_change",
    METADATA,
    Column("participant", Text, ForeignKey("participant.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("old_key", LargeBinary, nullable=False),
    Column("new_key", LargeBinary, nullable=False, unique=True),
    Column("epoch_key", LargeBinary, nullable=False),
    Column("epoch_key_signature", LargeBinary, nullable=False),
    Column("old_signature", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    sqlite_with_rowid=False,
)

# What an identity provider signed of a person who enrolled, for governance to check again. It may be erased.
identity_proof = Table(
    "identity_proof",
    METADATA,
    Column("id", Text, ForeignKey("participant.id"), primary_key=True),
    Column("token", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# The names behind ids, for whoever may see them. Nothing else refers to it.
identity = Table(
    "identity",
    METADATA,
    Column("id", Text, ForeignKey("participant.id"), primary_key=True),
    Column("name", Text, nullable=False),
    Column("contact", Text, nullable=False),
    sqlite_with_rowid=False,
)

membership = Table(
    "membership",
    METADATA,
    Column("epoch", BIG, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)

# Every publication of every dataset; the highest version of a name is the one in force.
dataset = Table(
    "dataset",
    METADATA,
    Column("version", BIG, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("schema_hash", LargeBinary, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Index("dataset_by_name", "name", "version"),
)

request = Table(
    "request",
    METADATA,
    Column("request_id", LargeBinary, primary_key=True),
    Column("analyst", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("release", LargeBinary),
    Column("failure", LargeBinary),
    Column("instance", BigInteger, nullable=False, server_default="0"),
    Index("request_by_state", "state"),
    sqlite_with_rowid=False,
)

# What a training job has released so far, round by round: a restart goes on after the last of them.
job_round = Table(
    "job_round",
    METADATA,
    Column("request_id", LargeBinary, ForeignKey("request.request_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("progress", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

audit_entry = Table(
    "audit_entry",
    METADATA,
    Column("seq", BIG, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)

# Complete subtrees above the leaves: level >= 1. With audit_entry.leaf_hash they make a proof a read of O(log n) rows.
audit_node = Table(
    "audit_node",
    METADATA,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

checkpoint = Table(
    "checkpoint",
    METADATA,
    Column("size", BIG, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
)

cosignature = Table(
    "cosignature",
    METADATA,
    Column("size", BigInteger, ForeignKey("checkpoint.size"), primary_key=True, autoincrement=False),
    Column("witness", Text, primary_key=True),
    Column("line", Text, nullable=False),
    sqlite_with_rowid=False,
)

# What was moved into sealed files: where each begins and ends, its head, the subtrees over everything before its end.
shard = Table(
    "shard",
    METADATA,
    Column("end_seq", BIG, primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
    Column("peaks", LargeBinary, nullable=False),
    Column("file", Text, nullable=False),
    Column("file_hash", LargeBinary, nullable=False),
    Column("expired_at", BigInteger),
)

# For searching only: `rebuild_index` makes it again from the leaves at any time.
audit_index = Table(
    "audit_index",
    METADATA,
    Column("seq", BIG, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("analyst", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("institution", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("rho_nano", BigInteger),
    *(
        Index(f"audit_index_by_{name}", name, "seq")
        for name in ("at_ms", "kind", "actor", "analyst", "dataset", "institution", "request_id", "outcome")
    ),
)

# Likewise: where in each whole block of entries a value of a field stands (`postings`).
audit_posting = Table(
    "audit_posting",
    METADATA,
    Column("field", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("places", LargeBinary, nullable=False),
    Index("audit_posting_by_block", "block"),
    sqlite_with_rowid=False,
)
