"""Whatever people get wrong is answered in one line that says what to do, with an exit status for scripts."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.consortium import Consortium
from harness.live import SCHEMA, Live, command
from harness.stores import init_options

from analytics_client import connect
from analytics_client import session as sessions
from analytics_client.audit_session import open_log
from analytics_client.profile import CERTIFICATE, FILE, TLS_KEY
from queries.errors import (
    BudgetError,
    ClockError,
    CohortiumError,
    IdentityError,
    LiteralError,
    PolicyDenied,
    QueryError,
    ServiceError,
    SqlError,
    UnknownName,
)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of an analyst of another consortium, whose coordinator runs."""
    other = Consortium(tmp_path_factory.mktemp("other"), [SCHEMA])
    other.start_coordinator()
    try:
        folder = other.enrol("analyst", "ada")
        other.publish()
        yield folder
    finally:
        other.stop()


def _copy(profile: Path, folder: Path, **changes: str) -> Path:
    """A copy of a profile with other words in participant.json."""
    shutil.copytree(profile, folder)
    read = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(read | changes))
    return folder


def _requests(live: Live) -> int:
    """How many requests are in the log."""
    with open_log(live.box.auditor) as log:
        return len(list(log.reader.entries(kind="requested")))


# --- questions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "error", "says"),
    [
        ("SELECT AVG(agee) FROM patients", UnknownName, "did you mean 'age'"),
        ("SELECT AVG(age) FROM patient", UnknownName, "did you mean 'patients'"),
        ("SELECT COUNT(*) FROM patients WHERE age > 300", LiteralError, "100"),
        ("SELECT COUNT(*) FROM patients WHERE sex = 'f'", LiteralError, "female"),
        ("SELECT age, COUNT(*) FROM patients GROUP BY age", QueryError, "HISTOGRAM"),
        ("DROP TABLE patients", SqlError, "SELECT"),
        ("SELECT * FROM patients", QueryError, ""),
        ("SELECT COUNT(*) FROM patients; SELECT COUNT(*) FROM patients", SqlError, ""),
        ("SELECT COUNT(*) FROM patients, patients", SqlError, "one dataset"),
        ("SELECT COUNT(*) FROM '/etc/passwd'", CohortiumError, ""),
        ("SELECT COUNT(*) FROM read_csv('/etc/passwd')", SqlError, ""),
        ("SELECT COUNT(*) FROM patients WHERE " + "(" * 3000 + "age > 1" + ")" * 3000, SqlError, ""),
        ("SELECT COUNT(*) FROM patients WHERE sex IN (" + ", ".join(["'male'"] * 125_000) + ")", SqlError, ""),
        ("", SqlError, ""),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_before_it_is_sent(
    live: Live, sql: str, error: type[CohortiumError], says: str
) -> None:
    before = _requests(live)
    with pytest.raises(error) as caught:
        live.session.query(sql, epsilon=1.0)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "\n" not in caught.value.message
    assert _requests(live) == before


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), 1e-12])
def test_an_epsilon_that_is_none_is_refused(live: Live, epsilon: float) -> None:
    with pytest.raises(BudgetError, match="epsilon"):
        live.session.query("SELECT COUNT(*) AS n FROM patients", epsilon=epsilon)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf"), 101.0])
def test_a_rho_that_is_none_is_refused(live: Live, rho: float) -> None:
    with pytest.raises(BudgetError, match="rho"):
        live.session.query("SELECT COUNT(*) AS n FROM patients", rho=rho)


@pytest.mark.parametrize("cost", [{}, {"epsilon": 1.0, "rho": 0.1}])
def test_a_cost_is_given_once(live: Live, cost: dict[str, float]) -> None:
    with pytest.raises(BudgetError, match="either epsilon or rho"):
        live.session.query("SELECT COUNT(*) AS n FROM patients", **cost)


def test_an_epsilon_above_policy_is_refused_by_the_institutions_and_costs_nothing(live: Live) -> None:
    with pytest.raises(PolicyDenied) as caught:
        live.session.query("SELECT COUNT(*) AS n FROM patients", epsilon=60.0)
    assert caught.value.refusals[0].rule
    assert not caught.value.charged


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["query", "SELECT AVG(agee) FROM patients", "--epsilon", "1"], 2, "did you mean 'age'"),
        (["query", "SELECT AVG(age) FROM patients"], 3, "either epsilon or rho"),
        (["query", "SELECT AVG(age) FROM patients", "--epsilon", "0"], 3, "epsilon"),
        (["query", "SELECT AVG(age) FROM patients", "--epsilon", "60"], 3, "refused"),
        (["query", "SELECT AVG(age) FROM patients", "--epsilon", "1", "--minimum-cohort", "9"], 5, "needs 9"),
        (["query", "SELECT AVG(age) FROM patients", "--epsilon", "1", "--purpose", ""], 2, "purpose"),
        (["query", "SELECT AVG(age) FROM patients", "--epsilon", "much"], 2, "--epsilon"),
        (["describe", "patient"], 2, "did you mean 'patients'"),
        (["audit", "show", "0"], 3, "not for the role 'analyst'"),
    ],
)
def test_the_command_answers_in_one_line_with_an_exit_status(
    live: Live, arguments: list[str], status: int, says: str
) -> None:
    done = live.cohortium(*arguments)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# --- who asks -----------------------------------------------------------------------------------------------------


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = command("cohortium", "datasets", profile=tmp_path / "nobody")
    assert done.returncode == 2
    assert "is no participant's folder" in done.stderr


