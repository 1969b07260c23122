"""Posting lists beside the search table: where each value of each field stands, in blocks of 4096 entries.

FREE, like audit_index: a projection that is made again from the leaves. A block has its lists as soon as it is whole;
what the log holds already gets them here. `places` are ascending places in the block, 2 bytes each (little-endian),
or, where that would be 512 bytes or more, 4096 bits, the lowest of the first byte first.
"""

from __future__ import annotations

import struct

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

FIELDS = ("kind", "actor", "analyst", "dataset", "institution", "outcome")
BLOCK = 4096


def upgrade() -> None:
    """Make the table, and the lists of every block that is whole."""
    op.create_table(
        "audit_posting",
        sa.Column("field", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text(), primary_key=True),
        sa.Column("block", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("places", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("audit_posting_by_block", "audit_posting", ["block"])
    first, last = op.get_bind().execute(sa.text("SELECT MIN(seq), MAX(seq) FROM audit_index")).one()
    if last is not None:
        for block in range(first // BLOCK, (last + 1) // BLOCK):
            _post(block)


def downgrade() -> None:
    """Drop them: searches by several fields are slow again, and nothing is lost."""
    op.drop_table("audit_posting")


def _post(block: int) -> None:
    first = block * BLOCK
    rows = op.get_bind().execute(
        sa.text(
            f"SELECT seq, {', '.join(FIELDS)} FROM audit_index"  # noqa: S608 - names from this file
            " WHERE seq >= :first AND seq < :end ORDER BY seq"
        ),
        {"first": first, "end": first + BLOCK},
    )
    places: dict[tuple[str, str], list[int]] = {}
    for seq, *values in rows:
        for field, value in zip(FIELDS, values, strict=True):
            if value:
                places.setdefault((field, value), []).append(seq - first)
    lists = [
        {"field": field, "value": value, "block": block, "places": _encode(found)}
        for (field, value), found in places.items()
    ]
    if lists:
        statement = sa.text("INSERT INTO audit_posting VALUES (:field, :value, :block, :places)")
        op.get_bind().execute(statement, lists)


def _encode(places: list[int]) -> bytes:
    if 2 * len(places) < BLOCK // 8:
        return struct.pack(f"<{len(places)}H", *places)
    bits = bytearray(BLOCK // 8)
    for place in places:
        bits[place // 8] |= 1 << place % 8
    return bytes(bits)
