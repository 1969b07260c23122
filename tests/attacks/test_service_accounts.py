"""Service accounts: for named datasets, until a day, with no person behind, and listed apart."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.consortium import Consortium, consortium
from typer.testing import CliRunner

from analytics_client.cli import app as client_app
from analytics_client.enrolment import enrol
from analytics_server import governance
from analytics_server.cli import app as server_app
from analytics_server.control import poke
from analytics_server.coordinator.enrolment import invite
from queries.errors import ConfigError, IdentityError
from trust.identity import keys, membership
from trust.identity.activity import Activity
from trust.identity.membership import MembershipDocument, Person
from trust.identity.requests import build_request, verify_request
from trust.identity.service import Service
from trust.tlog.entries import decode

NOW = 1_800_000_000
DAY = 86_400
KEY = Ed25519PrivateKey.generate()


def document(person: Person, **more: Any) -> MembershipDocument:
    governor = Ed25519PrivateKey.generate()
    payload = membership.build(
        consortium="north",
        epoch=1,
        previous_hash=b"",
        issued_at=NOW,
        institutions=[],
        people=[person],
        log_key=bytes(range(32)),
        log_origin="north/log",
        minimum_cohort=3,
        colluders=1,
        **more,
    )
    return membership.verify(membership.sign(payload, governor), keys.public_bytes(governor))


def ask(listed: MembershipDocument, dataset: str, now: int) -> None:
    _, envelope = build_request(
        key=KEY,
        consortium="north",
        analyst="dashboard",
        purpose="weekly counts",
        dataset=dataset,
        schema_hash=bytes(32),
        query=b"q",
        rho_nano=1,
        minimum_cohort=3,
        now=now,
    )
    verify_request(envelope, listed, "north", now)


def account(service: Service | None, role: str = "analyst") -> Person:
    return Person("dashboard", (role,), keys.public_bytes(KEY), service)


def test_account_asks_of_its_datasets_and_until_its_end() -> None:
    listed = document(account(Service(NOW + DAY, ("labs", "patients"))))
    ask(listed, "patients", NOW)
    ask(listed, "labs", NOW + DAY)
    with pytest.raises(IdentityError, match="not for dataset 'genomes'"):
        ask(listed, "genomes", NOW)
    with pytest.raises(IdentityError, match="ended"):
        ask(listed, "patients", NOW + DAY + 1)
    ask(document(account(None)), "genomes", NOW + 10 * DAY)  # a person has no such limits


@pytest.mark.parametrize(
    ("role", "service"),
    [
        ("steward", Service(NOW, ())),
        ("operator", Service(NOW, ())),
        ("analyst", Service(NOW, ())),
        ("auditor", Service(NOW, ("labs",))),
        ("analyst", Service(0, ("labs",))),
        ("analyst", Service(NOW, ("labs", "labs"))),
        ("analyst", Service(NOW, ("patients", "labs"))),
        ("analyst", Service(NOW, ("la\nbs",))),
        ("analyst", Service(NOW, tuple(f"d{i:03}" for i in range(101)))),
    ],
)
def test_no_membership_lists_an_account_that_cannot_be(role: str, service: Service) -> None:
    with pytest.raises(IdentityError, match="service account"):
        document(account(service, role))


@pytest.mark.parametrize("days", [-1, 0, 367])
def test_account_ends_within_a_year(days: int) -> None:
    with pytest.raises(IdentityError, match="ends within"):
        Service.of("analyst", ["labs"], NOW + days * DAY, now=NOW)


def test_purposes_belong_to_one_activity_at_most() -> None:
    research = Activity("registry", "research", "GDPR art. 9(2)(j)", ("sepsis outcomes", "weekly counts"))
    listed = document(account(None), activities=[research])
    assert listed.activity("weekly counts") == research
    assert listed.activity("something else") is None
    for wrong in (
        Activity("registry", "", "", ("x",)),
        Activity("registry", "research", "", ("b", "a")),
        Activity("two\nlines", "research", "", ()),
    ):
        with pytest.raises(IdentityError, match="processing activity"):
            document(account(None), activities=[wrong])
    with pytest.raises(IdentityError, match="belongs to"):
        document(account(None), activities=[research, Activity("twin", "care", "", ("weekly counts",))])


# --- over real connections -------------------------------------------------------------------------------------------

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
ACTIVITIES = """
[activities.surveillance]
category = "public health"
legal_basis = "GDPR art. 9(2)(i)"
purposes = ["weekly counts"]
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Consortium]:
    (tmp_path / "data.csv").write_text("id,age\n" + "".join(f"p{i},{i % 90}\n" for i in range(200)))
    files = {name: {"people": f'path = "{tmp_path}/data.csv"'} for name in INSTITUTIONS}
    with consortium(tmp_path, [SCHEMA], files, epsilon=20.0) as built:
        yield built


