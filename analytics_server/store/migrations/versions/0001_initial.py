"""The first tables, and the triggers that keep what was recorded as it was recorded.

APPEND-ONLY, every column immutable from the moment of insertion:
    audit_entry   seq, leaf, leaf_hash        rows come in the order 0, 1, 2, ... without a gap
    audit_node    level, idx, hash            likewise within each level
    checkpoint    size, root, note            size ascends
    cosignature   size, witness, line
    membership    epoch, hash, envelope       epochs come in the order 1, 2, 3, ...
    dataset       version, name, schema_hash, envelope     versions come in the order 1, 2, 3, ...
IMMUTABLE COLUMNS of tables that do change:
    request       request_id, analyst, dataset, envelope, expires_at; and the whole row once state is not "running"
    invitation    id, secret_hash, role, participant, organisation, expires_at; redeemed_at once it is set
FREE: participant (erasure), audit_index (a projection that is rebuilt from the leaves).

Triggers stop accidents and stray scripts; whoever owns the database can drop them, and is found out by the witnesses.
On SQLite a trigger on UPDATE and DELETE is not enough: INSERT OR REPLACE (and REPLACE, UPDATE OR REPLACE, upserts)
removes the old row without firing it. Hence the BEFORE INSERT triggers, which admit only the next row, and WITHOUT
ROWID where the key is no integer: a hidden rowid would be a second key to replace a row by. On PostgreSQL triggers are
ENABLE ALWAYS, so that session_replication_role = replica does not switch them off, and TRUNCATE has one of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Append-only table -> the condition under which a new row is admitted.
_NEXT = "NEW.{0} IS NOT DISTINCT FROM (SELECT COALESCE(MAX({0}) + 1, {1}) FROM {2})"
APPEND_ONLY = {
    "audit_entry": _NEXT.format("seq", 0, "audit_entry"),
    "audit_node": "NEW.level > 0 AND NEW.idx IS NOT DISTINCT FROM"
    " (SELECT COALESCE(MAX(idx) + 1, 0) FROM audit_node WHERE level = NEW.level)",
    "checkpoint": "NEW.size > (SELECT COALESCE(MAX(size), -1) FROM checkpoint)",
    "cosignature": "NOT EXISTS (SELECT 1 FROM cosignature WHERE size = NEW.size AND witness = NEW.witness)",
    "membership": _NEXT.format("epoch", 1, "membership"),
    "dataset": _NEXT.format("version", 1, "dataset"),
}
# Table -> the condition under which an update is admitted. Rows of these are never deleted or replaced.
_SAME = "OLD.{0} IS NOT DISTINCT FROM NEW.{0}"
GUARDED = {
    "request": " AND ".join(
        _SAME.format(column) for column in ("request_id", "analyst", "dataset", "envelope", "expires_at")
    )
    + " AND OLD.state = 'running'",
    "invitation": " AND ".join(
        _SAME.format(column) for column in ("id", "secret_hash", "role", "participant", "organisation", "expires_at")
    )
    + " AND OLD.redeemed_at IS NULL",
}
KEYS = {"request": "request_id", "invitation": "id"}


def upgrade() -> None:
    """Make every table and its triggers."""
    _participation()
    _log()
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_triggers()
    else:
        _postgresql_triggers()


def downgrade() -> None:
    """Refuse: there is nothing below, and dropping the log is no migration."""
    raise RuntimeError("the first migration cannot be undone: it would drop the audit log")


def _participation() -> None:
    op.create_table(
        "invitation",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("participant", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("redeemed_at", sa.BigInteger()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "participant",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("identity_key", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("epoch_key", sa.LargeBinary(), nullable=False),
        sa.Column("epoch_key_signature", sa.LargeBinary(), nullable=False),
        sa.Column("certificate_serial", sa.Text(), nullable=False),
        sa.Column("revoked", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_table(
        "membership",
        sa.Column("epoch", BIG, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "dataset",
        sa.Column("version", BIG, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("schema_hash", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
    )
    op.create_index("dataset_by_name", "dataset", ["name", "version"])
    op.create_table(
        "request",
        sa.Column("request_id", sa.LargeBinary(), primary_key=True),
        sa.Column("analyst", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("release", sa.LargeBinary()),
        sa.Column("failure", sa.LargeBinary()),
        sqlite_with_rowid=False,
    )
    op.create_index("request_by_state", "request", ["state"])


def _log() -> None:
    op.create_table(
        "audit_entry",
        sa.Column("seq", BIG, primary_key=True, autoincrement=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "audit_node",
        sa.Column("level", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("idx", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "checkpoint",
        sa.Column("size", BIG, primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "cosignature",
        sa.Column("size", sa.BigInteger(), sa.ForeignKey("checkpoint.size"), primary_key=True, autoincrement=False),
        sa.Column("witness", sa.Text(), primary_key=True),
        sa.Column("line", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
    words = ("kind", "actor", "analyst", "purpose", "dataset", "institution", "request_id", "outcome")
    op.create_table(
        "audit_index",
        sa.Column("seq", BIG, primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        *(sa.Column(word, sa.Text(), nullable=False) for word in words),
        sa.Column("rho_nano", sa.BigInteger()),
    )
    for name in ("at_ms", *words):
        if name != "purpose":
            op.create_index(f"audit_index_by_{name}", "audit_index", [name, "seq"])


def _sqlite_triggers() -> None:
    for table, admitted in APPEND_ONLY.items():
        _sqlite_refuse(table, "UPDATE", "append-only")
        _sqlite_refuse(table, "DELETE", "append-only")
        _sqlite_refuse(table, "INSERT", "append-only: only the next row may be added", unless=admitted)
    for table, admitted in GUARDED.items():
        key = KEYS[table]
        _sqlite_refuse(table, "UPDATE", "recorded once", unless=admitted)
        _sqlite_refuse(table, "DELETE", "never deleted")
        _sqlite_refuse(
            table,
            "INSERT",
            "never replaced",
            unless=f"NOT EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})",  # noqa: S608 - names from this file
        )


def _sqlite_refuse(table: str, action: str, why: str, unless: str | None = None) -> None:
    # SQLite spells "is not distinct from" as IS; the longer form needs 3.39.
    when = f"WHEN ({unless.replace('IS NOT DISTINCT FROM', 'IS')}) IS NOT TRUE " if unless else ""
    op.execute(
        f"CREATE TRIGGER {table}_{action.lower()} BEFORE {action} ON {table} {when}"
        f"BEGIN SELECT RAISE(ABORT, '{table} is {why}'); END"
    )


def _postgresql_triggers() -> None:
    op.execute(
        "CREATE FUNCTION cohortium_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION '% is %', TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'restrict_violation'; END$$"
    )
    for table, admitted in APPEND_ONLY.items():
        _postgresql_refuse(table, "UPDATE OR DELETE", "append-only")
        _postgresql_refuse(table, "TRUNCATE", "append-only")
        _postgresql_admit(table, "INSERT", "append-only: only the next row may be added", admitted)
    for table, admitted in GUARDED.items():
        _postgresql_admit(table, "UPDATE", "recorded once", admitted)
        _postgresql_refuse(table, "DELETE", "never deleted")
        _postgresql_refuse(table, "TRUNCATE", "never deleted")


def _postgresql_refuse(table: str, action: str, why: str) -> None:
    scope = "STATEMENT" if action == "TRUNCATE" else "ROW"
    name = f"{table}_{action.split(maxsplit=1)[0].lower()}"
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {action} ON {table} FOR EACH {scope} EXECUTE FUNCTION cohortium_refuse('{why}')"
    )
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def _postgresql_admit(table: str, action: str, why: str, condition: str) -> None:
    # A WHEN clause may hold no subquery here, so each table gets a function of its own.
    name = f"{table}_{action.lower()}"
    op.execute(
        f"CREATE FUNCTION cohortium_{name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN IF ({condition}) IS NOT TRUE THEN "
        f"RAISE EXCEPTION '{table} is {why}' USING ERRCODE = 'restrict_violation'; END IF; RETURN NEW; END$$"
    )
    op.execute(f"CREATE TRIGGER {name} BEFORE {action} ON {table} FOR EACH ROW EXECUTE FUNCTION cohortium_{name}()")
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
