"""`cohortium-server log seal` and `log expire`, as an operator runs them."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from analytics_server import governance
from analytics_server.cli import app
from analytics_server.config import load
from analytics_server.store import engine
from analytics_server.store.__main__ import main as reindexed
from analytics_server.store.roles import grant_writer
from queries.errors import ConfigError
from trust.tlog.cosignature import Cosigner
from trust.tlog.notes import parse


@pytest.fixture
def founded(store_url: str, tmp_path: Path) -> Path:
    """A coordinator's folder whose log has a cosigned head."""
    config = governance.initialise(
        tmp_path / "server",
        consortium="north",
        address="127.0.0.1:7443",
        enrolment_address="127.0.0.1:7444",
        governance=None,
        store=store_url if store_url.startswith("postgresql") else "state.sqlite",
        minimum_cohort=3,
        colluders=1,
        now=datetime.now(UTC),
    )
    witness = Cosigner("alpha", Ed25519PrivateKey.generate())
    with governance.opened(config) as (store, log), store.begin() as uow:
        head = log.head(uow)
        line = witness.sign(parse(head.note).text, 1)
        log.add_cosignature(uow, head.size, "alpha", witness.verifier.public_key, str(line))
    return config.folder


def command(*arguments: str | Path) -> Outcome:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_commands_seal_and_expire(founded: Path) -> None:
    nothing = command("log", "seal", founded, "--before", "2020-01-01")
    assert (nothing.exit_code, "Nothing to seal" in nothing.output) == (0, True)
    sealed = command("log", "seal", founded, "--before", "2999-01-01", "--json")
    assert sealed.exit_code == 0, sealed.output
    said = json.loads(sealed.output)
    path = Path(said["file"])
    assert path.parent == founded / "shards"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"]
    assert (said["first"], said["end"]) == (0, 1)
    assert "No sealed file is that old" in command("log", "expire", founded).output
    assert path.exists()
    gone = command("log", "expire", founded, "--before", "2999-01-01")
    assert (gone.exit_code, f"deleted, with {path.name}" in gone.output) == (0, True)
    assert not path.exists()


def test_search_table_is_made_again_with_what_is_sealed(founded: Path, store_url: str) -> None:
    assert command("log", "seal", founded, "--before", "2999-01-01").exit_code == 0
    with governance.opened(load(founded)) as (store, _):
        with store.begin() as uow:
            uow._connection.execute(sa.text("DELETE FROM audit_index"))
        assert reindexed(["reindex", load(founded).store_url, "--shards", str(store.shards)]) == 0
        with store.read() as uow:
            assert [row.seq for row in uow.leaves(0, 9, kind="log_started")] == [0]


def test_commands_seal_all_but_the_newest(founded: Path) -> None:
    assert "Nothing to seal" in command("log", "seal", founded, "--keep", "1").output
    assert "Nothing to seal" in command("log", "seal", founded, "--keep", "0", "--before", "2020-01-01").output
    for options in (["--keep", "-1"], []):
        refused = command("log", "seal", founded, *options)
        assert refused.exit_code != 0
    assert "--keep 1000000" in refused.exception.hint  # type: ignore[union-attr]
    sealed = json.loads(command("log", "seal", founded, "--keep", "0", "--json").output)
    assert (sealed["first"], sealed["end"]) == (0, 1)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_day_that_is_none_is_said(founded: Path) -> None:
    found = command("log", "seal", founded, "--before", "soon")
    assert isinstance(found.exception, ConfigError)
    assert "write it as 2026-01-31" in str(found.exception)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_role_of_the_coordinator_cannot_seal_and_the_owner_can(founded: Path, store_url: str) -> None:
    role = f"writer_{sa.make_url(store_url).database}"
    owner = engine.make_engine(engine.parse(store_url))
    with owner.begin() as connection:
        connection.execute(sa.text(f"CREATE ROLE {role} LOGIN"))
    try:
        grant_writer(store_url, role)
        text = (founded / "server.toml").read_text().replace("postgres@", f"{role}@")
        (founded / "server.toml").write_text(text)
        refused = command("log", "seal", founded, "--before", "2999-01-01")
        assert "denies the store's role a right" in str(refused.exception)
        sealed = command("log", "seal", founded, "--before", "2999-01-01", "--store", store_url)
        assert sealed.exit_code == 0, sealed.output
        with governance.opened(load(founded)) as (store, _), store.read() as uow:
            assert uow.sealed_end() == 1
            assert uow.leaf(0)
    finally:
        with owner.begin() as connection:
            connection.execute(sa.text(f"DROP OWNED BY {role}"))
            connection.execute(sa.text(f"DROP ROLE {role}"))
        owner.dispose()
