"""A store that is absent, behind, ahead, foreign, damaged, full or locked says what to do, and loses nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from harness.audit import ORIGIN, World

from analytics_server.audit.fsck import fsck
from analytics_server.store import Store, engine, migrations, schema
from analytics_server.store.tables import METADATA
from protos.v1 import log_pb2
from queries.errors import ConfigError, LogError, ServiceError
from trust.identity import keys
from trust.tlog import entries

LEAF = entries.encode(log_pb2.LogEntry(at_ms=1, actor="a", log_read=log_pb2.LogRead()))


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def set_version(url: str, version: str) -> None:
    made = sa.create_engine(url)
    with made.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :v"), {"v": version})
    made.dispose()


def test_migrations_make_the_tables_that_the_code_uses(store_url: str) -> None:
    store = Store.create(store_url)
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    store.close()


def test_versions_known_to_the_code_are_the_migrations() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    found = [revision.revision for revision in script.walk_revisions()]
    assert tuple(reversed(found)) == schema.REVISIONS


def test_store_is_created_once(store_url: str) -> None:
    Store.create(store_url).close()
    with pytest.raises(ConfigError, match="holds a store already"):
        Store.create(store_url)
    Store.open(store_url).close()


def test_database_without_a_store_says_init(store_url: str) -> None:
    with pytest.raises(ConfigError, match="cohortium-server init"):
        Store.open(store_url)


def test_store_ahead_of_the_program(store_url: str) -> None:
    Store.create(store_url).close()
    set_version(store_url, "9999")
    with pytest.raises(ConfigError, match=r"newer than this program knows .* \(upgrade cohortium\)"):
        Store.open(store_url)
    with pytest.raises(ConfigError, match="newer than this program"):
        Store.upgrade(store_url)


def test_store_behind_the_program(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.create(store_url).close()
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9998"))
    monkeypatch.setattr(schema, "HEAD", "9998")
    with pytest.raises(ConfigError, match=r"at version \d{4}, this program needs 9998 .* upgrade"):
        Store.open(store_url)


def test_upgrade_of_a_current_store_changes_nothing(store_url: str) -> None:
    store = Store.create(store_url)
    with store.begin() as uow:
        uow.append([LEAF])
    store.close()
    store = Store.upgrade(store_url)
    with store.read() as uow:
        assert uow.tree_size() == 1
    store.close()


def test_absent_file_is_not_made_by_opening(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with pytest.raises(ConfigError, match="no store at"):
        Store.open(sqlite_url(path))
    assert not path.exists()


@pytest.mark.sqlite_files("its file")
def test_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    Store.create(sqlite_url(tmp_path / "state.sqlite")).close()
    assert (tmp_path / "state.sqlite").stat().st_mode & 0o777 == 0o600


@pytest.mark.sqlite_files("its file")
def test_folder_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot create"):
        Store.create(sqlite_url(tmp_path / "nowhere" / "state.sqlite"))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "postgresql://x/y", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Store.open(url)


@pytest.mark.sqlite_files("its file")
def test_connections_are_as_durable_as_promised(tmp_path: Path) -> None:
    store = Store.create(sqlite_url(tmp_path / "state.sqlite"))
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    store.close()


@pytest.mark.sqlite_files("its file")
def test_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    store = Store.create(sqlite_url(tmp_path / "state.sqlite"))
    with store.begin() as uow:
        uow.append([LEAF])

    def limit(connection: sqlite3.Connection, *_: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite's own stand-in for a device that is full

    sa.event.listen(store._engine, "checkout", limit)
    with (
        pytest.raises(ServiceError, match=r"disk that holds the store is full \(nothing was lost"),
        store.begin() as uow,
    ):
        uow.append([LEAF] * 2000)
    sa.event.remove(store._engine, "checkout", limit)
    store.close()
    store = Store.open(sqlite_url(tmp_path / "state.sqlite"))
    with store.begin() as uow:
        assert uow.append([LEAF]) == 1
    store.close()


@pytest.mark.sqlite_files("its file")
def test_store_locked_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.2)
    path = tmp_path / "state.sqlite"
    store = Store.create(sqlite_url(path))
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE');"
            " print('held', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ServiceError, match="locked by another process"), store.begin() as uow:
        uow.append([LEAF])
    with store.read() as uow:
        assert uow.tree_size() == 0
    holder.communicate()
    with store.begin() as uow:
        assert uow.append([LEAF]) == 0
    store.close()


@pytest.mark.sqlite_files("its file")
def test_damaged_file_is_a_log_error(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    Store.create(sqlite_url(path)).close()
    path.write_bytes(b"this is no database at all" * 200)
    with pytest.raises(LogError, match="damaged"):
        Store.open(sqlite_url(path))


def test_postgresql_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be reached"):
        Store.open(f"postgresql+psycopg://postgres@/none?host={tmp_path}")


def terminate_others(url: str) -> None:
    killer = sa.create_engine(url)
    with killer.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    killer.dispose()


def test_connection_lost_in_the_middle_of_a_transaction(postgresql_database: str) -> None:
    store = Store.create(postgresql_database)
    with store.begin() as uow:
        uow.append([LEAF])

    def cut_off() -> None:
        with store.begin() as uow:
            uow.append([LEAF])
            terminate_others(postgresql_database)
            uow.append([LEAF])

    with pytest.raises(ServiceError, match="nothing"):
        cut_off()
    with store.begin() as uow:
        assert uow.append([LEAF]) == 1
    store.close()


def test_migrations_go_down_and_up_again_over_a_log(store_url: str) -> None:
    from alembic import command
    from alembic.config import Config

    def go(direction: Callable[..., None], revision: str) -> None:
        made = engine.make_engine(engine.parse(store_url))
        with made.execution_options(**{engine.WRITES: True}).begin() as connection:
            config = Config()
            config.set_main_option("script_location", "analytics_server.store:migrations")
            config.attributes["connection"] = connection
            direction(config, revision)
        made.dispose()

    made = World(Store.create(store_url))
    made.begin()
    made.query()
    made.witness()
    before = made.entries()
    made.store.close()
    go(command.downgrade, "0002")
    with pytest.raises(ConfigError, match="at version 0002"):
        Store.open(store_url)
    store = Store.upgrade(store_url)
    again = World(store, governance=made.governance, log_key=made.log_key, identities=made.identities)
    assert again.entries() == before
    again.query()
    log_key = keys.public_bytes(made.log_key)
    assert fsck(store, origin=ORIGIN, log_key=log_key, governance_key=made.governance_key).findings == ()
    for statement in ("DELETE FROM audit_entry", "UPDATE checkpoint SET root = note", "DELETE FROM audit_node"):
        with pytest.raises(LogError, match="append-only"), store.begin() as uow:
            uow._connection.execute(sa.text(statement))
    store.close()
    assert schema.REVISIONS[-1] == schema.HEAD
