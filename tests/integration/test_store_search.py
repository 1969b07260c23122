"""Searches by several fields, through posting lists and past them, find what a plain look at every entry finds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from analytics_server.store import Store, UnitOfWork
from analytics_server.store.postings import BLOCK, FIELDS
from protos.v1 import log_pb2
from trust.tlog import entries

SIZE = 2 * BLOCK + 300
REQUESTS = [random.Random(5).randbytes(16) for _ in range(200)]


def made() -> list[bytes]:
    """A log in which some values are common and never meet, and some are rare."""
    generator = random.Random(7)
    found = []
    for number in range(len(REQUESTS)):  # each is asked once, before anything is said of it
        entry = log_pb2.LogEntry(at_ms=1 + number, actor="ana" if number % 2 else "bo", requested=asked(number))
        found.append(entries.encode(entry))
    while len(found) < SIZE:
        number = generator.randrange(len(REQUESTS))
        who = generator.choice(["alpha", "beta"])
        said = log_pb2.Decided(request_id=REQUESTS[number], institution=who, allowed=who == "alpha")
        released = log_pb2.Released(request_id=REQUESTS[number])
        entry = generator.choice(
            [
                log_pb2.LogEntry(actor="ana", key_changed=log_pb2.KeyChanged(participant="ana")),
                log_pb2.LogEntry(actor=who, decided=said),
                log_pb2.LogEntry(actor="coordinator", released=released),
                log_pb2.LogEntry(actor="coordinator", log_read=log_pb2.LogRead(what="x")),
            ]
        )
        if generator.random() < 0.001:
            entry = log_pb2.LogEntry(actor="operator", revoked=log_pb2.Revoked(participant="eve"))
        entry.at_ms = 1 + len(found)
        found.append(entries.encode(entry))
    return found


def asked(number: int) -> log_pb2.Requested:
    return log_pb2.Requested(
        request_id=REQUESTS[number], analyst="ana" if number % 2 else "bo", dataset=f"d{number % 5}"
    )


LEAVES = made()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = Store.create(store_url)
    for first in range(0, SIZE, 1500):  # no block ends where an append does
        with store.begin() as uow:
            uow.append(LEAVES[first : first + 1500])
    yield store
    store.close()


def columns(uow: UnitOfWork) -> list[dict[str, Any]]:
    return [dict(row) for row in uow._connection.execute(sa.text("SELECT * FROM audit_index ORDER BY seq")).mappings()]


def lists(store: Store) -> list[tuple[object, ...]]:
    with store.read() as uow:
        rows = uow._connection.execute(sa.text("SELECT field, value, block, places FROM audit_posting"))
        return sorted((field, value, block, bytes(places)) for field, value, block, places in rows)


def damaged(store: Store, first: int = 0) -> list[int]:
    with store.read() as uow:
        decoded = [entries.columns(entries.decode(row.leaf)) for row in uow.leaves(first, SIZE)]
        return uow.damaged_postings(first, uow.index_rows(first, decoded))


def test_every_combination_of_filters_finds_what_is_there(store: Store) -> None:
    generator = random.Random(3)
    with store.read() as uow:
        rows = columns(uow)
        values = {field: sorted({row[field] for row in rows} - {""}) for field in FIELDS}
        for count in (1, 2, 3, 6):
            for chosen in combinations(FIELDS, count):
                filters = {field: generator.choice([*values[field], "nobody"]) for field in chosen}
                if generator.random() < 0.2:
                    filters["request_id"] = generator.choice(REQUESTS).hex()[: generator.choice([1, 2, 8, 32])]
                first, end = sorted(generator.sample(range(SIZE + 1), 2)) if count > 1 else (0, SIZE)
                limit = generator.choice([1, 500, SIZE])
                wanted = [
                    seq
                    for seq in range(first, end)
                    if all(
                        rows[seq][name].startswith(value) if name == "request_id" else rows[seq][name] == value
                        for name, value in filters.items()
                    )
                ]
                found = uow.leaves(first, limit, end=end, **filters)
                assert [row.seq for row in found] == wanted[:limit], filters
                assert all(row.leaf == LEAVES[row.seq] for row in found)


def test_lists_are_whole_and_are_made_again(store: Store) -> None:
    before = lists(store)
    assert {row[2] for row in before} == {0, 1}  # what follows the last whole block has none yet
    assert damaged(store) == []
    with store.begin() as uow:
        assert uow.rebuild_index() == SIZE
    assert lists(store) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_posting SET places = (SELECT places FROM audit_posting WHERE field = 'kind'"
        " AND value = 'released' AND block = 1) WHERE field = 'kind' AND value = 'decided' AND block = 1",
        "DELETE FROM audit_posting WHERE field = 'kind' AND value = 'decided' AND block = 1",
        "INSERT INTO audit_posting SELECT field, 'nobody', block, places FROM audit_posting"
        " WHERE field = 'actor' AND value = 'ana' AND block = 1",
    ],
)
def test_lists_that_say_something_else_are_found(store: Store, statement: str) -> None:
    with store.begin() as uow:
        uow._connection.execute(sa.text(statement))
    assert damaged(store) == [1]


def test_failed_unit_leaves_no_list(store: Store) -> None:
    before = lists(store)
    entry = entries.encode(log_pb2.LogEntry(at_ms=SIZE + 1, actor="x", log_read=log_pb2.LogRead()))

    def fill(uow: UnitOfWork) -> int:
        return uow.append([entry] * BLOCK)

    def fail(uow: UnitOfWork) -> int:
        fill(uow)
        raise RuntimeError("half way")

    assert [str(outcome) for outcome in store.write_all([fail, lambda uow: uow.tree_size()])] == ["half way", str(SIZE)]
    assert lists(store) == before
    assert store.write_all([fill]) == [SIZE]
    assert {row[2] for row in lists(store)} == {0, 1, 2}
    assert damaged(store) == []


def test_what_is_over_its_time_is_in_no_list(store: Store) -> None:
    with store.begin() as uow:
        uow._connection.execute(sa.text("DELETE FROM audit_index WHERE seq < 5000"))
        uow.forget_postings(5000)
        assert {row.block for row in uow._connection.execute(sa.text("SELECT block FROM audit_posting"))} == {1}
        assert uow.damaged_postings(5000, columns(uow)) == []
        assert min(uow.posted(0, 2 * BLOCK, {"actor": "coordinator"})) >= 5000
        assert not uow.stray_postings(5000, SIZE)
        assert uow.stray_postings(2 * BLOCK, SIZE)
        assert uow.stray_postings(5000, 2 * BLOCK - 1)


def test_older_log_gets_its_lists(store: Store) -> None:
    before = lists(store)
    config = Config()
    config.set_main_option("script_location", "analytics_server.store:migrations")
    with store._engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")
        assert not sa.inspect(connection).has_table("audit_posting")
    with store._engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    assert lists(store) == before
