"""Shards: entries that were moved out of the log's tables into sealed files, and the roots that stay.

APPEND-ONLY but for one column:
    shard         end_seq, first_seq, root, note, peaks, file, file_hash   each begins where the one before it ends
                  expired_at: set once, when the sealed file was deleted
ROWS THAT MAY BE DELETED from now on, once a shard holds them: audit_entry with seq < end_seq, audit_node wholly below
it, checkpoint and cosignature with size < end_seq. Numbers go on from the shard where nothing is left above it.
"""

# ruff: noqa: S608 - statements are put together from names in this file
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SEALED = "(SELECT COALESCE(MAX(end_seq), 0) FROM shard)"
_SAME = "OLD.{0} IS NOT DISTINCT FROM NEW.{0}"
_IMMUTABLE = ("end_seq", "first_seq", "root", "note", "peaks", "file", "file_hash")
DELETED = {
    "audit_entry": f"OLD.seq < {_SEALED}",
    "audit_node": f"((OLD.idx + 1) << OLD.level) <= {_SEALED}",
    "checkpoint": f"OLD.size < {_SEALED}",
    "cosignature": f"OLD.size < {_SEALED}",
}
INSERTED = {
    "audit_entry": f"NEW.seq IS NOT DISTINCT FROM COALESCE((SELECT MAX(seq) + 1 FROM audit_entry), {_SEALED})",
    "audit_node": "NEW.level > 0 AND NEW.idx IS NOT DISTINCT FROM"
    f" COALESCE((SELECT MAX(idx) + 1 FROM audit_node WHERE level = NEW.level), {_SEALED} >> NEW.level)",
    "shard": f"NEW.first_seq IS NOT DISTINCT FROM {_SEALED} AND NEW.end_seq > NEW.first_seq AND NEW.expired_at IS NULL",
}
UPDATED = " AND ".join(_SAME.format(column) for column in _IMMUTABLE) + " AND OLD.expired_at IS NULL"
_BEFORE = {
    "audit_entry": "NEW.seq IS NOT DISTINCT FROM (SELECT COALESCE(MAX(seq) + 1, 0) FROM audit_entry)",
    "audit_node": "NEW.level > 0 AND NEW.idx IS NOT DISTINCT FROM"
    " (SELECT COALESCE(MAX(idx) + 1, 0) FROM audit_node WHERE level = NEW.level)",
}
_NEXT, _APPEND = "append-only: only the next row may be added", "append-only"


def upgrade() -> None:
    """Make the table, and let the triggers of the log know of it."""
    op.create_table(
        "shard",
        sa.Column("end_seq", BIG, primary_key=True, autoincrement=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("peaks", sa.LargeBinary(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("file_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expired_at", sa.BigInteger()),
    )
    if op.get_bind().dialect.name == "sqlite":
        for table, condition in DELETED.items():
            _sqlite(table, "DELETE", condition, _APPEND)
        for table, condition in INSERTED.items():
            _sqlite(table, "INSERT", condition, _NEXT)
        _sqlite("shard", "UPDATE", UPDATED, "recorded once")
        _sqlite("shard", "DELETE", None, "never deleted")
        return
    for table, condition in DELETED.items():
        _admit(table, "DELETE", condition, _APPEND)
        op.execute(f"DROP TRIGGER {table}_update ON {table}")
        _refuse(table, "UPDATE", _APPEND)
    for table, condition in INSERTED.items():
        _admit(table, "INSERT", condition, _NEXT)
    _admit("shard", "UPDATE", UPDATED, "recorded once")
    _refuse("shard", "DELETE", "never deleted")
    _refuse("shard", "TRUNCATE", "never deleted")


def downgrade() -> None:
    """Go back while nothing is sealed; refuse afterwards: the table holds what is left of those entries."""
    if op.get_bind().execute(sa.text("SELECT count(*) FROM shard")).scalar():
        raise RuntimeError("this migration cannot be undone once a shard is sealed: it would drop the shard's root")
    sqlite = op.get_bind().dialect.name == "sqlite"
    for table in DELETED:
        if sqlite:
            _sqlite(table, "DELETE", None, _APPEND)
            continue
        op.execute(f"DROP TRIGGER {table}_delete ON {table}")
        op.execute(f"DROP FUNCTION cohortium_{table}_delete()")
        op.execute(f"DROP TRIGGER {table}_update ON {table}")
        _refuse(table, "UPDATE OR DELETE", _APPEND)
    for table, condition in _BEFORE.items():
        if sqlite:
            _sqlite(table, "INSERT", condition, _NEXT)
        else:
            _admit(table, "INSERT", condition, _NEXT)
    op.drop_table("shard")
    if not sqlite:
        for action in ("insert", "update"):
            op.execute(f"DROP FUNCTION cohortium_shard_{action}()")


def _sqlite(table: str, action: str, condition: str | None, why: str) -> None:
    when = f"WHEN ({condition.replace('IS NOT DISTINCT FROM', 'IS')}) IS NOT TRUE " if condition else ""
    op.execute(f"DROP TRIGGER IF EXISTS {table}_{action.lower()}")
    op.execute(
        f"CREATE TRIGGER {table}_{action.lower()} BEFORE {action} ON {table} {when}"
        f"BEGIN SELECT RAISE(ABORT, '{table} is {why}'); END"
    )


def _refuse(table: str, action: str, why: str) -> None:
    name = f"{table}_{action.split(maxsplit=1)[0].lower()}"
    scope = "STATEMENT" if action == "TRUNCATE" else "ROW"
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {action} ON {table} FOR EACH {scope} EXECUTE FUNCTION cohortium_refuse('{why}')"
    )
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def _admit(table: str, action: str, condition: str, why: str) -> None:
    name, row = f"{table}_{action.lower()}", "OLD" if action == "DELETE" else "NEW"
    op.execute(
        f"CREATE OR REPLACE FUNCTION cohortium_{name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN IF ({condition}) IS NOT TRUE THEN "
        f"RAISE EXCEPTION '{table} is {why}' USING ERRCODE = 'restrict_violation'; END IF; RETURN {row}; END$$"
    )
    op.execute(f"DROP TRIGGER IF EXISTS {name} ON {table}")
    op.execute(f"CREATE TRIGGER {name} BEFORE {action} ON {table} FOR EACH ROW EXECUTE FUNCTION cohortium_{name}()")
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
