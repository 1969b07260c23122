"""Which coordinator's process runs a request, and on PostgreSQL a word to the others when something was written.

FREE while a request runs: request.instance, which changes when another process goes on with a job. Once the request
has ended the whole row is immutable, as before. 0 stands for a process of a version that had no number.

On PostgreSQL every signed head notifies the channel "cohortium" with "log", and every change of memberships, datasets
and participants with "directory": whoever listens looks at the tables. A notice holds nothing else.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NOTICES = {
    "checkpoint": ("INSERT", "log"),
    "membership": ("INSERT", "directory"),
    "dataset": ("INSERT", "directory"),
    "participant": ("INSERT OR UPDATE OR DELETE", "directory"),
}


def upgrade() -> None:
    """Add the column; on PostgreSQL the notices as well."""
    op.add_column("request", sa.Column("instance", sa.BigInteger(), nullable=False, server_default="0"))
    if op.get_bind().dialect.name == "sqlite":
        return
    op.execute(
        "CREATE FUNCTION cohortium_notice() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM pg_notify('cohortium', TG_ARGV[0]); RETURN NULL; END$$"
    )
    for table, (actions, notice) in NOTICES.items():
        op.execute(
            f"CREATE TRIGGER {table}_notice AFTER {actions} ON {table}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION cohortium_notice('{notice}')"
        )


def downgrade() -> None:
    """Drop both: what runs then belongs to nobody, and the next start ends it."""
    if op.get_bind().dialect.name != "sqlite":
        for table in NOTICES:
            op.execute(f"DROP TRIGGER {table}_notice ON {table}")
        op.execute("DROP FUNCTION cohortium_notice()")
    op.drop_column("request", "instance")
