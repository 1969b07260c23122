"""Policy over real connections: edited while the agents run, approved by hand, quiet, limited by the day."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.consortium import EVERYTHING, Consortium, consortium
from typer.testing import CliRunner

from analytics_client.agent import ledger_care as care
from analytics_client.agent.cli import app
from analytics_client.agent.ledger import Ledger
from analytics_client.agent.ledger_accounts import Account
from analytics_client.agent.runner import Agent
from analytics_server import governance
from protos.v1 import log_pb2
from queries.errors import AwaitingApproval, BudgetError, ConfigError, PolicyDenied, ServiceError
from trust.tlog.entries import decode

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
    with consortium(tmp_path, [SCHEMA], files, epsilon=20.0, analysts=("ada", "bob")) as built:
        yield built


def edit(running: Consortium, before: str, after: str) -> None:
    for name in INSTITUTIONS:
        file = running.folder / name / "agent.toml"
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after))


def steward(running: Consortium, *words: str) -> str:
    """What a steward's command prints, at every institution."""
    said = ""
    for name in INSTITUTIONS:
        done = CliRunner().invoke(app, [words[0], str(running.folder / name), *words[1:]])
        assert done.exit_code == 0, done.output
        said += done.output
    return said


def spent(running: Consortium) -> int:
    return sum(account.rho_nano for agent in running.agent_objects.values() for account in agent._ledger.accounts())


def test_a_question_waits_for_the_steward_and_is_answered_when_asked_again(running: Consortium) -> None:
    edit(running, "max_epsilon_per_query", 'approval = "manual"\nmax_epsilon_per_query')
    with running.session() as session:
        with pytest.raises(AwaitingApproval) as waits:
            session.query(COUNT, epsilon=1.0, purpose="study")
        assert "once it is approved" in waits.value.hint
        assert spent(running) == 0
        said = steward(running, "requests")
        assert said.count("ada asks people for count(*)") == 3
        name = said.split()[0]
        steward(running, "approve", name, "--reason", "agreed with the board")
        with pytest.raises(AwaitingApproval):  # another cost is another question
            session.query(COUNT, epsilon=0.5, purpose="study")
        assert session.query(COUNT, epsilon=1.0, purpose="study").participants
        assert spent(running) > 0
        with pytest.raises(AwaitingApproval):  # one approval, one answer
            session.query(COUNT, epsilon=1.0, purpose="study")
        steward(running, "deny", name, "--reason", "once was enough")
        with pytest.raises(PolicyDenied, match="once was enough"):
            session.query(COUNT, epsilon=1.0, purpose="study")


def test_explain_predicts_who_would_refuse(running: Consortium) -> None:
    with running.session() as session:
        assert session.explain(COUNT, epsilon=30.0).left == {}  # nobody has decided on anything yet
        session.query(COUNT, epsilon=4.0)
        covered = session.explain(COUNT, epsilon=4.0)
        assert set(covered.left) == set(INSTITUTIONS)
        assert covered.refusals_expected == ()
        assert any("covers this" in text for _, text in covered.lines())
        session.query(COUNT, epsilon=4.0)  # as predicted
        most = min(session.explain(COUNT, epsilon=1.0).left.values()) / 1e9
        beyond = session.explain(COUNT, rho=most * 1.01)
        assert beyond.refusals_expected == INSTITUTIONS
        assert any("no longer covers" in text for _, text in beyond.lines())
        with pytest.raises(BudgetError):
            session.query(COUNT, rho=most * 1.01)
        session.query(COUNT, rho=most * 0.99)
    with running.session("bob") as other:  # what all together may spend bounds everyone
        assert other.explain(COUNT, epsilon=4.0).refusals_expected == INSTITUTIONS
        with pytest.raises(BudgetError):
            other.query(COUNT, epsilon=4.0)


def test_edits_count_from_the_next_request_on(running: Consortium) -> None:
    with running.session() as session:
        session.query(COUNT, epsilon=0.5)
        before = spent(running)
        edit(running, 'operations = ["*"]', 'operations = ["mean"]')
        with pytest.raises(PolicyDenied, match="'count'"):
            session.query(COUNT, epsilon=0.5)
        edit(running, "[policy]", '[policy]\nquiet_hours = ["00:00-12:00", "12:00-00:00"]')
        with pytest.raises(PolicyDenied, match="nothing is answered from"):
            session.query("SELECT AVG(age) AS a FROM people", epsilon=0.5)
        edit(running, "[policy]", "[policy")  # not TOML: nothing is served, and the reason stays inside
        with pytest.raises(ServiceError, match="cannot answer now"):
            session.query("SELECT AVG(age) AS a FROM people", epsilon=0.5)
        assert spent(running) == before


