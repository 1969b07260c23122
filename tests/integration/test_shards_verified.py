"""Verification spans sealed files, and goes on from what has expired; whoever makes entries vanish is found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from harness.audit import World
from harness.tampering import drop_triggers

from analytics_client.audit import (
    Gone,
    History,
    Report,
    read_database,
    read_json_lines,
    verify,
    verify_database,
    write_json_lines,
    write_sqlite,
)
from analytics_server.audit import sealing
from analytics_server.store import ShardRow, Store
from protos.v1 import agent_pb2, log_pb2
from trust.transcript import frame

pytestmark = pytest.mark.sqlite_files("copies of its file")

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log of five days in two shards, and what is not sealed; to be copied."""
    folder = tmp_path_factory.mktemp("live")
    world = World(Store.create(f"sqlite:///{folder / 'state.sqlite'}"))
    world.begin()
    for day in range(5):
        for number in range(3):
            world.query(denied_by="beta" if number == 1 else "")
        if day == 2:
            world.publish()
        world.witness()
        world.now_ms += DAY_MS
    seal(world, days=3.5)
    seal(world, days=1.5)
    world.query()
    world.witness()
    return world


def seal(world: World, *, days: float) -> ShardRow:
    found = sealing.seal(world.store, world.log, before_ms=world.now_ms - int(days * DAY_MS), now_ms=world.now_ms)
    assert found is not None
    return found


@pytest.fixture
def copy(made: World, tmp_path: Path) -> Path:
    """A copy of the store with its shards beside it, as docs/operating.md has it made."""
    live = made.store._url.database or ""
    with closing(sqlite3.connect(live)) as source, closing(sqlite3.connect(tmp_path / "copy.sqlite")) as target:
        source.backup(target)
    shutil.copytree(made.store.shards, tmp_path / "shards")
    for path in (tmp_path / "shards").iterdir():
        path.chmod(0o600)
    return tmp_path / "copy.sqlite"


@pytest.fixture
def expired(made: World, copy: Path) -> Iterator[World]:
    """A store in the place of the copy whose first shard has expired."""
    store = Store.open(f"sqlite:///{copy}")
    world = World(
        store, governance=made.governance, log_key=made.log_key, identities=made.identities, now_ms=made.now_ms
    )
    world.witnesses = made.witnesses
    gone = sealing.expire(store, world.log, before_ms=world.now_ms - int(3.2 * DAY_MS), now_ms=world.now_ms)
    assert len(gone) == 1
    yield world
    store.close()


def shards_of(world: World) -> list[ShardRow]:
    with world.store.read() as uow:
        return uow.shards()


def check(world: World, path: Path) -> Report:
    return verify_database(path, world.governance_key)


def rechecked(world: World, history: History) -> Report:
    return verify(
        history.entries,
        None,
        history.memberships,
        world.governance_key,
        checkpoints=history.checkpoints,
        gone=history.gone,
    )


def test_copy_with_its_shards_verifies_as_one_log(made: World, copy: Path) -> None:
    report = check(made, copy)
    assert report.findings == ()
    assert (report.first, report.size) == (0, len(made.entries()))
    assert report.heads == len(made.checkpoints())
    history = read_database(copy)
    assert [tuple(entry) for entry in history.entries] == made.entries()
    assert rechecked(made, history).ok


def test_each_shard_verifies_alone(made: World, copy: Path) -> None:
    for shard in shards_of(made):
        report = check(made, copy.parent / "shards" / shard.file)
        assert report.findings == ()
        assert (report.first, report.size, report.root) == (shard.first, shard.end, shard.root)
        assert ("in earlier shards" in report.text()) == (shard.first > 0)


def test_absent_shard_is_named(made: World, copy: Path) -> None:
    first, second = shards_of(made)
    (copy.parent / "shards" / second.file).unlink()
    report = check(made, copy)
    assert (second.first, second.end - 1) in [(f.first, f.last) for f in report.findings]
    assert (first.first, first.end - 1) not in [(f.first, f.last) for f in report.findings]


