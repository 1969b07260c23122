"""What training jobs have released, round by round, so that a restart goes on after the last of them.

APPEND-ONLY, every column immutable from the moment of insertion:
    job_round     request_id, number, progress    numbers of a request come in the order 0, 1, 2, ... without a gap
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NEXT = "NEW.number {same} (SELECT COALESCE(MAX(number) + 1, 0) FROM job_round WHERE request_id = NEW.request_id)"
_WHY = "job_round is append-only"


def upgrade() -> None:
    """Make the table and its triggers."""
    op.create_table(
        "job_round",
        sa.Column("request_id", sa.LargeBinary(), sa.ForeignKey("request.request_id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("progress", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER job_round_{action.lower()} BEFORE {action} ON job_round "
                f"BEGIN SELECT RAISE(ABORT, '{_WHY}'); END"
            )
        op.execute(
            f"CREATE TRIGGER job_round_insert BEFORE INSERT ON job_round WHEN ({_NEXT.format(same='IS')}) IS NOT TRUE "
            f"BEGIN SELECT RAISE(ABORT, '{_WHY}: only the next row may be added'); END"
        )
        return
    for action, scope in (("UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        name = f"job_round_{action.split(maxsplit=1)[0].lower()}"
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {action} ON job_round FOR EACH {scope}"
            " EXECUTE FUNCTION cohortium_refuse('append-only')"
        )
        op.execute(f"ALTER TABLE job_round ENABLE ALWAYS TRIGGER {name}")
    condition = _NEXT.format(same="IS NOT DISTINCT FROM")
    op.execute(
        "CREATE FUNCTION cohortium_job_round_insert() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN IF ({condition}) IS NOT TRUE THEN "
        f"RAISE EXCEPTION '{_WHY}: only the next row may be added' USING ERRCODE = 'restrict_violation'; END IF;"
        " RETURN NEW; END$$"
    )
    op.execute(
        "CREATE TRIGGER job_round_insert BEFORE INSERT ON job_round"
        " FOR EACH ROW EXECUTE FUNCTION cohortium_job_round_insert()"
    )
    op.execute("ALTER TABLE job_round ENABLE ALWAYS TRIGGER job_round_insert")


def downgrade() -> None:
    """Refuse: what was released stays recorded."""
    raise RuntimeError("this migration cannot be undone: it would drop what training jobs have released")
