"""What is physically in the tables, read without belief: the part of a unit of work that `fsck` checks the rest by.

On SQLite every cell is cast to bytes: whoever edited it may have left a number, a text that is no UTF-8, or nothing.
Must not know: what would be right.
"""

# ruff: noqa: S608 - statements are put together from names in this file; values are bound
from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, text

from analytics_server.store import shard_file
from analytics_server.store.rows import ShardRow
from analytics_server.store.shards import Shards

_APPEND_ONLY = ("audit_entry", "audit_node", "checkpoint", "cosignature", "membership", "dataset", "job_round")
_GUARDED = ("request", "invitation", "shard")
_SPARED = ("audit_entry", "audit_node", "checkpoint", "cosignature")
"""Append-only tables whose sealed rows may be deleted: on PostgreSQL these have a trigger for that by itself."""
GUARDS = dict.fromkeys((*_APPEND_ONLY, *_GUARDED), ("update", "delete", "insert"))
"""Table -> the triggers that keep it, without the table's name, on SQLite; see `_POSTGRESQL` for the other."""
_POSTGRESQL = {"append-only": ("update", "truncate", "insert"), "guarded": ("update", "delete", "truncate")}
_FIELDS = {
    "audit_entry": ("leaf", "leaf_hash"),
    "audit_node": ("hash",),
    "checkpoint": ("root", "note"),
    "membership": ("hash", "envelope"),
}
"""Columns that have to hold bytes."""


