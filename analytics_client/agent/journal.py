"""The agent's own log: every decision it signed, exact bytes, as the leaves of a second RFC 6962 tree.

Each decision states the size and root of this tree before it, so the institution's decisions are a chain, wherever
they are found: one that the coordinator left out of its log leaves a gap there, and stands here. An entry is durable
before the decision leaves. `cohortium audit reconcile` compares the two. Must not know: what a decision says.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from queries.errors import ConfigError, ServiceError
from trust.tlog.merkle import Frontier, leaf_hash

FILE = "journal.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,   -- the agent's clock, unix milliseconds
    statement BLOB NOT NULL   -- decision and signature, as they went to the coordinator
);
CREATE TRIGGER IF NOT EXISTS journal_only_grows BEFORE INSERT ON journal
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), -1) + 1 FROM journal)
    BEGIN SELECT raise(ABORT, 'the journal only grows at its end'); END;
CREATE TRIGGER IF NOT EXISTS journal_never_changes BEFORE UPDATE ON journal
    BEGIN SELECT raise(ABORT, 'the journal never changes'); END;
CREATE TRIGGER IF NOT EXISTS journal_never_shrinks BEFORE DELETE ON journal
    BEGIN SELECT raise(ABORT, 'the journal never shrinks'); END;
"""


class Journal:
    """An open journal; safe to use from several threads of the one process that holds the agent's folder."""

    def __init__(self, connection: sqlite3.Connection, frontier: Frontier) -> None:
        self._connection = connection
        self._frontier = frontier
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or begin the journal at `path`. Raise ConfigError where it is damaged."""
        try:
            connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            path.chmod(0o600)
            frontier = Frontier()
            for seq, statement in connection.execute("SELECT seq, statement FROM journal ORDER BY seq"):
                if seq != frontier.size:
                    raise ConfigError(f"{path} lacks entry {frontier.size}", hint="restore it; do not start without it")
                frontier.append(leaf_hash(statement))
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"{path} cannot be opened: {error}", hint="restore it from a backup") from error
        return cls(connection, frontier)

    @property
    def head(self) -> tuple[int, bytes]:
        """Size and root, as the next decision states them."""
        with self._lock:
            return self._frontier.size, self._frontier.root()

    def append(self, statement: bytes) -> None:
        """Add a signed decision; durable on return. Raise ServiceError where it is not: then nothing may be sent."""
        with self._lock:
            row = self._frontier.size, time.time_ns() // 1_000_000, statement
            try:
                self._connection.execute("INSERT INTO journal VALUES (?, ?, ?)", row)
            except sqlite3.Error as error:
                raise ServiceError("the agent's journal cannot be written", hint="is its disk full?") from error
            self._frontier.append(leaf_hash(statement))

    def statements(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (number, unix milliseconds, statement) of every entry."""
        with self._lock:
            yield from self._connection.execute("SELECT seq, at_ms, statement FROM journal ORDER BY seq").fetchall()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
