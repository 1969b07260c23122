"""cohortium-agent enrol against a running coordinator: keys, an agent.toml that denies everything, and then check."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from analytics_client import profile
from analytics_client.agent import config
from analytics_server import governance
from analytics_server.coordinator.enrolment import invite
from queries.errors import InvitationError
from tests.harness.consortium import Consortium

SCHEMA = 'name = "patients"\n[columns]\nage = { type = "integer", lower = 0, upper = 120 }\n'


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from analytics_client.agent.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_steward_enrols_and_serves_nothing_until_a_rule_says_so(tmp_path: Path) -> None:
    built = Consortium(tmp_path, [SCHEMA])
    try:
        built.start_coordinator()
        with governance.opened(built.config) as (opened, log):
            token = invite(
                opened,
                log,
                built.config,
                role="agent",
                participant="mercy",
                organisation="Mercy",
                valid_hours=1,
                now=datetime.now(UTC),
            ).to_token()
        data = tmp_path / "patients.csv"
        data.write_text("AGE\n50\n")
        folder = tmp_path / "agent"
        done = agent("enrol", token, str(folder), "--data", f"patients={data}")
        assert done.returncode == 0, done.stderr
        assert "You are agent mercy" in done.stdout
        again = agent("enrol", token, str(tmp_path / "second"))
        assert again.returncode == InvitationError.exit_code
        assert not (tmp_path / "second").exists()
    finally:
        built.stop()
    assert profile.load(folder).id == "mercy"
    read = config.load(folder)
    assert config.policy(read).rules == ()
    assert read.datasets["patients"].path == str(data)
    schema = tmp_path / "patients.toml"
    schema.write_text(SCHEMA)
    checked = agent("check", str(folder), "--schema", str(schema))
    assert checked.returncode == 0, checked.stderr
    assert "Allows nothing: there is no rule." in checked.stdout
