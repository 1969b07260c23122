"""This process among the coordinators of one store: that it lives, and what the others have written.

SQLite takes one coordinator: it holds a lock on a file beside the database, which the kernel gives back however the
process ends. On PostgreSQL there may be several, and the server is the judge of who lives: each holds an advisory lock
under its number on a session of its own. The server ends that session when the process dies, when its machine falls
silent, or when nothing was asked for `SILENT_S`; whoever finds the lock free may end what that process left running.
The same session listens for what others write. Must not know: what requests, memberships or entries are.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, text

from analytics_server.store import engine as engines
from queries.errors import CohortiumError, ConfigError, ServiceError

CHANNEL = "cohortium"
HEARTBEAT_S = 2.0
SILENT_S = 20
AGAIN_S = 1.0
"""Between tries to reach a server that does not answer."""
GATHER_S = 0.02
"""After the first notice of many: what follows within so long is looked at together."""
LOG, DIRECTORY = "log", "directory"
"""What the migrations have PostgreSQL say: the log grew; memberships, datasets or participants changed."""
OnNews = Callable[[str], None]
logger = structlog.get_logger("cohortium.coordinator")


class Instance:
    """A running coordinator. `id` is drawn anew for every process, and is never 0."""

    def __init__(self) -> None:
        self.id = secrets.randbelow((1 << 63) - 1) + 1

    def close(self) -> None:
        """Stop being one: from now on what is left running is anybody's."""


def register(url: str, on_news: OnNews = lambda _: None) -> Instance:
    """Become a coordinator of this store. Raise ConfigError where it takes one and has one.

    `on_news` is called from another thread with LOG or DIRECTORY, and with both after a time without connection.
    """
    parsed = engines.parse(url)
    if parsed.database is not None and parsed.drivername == "sqlite":
        return _Sole(Path(parsed.database))
    return _OneOfMany(url, on_news)


class _Sole(Instance):
    def __init__(self, database: Path) -> None:
        super().__init__()
        path = database.with_name(f"{database.name}-lock")
        try:
            self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot open {path}: {error.strerror}", hint="check the folder's permissions") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise ConfigError(
                f"another coordinator runs over {database}",
                hint="stop it first; several coordinators over one store need PostgreSQL",
            ) from error

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._file)


class _OneOfMany(Instance):
    def __init__(self, url: str, on_news: OnNews) -> None:
        super().__init__()
        self._engine = engines.make_engine(engines.parse(url))
        self._on_news = on_news
        self._wake, self._stop = os.pipe()
        self._stopped = False
        self._held = threading.Event()
        self._failure: list[CohortiumError] = []
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()
        self._held.wait()
        if self._failure:
            self.close()
            raise self._failure[0]

    def close(self) -> None:
        """End the session, and with it the lock."""
        self._stopped = True
        os.write(self._stop, b"x")
        self._thread.join()
        os.close(self._wake)
        os.close(self._stop)
        self._engine.dispose()

    def _run(self) -> None:
        while not self._stopped:
            try:
                with engines.explained(), self._engine.connect() as connection:
                    self._hold(connection)
            except CohortiumError as error:
                if not self._held.is_set():
                    self._failure.append(error)
                    self._held.set()
                    return
                logger.error("this coordinator's lease is not held", reason=error.message)
                select.select([self._wake], [], [], AGAIN_S)

    def _hold(self, connection: Connection) -> None:
        """Take the lock, and listen until told to stop. Raise where the session ends."""
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        for setting in (  # of a machine that went silent the server learns by these, on TCP
            f"idle_session_timeout = '{SILENT_S}s'",
            "tcp_keepalives_idle = 5",
            "tcp_keepalives_interval = 5",
            "tcp_keepalives_count = 3",
            "lock_timeout = 0",
        ):
            connection.execute(text(f"SET {setting}"))
        heard: set[str] = set()
        session: Any = connection.connection.driver_connection
        session.add_notify_handler(lambda notice: heard.add(notice.payload))
        connection.execute(text(f"LISTEN {CHANNEL}"))
        connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": self.id})
        if self._held.is_set():
            logger.info("this coordinator's lease is held again")
            heard |= {LOG, DIRECTORY}
        self._held.set()
        while not self._stopped:
            self._tell(heard)
            ready, _, _ = select.select([session.fileno(), self._wake], [], [], HEARTBEAT_S)
            if ready and not self._stopped:
                time.sleep(GATHER_S)
            connection.execute(text("SELECT 1"))  # a sign of life, and what takes notices from the socket

    def _tell(self, heard: set[str]) -> None:
        news = sorted(heard)
        heard.clear()
        for kind in news:
            self._on_news(kind)


def is_dead(connection: Connection, instance: int) -> bool:
    """Whether the process of this number lives no more. To be asked by a coordinator, in a transaction that writes.

    Nobody else is told so of the same one before that transaction ends.
    """
    if connection.dialect.name == "sqlite":
        return True  # there is one, and it asks
    found: bool | None = connection.execute(
        text("SELECT pg_try_advisory_xact_lock(:instance)"), {"instance": instance}
    ).scalar()
    if found is None:
        raise ServiceError("PostgreSQL does not say who holds a lock", hint="see the server's log")
    return found
