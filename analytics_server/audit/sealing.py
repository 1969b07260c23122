"""Retention: old entries go into sealed files, and those are deleted when their time is over. The roots stay.

Sealing ends at a head that a witness has cosigned. The file is written, read back and on the disk before the shard is
recorded, which is an entry with the file's hash; only then do the entries leave the tables. A process that is killed at
any point is followed by one that goes on. Must not know: how long anything is kept; the caller says before when.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from analytics_server.audit.log import AuditLog
from analytics_server.store import CheckpointRow, ShardRow, Store, UnitOfWork, shard_file
from protos.v1 import log_pb2
from queries.errors import ConfigError, LogError
from trust.tlog.merkle import Frontier
from trust.tlog.recount import BLOCK, Recount
from trust.tlog.stored import StoredTree

LOCK = "sealing-lock"
STEP = 10_000
"""Entries that leave the tables in one transaction: others write in between."""


def seal(
    store: Store,
    log: AuditLog,
    *,
    before_ms: int | None = None,
    keep: int = 0,
    now_ms: int,
    told: Callable[[int], None] = lambda _: None,
) -> ShardRow | None:
    """Move what is older than `before_ms`, all but the newest `keep` entries, into a sealed file; return it.

    It ends at the last cosigned head over such entries. What an earlier run began is finished first; `told` gets the
    entries that left the tables so far. None where nothing of the kind can be sealed: a witness has to have cosigned a
    head over it, and no running request may begin in it.
    """
    with _alone(store.shards):
        _prune(store, told)
        with store.read() as uow:
            head = _choose(uow, before_ms, keep)
            if head is None:
                return None
            first = uow.sealed_end()
            content = uow.stretch(first, head.size, root=head.root, note=log.cosigned(uow, head))
            path = store.shards / shard_file.name_of(first, head.size)
            file_hash = shard_file.write(path, content)
            peaks = uow.peaks(head.size)
            _read_back(path, content.before, head)
        with store.begin() as uow:
            uow.add_shard(content, peaks=peaks, file=path.name, file_hash=file_hash)
            event = log_pb2.ShardSealed(first=first, end=head.size, root=head.root, file_hash=file_hash)
            log.append_in(uow, [log_pb2.LogEntry(at_ms=now_ms, actor="operator", shard_sealed=event)])
            sealed = uow.shards()[-1]
        _prune(store, told)
        return sealed


def expire(store: Store, log: AuditLog, *, before_ms: int, now_ms: int) -> list[ShardRow]:
    """Delete the sealed files whose newest entry is older than `before_ms`, oldest first; return their shards."""
    expired = []
    with _alone(store.shards):
        while True:
            with store.begin() as uow:
                shard = next((shard for shard in uow.shards() if shard.expired_at is None), None)
                if shard is None or uow.first_since(before_ms) < shard.end:
                    break
                uow.expire_shard(shard, now_ms // 1000)
                event = log_pb2.ShardExpired(first=shard.first, end=shard.end, root=shard.root)
                log.append_in(uow, [log_pb2.LogEntry(at_ms=now_ms, actor="operator", shard_expired=event)])
            expired.append(shard)
        with store.read() as uow:
            gone = [uow.shard_path(shard) for shard in uow.shards() if shard.expired_at is not None]
        for path in gone:  # those of an earlier run, too, that did not come to it
            path.unlink(missing_ok=True)
    return expired


def _choose(uow: UnitOfWork, before_ms: int | None, keep: int) -> CheckpointRow | None:
    """Return the head to end a shard with."""
    ends = [max(uow.tree_size() - keep, 0)]
    ends += [] if before_ms is None else [uow.first_since(before_ms)]
    ends += [row.seqs[0] for row in uow.running_requests() if row.seqs]
    size = uow.cosigned_size(min(ends))
    return uow.checkpoint(size) if size > uow.sealed_end() else None


def _prune(store: Store, told: Callable[[int], None]) -> None:
    done = 0
    while True:
        with store.begin() as uow:
            step = uow.prune(STEP)
        if not step:
            return
        done += step
        told(done)


def _read_back(path: Path, before: Frontier, head: CheckpointRow) -> None:
    """Recompute a shard from its file alone. Raise LogError where it does not lead to its head: nothing was moved."""
    with shard_file.opened(path) as file:
        stored = StoredTree(file.leaf_hashes, file.level, file.count_nodes, before.size)
        tree = Recount(stored.compare, before)
        while tree.size < head.size:
            first = tree.size
            rows = file.leaves(first, BLOCK - first % BLOCK)
            if [seq for seq, _ in rows] != list(range(first, first + len(rows))) or not rows:
                raise LogError("the store lacks entries, so it cannot be sealed", hint="run fsck")
            hashes, _ = tree.extend([leaf for _, leaf in rows])
            stored.compare_leaves(first, hashes)
        stored.finish()
    if stored.findings or (tree.size, tree.root()) != (head.size, head.root):
        found = f": {min(stored.findings, key=lambda f: f.width)}" if stored.findings else ""
        raise LogError(f"the store is not as it was written, so it cannot be sealed{found}", hint="run fsck")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of shards for this process. Raise ConfigError where another one holds it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot open {folder}: {error.strerror}", hint="check its permissions") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError("another process seals or deletes shards", hint="wait until it has ended") from error
        yield
    finally:
        os.close(handle)
