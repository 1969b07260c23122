"""Where coordinators under test keep their stores: SQLite files, or PostgreSQL with `pytest --store postgresql`.

With that option every consortium that is founded without saying where, in this process or by a sandbox, gets an empty
database of its own on the session's PostgreSQL. Tests about SQLite's own files are marked `sqlite_files` and skip.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from analytics_client.batch import Batch
from analytics_server import governance
from analytics_server.config import STATE, ServerConfig
from analytics_server.store import engine

_NUMBERS = itertools.count()


class Databases:
    """Empty databases on a PostgreSQL server, whose maintenance database is at `uri` (libpq form)."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._names: list[str] = []

    def make(self) -> str:
        """Create a database and return its SQLAlchemy URL."""
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        with psycopg.connect(self._uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        self._names.append(name)
        return f"postgresql+psycopg://postgres@/{name}?host={self._uri.partition('host=')[2]}"

    @contextmanager
    def dropped_after(self) -> Iterator[None]:
        """Drop what is made within, whoever is still connected."""
        before = len(self._names)
        yield
        with psycopg.connect(self._uri, autocommit=True) as connection:
            for name in self._names[before:]:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        del self._names[before:]


_chosen: Databases | None = None


def new_url(folder: Path) -> str:
    """Return the URL of a place without a store, on the database that this session runs on."""
    return f"sqlite:///{folder / STATE}" if _chosen is None else _chosen.make()


def init_options() -> list[str]:
    """Return what `cohortium-server init` has to be told, in a process of its own, to found on that database."""
    return [] if _chosen is None else ["--store", _chosen.make()]


@contextmanager
def on_postgresql(databases: Databases) -> Iterator[None]:
    """Have whoever founds a consortium with the default store found it on a new database of this server."""
    global _chosen  # noqa: PLW0603 -- one session, one choice
    initialise, run = governance.initialise, Batch.run

    def founded(folder: Path, **options: Any) -> ServerConfig:
        if options["store"] == STATE:
            options["store"] = databases.make()
        return initialise(folder, **options)

    def ran(batch: Batch, *arguments: str) -> str:
        if arguments[0] == "init" and "--store" not in arguments:
            arguments += ("--store", databases.make())
        return run(batch, *arguments)

    def forgot(url: URL) -> None:
        assert url.drivername != "sqlite", (
            "this test makes an SQLite store, whatever --store says: mark it sqlite_files"
        )

    _chosen = databases
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "make_file", forgot)
        patch.setattr(governance, "initialise", founded)
        patch.setattr(Batch, "run", ran)
        yield
    _chosen = None
