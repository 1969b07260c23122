"""Keys that follow each other under one id, service accounts, and invitations that say more.

IMMUTABLE COLUMNS added: invitation   recovery_reason, service, person.
FREE: key_change (what is in force is in the memberships, what was asked in the log), identity_proof (erasure), and the
new columns of participant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TERMS = ("recovery_reason", "service", "person")
_WHY = "invitation is recorded once"


def upgrade() -> None:
    """Add the tables, the columns, and the trigger that keeps an invitation's terms as they were made."""
    for table, names in (("invitation", _TERMS), ("participant", ("tls_key", "service"))):
        for name in names:
            op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "key_change",
        sa.Column("participant", sa.Text(), sa.ForeignKey("participant.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("old_key", sa.LargeBinary(), nullable=False),
        sa.Column("new_key", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("epoch_key", sa.LargeBinary(), nullable=False),
        sa.Column("epoch_key_signature", sa.LargeBinary(), nullable=False),
        sa.Column("old_signature", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "identity_proof",
        sa.Column("id", sa.Text(), sa.ForeignKey("participant.id"), primary_key=True),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "sqlite":
        same = " AND ".join(f"OLD.{name} IS NEW.{name}" for name in _TERMS)
        op.execute(
            f"CREATE TRIGGER invitation_terms BEFORE UPDATE ON invitation WHEN ({same}) IS NOT TRUE "
            f"BEGIN SELECT RAISE(ABORT, '{_WHY}'); END"
        )
        return
    same = " AND ".join(f"OLD.{name} IS NOT DISTINCT FROM NEW.{name}" for name in _TERMS)
    op.execute(
        "CREATE FUNCTION cohortium_invitation_terms() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN IF ({same}) IS NOT TRUE THEN "
        f"RAISE EXCEPTION '{_WHY}' USING ERRCODE = 'restrict_violation'; END IF; RETURN NEW; END$$"
    )
    op.execute(
        "CREATE TRIGGER invitation_terms BEFORE UPDATE ON invitation"
        " FOR EACH ROW EXECUTE FUNCTION cohortium_invitation_terms()"
    )
    op.execute("ALTER TABLE invitation ENABLE ALWAYS TRIGGER invitation_terms")


def downgrade() -> None:
    """Undo it where nothing of it was used: else lost keys would be let in again, and service accounts be people."""
    used = op.get_bind().execute(
        sa.text("SELECT (SELECT COUNT(*) FROM key_change) + (SELECT COUNT(*) FROM participant WHERE service <> '')")
    )
    if used.scalar_one():
        raise RuntimeError("this migration cannot be undone: keys were replaced, or there are service accounts")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER invitation_terms")
    else:
        op.execute("DROP TRIGGER invitation_terms ON invitation")
        op.execute("DROP FUNCTION cohortium_invitation_terms()")
    op.drop_table("identity_proof")
    op.drop_table("key_change")
    for table, names in (("invitation", _TERMS), ("participant", ("tls_key", "service"))):
        for name in names:
            op.drop_column(table, name)
