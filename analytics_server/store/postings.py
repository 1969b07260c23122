"""Posting lists over the search table: where each value of each field stands, a block of entries at a time.

One index answers one filter. Two filters that are both common and seldom meet would be a walk over millions of rows;
with these they are a few thousand short lists, intersected. A block is written once its last entry is there, in the
transaction that adds that entry; what follows the last whole block is found without them. Like the search table they
are made again from the leaves at any time. Must not know: what fields mean, leaves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from analytics_server.store import tables as t

FIELDS = ("kind", "actor", "analyst", "dataset", "institution", "outcome")
BLOCK_LEVEL = 12
BLOCK = 1 << BLOCK_LEVEL
"""Entries in a block: places in it are of this many bits."""
_BITMAP = BLOCK // 8
_PAGES = (16, 64, 256, 1024)
"""Blocks that are read at a time: few at first, because most searches end soon."""


def encode(places: Sequence[int]) -> bytes:
    """Return ascending places in a block: 2 bytes for each (little-endian), or BLOCK bits where that is shorter."""
    if 2 * len(places) < _BITMAP:
        return struct.pack(f"<{len(places)}H", *places)
    bits = bytearray(_BITMAP)
    for place in places:
        bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def common(lists: Sequence[bytes]) -> list[int]:
    """Return the places that are in every one of these encoded lists, ascending."""
    few = sorted((one for one in lists if len(one) != _BITMAP), key=len)
    maps = [one for one in lists if len(one) == _BITMAP]
    if few:
        found = set(_unpacked(few[0]))
        for one in few[1:]:
            if not found:
                return []
            found.intersection_update(_unpacked(one))
        return sorted(place for place in found if all(bits[place >> 3] >> (place & 7) & 1 for bits in maps))
    together = int.from_bytes(maps[0], "little")
    for bits in maps[1:]:
        together &= int.from_bytes(bits, "little")
    return [place for place, bit in enumerate(reversed(f"{together:b}")) if bit == "1"]


def _unpacked(places: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(places) // 2}H", places)


def of_block(rows: Iterable[tuple[int, Sequence[str]]]) -> dict[tuple[str, str], bytes]:
    """Return (field, value) -> encoded places from a block's rows: sequence number, then the values of FIELDS."""
    places: dict[tuple[str, str], list[int]] = {}
    for seq, values in rows:
        for key in zip(FIELDS, values, strict=True):
            if key[1]:
                places.setdefault(key, []).append(seq % BLOCK)
    return {key: encode(found) for key, found in places.items()}


class Postings:
    """Methods of `UnitOfWork`; see there."""

    _connection: Connection

    def post(self, first: int, end: int) -> None:
        """Write the lists of every block that ends after entry `first` and is whole in a log of `end` entries."""
        for block in range(first >> BLOCK_LEVEL, end >> BLOCK_LEVEL):
            self._post(block)

    def forget_postings(self, end: int | None = None) -> None:
        """Forget where values stand in the entries before `end`, or in all of them."""
        c = t.audit_posting.c
        if end is None:
            self._connection.execute(delete(t.audit_posting))
            return
        block = end >> BLOCK_LEVEL
        self._connection.execute(delete(t.audit_posting).where(c.block < block))
        self.post_again([end])  # what is left of its block in the search table

    def post_again(self, seqs: Iterable[int]) -> None:
        """Write the lists of the blocks of these entries again, where they have any: the search table has changed."""
        for block in sorted({seq >> BLOCK_LEVEL for seq in seqs}):
            if self._connection.execute(delete(t.audit_posting).where(t.audit_posting.c.block == block)).rowcount:
                self._post(block)

    def damaged_postings(self, first: int, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the blocks whose lists are other ones than the search table's rows from `first` on give.

        Only whole blocks have lists; a block of which the rows begin later than `first` is taken to begin there.
        """
        c, found = t.audit_posting.c, []
        for block in range(first >> BLOCK_LEVEL, (first + len(rows)) >> BLOCK_LEVEL):
            here = rows[max((block << BLOCK_LEVEL) - first, 0) : ((block + 1) << BLOCK_LEVEL) - first]
            kept = self._connection.execute(select(c.field, c.value, c.places).where(c.block == block))
            lists = of_block((row["seq"], [row[field] for field in FIELDS]) for row in here)
            if {(field, value): places for field, value, places in kept} != lists:
                found.append(block)
        return found

    def stray_postings(self, first: int, end: int) -> bool:
        """Return whether there are lists of blocks that are not in a log of entries `first` up to `end`."""
        c = t.audit_posting.c
        stray = (c.block < first >> BLOCK_LEVEL) | (c.block >= end >> BLOCK_LEVEL)
        return self._connection.execute(select(c.block).where(stray).limit(1)).scalar() is not None

    def posted(self, first: int, end: int, wanted: Mapping[str, str]) -> Iterator[int]:
        """Give the entries of a range of whole blocks that match every one of `wanted` (field -> value), ascending."""
        lists = [t.audit_posting.alias(f"p{number}").c for number in range(len(wanted))]
        lead = lists[0]
        statement = select(lead.block, *(one.places for one in lists)).order_by(lead.block)
        for one, (field, value) in zip(lists, wanted.items(), strict=True):
            statement = statement.where(one.field == field, one.value == value)
            if one is not lead:
                statement = statement.where(one.block == lead.block)
        block, last = first >> BLOCK_LEVEL, (end - 1) >> BLOCK_LEVEL
        pages = iter(_PAGES)
        size = next(pages)
        while block <= last:
            here = statement.where(lead.block >= block, lead.block <= last).limit(size)
            rows = self._connection.execute(here).all()
            for at, *places in rows:
                base = at << BLOCK_LEVEL
                yield from (base + place for place in common(places) if first <= base + place < end)
            if len(rows) < size:
                return
            block, size = rows[-1][0] + 1, next(pages, size)

    def _post(self, block: int) -> None:
        c = t.audit_index.c
        first = block << BLOCK_LEVEL
        rows = self._connection.execute(
            select(c.seq, *(c[field] for field in FIELDS)).where(c.seq >= first, c.seq < first + BLOCK).order_by(c.seq)
        )
        lists = [
            {"field": field, "value": value, "block": block, "places": places}
            for (field, value), places in of_block((row[0], row[1:]) for row in rows).items()
        ]
        if lists:  # else all of it is gone after its time
            self._connection.execute(insert(t.audit_posting), lists)
