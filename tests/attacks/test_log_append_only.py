"""The database itself refuses to change what was recorded, by every way round that is known."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from harness.audit import World, new_world

from analytics_server.store import Store
from analytics_server.store.roles import grant_writer
from queries.errors import LogError, ServiceError

RECORDS = ("audit_entry", "audit_node", "checkpoint", "cosignature", "membership", "dataset")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with records in every table."""
    folder = tmp_path_factory.mktemp("template")
    world = new_world(folder)
    fill(world)
    world.store.close()
    return folder / "state.sqlite"


@pytest.fixture
def sqlite_world(template: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A raw connection to a copy, as a stray script would have it."""
    connection = sqlite3.connect(shutil.copy(template, tmp_path), isolation_level=None)
    connection.execute(
        "PRAGMA recursive_triggers = OFF"
    )  # as a stray script has it: REPLACE then fires no DELETE trigger
    before = dump(connection)
    yield connection
    assert dump(connection) == before, "a refused statement left something behind"
    connection.close()


def fill(world: World) -> None:
    with world.store.begin() as uow:
        uow.add_dataset("patients", b"h", b"envelope")
        uow.add_request(request_id=b"r", analyst="ana", dataset="patients", envelope=b"e", expires_at=1)
        uow.finish_request(b"r", "released", release=b"sum")
        uow.add_request(request_id=b"q", analyst="ana", dataset="patients", envelope=b"e", expires_at=1)
        uow.add_invitation(
            id="i", secret_hash=b"s" * 32, role="agent", participant="alpha", organisation="A", expires_at=10
        )
        uow.redeem_invitation("i", b"s" * 32, 1)


def dump(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    tables = (*RECORDS, "request", "invitation")
    return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


def refused(connection: sqlite3.Connection, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=r" is (append-only|recorded once|never (deleted|replaced))"):
        connection.execute(statement)


@pytest.mark.sqlite_files("its triggers")
@pytest.mark.parametrize("table", RECORDS)
def test_sqlite_update_and_delete(sqlite_world: sqlite3.Connection, table: str) -> None:
    column = sqlite_world.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchall()[-1][0]
    refused(sqlite_world, f"UPDATE {table} SET {column} = x'00'")
    refused(sqlite_world, f"UPDATE OR IGNORE {table} SET {column} = x'00'")
    refused(sqlite_world, f"UPDATE OR REPLACE {table} SET {column} = x'00'")
    refused(sqlite_world, f"DELETE FROM {table}")


@pytest.mark.sqlite_files("its triggers")
@pytest.mark.parametrize("verb", ["INSERT OR REPLACE", "REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL", "INSERT"])
@pytest.mark.parametrize(
    "row",
    [
        "audit_entry VALUES (1, x'00', x'00')",
        "audit_entry (rowid, leaf, leaf_hash) VALUES (1, x'00', x'00')",
        "audit_entry (oid, leaf, leaf_hash) VALUES (1, x'00', x'00')",
        "audit_node VALUES (1, 0, x'00')",
        "checkpoint VALUES (2, x'00', x'00')",
        "cosignature SELECT size, witness, 'x' FROM cosignature LIMIT 1",
        "membership VALUES (1, x'00', x'00')",
        "dataset VALUES (1, 'patients', x'00', x'00')",
        "request (request_id, analyst, dataset, envelope, expires_at, state)"
        " VALUES (x'72', 'eve', 'd', x'00', 1, 'running')",
        "invitation (id, secret_hash, role, participant, organisation, expires_at)"
        " VALUES ('i', x'00', 'agent', 'eve', 'E', 99)",
    ],
)
def test_sqlite_insert_over_a_row(sqlite_world: sqlite3.Connection, verb: str, row: str) -> None:
    refused(sqlite_world, f"{verb} INTO {row}")


@pytest.mark.sqlite_files("its triggers")
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit_entry VALUES (1, x'00', x'00') ON CONFLICT (seq) DO UPDATE SET leaf = x'00'",
        "INSERT INTO audit_node VALUES (1, 0, x'00') ON CONFLICT (level, idx) DO UPDATE SET hash = x'00'",
        "INSERT INTO audit_entry VALUES (1000, x'00', x'00')",  # a gap
        "INSERT INTO audit_entry VALUES (-1, x'00', x'00')",
        "INSERT INTO audit_entry VALUES (NULL, x'00', x'00')",  # a number that SQLite would choose
        "INSERT INTO audit_node VALUES (1, 1000, x'00')",
        "INSERT INTO audit_node VALUES (0, 0, x'00')",
        "INSERT INTO checkpoint VALUES (0, x'00', x'00')",
        "INSERT INTO membership VALUES (9, x'00', x'00')",
        "INSERT INTO dataset VALUES (9, 'x', x'00', x'00')",
        "UPDATE request SET release = x'00' WHERE request_id = x'72'",  # it has ended
        "UPDATE request SET envelope = x'00' WHERE request_id = x'71'",
        "UPDATE request SET request_id = x'73' WHERE request_id = x'71'",
        "DELETE FROM request",
        "UPDATE invitation SET redeemed_at = NULL",
        "DELETE FROM invitation",
    ],
)
def test_sqlite_other_ways(sqlite_world: sqlite3.Connection, statement: str) -> None:
    refused(sqlite_world, statement)


@pytest.fixture
def postgresql_world(postgresql_database: str) -> Iterator[tuple[World, psycopg.Connection]]:
    world = World(Store.create(postgresql_database))
    world.begin()
    world.query()
    world.query(denied_by="beta")
    world.witness()
    fill(world)
    connection = psycopg.connect(conninfo(postgresql_database), autocommit=True)
    yield world, connection
    connection.close()
    world.store.close()


def conninfo(url: str, user: str = "") -> str:
    parsed = sa.make_url(url)
    return f"dbname={parsed.database} user={user or parsed.username} host={parsed.query['host']}"


def test_postgresql_refuses_the_owner_too(postgresql_world: tuple[World, psycopg.Connection]) -> None:
    _, connection = postgresql_world
    statements = [
        *(f"UPDATE {table} SET {column} = {column}" for table, column in COLUMNS.items()),
        *(f"DELETE FROM {table}" for table in (*RECORDS, "request", "invitation")),
        *(f"TRUNCATE {table} CASCADE" for table in (*RECORDS, "request", "invitation")),
        "INSERT INTO audit_entry VALUES (1, '\\x00', '\\x00') ON CONFLICT (seq) DO UPDATE SET leaf = '\\x00'",
        "INSERT INTO audit_entry VALUES (1000, '\\x00', '\\x00')",
        "INSERT INTO audit_entry VALUES (1, '\\x00', '\\x00') ON CONFLICT DO NOTHING",
        "INSERT INTO audit_node VALUES (1, 1000, '\\x00')",
        "INSERT INTO checkpoint VALUES (0, '\\x00', '\\x00')",
        "WITH gone AS (DELETE FROM audit_entry RETURNING *) SELECT count(*) FROM gone",
        "MERGE INTO audit_entry e USING (SELECT 1 AS seq) s ON e.seq = s.seq WHEN MATCHED THEN DELETE",
        "UPDATE request SET release = '\\x00' WHERE request_id = '\\x72'",
        "UPDATE request SET envelope = '\\x00' WHERE request_id = '\\x71'",
        "UPDATE invitation SET redeemed_at = NULL",
    ]
    for replica in ("origin", "replica"):  # a replica's session skips ordinary triggers
        connection.execute(f"SET session_replication_role = {replica}")
        for statement in statements:
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(statement)


COLUMNS = {
    "audit_entry": "leaf",
    "audit_node": "hash",
    "checkpoint": "note",
    "cosignature": "line",
    "membership": "envelope",
    "dataset": "envelope",
}


def test_postgresql_copy_cannot_overwrite(postgresql_world: tuple[World, psycopg.Connection]) -> None:
    _, connection = postgresql_world

    def copy() -> None:
        with connection.cursor().copy("COPY audit_entry (seq, leaf, leaf_hash) FROM STDIN") as rows:
            rows.write_row((1, b"x", b"x"))

    with pytest.raises(psycopg.errors.RestrictViolation):
        copy()


def test_postgresql_writer_role_does_its_work_and_no_more(
    postgresql_world: tuple[World, psycopg.Connection], postgresql_database: str
) -> None:
    world, connection = postgresql_world
    role = f"writer_{sa.make_url(postgresql_database).database}"
    connection.execute(f"CREATE ROLE {role} LOGIN")
    try:
        grant_writer(postgresql_database, role)
        url = sa.make_url(postgresql_database).set(username=role)
        writer = World(Store.open(url.render_as_string(hide_password=False)), log_key=world.log_key)
        writer.query()
        with writer.store.begin() as uow:
            uow.add_request(request_id=b"z", analyst="ana", dataset="d", envelope=b"e", expires_at=1)
            uow.finish_request(b"z", "failed", failure=b"f")
            uow.rebuild_index()
        writer.store.close()
        with psycopg.connect(conninfo(postgresql_database, role), autocommit=True) as own:
            for statement in (
                "UPDATE audit_entry SET leaf = ''",
                "DELETE FROM checkpoint",
                "TRUNCATE audit_node",
                "ALTER TABLE audit_entry DISABLE TRIGGER ALL",
                "DROP TRIGGER audit_entry_update ON audit_entry",
                "DROP TABLE cosignature",
                "SET session_replication_role = replica",
                "CREATE RULE quiet AS ON DELETE TO audit_entry DO INSTEAD NOTHING",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    own.execute(statement)
    finally:
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


def test_store_explains_a_refusal(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    with pytest.raises(LogError, match="audit_entry is append-only"), world.store.begin() as uow:
        uow._connection.execute(sa.text("DELETE FROM audit_entry"))
    world.store.close()


def test_role_without_rights_is_explained(
    postgresql_world: tuple[World, psycopg.Connection], postgresql_database: str
) -> None:
    _, connection = postgresql_world
    role = f"nobody_{sa.make_url(postgresql_database).database}"
    connection.execute(f"CREATE ROLE {role} LOGIN")
    try:
        url = sa.make_url(postgresql_database).set(username=role)
        with pytest.raises(ServiceError, match="denies the store's role a right"):
            Store.open(url.render_as_string(hide_password=False))
    finally:
        connection.execute(f"DROP ROLE {role}")
