"""The audit log's tables: the part of a unit of work that appends, proves, and finds.

One transaction writes at a time (`Store.begin`), so sequence numbers have no gap and no double. Must not know: keys,
signatures, who may read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, TextClause, and_, delete, func, insert, select, text

from analytics_server.store import tables as t
from analytics_server.store.postings import BLOCK, FIELDS
from analytics_server.store.rows import CheckpointRow, CosignatureRow, LogRow
from analytics_server.store.shards import Shards
from queries.errors import LogError
from trust.tlog import entries
from trust.tlog.merkle import MAX_SIZE, Frontier, Node, Tree, leaf_hash

FILTERS = FIELDS
"""What `leaves` can be narrowed by, besides `request_id` (a hex prefix), `since_ms` and `before_ms`."""
_BATCH = 1000
_NARROW = 2
"""Digits of a request's id from which on those that begin so are few enough to be sorted."""
_PATHS = 16
"""How many proofs read their nodes together: a statement has a term for each node, and databases limit those."""
_COLUMNS = tuple(field.name for field in fields(entries.Columns))


class Log(Shards):
    """Methods of `UnitOfWork`; see there."""

    _connection: Connection
    _frontier: Frontier | None = None
    """Where the log ends that this transaction has appended to; nobody else can append before it ends."""
    _resume: tuple[int, tuple[bytes, ...], int] = (0, (), 0)
    """Size, peaks and last time of the log when this process last appended: good while the size is still the same."""
    _signed: CheckpointRow | None = None
    _size: int | None = None
    """The number of entries when this transaction began."""

    def append(self, leaves: Sequence[bytes]) -> int:
        """Append leaves (serialised `LogEntry`); return the first one's sequence number. Raise LogError on bad bytes.

        Tree nodes and the search table grow in the same transaction; until it commits nothing has happened. Raise
        LogError also where an entry is dated before the one above it: `latest_ms` says what that one has.
        """
        decoded = [entries.columns(entries.decode(leaf)) for leaf in leaves]
        latest = self.latest_ms()
        first = self.tree_size()
        if not leaves:
            return first
        for column in decoded:
            if column.at_ms < latest:
                raise LogError("an audit entry may not be dated before the one above it")
            latest = column.at_ms
        frontier = Frontier(first, self._resume[1] if self._resume[0] == first else self._tree(first).peaks())
        rows, nodes = [], []
        for seq, leaf in enumerate(leaves, first):
            hashed = leaf_hash(leaf)
            rows.append({"seq": seq, "leaf": leaf, "leaf_hash": hashed})
            nodes += [
                {"level": level, "idx": index, "hash": value} for (level, index), value in frontier.append(hashed)
            ]
        self._connection.execute(insert(t.audit_entry), rows)
        if nodes:
            self._connection.execute(insert(t.audit_node), nodes)
        self._index(first, decoded)
        self.post(first, frontier.size)
        self._frontier, self._resume = frontier, (frontier.size, frontier.peaks, latest)
        return first

    def latest_ms(self) -> int:
        """Return when the last entry was made, 0 before the first."""
        if self._resume[0] == self.tree_size():
            return self._resume[2]
        index = t.audit_index.c
        return self._connection.execute(select(index.at_ms).order_by(index.seq.desc()).limit(1)).scalar() or 0

    def tree_size(self) -> int:
        """Return the number of entries."""
        if self._frontier is not None:
            return self._frontier.size
        if self._size is None:  # asked once: while this transaction lives, nobody else's entries come into it
            last = self._connection.execute(select(func.max(t.audit_entry.c.seq))).scalar()
            self._size = self.sealed_end() if last is None else last + 1
        return self._size

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` entries, all of them by default."""
        if self._frontier is not None and size in (None, self._frontier.size):
            return self._frontier.root()
        return self._tree(self.tree_size()).root(size)

    def peaks(self, size: int) -> list[bytes]:
        """Return the complete subtrees over the first `size` entries, largest first."""
        return self._tree(size).peaks()

    def first_since(self, at_ms: int) -> int:
        """Return the first entry of this time or later; the log's size where there is none."""
        return min(self._first_since(at_ms), self.tree_size())

    def cosigned_size(self, at_most: int) -> int:
        """Return the size of the largest head up to this size that a witness has cosigned, 0 where there is none."""
        c = t.cosignature.c
        return self._connection.execute(select(func.max(c.size)).where(c.size <= at_most)).scalar() or 0

    def inclusion(self, seq: int, size: int | None = None) -> list[bytes]:
        """Return the audit path of an entry in the tree of the first `size` entries."""
        return self._tree(self.tree_size()).inclusion(seq, size)

    def inclusions(self, seqs: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the audit paths of several entries in the whole tree."""
        tree, found = self._tree(self.tree_size()), dict[int, list[bytes]]()
        for start in range(0, len(seqs), _PATHS):
            found |= tree.inclusions(seqs[start : start + _PATHS])
        return found

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Return the proof that the log of size `old` is a prefix of the log of size `new`."""
        return self._tree(self.tree_size()).consistency(old, new)

    def leaf(self, seq: int) -> bytes:
        """Return one entry's bytes; raise LogError where there is none."""
        found: bytes | None = self._connection.execute(
            select(t.audit_entry.c.leaf).where(t.audit_entry.c.seq == seq)
        ).scalar()
        if found is None:
            found = self.sealed_leaf(seq)
        if found is None:
            raise LogError(f"there is no entry {seq}", hint=f"the log has {self.tree_size()} entries")
        return found

    def leaves(self, first: int, limit: int, *, end: int | None = None, **filters: str | int) -> list[LogRow]:
        """Return at most `limit` entries from `first` on, before `end`, that match every filter (FILTERS), in order.

        Raise LogError where a sealed file that holds one of them is not here.
        """
        if "since_ms" in filters:  # times never go back along the log: one seek finds the first entry of a time
            first = max(first, self._first_since(filters.pop("since_ms")))
        if "before_ms" in filters:
            end = min(MAX_SIZE - 1 if end is None else end, self._first_since(filters.pop("before_ms")))
        found: list[LogRow] = []
        if first < (sealed := self.sealed_end()):
            last = sealed if end is None else min(end, sealed)
            found = self._sealed(max(first, self.kept_from()), last, limit, filters)
            first, limit = sealed, limit - len(found)
        return found + self._kept(first, limit, end, filters) if limit > 0 else found

    def _sealed(self, first: int, end: int, limit: int, filters: Mapping[str, str | int]) -> list[LogRow]:
        """Return the entries that shards hold; which ones match says the search table."""
        if not filters:
            return [LogRow(*row) for row in self.sealed_leaves(first, end, limit)]
        return [LogRow(seq, self.leaf(seq)) for seq in islice(self._matching(first, end, limit, filters), limit)]

    def _kept(self, first: int, limit: int, end: int | None, filters: Mapping[str, str | int]) -> list[LogRow]:
        """Return the entries that the tables hold."""
        if filters:
            last = self.tree_size() if end is None else min(end, self.tree_size())
            seqs = list(islice(self._matching(first, last, limit, filters), limit))
            return [row for at in range(0, len(seqs), _BATCH) for row in self._rows(seqs[at : at + _BATCH])]
        entry = t.audit_entry.c
        statement = select(entry.seq, entry.leaf).where(entry.seq >= first).order_by(entry.seq).limit(limit)
        if end is not None:
            statement = statement.where(entry.seq < end)
        return [LogRow(*row) for row in self._connection.execute(statement)]

    def _rows(self, seqs: Sequence[int]) -> list[LogRow]:
        places = {f"s{place}": seq for place, seq in enumerate(seqs)}
        return [LogRow(*row) for row in self._connection.execute(_leaves(len(seqs)), places)]

    def _matching(self, first: int, end: int, limit: int, filters: Mapping[str, str | int]) -> Iterator[int]:
        """Give the entries before `end` that match, ascending; at most `limit` of those that the search table gives."""
        index = t.audit_index.c
        conditions = {name: _condition(name, value) for name, value in filters.items()}
        seq: ColumnElement[int] = index.seq
        if len(str(filters.get("request_id", ""))) >= _NARROW:
            # Few can match: sorting them beats a walk along the table in order, or along another filter's index, and a
            # database without statistics has to be kept from either.
            seq = index.seq + 0
            conditions |= {name: index[name].concat("") == filters[name] for name in filters if name in FILTERS}
        elif len(filters) > 1 and filters.keys() <= set(FILTERS) and all(filters.values()):
            whole = min(end, self.tree_size() // BLOCK * BLOCK)
            if first < whole:
                yield from self.posted(first, whole, {name: str(value) for name, value in filters.items()})
                first = whole
        statement = select(index.seq).where(seq >= first, seq < end, *conditions.values())
        yield from self._connection.execute(statement.order_by(seq).limit(limit)).scalars()

    def newest_allowances(self, dataset: str, analyst: str | None = None) -> list[LogRow]:
        """Return every institution's newest decision that allowed a request on a dataset, of this analyst or of any."""
        index, entry = t.audit_index.c, t.audit_entry.c
        newest = select(func.max(index.seq)).where(
            index.kind == "decided", index.outcome == "allowed", index.dataset == dataset, index.institution != ""
        )
        if analyst is not None:
            newest = newest.where(index.analyst == analyst)
        rows = self._connection.execute(
            select(entry.seq, entry.leaf).where(entry.seq.in_(newest.group_by(index.institution))).order_by(entry.seq)
        )
        return [LogRow(row.seq, row.leaf) for row in rows]  # what is sealed is years old, and not looked for

    def _first_since(self, at_ms: str | int) -> int:
        index = t.audit_index.c
        statement = select(index.seq).where(index.at_ms >= at_ms).order_by(index.at_ms, index.seq).limit(1)
        found = self._connection.execute(statement).scalar()
        return MAX_SIZE - 1 if found is None else found

    def rebuild_index(self) -> int:
        """Make the search table again from the leaves; return how many there are."""
        self._connection.execute(delete(t.audit_index))
        self.forget_postings()
        start = first = self.kept_from()
        while rows := self.leaves(first, _BATCH):
            self._index(first, [entries.columns(entries.decode(row.leaf)) for row in rows])
            first += len(rows)
        self.post(start, first)
        return first

    def add_checkpoint(self, size: int, root: bytes, note: bytes) -> None:
        """Keep a signed head. Sizes ascend."""
        self._connection.execute(insert(t.checkpoint).values(size=size, root=root, note=note))
        self._signed = CheckpointRow(size, root, note)

    def latest_checkpoint(self, *, cosigned: bool = False) -> CheckpointRow | None:
        """Return the newest signed head, or the newest that a witness has cosigned."""
        if self._signed is not None and not cosigned:
            return self._signed
        statement = select(t.checkpoint).order_by(t.checkpoint.c.size.desc()).limit(1)
        if cosigned:
            statement = statement.where(t.checkpoint.c.size == select(func.max(t.cosignature.c.size)).scalar_subquery())
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else CheckpointRow(row.size, row.root, row.note)

    def checkpoints(self, first_size: int, limit: int) -> list[CheckpointRow]:
        """Return at most `limit` signed heads of at least `first_size` entries, smallest first."""
        c = t.checkpoint.c
        rows = self._connection.execute(select(t.checkpoint).where(c.size >= first_size).order_by(c.size).limit(limit))
        kept = {row.size: CheckpointRow(row.size, row.root, row.note) for row in rows}
        if first_size <= self.sealed_end():
            kept = {
                size: CheckpointRow(size, *head) for size, head in self.sealed_checkpoints(first_size).items()
            } | kept
        return [kept[size] for size in sorted(kept)[:limit]]

    def checkpoint(self, size: int) -> CheckpointRow | None:
        """Return the signed head of exactly this size."""
        row = self._connection.execute(select(t.checkpoint).where(t.checkpoint.c.size == size)).one_or_none()
        if row is not None:
            return CheckpointRow(row.size, row.root, row.note)
        head = self.sealed_checkpoints(size).get(size) if size <= self.sealed_end() else None
        return None if head is None else CheckpointRow(size, *head)

    def add_cosignature(self, size: int, witness: str, line: str) -> None:
        """Keep a witness's line over the checkpoint of `size`; the first one counts, a second is ignored.

        Raise LogError where there is no such checkpoint.
        """
        c = t.cosignature.c
        if self._connection.execute(select(t.checkpoint.c.size).where(t.checkpoint.c.size == size)).scalar() is None:
            raise LogError(f"there is no checkpoint of size {size} to cosign")
        known = select(c.size).where(c.size == size, c.witness == witness)
        if self._connection.execute(known).scalar() is None:
            self._connection.execute(insert(t.cosignature).values(size=size, witness=witness, line=line))

    def newest_cosignature(self, witness: str) -> CosignatureRow | None:
        """Return a witness's line over the largest head that it cosigned."""
        c = t.cosignature.c
        newest = select(t.cosignature).where(c.witness == witness).order_by(c.size.desc()).limit(1)
        row = self._connection.execute(newest).one_or_none()
        return None if row is None else CosignatureRow(row.size, row.witness, row.line)

    def cosignatures(self, size: int, last_size: int | None = None) -> list[CosignatureRow]:
        """Return the lines over the checkpoint of `size` (or of every size up to `last_size`), by size and witness."""
        c = t.cosignature.c
        rows = self._connection.execute(
            select(t.cosignature)
            .where(c.size.between(size, size if last_size is None else last_size))
            .order_by(c.size, c.witness)
        )
        kept = {(row.size, row.witness): row.line for row in rows}
        if size <= self.sealed_end():
            kept |= self.sealed_cosignatures(size, size if last_size is None else last_size)
        return [CosignatureRow(*key, kept[key]) for key in sorted(kept)]

    def _tree(self, size: int) -> Tree:
        return Tree(_StoredNodes(self._connection, self.sealed_nodes), size)

    def _index(self, first: int, decoded: Sequence[entries.Columns]) -> None:
        """Add to the search table."""
        self._connection.execute(insert(t.audit_index), self.index_rows(first, decoded))

    def index_rows(self, first: int, decoded: Sequence[entries.Columns]) -> list[dict[str, Any]]:
        """Return the search table's rows of adjacent entries.

        What a request's later entries do not repeat is taken from its first one.
        """
        asked = {c.request_id: c for c in decoded if c.kind == "requested"}
        missing = {c.request_id for c in decoded if c.request_id} - asked.keys()
        index = t.audit_index.c
        if missing:
            known = self._connection.execute(
                select(index.request_id, index.analyst, index.dataset, index.purpose).where(
                    index.kind == "requested", index.request_id.in_(missing)
                )
            )
            for row in known:
                asked[row.request_id] = entries.Columns(0, "", "", row.analyst, row.purpose, row.dataset)
        rows: list[dict[str, Any]] = []
        for seq, column in enumerate(decoded, first):
            origin = asked.get(column.request_id)
            found: dict[str, Any] = {"seq": seq, **{name: getattr(column, name) for name in _COLUMNS}}
            if origin is not None:
                found |= {"analyst": origin.analyst, "purpose": origin.purpose, "dataset": origin.dataset}
            rows.append(found)
        return rows


def _condition(name: str, value: str | int) -> ColumnElement[bool]:
    index = t.audit_index.c
    if name == "request_id":  # a range, and not LIKE, for which SQLite would read the whole table
        return and_(index.request_id >= value, index.request_id < f"{value}g")  # "g" comes after every hex digit
    if name not in FILTERS:
        raise LogError(f"the log cannot be filtered by {name!r}", hint=f"by: {', '.join(FILTERS)}, request_id")
    condition: ColumnElement[bool] = index[name] == value
    return condition


class _StoredNodes:
    """Complete subtrees, in one read: level 0 from the entries, the others from audit_node.

    What the tables lack `sealed` is asked for.
    """

    def __init__(self, connection: Connection, sealed: Callable[[Sequence[Node]], Mapping[Node, bytes]]) -> None:
        self._connection = connection
        self._sealed = sealed

    def read(self, wanted: Sequence[Node]) -> Mapping[Node, bytes]:
        found = dict(self._rows(wanted))
        missing = [node for node in wanted if node not in found]
        return {**found, **self._sealed(missing)} if missing else found

    def _rows(self, wanted: Sequence[Node]) -> Iterator[tuple[Node, bytes]]:
        leaves = [index for level, index in wanted if level == 0]
        inner = [(level, index) for level, index in wanted if level]
        if not wanted:
            return
        places = {f"s{place}": index for place, index in enumerate(leaves)}
        places |= {f"l{place}": level for place, (level, _) in enumerate(inner)}
        places |= {f"i{place}": index for place, (_, index) in enumerate(inner)}
        for level, index, value in self._connection.execute(_hashes(len(leaves), len(inner)), places):
            yield (level, index), value


@lru_cache(maxsize=1024)
def _leaves(count: int) -> TextClause:
    seqs = ", ".join(f":s{place}" for place in range(count))
    return text(f"SELECT seq, leaf FROM audit_entry WHERE seq IN ({seqs}) ORDER BY seq")  # noqa: S608 - bound


@lru_cache(maxsize=1024)
def _hashes(leaves: int, inner: int) -> TextClause:
    """Statements of proofs are text, made once per length: as expressions they took longer to build than to run."""
    seqs = ", ".join(f":s{place}" for place in range(leaves))
    # One term a node, and not (level, idx) IN (...): SQLite scans the whole table for that.
    nodes = " OR ".join(f"(level = :l{place} AND idx = :i{place})" for place in range(inner))
    parts = [f"SELECT 0, seq, leaf_hash FROM audit_entry WHERE seq IN ({seqs})"] if leaves else []  # noqa: S608 - bound
    parts += [f"SELECT level, idx, hash FROM audit_node WHERE {nodes}"] if inner else []  # noqa: S608 - bound parameters
    return text(" UNION ALL ".join(parts))
