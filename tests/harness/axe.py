"""A PostgreSQL backend that is terminated at a chosen statement of the store that it serves."""

from __future__ import annotations

import threading

import psycopg
import sqlalchemy as sa

from analytics_server.store import Store

COMMIT = -1
"""Instead of a statement's number: the next commit."""


class Axe:
    """Terminates the backend of a store just before it is sent statement number `at`, counted from 0."""

    def __init__(self, store: Store, url: str, at: int | None = None) -> None:
        self._lock = threading.Lock()  # a store has readers in other threads than its writer
        self.restart(at)
        self.longest = 0
        self._killer = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        self._engine = store._engine
        sa.event.listen(store._engine, "before_cursor_execute", self._statement)
        sa.event.listen(store._engine, "commit", self._commit)

    def restart(self, at: int | None) -> None:
        """Count from 0 again."""
        with self._lock:
            self.statements, self.at, self.fell = 0, at, False

    def _statement(self, connection: sa.Connection, *_: object) -> None:
        with self._lock:
            if self.statements == self.at:
                self._fell_on(connection)
            self.statements += 1
            self.longest = max(self.longest, self.statements)

    def _commit(self, connection: sa.Connection) -> None:
        if self.at == COMMIT:
            self._fell_on(connection)

    def _fell_on(self, connection: sa.Connection) -> None:
        self.at, self.fell = None, True
        pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        self._killer.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    def close(self) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._statement)
        sa.event.remove(self._engine, "commit", self._commit)
        self._killer.close()
