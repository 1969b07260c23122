"""Policy over real connections: edited while the agents run, approved by hand, quiet, limited by the day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.consortium import EVERYTHING, Consortium, consortium
from typer.testing import CliRunner

from analytics_client.agent.cli import app
from queries.errors import AwaitingApproval, PolicyDenied, ServiceError

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
    with consortium(tmp_path, [SCHEMA], files, epsilon=20.0) as built:
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
