"""`cohortium-server fsck` as an operator runs it, beside a store that is whole and one that is not."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analytics_server.cli import app
from queries.errors import LogError


@pytest.mark.sqlite_files("its file is edited")
def test_fsck_says_what_it_checked_and_names_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    run = CliRunner().invoke
    assert run(app, ["init", str(folder), "--name", "north"]).exit_code == 0
    for name in ("alpha", "beta"):
        assert run(app, ["invite", str(folder), "--role", "agent", "--id", name, "--organisation", name]).exit_code == 0
    honest = run(app, ["fsck", str(folder)])
    assert honest.exit_code == 0
    assert "3 entries" in honest.output
    assert "Everything is as it was written." in honest.output
    with closing(sqlite3.connect(folder / "state.sqlite")) as connection:
        head = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC").fetchone()[0]
        connection.execute("DROP TRIGGER audit_entry_update")
        connection.execute("UPDATE audit_entry SET leaf = leaf || x'5000' WHERE seq = 1")
        connection.commit()
    (tmp_path / "head").write_bytes(head)
    changed = run(app, ["fsck", str(folder), "--json", "--head", str(tmp_path / "head")])
    assert isinstance(changed.exception, LogError)
    findings = json.loads(changed.stdout)["findings"]
    assert {key: findings[0][key] for key in ("first", "last")} == {"first": 1, "last": 1}
    assert any("audit_entry_update" in finding["text"] for finding in findings)


def test_fsck_of_a_head_of_another_log(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    run = CliRunner().invoke
    assert run(app, ["init", str(folder), "--name", "north"]).exit_code == 0
    (tmp_path / "head").write_bytes(b"north/log\n1\n")
    refused = run(app, ["fsck", str(folder), "--head", str(tmp_path / "head")])
    with pytest.raises(LogError, match="kept elsewhere does not verify"):
        raise refused.exception  # type: ignore[misc]