class Physical(Shards):
    """Methods of `UnitOfWork`; see there. Every range is (first, end), end excluded, and comes in ascending order.

    Entries, their hashes and nodes below the sealed end come from the shards' files, as far as those are here.
    """

    _connection: Connection

    def absent_shards(self) -> list[ShardRow]:
        """Return the shards that are not expired and whose files are not here."""
        return [s for s in self.shards() if s.expired_at is None and not self.shard_path(s).is_file()]

    def read_from(self) -> int:
        """Return the first entry from which on all are here."""
        gone = [shard.end for shard in self.absent_shards()]
        return max(self.kept_from(), *gone) if gone else self.kept_from()

    def raw_leaves(self, first: int, limit: int) -> list[tuple[int, Any]]:
        """Return at most `limit` (seq, leaf) from `first` on."""
        for shard in self._here(first):
            with self.open_shard(shard) as file:
                if rows := file.leaves(first, limit):
                    return rows
        rows = self._all(
            f"SELECT seq, {self._b('leaf')} FROM audit_entry WHERE seq >= :first ORDER BY seq LIMIT :limit",
            first=max(first, self.sealed_end()),
            limit=limit,
        )
        return [(seq, leaf) for seq, leaf in rows]

    def raw_leaf_hashes(self, first: int, end: int) -> list[tuple[int, Any]]:
        """Return (seq, leaf hash) of a range."""
        found: list[tuple[int, Any]] = []
        for shard in self._here(first):
            with self.open_shard(shard) as file:
                found += file.leaf_hashes(first, end)
        rows = self._all(
            f"SELECT seq, {self._b('leaf_hash')} FROM audit_entry WHERE seq >= :first AND seq < :end ORDER BY seq",
            first=max(first, self.sealed_end()),
            end=end,
        )
        return found + [(seq, value) for seq, value in rows]

    def raw_nodes(self, level: int, first: int, end: int) -> list[tuple[int, Any]]:
        """Return (index, hash) of a range of one level."""
        found: list[tuple[int, Any]] = []
        for shard in self._here(first << level):
            with self.open_shard(shard) as file:
                found += file.level(level, first, end)
        rows = self._all(
            f"SELECT idx, {self._b('hash')} FROM audit_node WHERE level = :level AND idx >= :first AND idx < :end"
            " ORDER BY idx",
            level=level,
            first=max(first, self.sealed_end() >> level),
            end=end,
        )
        return found + [(index, value) for index, value in rows]

    def count_nodes(self) -> int:
        """Return how many tree nodes there are of entries that are here."""
        found = 0
        for shard in self._here(0):
            with self.open_shard(shard) as file:
                found += file.count_nodes()
        statement = "SELECT count(*) FROM audit_node WHERE (idx + 1) << level > :end"
        return found + int(self._all(statement, end=self.sealed_end())[0][0])

    def _here(self, seq: int) -> list[ShardRow]:
        """Return the shards, whole to the end of the last of them, that hold entries from `seq` on."""
        first = self.read_from()
        return [shard for shard in self.shards() if shard.end > seq and shard.first >= first]

    def shard_damage(self) -> list[tuple[ShardRow, str]]:
        """Return what is wrong with shards: files that are not here, or not as they were sealed."""
        found = [(shard, "the sealed file of these entries is not here") for shard in self.absent_shards()]
        for shard in self.shards():
            if shard.expired_at is not None or not self.shard_path(shard).is_file():
                continue
            if shard_file.digest(self.shard_path(shard)) != shard.file_hash:
                found.append((shard, "the sealed file of these entries is not the one that was sealed"))
        return found

    def raw_checkpoints(self, first_size: int, limit: int) -> list[tuple[int, Any, Any]]:
        """Return at most `limit` (size, root, note) of at least `first_size`."""
        rows = self._all(
            f"SELECT size, {self._b('root')}, {self._b('note')} FROM checkpoint WHERE size >= :first"
            " ORDER BY size LIMIT :limit",
            first=first_size,
            limit=limit,
        )
        return [(size, root, note) for size, root, note in rows]

    def raw_cosignatures(self, first_size: int, last_size: int) -> list[tuple[int, Any, Any]]:
        """Return (size, witness, line) over the checkpoints of these sizes, last included."""
        rows = self._all(
            f"SELECT size, {self._t('witness')}, {self._t('line')} FROM cosignature"
            " WHERE size BETWEEN :first AND :last ORDER BY size, witness",
            first=first_size,
            last=last_size,
        )
        return [(size, witness, line) for size, witness, line in rows]

    def raw_memberships(self) -> list[tuple[int, Any, Any]]:
        """Return (epoch, hash, envelope) of every epoch."""
        rows = self._all(f"SELECT epoch, {self._b('hash')}, {self._b('envelope')} FROM membership ORDER BY epoch")
        return [(epoch, value, envelope) for epoch, value, envelope in rows]

    def raw_index(self, first: int, end: int) -> list[Row[Any]]:
        """Return the search table's rows of a range, every column."""
        return self._all(
            "SELECT * FROM audit_index WHERE seq >= :first AND seq < :end ORDER BY seq", first=first, end=end
        )

    def damage(self) -> list[str]:
        """Return what the database itself finds wrong: damaged pages, cells of another type, triggers that are gone."""
        if self._connection.dialect.name == "sqlite":
            return [*self._sqlite_pages(), *self._sqlite_types(), *self._sqlite_guards()]
        return self._postgresql_guards()

    def _sqlite_pages(self) -> list[str]:
        said = [str(row[0]) for row in self._all("PRAGMA integrity_check(20)")]
        return [] if said == ["ok"] else [f"SQLite finds the file damaged: {line}" for line in said]

    def _sqlite_types(self) -> list[str]:
        found = []
        for table, fields in _FIELDS.items():
            wrong = " OR ".join(f"typeof({field}) <> 'blob'" for field in fields)
            count = int(self._all(f"SELECT count(*) FROM {table} WHERE {wrong}")[0][0])
            if count:
                found.append(f"{count} row(s) of {table} hold something else than bytes")
        return found

    def _sqlite_guards(self) -> list[str]:
        there = {row[0] for row in self._all("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
        return [
            f"the trigger {table}_{name}, which keeps {table} as it was recorded, is gone"
            for table, names in GUARDS.items()
            for name in names
            if f"{table}_{name}" not in there
        ]

    def _postgresql_guards(self) -> list[str]:
        there = {
            row[0] for row in self._all("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'A'")
        }
        return [
            f"the trigger {table}_{name}, which keeps {table} as it was recorded, is gone or switched off"
            for table in GUARDS
            for name in self._triggers_of(table)
            if f"{table}_{name}" not in there
        ]

    @staticmethod
    def _triggers_of(table: str) -> tuple[str, ...]:
        if table in _GUARDED:
            return (*_POSTGRESQL["guarded"], "insert") if table == "shard" else _POSTGRESQL["guarded"]
        return (*_POSTGRESQL["append-only"], "delete") if table in _SPARED else _POSTGRESQL["append-only"]

    def _b(self, column: str) -> str:
        return f"CAST({column} AS BLOB)" if self._connection.dialect.name == "sqlite" else column

    def _t(self, column: str) -> str:
        """Return a column of text, as bytes."""
        return self._b(column) if self._connection.dialect.name == "sqlite" else f"convert_to({column}, 'UTF8')"

    def _all(self, statement: str, **parameters: int) -> list[Any]:
        return list(self._connection.execute(text(statement), parameters))
