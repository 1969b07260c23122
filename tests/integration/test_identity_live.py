"""Keys that change while a consortium runs: budgets, log and rounds go on under the same ids."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness.consortium import Consortium, consortium
from typer.testing import CliRunner

from analytics_client import profile as profiles
from analytics_client import succession
from analytics_client.agent.cli import app as agent_app
from analytics_client.audit_session import open_log
from analytics_client.cli import app as client_app
from analytics_server import governance
from analytics_server.control import poke
from analytics_server.coordinator.enrolment import recover
from queries.errors import BudgetError, IdentityError
from trust.identity import keys

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
COUNT = "SELECT COUNT(*) AS n FROM people"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Consortium]:
    (tmp_path / "data.csv").write_text("id,age\n" + "".join(f"p{i},{i % 90}\n" for i in range(200)))
    files = {name: {"people": f'path = "{tmp_path}/data.csv"'} for name in INSTITUTIONS}
    with consortium(tmp_path, [SCHEMA], files, epsilon=2.0, analysts=("ada", "bob")) as built:
        yield built


def typed(app: object, *words: str) -> str:
    done = CliRunner().invoke(app, list(words))  # type: ignore[arg-type]  # a Typer app
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def token_for(running: Consortium, participant: str) -> str:
    with governance.opened(running.config) as (store, log):
        invitation = recover(
            store,
            log,
            running.config,
            participant=participant,
            reason="the key was lost",
            valid_hours=1,
            now=datetime.now(UTC),
        )
    poke(running.folder / "server")
    return invitation.to_token()


def wait_for_epoch(running: Consortium, epoch: int, seconds: float = 30) -> None:
    """Return once every agent works under this epoch."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = [agent._membership.epoch for agent in running.agent_objects.values() if agent._membership is not None]
        if found == [epoch] * len(running.agent_objects):
            running.wait_until_served("people", len(running.agent_objects))
            return
        time.sleep(0.02)
    raise AssertionError(f"agents are at {found}")


def verified(running: Consortium) -> None:
    with open_log(running.folder / "olga") as auditor:
        report, _ = auditor.verify()
    report.require()


def test_recovered_analyst_keeps_what_is_spent(running: Consortium) -> None:
    lost = running.session("ada")
    lost.query(COUNT, epsilon=1.8)
    token = token_for(running, "ada")
    with pytest.raises(IdentityError, match="revoked"):
        lost.query(COUNT, epsilon=0.1)
    folder = running.folder / "ada"
    old = keys.public_bytes(profiles.load(folder).identity_key())
    assert "You are ada again" in typed(client_app, "identity", "recover", token, "--profile", str(folder))
    assert keys.public_bytes(profiles.load(folder).identity_key()) != old
    with pytest.raises(IdentityError, match="revoked"):  # the old certificate, also after the new key came in
        lost.query(COUNT, epsilon=0.1)
    running.publish()
    wait_for_epoch(running, 2)
    with running.session("ada") as session:
        with pytest.raises(BudgetError):  # 1.8 of 2.0 is gone: no institution begins anew
            session.query(COUNT, epsilon=1.8)
        assert session.query(COUNT, epsilon=0.3).survivors == INSTITUTIONS
    with running.session("bob") as session:
        assert session.query(COUNT, epsilon=0.3).survivors == INSTITUTIONS
    with pytest.raises(IdentityError, match="revoked"):
        lost.query(COUNT, epsilon=0.1)
    lost.close()
    verified(running)


def test_rotated_keys_take_over_with_the_next_epoch(running: Consortium) -> None:
    session = running.session("ada")
    session.query(COUNT, epsilon=0.2)
    typed(client_app, "identity", "rotate", "--profile", str(running.folder / "ada"))
    typed(client_app, "identity", "rotate", "--profile", str(running.folder / "ada"))  # again: the same key
    typed(agent_app, "rotate", str(running.folder / "birch"))
    assert "to be followed by" in typed(client_app, "identity", "show", "--profile", str(running.folder / "ada"))
    session.query(COUNT, epsilon=0.2)  # the old keys are in force
    before = {name: profiles.load(running.folder / name).identity_key() for name in ("ada", "birch")}
    running.publish()
    wait_for_epoch(running, 2)
    assert session.query(COUNT, epsilon=0.2).survivors == INSTITUTIONS  # the same session, the same agents
    session.close()
    for name, old in before.items():
        assert keys.public_bytes(profiles.load(running.folder / name).identity_key()) != keys.public_bytes(old)
        assert not (running.folder / name / profiles.NEXT).exists()
    running.agents["birch"].stop()
    running.start_agent("birch")
    running.wait_until_served("people", 3)
    with running.session("ada") as again:
        assert again.query(COUNT, epsilon=0.2).survivors == INSTITUTIONS
    verified(running)


def test_recovered_agent_keeps_its_ledger(running: Consortium) -> None:
    with running.session("ada") as session:
        session.query(COUNT, epsilon=1.8)
    running.agents["cedar"].stop()
    folder = running.folder / "cedar"
    for name in (profiles.IDENTITY_KEY, profiles.EPOCH_KEY, profiles.TLS_KEY, profiles.CERTIFICATE):
        (folder / name).unlink()
    token = token_for(running, "cedar")
    done = CliRunner().invoke(agent_app, ["enrol", token, str(running.folder / "fresh")])
    assert "whose folder has the ledger" in str(done.exception)
    assert not (running.folder / "fresh").exists()
    empty = running.folder / "empty"
    empty.mkdir()
    done = CliRunner().invoke(agent_app, ["recover", token, str(empty)])
    assert "has no ledger" in str(done.exception)
    assert "cedar has key" in typed(agent_app, "recover", token, str(folder))
    running.publish()
    running.start_agent("cedar")
    wait_for_epoch(running, 2)
    with running.session("ada") as session:
        with pytest.raises(BudgetError):
            session.query(COUNT, epsilon=1.8)
        assert session.query(COUNT, epsilon=0.3).survivors == INSTITUTIONS
    verified(running)


def test_recovery_interrupted_anywhere_goes_on(running: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = running.folder / "ada"
    token = token_for(running, "ada")
    replace, moves = Path.replace, 0

    def stop_after_two(self: Path, target: Path) -> Path:
        nonlocal moves
        if self.parent.name == profiles.NEXT:
            moves += 1
            if moves > 2:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        succession.recover(token, folder, roles=("analyst",))
    monkeypatch.undo()
    assert (folder / profiles.NEXT).exists()
    running.publish()
    wait_for_epoch(running, 2)
    with running.session("ada") as session:
        assert session.query(COUNT, epsilon=0.3).survivors == INSTITUTIONS
    assert not (folder / profiles.NEXT).exists()