def test_expired_log_verifies_in_every_form(expired: World, copy: Path, tmp_path: Path) -> None:
    first = shards_of(expired)[0]
    report = check(expired, copy)
    assert report.findings == ()
    assert (report.first, report.size) == (first.end, len(expired.entries()) + first.end)
    assert f"entries 0 to {first.end - 1} were deleted after their time" in report.text()
    history = read_database(copy)
    assert history.gone == Gone(first.end, first.peaks)
    write_json_lines(history, tmp_path / "log.jsonl")
    assert read_json_lines(tmp_path / "log.jsonl") == history
    assert rechecked(expired, read_json_lines(tmp_path / "log.jsonl")).ok
    write_sqlite(history, tmp_path / "export.sqlite")
    assert check(expired, tmp_path / "export.sqlite").ok
    assert read_database(tmp_path / "export.sqlite").gone == history.gone


def test_keeper_that_lets_entries_vanish_is_found(made: World, copy: Path) -> None:
    """It says that a shard has expired; no entry does."""
    first = shards_of(made)[0]
    with closing(sqlite3.connect(copy)) as connection, connection:
        drop_triggers(connection)
        connection.execute("UPDATE shard SET expired_at = 1 WHERE first_seq = 0")
    report = check(made, copy)
    assert [(f.first, f.last) for f in report.findings] == [(0, first.end - 1)]
    assert "no entry says" in report.findings[0].text
    history = read_database(copy)
    truncated = History(history.entries, history.checkpoints, history.memberships, Gone(first.end, first.peaks[::-1]))
    assert not rechecked(made, truncated).ok


def test_other_subtrees_than_those_that_are_gone_do_not_lead_on(expired: World, copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection, connection:
        drop_triggers(connection)
        connection.execute("UPDATE shard SET peaks = zeroblob(length(peaks)) WHERE first_seq = 0")
    assert not check(expired, copy).ok
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE shard SET peaks = x'00' WHERE first_seq = 0")
    assert not check(expired, copy).ok  # so few cannot make up a tree


def test_random_changes_of_sealed_files_are_found(made: World, copy: Path) -> None:
    drawn = Random(3)
    for _ in range(40):
        shard = drawn.choice(shards_of(made))
        path = copy.parent / "shards" / shard.file
        whole = path.read_bytes()
        seq = drawn.randrange(shard.first, shard.end)
        statement, named = drawn.choice(
            [
                ("UPDATE audit_entry SET leaf = x'00' WHERE seq = ?", True),
                ("UPDATE audit_entry SET leaf_hash = zeroblob(32) WHERE seq = ?", True),
                ("DELETE FROM audit_entry WHERE seq = ?", True),
                ("UPDATE audit_node SET hash = zeroblob(32) WHERE level = 1 AND idx = (? >> 1)", False),
                ("DELETE FROM checkpoint WHERE size >= ? AND size IN (SELECT size FROM cosignature)", False),
                ("UPDATE cosignature SET line = 'x' WHERE size >= ?", False),
            ]
        )
        with closing(sqlite3.connect(path)) as connection, connection:
            changed = connection.execute(statement, (seq,)).rowcount
        if not changed:
            continue
        report = check(made, copy)
        assert not report.ok, statement
        spans = [(f.first, f.last) for f in report.findings if f.first is not None and f.last is not None]
        assert not named or any(first <= seq <= last for first, last in spans), (statement, seq, report.findings)
        path.write_bytes(whole)
    assert check(made, copy).ok


def test_statement_that_an_institution_did_not_sign_is_named(made: World, copy: Path) -> None:
    store = Store.open(f"sqlite:///{copy}")
    world = World(
        store, governance=made.governance, log_key=made.log_key, identities=made.identities, now_ms=made.now_ms
    )
    for name, signer in (("alpha", "alpha"), ("alpha", "beta")):
        content = agent_pb2.StatementContent(institution=name, about="policy", text="new").SerializeToString()
        signature = made.identities[signer].sign(frame("statement", content))
        statement = agent_pb2.Statement(content=content, signature=signature).SerializeToString()
        stated = log_pb2.Stated(institution=name, about="policy", text="new", statement=statement)
        seq = world.append(log_pb2.LogEntry(actor=name, stated=stated))
    store.close()
    assert [(f.first, f.text) for f in check(made, copy).findings] == [(seq, "the statement is not signed by alpha")]