def typed(app: Any, *words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def printed(app: Any, *words: str) -> Any:
    """The JSON that a command prints; the consortium in this process logs to the same stream."""
    said = typed(app, *words, "--json").splitlines()
    begin = next(number for number, line in enumerate(said) if line in ("{", "["))
    end = max(number for number, line in enumerate(said) if line in ("}", "]"))
    return json.loads("\n".join(line for line in said[begin : end + 1] if not line.startswith("20")))


def entries(running: Consortium, kind: str) -> list[Any]:
    with governance.opened(running.config) as (store, _), store.read() as uow:
        return [getattr(decode(row.leaf), kind) for row in uow.leaves(0, 10_000, kind=kind)]


def test_a_dashboard_asks_is_listed_apart_prolonged_and_ends(running: Consortium) -> None:
    server = str(running.folder / "server")
    governed = running.folder / "server" / "governance" / "governance.toml"
    governed.write_text(governed.read_text() + ACTIVITIES)
    words = ["--role", "analyst", "--id", "dashboard", "--service-days", "30", "--datasets", "people"]
    made = printed(server_app, "invite", server, *words)
    enrol(made["token"], running.folder / "dashboard", roles=["analyst"])
    assert "dashboard, analyst, a service account" in typed(server_app, "membership", "pending", server)
    running.publish()
    with running.session("dashboard") as session:
        assert session.query(COUNT, epsilon=0.5, purpose="weekly counts").survivors == INSTITUTIONS
    with running.session("ada") as session:
        session.query(COUNT, epsilon=0.5, purpose="something else")
    first, second = entries(running, "requested")
    assert (first.activity, first.category) == ("surveillance", "public health")
    assert (second.activity, second.category) == ("", "")
    hashes = {event.policy_hash for event in entries(running, "decided")}
    assert hashes == {event.subject for event in entries(running, "stated") if event.about == "policy"}
    assert all(len(policy_hash) == 32 for policy_hash in hashes)

    olga = str(running.folder / "olga")
    said = typed(client_app, "audit", "who-asked", "people", "--profile", olga)
    assert "Who asked of people: 1 requests" in said
    assert "no person behind them: 1 requests" in said
    listed = printed(client_app, "audit", "who-asked", "people", "--profile", olga)
    assert {r["analyst"]: r["service"] for r in listed} == {"dashboard": True, "ada": False}
    done = CliRunner().invoke(server_app, ["identity", "set", server, "--id", "dashboard", "--name", "Eve"])
    assert "no person is behind" in str(done.exception)

    typed(server_app, "service", "set", server, "--id", "dashboard", "--service-days", "60", "--datasets", "people")
    pending = printed(server_app, "membership", "pending", server)
    assert pending["rescoped"] == ["dashboard"]
    running.publish()
    (row,) = printed(server_app, "service", "list", server)
    assert row["expires_at"] > time.time() + 59 * DAY
    assert [list(event.datasets) for event in entries(running, "service_scoped")] == [["people"], ["people"]]


def test_an_account_past_its_end_is_not_even_let_in(running: Consortium) -> None:
    end = int(time.time()) + 4
    with governance.opened(running.config) as (store, log):
        made = invite(
            store,
            log,
            running.config,
            role="analyst",
            participant="dashboard",
            organisation="",
            valid_hours=1,
            now=datetime.now(UTC),
            service=Service.of("analyst", ["people"], end, now=int(time.time())),
        )
    enrol(made.to_token(), running.folder / "dashboard", roles=["analyst"])
    running.publish()
    poke(running.folder / "server")
    with running.session("dashboard") as session:
        while time.time() <= end + 1:
            time.sleep(0.1)
        with pytest.raises(IdentityError, match=r"revoked|ended"):
            session.query(COUNT, epsilon=0.5)


def test_what_the_command_line_refuses(running: Consortium) -> None:
    server = str(running.folder / "server")
    for words, error, match in (
        (["--role", "analyst", "--datasets", "people"], ConfigError, "--datasets"),
        (["--role", "analyst", "--service-days", "30"], IdentityError, "names its datasets"),
        (["--role", "agent", "--service-days", "30", "--datasets", "people"], IdentityError, "one role"),
        (["--role", "analyst", "--service-days", "400", "--datasets", "people"], IdentityError, "within"),
    ):
        done = CliRunner().invoke(server_app, ["invite", server, "--id", "robot", *words])
        assert isinstance(done.exception, error)
        assert match in str(done.exception)
    done = CliRunner().invoke(server_app, ["service", "set", server, "--id", "ada", "--service-days", "3"])
    assert "is no service account" in str(done.exception)
