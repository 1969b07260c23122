"""A sealed shard: an SQLite file with a stretch of the log, that verifies by itself and answers for what it holds.

    shard          first, end, root, note: the stretch, and the signed and cosigned head that ends it
    peak           complete subtrees over what comes before `first`, so that roots can be recomputed
    audit_entry, audit_node, checkpoint, cosignature, membership    as in the store; nodes that the stretch completed

Written once, never changed. Cells are read as bytes: whoever edited one may have left anything. Must not know: what
entries say, where the live log is kept.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queries.errors import LogError, ServiceError
from trust.tlog.merkle import Frontier, Node, cover

SUFFIX = ".sqlite"
_TABLES = """
CREATE TABLE shard (first INTEGER NOT NULL, "end" INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL);
CREATE TABLE peak (level INTEGER, idx INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, idx)) WITHOUT ROWID;
CREATE TABLE audit_entry (seq INTEGER PRIMARY KEY, leaf BLOB NOT NULL, leaf_hash BLOB NOT NULL);
CREATE TABLE audit_node (level INTEGER, idx INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, idx)) WITHOUT ROWID;
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, root BLOB NOT NULL, note BLOB NOT NULL);
CREATE TABLE cosignature (size INTEGER, witness TEXT, line TEXT NOT NULL, PRIMARY KEY (size, witness)) WITHOUT ROWID;
CREATE TABLE membership (epoch INTEGER PRIMARY KEY, hash BLOB NOT NULL, envelope BLOB NOT NULL);
"""
_INSERTS = {
    "audit_entry": "INSERT INTO audit_entry VALUES (?, ?, ?)",
    "audit_node": "INSERT INTO audit_node VALUES (?, ?, ?)",
    "checkpoint": "INSERT INTO checkpoint VALUES (?, ?, ?)",
    "cosignature": "INSERT INTO cosignature VALUES (?, ?, ?)",
    "membership": "INSERT INTO membership VALUES (?, ?, ?)",
}
_DIGEST_BLOCK = 1 << 20


@dataclass(frozen=True)
class Content:
    """What goes into a shard. Rows come as the tables have their columns."""

    first: int
    end: int
    root: bytes
    note: bytes
    before: Frontier
    """The tree of everything before `first`."""
    rows: Mapping[str, Iterable[Sequence[Any]]]


def name_of(first: int, end: int) -> str:
    """Return the name of the file that holds such a stretch; names sort as stretches do."""
    return f"log-{first:012}-{end:012}{SUFFIX}"


def write(path: Path, content: Content) -> bytes:
    """Write a shard beside `path` and move it there once it is on the disk; return its SHA-256.

    A leftover of an earlier attempt is replaced. Raise ServiceError where the disk is full or the folder not writable.
    """
    beside = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        beside.unlink(missing_ok=True)
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(beside)) as connection:
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
            connection.execute("BEGIN")
            head = (content.first, content.end, content.root, content.note)
            connection.execute("INSERT INTO shard VALUES (?, ?, ?, ?)", head)
            peaks = zip(cover((0, content.first)), content.before.peaks, strict=True)
            connection.executemany("INSERT INTO peak VALUES (?, ?, ?)", [(*node, value) for node, value in peaks])
            for table, statement in _INSERTS.items():
                connection.executemany(statement, content.rows[table])
            connection.execute("COMMIT")
        found = digest(beside)
        _sync(beside)
        beside.chmod(0o400)
        os.replace(beside, path)
        _sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise ServiceError(
            f"the shard {path} cannot be written: {error}", hint="nothing was lost; make room, then seal again"
        ) from error
    return found


def digest(path: Path) -> bytes:
    """Return the SHA-256 of a file. Raise LogError where it cannot be read."""
    hashed = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_DIGEST_BLOCK):
                hashed.update(block)
    except OSError as error:
        raise LogError(f"the sealed shard {path} cannot be read: {error.strerror}", hint="put it back") from error
    return hashed.digest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ShardFile:
    """An open shard, for reading."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def nodes(self, wanted: Sequence[Node]) -> dict[Node, bytes]:
        """Return the hashes of the wanted nodes that are there: of this stretch, and peaks of what is before it."""
        found = {}
        for level, index in wanted:
            if level:
                row = self._connection.execute(
                    "SELECT hash FROM audit_node WHERE level = ? AND idx = ?", (level, index)
                ).fetchone()
            else:
                row = self._connection.execute("SELECT leaf_hash FROM audit_entry WHERE seq = ?", (index,)).fetchone()
            row = (
                row
                or self._connection.execute(
                    "SELECT hash FROM peak WHERE level = ? AND idx = ?", (level, index)
                ).fetchone()
            )
            if row is not None:
                found[level, index] = bytes(row[0])
        return found

    def leaves(self, first: int, limit: int) -> list[tuple[int, Any]]:
        """Return at most `limit` (seq, leaf) from `first` on."""
        return self._rows(
            "SELECT seq, CAST(leaf AS BLOB) FROM audit_entry WHERE seq >= ? ORDER BY seq LIMIT ?", first, limit
        )

    def leaf_hashes(self, first: int, end: int) -> list[tuple[int, Any]]:
        """Return (seq, leaf hash) of a range, its end excluded."""
        return self._rows(
            "SELECT seq, CAST(leaf_hash AS BLOB) FROM audit_entry WHERE seq >= ? AND seq < ? ORDER BY seq", first, end
        )

    def level(self, level: int, first: int, end: int) -> list[tuple[int, Any]]:
        """Return (index, hash) of a range of one level of the tree, as far as this stretch completed it."""
        return self._rows(
            "SELECT idx, CAST(hash AS BLOB) FROM audit_node WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
            level,
            first,
            end,
        )

    def count_nodes(self) -> int:
        """Return how many tree nodes there are."""
        return int(self._rows("SELECT count(*) FROM audit_node")[0][0])

    def checkpoints(self, first: int, last: int) -> list[tuple[int, Any, Any]]:
        """Return (size, root, note) of the heads of these sizes, the last included."""
        return self._rows(
            "SELECT size, CAST(root AS BLOB), CAST(note AS BLOB) FROM checkpoint"
            " WHERE size BETWEEN ? AND ? ORDER BY size",
            first,
            last,
        )

    def cosignatures(self, first: int, last: int) -> list[tuple[int, Any, Any]]:
        """Return (size, witness, line), as bytes, over the heads of these sizes, the last included."""
        return self._rows(
            "SELECT size, CAST(witness AS BLOB), CAST(line AS BLOB) FROM cosignature"
            " WHERE size BETWEEN ? AND ? ORDER BY size, witness",
            first,
            last,
        )

    def _rows(self, statement: str, *values: int) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()


@contextmanager
def opened(path: Path) -> Iterator[ShardFile]:
    """Open a shard for reading. Raise LogError where it is absent or damaged."""
    if not path.is_file():
        raise LogError(
            f"these entries are in the sealed shard {path.name}, which is not here", hint=f"put it into {path.parent}"
        )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            yield ShardFile(connection)
    except sqlite3.Error as error:
        raise LogError(f"the sealed shard {path.name} is damaged: {error}", hint="restore it from a back-up") from error
