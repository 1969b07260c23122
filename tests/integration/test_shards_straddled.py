"""A request that was asked before a shard's end and decided after it: its later entries outlive the first one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.audit import ORIGIN, World

from analytics_server.audit import sealing
from analytics_server.audit.fsck import fsck
from analytics_server.store import Store
from protos.v1 import log_pb2
from trust.identity import keys

DAY_MS = 86_400_000


@pytest.fixture
def world(store_url: str, tmp_path: Path) -> Iterator[World]:
    Store.create(store_url).close()
    made = World(Store.open(store_url, tmp_path / "shards"))
    made.begin()
    yield made
    made.store.close()


def found(world: World, **filters: str) -> list[int]:
    with world.store.read() as uow:
        return [row.seq for row in uow.leaves(0, 100_000, **filters)]


def findings(world: World) -> list[str]:
    log_key = keys.public_bytes(world.log_key)
    return [
        str(each)
        for each in fsck(world.store, origin=ORIGIN, log_key=log_key, governance_key=world.governance_key).findings
    ]


@pytest.mark.parametrize("more", [0, 4200], ids=["short", "with posting lists"])
def test_what_only_an_expired_entry_said_is_forgotten_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    """Who asked, and of what, stands in the first entry; as found by a search that is made again from what is left."""
    world.query(dataset="labs")
    original = world.append

    def next_day(*entries: log_pb2.LogEntry) -> int:
        if entries[0].WhichOneof("event") == "decided":
            world.witness()  # as agents do before they decide
            world.now_ms += DAY_MS
        return original(*entries)

    monkeypatch.setattr(world, "append", next_day)
    straddling = world.query(dataset="labs").hex()
    monkeypatch.undo()
    day = world.now_ms
    world.query(dataset="labs")
    if more:
        original(*(log_pb2.LogEntry(revoked=log_pb2.Revoked(participant=f"p{n}")) for n in range(more)))
    world.witness()
    world.now_ms += DAY_MS
    sealed = sealing.seal(world.store, world.log, before_ms=day - DAY_MS // 2, now_ms=world.now_ms)
    assert sealed is not None
    labs, whole = found(world, dataset="labs"), found(world, request_id=straddling)
    assert whole[0] < sealed.end <= whole[1]
    assert sealing.expire(world.store, world.log, before_ms=world.now_ms, now_ms=world.now_ms)
    kept = found(world, request_id=straddling)
    assert kept == [seq for seq in whole if seq >= sealed.end]
    left = found(world, dataset="labs")
    assert left == [seq for seq in labs if seq >= sealed.end and seq not in kept]
    assert found(world, dataset="labs", outcome="allowed") == [
        seq for seq in found(world, outcome="allowed") if seq in left
    ]
    assert findings(world) == []
    with world.store.begin() as uow:
        uow.rebuild_index()
    assert found(world, dataset="labs") == left
    assert findings(world) == []
