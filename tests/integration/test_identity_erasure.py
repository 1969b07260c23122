"""A person's name can be forgotten, and every proof of the log stays valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from harness.audit import World

from analytics_client.audit import verify
from analytics_server import governance
from analytics_server.store import Store, schema
from queries.errors import IdentityError
from trust.tlog.checkpoint import parse
from trust.tlog.merkle import leaf_hash, verify_inclusion
from trust.tlog.notes import parse as parse_note

NAME = "Wilhelmina Featherstonehaugh"


def enrol(store: Store, name: str) -> None:
    with store.begin() as uow:
        uow.add_participant(
            id=name, role="analyst", organisation="", identity_key=name.encode(), epoch_key=b"",
            epoch_key_signature=b"", certificate_serial="1",
        )  # fmt: skip


def test_erasure_forgets_the_name_and_keeps_every_proof(store_url: str) -> None:
    world = World(Store.create(store_url))
    world.begin()
    enrol(world.store, "a17")
    world.now_ms = 1_000_000_000_000
    governance.identify(world.store, world.log, "a17", NAME, "wf@example.org")
    with world.store.read() as uow:
        kept = uow.identity("a17")
        assert kept is not None
        assert (kept.name, kept.contact) == (NAME, "wf@example.org")
        head = uow.latest_checkpoint()
        assert head is not None
        proof, leaf = uow.inclusion(2, head.size), uow.leaf(2)
    governance.erase_identity(world.store, world.log, "a17")
    with pytest.raises(IdentityError, match="nobody is known"):
        governance.erase_identity(world.store, world.log, "a17")
    with world.store.read() as uow:
        assert uow.identity("a17") is None
        assert uow.participant("a17") is not None
    old = parse(parse_note(head.note).text)
    verify_inclusion(leaf_hash(leaf), 2, old.size, proof, old.root)
    newest = world.checkpoints()[-1]
    assert verify(world.entries(), newest, world.memberships, world.governance_key).findings == ()
    assert all(NAME.encode() not in leaf for _, leaf in world.entries())
    world.store.close()


@pytest.mark.sqlite_files("its file")
def test_erased_name_is_not_left_in_the_file(tmp_path: Path) -> None:
    store = Store.create(f"sqlite:///{tmp_path / 'state.sqlite'}")
    world = World(store)
    world.begin()
    enrol(store, "a17")
    governance.identify(store, world.log, "a17", NAME, "")
    assert any(NAME.encode() in path.read_bytes() for path in tmp_path.iterdir())
    governance.erase_identity(store, world.log, "a17")
    assert not any(NAME.encode() in path.read_bytes() for path in tmp_path.iterdir())
    store.close()


def test_nobody_is_identified_who_has_not_enrolled(store_url: str) -> None:
    store = Store.create(store_url)
    with store.begin() as uow, pytest.raises(IdentityError, match="no participant 'eve'"):
        uow.identify("eve", NAME, "")
    store.close()


def test_migration_of_names_goes_down_and_up_again(store_url: str) -> None:
    Store.create(store_url).close()
    engine = sa.create_engine(store_url)
    config = Config()
    config.set_main_option("script_location", "analytics_server.store:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        assert not sa.inspect(connection).has_table("identity")
        assert schema.revision(connection) == "0002"
    store = Store.upgrade(store_url)
    enrol(store, "a17")
    with store.begin() as uow:
        uow.identify("a17", NAME, "")
    store.close()
    engine.dispose()