def test_a_day_holds_so_many_answers(running: Consortium) -> None:
    assert "max_epsilon_per_query" in EVERYTHING
    edit(running, "max_epsilon_per_query", "max_queries_per_day = 2\nmax_epsilon_per_query")
    with running.session() as session:
        for _ in range(2):
            session.query(COUNT, epsilon=0.1)
        with pytest.raises(PolicyDenied, match="at most 2 queries"):
            session.query(COUNT, epsilon=0.1)


def stated(running: Consortium, about: str) -> list[log_pb2.Stated]:
    """What the log holds of the institutions' own statements."""
    with governance.opened(running.config) as (store, _), store.read() as uow:
        entries = [decode(row.leaf) for row in uow.leaves(0, 10_000, kind="stated")]
    return [entry.stated for entry in entries if entry.stated.about == about]


def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.05)


def test_the_log_says_which_policy_is_in_force_and_what_stewards_decided(running: Consortium) -> None:
    def policies() -> dict[str, set[bytes]]:
        found: dict[str, set[bytes]] = {}
        for event in stated(running, "policy"):
            found.setdefault(event.institution, set()).add(event.subject)
        return found

    def digests() -> dict[str, bytes]:
        return {i: hashlib.sha256((running.folder / i / "agent.toml").read_bytes()).digest() for i in INSTITUTIONS}

    first = digests()
    eventually(lambda: policies() == {i: {d} for i, d in first.items()})
    edit(running, "max_epsilon_per_query", 'approval = "manual"\nmax_epsilon_per_query')
    with running.session() as session:
        with pytest.raises(AwaitingApproval):
            session.query(COUNT, epsilon=0.5)
        second = digests()
        eventually(lambda: policies() == {i: {first[i], second[i]} for i in INSTITUTIONS})
        name = steward(running, "requests").split()[0]
        steward(running, "approve", name, "--reason", "agreed with the board")
        session.query(COUNT, epsilon=0.5)
        eventually(lambda: len(stated(running, "approval")) == 3)
        assert all("agreed with the board" in event.text for event in stated(running, "approval"))


def test_a_statement_that_was_not_confirmed_is_sent_again(running: Consortium) -> None:
    eventually(lambda: len(stated(running, "policy")) == 3)
    ledger = running.agent_objects["ash"]._ledger
    eventually(lambda: not care.unsent(ledger))
    with ledger.transaction() as connection:
        connection.execute(care.statement.update().values(sent=0))
    running.agents["ash"].stop()
    running.start_agent("ash")
    running.wait_until_served("people", 3)
    eventually(lambda: [e.institution for e in stated(running, "policy")].count("ash") == 2)
    eventually(lambda: not care.unsent(running.agent_objects["ash"]._ledger))


def test_an_old_ledger_put_back_serves_nothing_until_a_steward_says_so(running: Consortium) -> None:
    folder = running.folder / "ash"
    parts = ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm")
    running.agents["ash"].stop()
    old = {part: (folder / part).read_bytes() for part in parts if (folder / part).exists()}
    running.start_agent("ash")
    running.wait_until_served("people", 3)
    with running.session() as session:
        session.query(COUNT, epsilon=0.5)
    running.agents["ash"].stop()
    charged = {a.analyst: a.rho_nano for a in _accounts(folder)}
    assert charged["ada"] > 0
    for part in parts:
        (folder / part).unlink(missing_ok=True)
    for part, content in old.items():
        (folder / part).write_bytes(content)
    assert not _accounts(folder)  # all of it forgotten
    running.start_agent("ash")
    eventually(lambda: running.agents["ash"].error is not None)
    assert isinstance(running.agents["ash"].error, ConfigError)
    assert "old copy" in str(running.agents["ash"].error)
    with pytest.raises(ConfigError, match="old copy"):  # and it remembers
        Agent(folder)
    done = CliRunner().invoke(app, ["ledger", str(folder), "--acknowledge", "restored after a disk failure"])
    assert done.exit_code == 0, done.output
    running.start_agent("ash")
    running.wait_until_served("people", 3)
    with running.session() as session:
        assert session.query(COUNT, epsilon=0.5).participants
    eventually(lambda: any("disk failure" in event.text for event in stated(running, "ledger")))


def _accounts(folder: Path) -> tuple[Account, ...]:
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        return ledger.accounts()
