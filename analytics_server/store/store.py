"""The coordinator's durable state: one store, units of work, each one transaction.

Blocking; run it in an executor, from any thread. Must not know: gRPC, keys, rounds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from analytics_server.store import engine as engines
from analytics_server.store import schema
from analytics_server.store.log import Log
from analytics_server.store.people import People
from analytics_server.store.physical import Physical
from analytics_server.store.requests import Requests
from analytics_server.store.succession import Succession
from queries.errors import ConfigError

T = TypeVar("T")
SHARDS = "shards"
_WRITING = 0x636F686F6C6F67
"""PostgreSQL's advisory lock of whoever writes: "coholog"."""


class UnitOfWork(People, Succession, Requests, Log, Physical):
    """One transaction. Get one from `Store.begin` or `Store.read`; it is of no use after its `with` block."""

    def __init__(self, connection: Connection, shards: Path) -> None:
        self._connection = connection
        self._folder = shards
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []

    def _state(self) -> tuple[Any, ...]:
        """Return what of this object a savepoint does not undo."""
        return (self._frontier, self._resume, self._signed, len(self._before), len(self._after))

    def _restore(self, state: tuple[Any, ...]) -> None:
        self._frontier, self._resume, self._signed, before, after = state
        del self._before[before:], self._after[after:]

    def before_commit(self, step: Callable[[], None]) -> None:
        """Run `step` inside the transaction, at its end."""
        self._before.append(step)

    def after_commit(self, step: Callable[[], None]) -> None:
        """Run `step` once the transaction is durable; not at all where it is rolled back."""
        self._after.append(step)


class Store:
    """A database at the right version. `create` makes one, `open` opens one that is there.

    `shards` is the folder of the log's sealed files; beside an SQLite database, by default.
    """

    def __init__(self, url: str, shards: Path | None = None) -> None:
        self._url = engines.parse(url)
        beside = Path(self._url.database or "").parent if self._url.drivername == "sqlite" else Path()
        self.shards = beside / SHARDS if shards is None else shards
        self._engine = engines.make_engine(self._url)
        self._sqlite = sqlite = self._url.drivername == "sqlite"
        self._writer = self._engine.execution_options(**{engines.WRITES: True})
        self._reader = (
            self._engine
            if sqlite
            else self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )
        self._resume: tuple[int, tuple[bytes, ...], int] = (0, (), 0)
        # SQLite lets one writer in and makes the others poll: queueing this process's own threads is fair and faster.
        self._turn: threading.Lock | nullcontext[None] = threading.Lock() if sqlite else nullcontext()

    @classmethod
    def create(cls, url: str) -> Store:
        """Make the tables in an empty database. Raise ConfigError where there is a store already."""
        engines.make_file(engines.parse(url))
        store = cls(url)
        with store._closing_on_error(), store._transaction() as connection:
            if schema.revision(connection) is not None:
                raise ConfigError("the database holds a store already", hint="choose another folder or database")
            schema.migrate(connection)
        return store

    @classmethod
    def open(cls, url: str, shards: Path | None = None) -> Store:
        """Open a store. Raise ConfigError, with the next step, where it is absent, behind or ahead of this program."""
        engines.check_file(engines.parse(url))
        store = cls(url, shards)
        with store._closing_on_error(), engines.explained(), store._reader.connect() as connection:
            schema.check(connection)
        return store

    @classmethod
    def upgrade(cls, url: str) -> Store:
        """Bring an older store to this program's version, in one transaction, and open it."""
        engines.check_file(engines.parse(url))
        store = cls(url)
        with store._closing_on_error(), store._transaction() as connection:
            found = schema.revision(connection)
            if found is None or found not in schema.REVISIONS:
                schema.check(connection)
            schema.migrate(connection)
        return store

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        """Open a transaction that writes. It is durable on a clean exit, undone on an exception. Do not nest it.

        One at a time, of all processes over this database: on SQLite the write lock is taken at BEGIN IMMEDIATE, on
        PostgreSQL an advisory lock first of all. So sequences have no gap and no double, and no two writers deadlock.

        Raise ServiceError where the database cannot do it now, LogError where it is damaged.
        """
        with self._transaction() as connection:
            if not self._sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITING})
            uow = UnitOfWork(connection, self.shards)
            uow._resume = self._resume
            yield uow
            for step in uow._before:
                step()
        self._resume = uow._resume
        for step in uow._after:
            step()

    def write_all(self, units: Sequence[Callable[[UnitOfWork], T]]) -> list[T | BaseException]:
        """Run units of work in one transaction, each undone alone where it raises; return what each gave or raised.

        One commit, and so one wait for the disk, for all of them: that is what makes a busy log fast. Every unit that
        did not raise is durable when this returns. Raise ServiceError or LogError where the transaction as a whole
        fails (of several units): then nothing happened.
        """
        if len(units) == 1:
            try:
                with self.begin() as uow:
                    return [units[0](uow)]
            except Exception as error:
                return [error]
        outcomes: list[T | BaseException] = []
        with self.begin() as uow:
            for unit in units:
                state = uow._state()
                try:
                    with uow._connection.begin_nested(), engines.explained():
                        outcomes.append(unit(uow))
                except Exception as error:
                    if uow._connection.invalidated:  # there is no transaction any more
                        raise
                    uow._restore(state)
                    outcomes.append(error)
        return outcomes

    @contextmanager
    def read(self) -> Iterator[UnitOfWork]:
        """Open a transaction that sees one state of the store and changes nothing."""
        with engines.explained(), self._reader.connect() as connection, connection.begin():
            yield UnitOfWork(connection, self.shards)

    def scrub(self) -> None:
        """Have the database forget what was deleted: on SQLite, empty the write-ahead log into the file.

        On PostgreSQL rows that are gone stay on disk until a VACUUM, which is the owner's to run.
        """
        if self._sqlite:
            with engines.explained(), self._engine.connect().execution_options(**{engines.WRITES: True}) as connection:
                raw = connection.connection.cursor()
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                raw.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._turn, engines.explained(), self._writer.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise
