"""Whom a pseudonymous id stands for, apart from everything that the log is about.

FREE: identity. Rows are changed and deleted at will (erasure); no entry, proof or signature depends on them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "identity",
        sa.Column("id", sa.Text(), sa.ForeignKey("participant.id"), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop the table, and with it the names: the log keeps its ids."""
    op.drop_table("identity")
