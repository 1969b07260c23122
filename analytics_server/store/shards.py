"""What was moved out of the log's tables into sealed files: the part of a unit of work that finds it, and moves it.

A shard is recorded first, with the hash of its file, and the rows are deleted afterwards, in as many transactions as it
takes: at every instant whatever is not in the tables is in a file, or expired. Of an expired shard the root and the
subtrees stay, so that every later proof still leads back through it. Must not know: when to seal, what entries say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from analytics_server.store import shard_file
from analytics_server.store import tables as t
from analytics_server.store.postings import Postings
from analytics_server.store.rows import ShardRow
from analytics_server.store.shard_file import Content, ShardFile
from queries.errors import LogError
from trust.tlog.merkle import HASH_SIZE, Frontier, Node, cover

_PAGE = 5000


class Shards(Postings):
    """Methods of `UnitOfWork`; see there."""

    _connection: Connection
    _folder: Path
    """Where sealed files are looked for."""
    _known: list[ShardRow] | None = None

    def shards(self) -> list[ShardRow]:
        """Return every shard that was ever sealed, oldest first."""
        if self._known is None:
            rows = self._connection.execute(select(t.shard).order_by(t.shard.c.end_seq))
            self._known = [
                ShardRow(
                    row.first_seq,
                    row.end_seq,
                    row.root,
                    row.note,
                    tuple(row.peaks[at : at + HASH_SIZE] for at in range(0, len(row.peaks), HASH_SIZE)),
                    row.file,
                    row.file_hash,
                    row.expired_at,
                )
                for row in rows
            ]
        return self._known

    def sealed_end(self) -> int:
        """Return the number of entries that sealed files hold, or held: the first that the tables keep."""
        return self.shards()[-1].end if self.shards() else 0

    def kept_from(self) -> int:
        """Return the oldest entry that there still is."""
        return max((shard.end for shard in self.shards() if shard.expired_at is not None), default=0)

    def tree_before(self, seq: int) -> Frontier:
        """Return the tree of the first `seq` entries, which have to be 0 or the end of a shard."""
        if seq == 0:
            return Frontier()
        return next(Frontier(seq, shard.peaks) for shard in self.shards() if shard.end == seq)

    def shard_path(self, shard: ShardRow) -> Path:
        """Return where the file of a shard is looked for."""
        return self._folder / shard.file

    def open_shard(self, shard: ShardRow) -> AbstractContextManager[ShardFile]:
        """Open a shard's file. Raise LogError where it is not here, or expired."""
        if shard.expired_at is not None:
            when = datetime.fromtimestamp(shard.expired_at, UTC).date().isoformat()
            raise LogError(
                f"entries {shard.first} to {shard.end - 1} were deleted after their time, on {when}",
                hint="their root is kept; an export made before then still verifies",
            )
        return shard_file.opened(self.shard_path(shard))

    def sealed_leaf(self, seq: int) -> bytes | None:
        """Return the bytes of an entry that a shard holds; None where none does."""
        for shard in self._overlapping(seq, seq + 1):
            with self.open_shard(shard) as file:
                return next((bytes(leaf) for found, leaf in file.leaves(seq, 1) if found == seq), None)
        return None

    def sealed_leaves(self, first: int, end: int, limit: int) -> Iterator[tuple[int, bytes]]:
        """Give at most `limit` entries of a range that shards hold, in order."""
        for shard in self._overlapping(first, end):
            with self.open_shard(shard) as file:
                rows = file.leaves(max(first, shard.first), min(limit, min(end, shard.end) - max(first, shard.first)))
            yield from rows
            limit -= len(rows)
            if limit <= 0:
                return

    def sealed_nodes(self, missing: Sequence[Node]) -> dict[Node, bytes]:
        """Return subtrees that the tables do not have: the edges of shards, and what is in their files."""
        found: dict[Node, bytes] = {}
        for shard in self.shards():
            edge = dict(zip(cover((0, shard.end)), shard.peaks, strict=True))
            found |= {node: edge[node] for node in missing if node in edge}
        for shard in self.shards():
            wanted = [n for n in missing if n not in found and shard.first < (n[1] + 1) << n[0] <= shard.end]
            if wanted:
                with self.open_shard(shard) as file:
                    found |= file.nodes(wanted)
        return found

    def sealed_checkpoints(self, first: int) -> dict[int, tuple[bytes, bytes]]:
        """Return size -> (root, note) of the heads of at least `first` entries in shards; of expired ones the last."""
        found: dict[int, tuple[bytes, bytes]] = {}
        for shard in self._overlapping(first - 1, self.sealed_end()):
            if shard.expired_at is not None:
                found[shard.end] = shard.root, shard.note
                continue
            with self.open_shard(shard) as file:
                found |= {size: (bytes(root), bytes(note)) for size, root, note in file.checkpoints(first, shard.end)}
        return {size: found[size] for size in sorted(found) if size >= first}

    def sealed_cosignatures(self, first: int, last: int) -> dict[tuple[int, str], str]:
        """Return (size, witness) -> line over the heads of these sizes in shards that are kept."""
        found: dict[tuple[int, str], str] = {}
        for shard in self._overlapping(first - 1, last):
            if shard.expired_at is None:
                with self.open_shard(shard) as file:
                    lines = file.cosignatures(first, last)
                found |= {(size, bytes(who).decode()): bytes(line).decode() for size, who, line in lines}
        return found

    def _overlapping(self, first: int, end: int) -> list[ShardRow]:
        return [shard for shard in self.shards() if shard.first < end and first < shard.end]

    # --- moving ------------------------------------------------------------------------------------------------------

    def stretch(self, first: int, end: int, *, root: bytes, note: bytes) -> Content:
        """Return what a shard of these entries holds; its rows are read as they are asked for, in this transaction."""
        c, k, s = t.checkpoint.c, t.cosignature.c, t.audit_entry.c
        rows: dict[str, Iterable[Sequence[Any]]] = {
            "audit_entry": self._stream(
                select(s.seq, s.leaf, s.leaf_hash).where(s.seq >= first, s.seq < end).order_by(s.seq)
            ),
            "audit_node": self._completed(first, end),
            "checkpoint": self._stream(
                select(c.size, c.root, c.note).where(c.size > first, c.size <= end).order_by(c.size)
            ),
            "cosignature": self._stream(
                select(k.size, k.witness, k.line).where(k.size > first, k.size <= end).order_by(k.size, k.witness)
            ),
            "membership": self._stream(
                select(t.membership.c.epoch, t.membership.c.hash, t.membership.c.envelope).order_by(
                    t.membership.c.epoch
                )
            ),
        }
        return Content(first, end, root, note, self.tree_before(first), rows)

    def _completed(self, first: int, end: int) -> Iterator[Sequence[Any]]:
        n = t.audit_node.c
        for level in range(1, end.bit_length()):
            here = (n.level == level) & (n.idx >= first >> level) & (n.idx < end >> level)
            yield from self._stream(select(n.level, n.idx, n.hash).where(here).order_by(n.idx))

    def _stream(self, statement: Any) -> Iterator[Sequence[Any]]:
        for row in self._connection.execute(statement.execution_options(yield_per=_PAGE)):
            yield tuple(row)

    def add_shard(self, content: Content, *, peaks: Sequence[bytes], file: str, file_hash: bytes) -> None:
        """Record a shard whose file is on the disk. It begins where the one before it ends."""
        self._connection.execute(
            insert(t.shard).values(
                end_seq=content.end,
                first_seq=content.first,
                root=content.root,
                note=content.note,
                peaks=b"".join(peaks),
                file=file,
                file_hash=file_hash,
            )
        )
        self._known = None

    def prune(self, limit: int) -> int:
        """Delete at most `limit` entries that a shard holds, with their nodes and heads; return how many.

        Each witness's newest line stays, with its head: institutions are shown theirs when they connect.
        """
        end = self.sealed_end()
        first = self._connection.execute(select(func.min(t.audit_entry.c.seq))).scalar()
        if first is None or first >= end:
            return 0
        bound = min(end, first + limit)
        self._connection.execute(delete(t.audit_entry).where(t.audit_entry.c.seq < bound))
        for level in range(1, bound.bit_length()):
            below = (t.audit_node.c.level == level) & (t.audit_node.c.idx < bound >> level)
            self._connection.execute(delete(t.audit_node).where(below))
        k, c = t.cosignature.c, t.checkpoint.c
        newest = select(func.max(k.size)).group_by(k.witness)
        self._connection.execute(delete(t.cosignature).where(k.size < bound, k.size.not_in(newest)))
        vouched = exists().where(k.size == c.size)
        self._connection.execute(delete(t.checkpoint).where(c.size < bound, ~vouched))
        return int(bound - first)

    def expire_shard(self, shard: ShardRow, at: int) -> None:
        """Record that a shard's time is over, and forget what can be searched of it. Its file is the caller's.

        That is also who asked, and of what, in later entries of requests that begin in it: only the first ones said it.
        """
        self._connection.execute(update(t.shard).where(t.shard.c.end_seq == shard.end).values(expired_at=at))
        c = t.audit_index.c
        asked = select(c.request_id).where(c.seq < shard.end, c.kind == "requested")
        statement = select(t.audit_index).where(c.seq >= shard.end, c.request_id.in_(asked))
        straddling = [row._asdict() for row in self._connection.execute(statement)]
        begun = {row["request_id"] for row in straddling}
        self._connection.execute(delete(t.audit_index).where(c.seq < shard.end))
        self.forget_postings(shard.end)
        if straddling:
            unsaid = {"analyst": "", "purpose": "", "dataset": ""}
            self._connection.execute(delete(t.audit_index).where(c.request_id.in_(begun)))
            self._connection.execute(insert(t.audit_index), [row | unsaid for row in straddling])
            self.post_again(row["seq"] for row in straddling)
        self._known = None