def test_an_invitation_works_once_and_not_after_its_time(live: Live, tmp_path: Path) -> None:
    server = live.box.server
    invite = ("cohortium-server", "invite", server, "--role", "analyst")
    token = command(*invite, "--id", "bob").stdout.strip()
    first = command("cohortium", "enrol", token, "--profile", tmp_path / "bob")
    assert first.returncode == 0, first.stderr
    again = command("cohortium", "enrol", token, "--profile", tmp_path / "bob-again")
    assert (again.returncode, "used" in again.stderr) == (4, True), again.stderr
    late = command(*invite, "--id", "eve", "--valid-hours", "0.00001").stdout.strip()
    time.sleep(0.1)
    expired = command("cohortium", "enrol", late, "--profile", tmp_path / "eve")
    assert (expired.returncode, "expired" in expired.stderr) == (4, True), expired.stderr
    torn = command("cohortium", "enrol", token[:-9], "--profile", tmp_path / "torn")
    assert torn.returncode == 4, torn.stderr
    assert not (tmp_path / "torn").exists()
    not_yet = command("cohortium", "datasets", profile=tmp_path / "bob")
    assert (not_yet.returncode, "membership" in not_yet.stderr) == (4, True), not_yet.stderr


def test_two_agents_cannot_have_one_name(live: Live) -> None:
    invited = command(
        "cohortium-server", "invite", live.box.server, "--role", "agent", "--id", "alpha", "--organisation", "Another"
    )
    assert invited.returncode == 4, invited.stdout
    assert "alpha" in invited.stderr


def test_the_profile_of_another_consortium_is_refused(live: Live, others: Path, tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="no coordinator of"):
        connect(_copy(others, tmp_path / "misdirected", address=live.session.profile.address))


def test_the_certificate_of_another_consortium_is_refused(live: Live, others: Path, tmp_path: Path) -> None:
    folder = _copy(live.box.analyst, tmp_path / "impostor")
    for name in (CERTIFICATE, TLS_KEY):
        shutil.copy(others / name, folder / name)
    with pytest.raises(IdentityError, match="does not accept this certificate"), connect(folder) as session:
        session.datasets()


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_wrong_clock_is_named(live: Live, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    # Only the session's clock: gRPC reads the process's for its deadlines.
    clock = SimpleNamespace(time=lambda: time.time() + seconds, monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(sessions, "time", clock)
    with pytest.raises(ClockError, match="clock"):
        live.session.query("SELECT COUNT(*) AS n FROM patients", epsilon=1.0)


# --- where --------------------------------------------------------------------------------------------------------


def test_a_coordinator_that_is_down_is_named_within_five_seconds(live: Live, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    folder = _copy(live.box.analyst, tmp_path / "down", address=address)
    began = time.monotonic()
    with pytest.raises(ServiceError, match="can be reached"):
        connect(folder)
    assert time.monotonic() - began < 5
    done = command("cohortium", "datasets", profile=folder)
    assert done.returncode == 7
    assert address in done.stderr


@pytest.mark.parametrize("address", ["no-such-host.invalid:7443", "127.0.0.1", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_named_within_five_seconds(live: Live, tmp_path: Path, address: str) -> None:
    folder = _copy(live.box.analyst, tmp_path / "nowhere", address=address)
    began = time.monotonic()
    with pytest.raises(CohortiumError) as caught:
        connect(folder)
    assert time.monotonic() - began < 5
    assert address.partition(":")[0] in str(caught.value)


def test_something_else_behind_the_address_is_named_within_five_seconds(live: Live, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        folder = _copy(live.box.analyst, tmp_path / "silent", address=f"127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(ServiceError):
            connect(folder)
        assert time.monotonic() - began < 5


def test_a_port_that_is_taken_is_named(live: Live, tmp_path: Path) -> None:
    taken = live.session.profile.address
    options = ["--name", "second", "--address", taken, *init_options()]
    founded = command("cohortium-server", "init", tmp_path / "second", *options)
    assert founded.returncode == 0, founded.stderr
    done = command("cohortium-server", "run", tmp_path / "second")
    assert done.returncode != 0
    assert "is taken" in done.stderr
