"""Connections that keep the promises of the store, and what their failures mean.

SQLite: WAL, synchronous=FULL, foreign keys, BEGIN IMMEDIATE for writers. PostgreSQL: psycopg 3, commits synchronous.
Must not know: tables.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from queries.errors import ConfigError, LogError, ServiceError

WRITES = "cohortium_writes"
"""Execution option of a connection whose transactions write: on SQLite they take the write lock at once."""
BUSY_SECONDS = 10.0
"""How long a writer waits for another process's transaction."""
STUCK_SECONDS = 30
"""After this long without a statement PostgreSQL ends a transaction; who waited for it gives up a little later."""


def parse(url: str) -> URL:
    """Return the URL of a database that the store can run on; raise ConfigError on any other."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError("the store's URL cannot be read", hint="sqlite:////var/lib/cohortium/state.sqlite") from error
    if parsed.drivername == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("the store has to be a file", hint="sqlite:////var/lib/cohortium/state.sqlite")
        return parsed
    if parsed.drivername != "postgresql+psycopg":
        raise ConfigError(
            f"there is no store on {parsed.drivername!r}", hint="use sqlite:///FILE or postgresql+psycopg://..."
        )
    return parsed


def make_engine(url: URL) -> Engine:
    """Return an engine whose connections are set up as the module says."""
    if url.drivername != "sqlite":
        try:
            engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": int(BUSY_SECONDS)})
        except ModuleNotFoundError as error:
            raise ConfigError("PostgreSQL needs psycopg", hint="pip install 'cohortium[postgres]'") from error
        event.listen(engine, "connect", _set_up_postgresql)
        return engine
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def make_file(url: URL) -> None:
    """Create an SQLite store's file, readable by its owner only. Raise ConfigError where that cannot be."""
    if url.drivername != "sqlite" or url.database is None:
        return
    path = Path(url.database)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigError(f"cannot create {path}: {error.strerror}", hint="name a folder you can write to") from error


def check_file(url: URL) -> None:
    """Raise ConfigError where an SQLite store's file is absent: opening must not make an empty one."""
    if url.drivername == "sqlite" and url.database is not None and not Path(url.database).is_file():
        raise ConfigError(f"there is no store at {url.database}", hint="run: cohortium-server init")


def _set_up_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: _begin_sqlite does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _set_up_postgresql(connection: Any, _: Any) -> None:
    """A process that stopped in the middle of a transaction must not keep the others waiting for ever."""
    for name, seconds in (("idle_in_transaction_session_timeout", STUCK_SECONDS), ("lock_timeout", STUCK_SECONDS + 5)):
        connection.execute(f"SET {name} = '{seconds}s'")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def explained() -> Iterator[None]:
    """Turn a database's failure into an error that says what to do. Whatever was going on has been rolled back."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else None
        if isinstance(cause, sqlite3.Error):
            raise _explain_sqlite(cause) from error
        raise _explain_postgresql(cause) from error


def _explain_sqlite(cause: sqlite3.Error) -> Exception:
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the primary result code
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LogError(
            "the store's file is damaged", hint="keep it, restore a backup, and have an auditor verify that"
        )
    if code in _SQLITE:
        message, hint = _SQLITE[code]
        return ServiceError(message, hint=hint)
    if any(words in str(cause) for words in _GUARDED):
        return LogError(str(cause), hint="records are never changed; verify the log")
    return ServiceError(f"the store refused: {cause}")


_GUARDED = ("append-only", "recorded once", "never deleted", "never replaced")
"""What the triggers of the migrations say."""
_LOCKED = ("the store is locked by another process", "nothing was lost; try again")
_CLOSED = ("the store's file cannot be opened or written", "check its owner and permissions, and its folder's")
_SQLITE = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: ("the disk that holds the store is full", "nothing was lost; make room, then go on"),
    sqlite3.SQLITE_IOERR: ("the disk that holds the store fails", "nothing acknowledged was lost; check the disk"),
    sqlite3.SQLITE_READONLY: _CLOSED,
    sqlite3.SQLITE_CANTOPEN: _CLOSED,
    sqlite3.SQLITE_PERM: _CLOSED,
}


_POSTGRESQL = {
    "42501": ("PostgreSQL denies the store's role a right", "see 'writer role' in docs/audit.md"),
    "55P03": _LOCKED,  # lock_timeout
    "25P03": _LOCKED,  # idle_in_transaction_session_timeout: it was this process that kept the others waiting
}


def _explain_postgresql(cause: BaseException | None) -> Exception:
    state = getattr(cause, "sqlstate", None) or ""
    if state.startswith("53"):  # insufficient resources: 53100 is a full disk
        return ServiceError("PostgreSQL is out of disk, memory or connections", hint="nothing was lost; make room")
    if state.startswith("XX"):
        return LogError("PostgreSQL reports damaged data", hint="restore a backup, and have an auditor verify that")
    if state == "23001":  # restrict_violation: raised by the triggers of the migrations
        return LogError(str(cause).partition("\n")[0], hint="records are never changed; verify the log")
    if state in _POSTGRESQL:
        message, hint = _POSTGRESQL[state]
        return ServiceError(message, hint=hint)
    if state and not state.startswith(("08", "57P")):  # not a broken connection, nor a server that is shutting down
        return ServiceError(f"PostgreSQL refused (SQLSTATE {state})", hint="see the server's log")
    return ServiceError(
        "PostgreSQL cannot be reached", hint="nothing acknowledged was lost; check the address and try again"
    )
