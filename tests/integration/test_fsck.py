"""`fsck` finds nothing in an honest store of either database, and names what was changed in another."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from harness.audit import ORIGIN, World

from analytics_server.audit.fsck import Report, fsck
from analytics_server.store import Store
from queries.errors import LogError
from trust.identity import keys
from trust.tlog.merkle import leaf_hash


@pytest.fixture
def world(store_url: str) -> Iterator[World]:
    made = World(Store.create(store_url))
    made.begin()
    made.query()
    made.witness()
    made.query(denied_by="beta")
    made.publish()
    made.query()
    yield made
    made.store.close()


def check(world: World, *heads: bytes) -> Report:
    return fsck(
        world.store,
        origin=ORIGIN,
        log_key=keys.public_bytes(world.log_key),
        governance_key=world.governance_key,
        heads=heads,
    )


def tamper(world: World, *statements: str, **parameters: object) -> None:
    """Write with the rights of the tables' owner, triggers out of the way and put back."""
    with world.store._engine.begin() as connection:
        sqlite = connection.dialect.name == "sqlite"
        kept = []
        if sqlite:
            found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
            kept = [sql for _, sql in found]
            for name, _ in found:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            tables = [
                row[0]
                for row in connection.exec_driver_sql(
                    "SELECT DISTINCT relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
                    " WHERE NOT tgisinternal"
                )
            ]
            for table in tables:
                connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        for statement in statements:
            connection.execute(sa.text(statement), parameters)
        for sql in kept:
            connection.exec_driver_sql(sql)
        if not sqlite:
            for table in tables:
                for (name,) in connection.exec_driver_sql(
                    f"SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND NOT tgisinternal"
                ).all():
                    connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def test_honest_store_is_found_whole(world: World) -> None:
    report = check(world)
    assert report.findings == ()
    assert report.size == len(world.entries())
    assert report.heads == len(world.checkpoints())
    assert (report.cosignatures, report.epochs) == (3, 2)
    report.require()


@pytest.mark.parametrize(
    ("statement", "first", "last", "says"),
    [
        ("UPDATE audit_entry SET leaf = :x WHERE seq = 5", 5, 5, "do not have the hash"),
        ("UPDATE audit_entry SET leaf_hash = :x WHERE seq = 5", 5, 5, "do not have the hash"),
        ("UPDATE audit_entry SET leaf = :x, leaf_hash = :h WHERE seq = 5", 4, 5, r"tree node \(1, 2\)"),
        ("UPDATE audit_node SET hash = :h WHERE level = 2 AND idx = 1", 4, 7, r"tree node \(2, 1\)"),
        ("DELETE FROM audit_node WHERE level = 1 AND idx = 3", 6, 7, r"tree node \(1, 3\)"),
        ("INSERT INTO audit_node VALUES (9, 7, :h)", None, None, "entries that are not there"),
        ("DELETE FROM audit_entry WHERE seq = 4", 4, 4, "missing"),
        ("UPDATE audit_index SET dataset = 'other' WHERE seq = 3", 3, 3, "search table"),
        ("DELETE FROM audit_index WHERE seq = 3", 3, 3, "search table"),
        ("INSERT INTO audit_posting VALUES ('kind', 'decided', 0, :h)", None, None, "posting lists"),
        ("UPDATE checkpoint SET root = :h WHERE size = 2", None, None, "not the one that its note says"),
        ("UPDATE checkpoint SET note = :x WHERE size = 2", None, None, "does not verify"),
        ("UPDATE cosignature SET witness = 'beta' || witness", None, None, "cosignature"),
        ("UPDATE cosignature SET line = 'x' WHERE witness = 'alpha'", None, None, "cosignature of 'alpha'"),
        ("UPDATE membership SET envelope = :x WHERE epoch = 2", None, None, "epoch 2 does not verify"),
        ("DELETE FROM membership WHERE epoch = 2", 13, 13, "not stored beside the log"),
        ("UPDATE request SET release = :x WHERE analyst = 'ana' AND release IS NOT NULL", 7, 7, "release"),
        ("DELETE FROM request", 2, 2, "the request that this entry names"),
    ],
)
def test_change_is_named(world: World, statement: str, first: int | None, last: int | None, says: str) -> None:
    tamper(world, statement, x=b"made up", h=leaf_hash(b"made up"))
    report = check(world)
    found = [f for f in report.findings if (f.first, f.last) == (first, last)]
    assert any(re.search(says, f.text) for f in found), report.findings
    with pytest.raises(LogError, match="not as it was written"):
        report.require()


def test_log_cut_off_cleanly_is_told_by_a_head_kept_elsewhere(world: World) -> None:
    kept = world.checkpoints()[-1]
    size = len(world.entries())
    tamper(
        world,
        "DELETE FROM cosignature WHERE size > 7",
        "DELETE FROM checkpoint WHERE size > 7",
        "DELETE FROM audit_index WHERE seq >= 7",
        "DELETE FROM audit_node WHERE ((idx + 1) << level) > 7",
        "DELETE FROM audit_entry WHERE seq >= 7",
    )
    missing = [f for f in check(world, kept).findings if f.text.startswith("missing")]
    assert [(f.first, f.last) for f in missing] == [(7, size - 1)]


def test_triggers_that_are_gone_are_named(world: World) -> None:
    sqlite = world.store._engine.dialect.name == "sqlite"
    with world.store._engine.begin() as connection:
        connection.exec_driver_sql(
            "DROP TRIGGER checkpoint_insert" if sqlite else "ALTER TABLE checkpoint DISABLE TRIGGER checkpoint_insert"
        )
    assert [f.text for f in check(world).findings if "checkpoint_insert" in f.text]
