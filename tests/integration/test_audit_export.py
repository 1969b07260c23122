"""Exports keep what was signed, can be read by people, and verify years later without the coordinator."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from harness.audit import World, new_world

from analytics_client.audit import (
    Entry,
    History,
    Report,
    read_database,
    read_json_lines,
    verify,
    verify_database,
    write_json_lines,
    write_sqlite,
)
from queries.errors import ConfigError, LogError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return new_world(tmp_path_factory.mktemp("log"))


@pytest.fixture
def history(world: World) -> History:
    return History([Entry(*row) for row in world.entries()], world.checkpoints(), world.memberships)


def check(world: World, history: History) -> Report:
    return verify(history.entries, None, history.memberships, world.governance_key, checkpoints=history.checkpoints)


def test_json_lines_come_back_and_verify(world: World, history: History, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert write_json_lines(history, path) == len(world.entries())
    assert read_json_lines(path) == history
    assert check(world, read_json_lines(path)).ok
    assert path.stat().st_mode & 0o777 == 0o600


def test_json_lines_are_readable(history: History, tmp_path: Path) -> None:
    write_json_lines(history, tmp_path / "log.jsonl")
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    asked = next(record for record in records if record.get("kind") == "requested")
    assert asked["actor"] == "ana"
    assert asked["event"]["shape"] == "count(*) by sex"
    assert asked["at"].startswith("2025-10-09T08:53:20")
    assert "asked patients for count(*) by sex" in asked["sentence"]


def test_sqlite_export_is_readable_and_verifies(world: World, history: History, tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    assert write_sqlite(history, path) == len(world.entries())
    assert verify_database(path, world.governance_key).ok
    assert read_database(path) == history
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT actor, institution, outcome FROM entries WHERE kind = 'decided' AND outcome = 'denied'"
        ).fetchall()
    assert rows == [("beta", "beta", "denied")]


def test_edited_export_does_not_verify(world: World, history: History, tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    write_sqlite(history, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE audit_entry SET leaf = x'00' WHERE seq = 4")
        connection.commit()
    report = verify_database(path, world.governance_key)
    assert (report.findings[0].first, report.findings[0].last) == (4, 4)


def test_export_replaces_its_target_only_when_complete(history: History, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("the last good one")

    def broken() -> object:
        yield from list(history.entries)[:3]
        raise RuntimeError("the connection broke")

    for write in (write_json_lines, write_sqlite):
        with pytest.raises(RuntimeError):
            write(History(broken()), path)  # type: ignore[arg-type]  # an iterator that fails half way
        assert path.read_text() == "the last good one"
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_what_cannot_be_decoded_is_exported_all_the_same(world: World, history: History, tmp_path: Path) -> None:
    odd = History([*history.entries, Entry(len(world.entries()), b"\xff")], [*history.checkpoints, b"junk"])
    for name in ("log.jsonl", "log.sqlite"):
        path = tmp_path / name
        write = write_json_lines if name.endswith("jsonl") else write_sqlite
        write(odd, path)
        back = read_json_lines(path) if name.endswith("jsonl") else read_database(path)
        assert list(back.entries)[-1] == Entry(len(world.entries()), b"\xff")
        assert not check(world, back).ok


@pytest.mark.parametrize(
    "text", ["", "{}", "not json", '{"format": "cohortium-audit-log", "version": 1}\n{"seq": 0, "leaf": "!"}\n', "[]"]
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_json_lines(path)


def test_files_that_are_no_log(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        verify_database(tmp_path / "none.sqlite", world.governance_key)
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(ConfigError, match="holds no audit log"):
        verify_database(other, world.governance_key)
    (tmp_path / "junk.sqlite").write_bytes(b"junk" * 1000)
    with pytest.raises(LogError, match="cannot be read"):
        verify_database(tmp_path / "junk.sqlite", world.governance_key)
    with pytest.raises(ConfigError, match="cannot write"):
        write_sqlite(History([]), tmp_path / "nowhere" / "x.sqlite")
    with pytest.raises(ConfigError, match="cannot read"):
        read_json_lines(tmp_path / "none.jsonl")
