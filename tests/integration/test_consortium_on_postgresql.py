"""The whole consortium over a real PostgreSQL: queries, refusals, a restarted coordinator, a log that verifies."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.consortium import consortium

from analytics_client.audit_session import open_log
from analytics_server.audit.fsck import fsck
from analytics_server.config import load
from analytics_server.store import Store
from queries.errors import BudgetError

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
"""
INSTITUTIONS = ("ash", "birch", "cedar")


def test_a_consortium_lives_on_postgresql(tmp_path: Path, postgresql_database: str) -> None:
    files = {}
    for name in INSTITUTIONS:
        path = tmp_path / f"{name}.csv"
        path.write_text("id,age\n" + "".join(f"{name}{i},{i % 90}\n" for i in range(300)))
        files[name] = {"people": f'path = "{path}"'}
    with consortium(tmp_path, [SCHEMA], files, store=postgresql_database, epsilon=10) as built:
        with built.session() as session:
            first = session.query("SELECT COUNT(*) AS n, AVG(age) AS age FROM people", epsilon=5)
            with pytest.raises(BudgetError):
                session.query("SELECT COUNT(*) AS n FROM people", epsilon=9.9)
            assert first.survivors == INSTITUTIONS
            assert abs(first.estimate("n").value - 900) < 30
        assert built.coordinator is not None
        built.coordinator.stop()
        built.start_coordinator()
        built.wait_until_served("people", len(INSTITUTIONS))
        with built.session() as session:
            assert session._resume(bytes.fromhex(first.request_id)).step == "released"
            assert session.query("SELECT COUNT(*) AS n FROM people", epsilon=1).survivors == INSTITUTIONS
        with open_log(built.folder / "olga") as audit:
            report, history = audit.verify()
        built.coordinator.stop()
        config = load(built.folder / "server")
        store = Store.open(config.store_url)
        checked = fsck(store, origin=config.log_origin, log_key=config.log_key(), governance_key=config.governance_key)
        store.close()
        assert checked.findings == ()
        assert report.ok, report
        assert len(history.entries) > 20
