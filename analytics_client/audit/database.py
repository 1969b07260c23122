"""Verification of a copy of an SQLite database: the coordinator's store with its shards, one shard, or an export.

A store keeps, beside each leaf, its hash and the inner nodes of the tree. Whoever edits a leaf and not these has told
which one; whoever edits these as well is found by the signed heads (see `verify`). What a store has sealed is read from
the files in the folder `shards` beside the copy. Reads only, and never the live file: verify a copy. Must not know: how
a store is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from analytics_client.audit.history import NOTHING_GONE, Entry, Gone, History, Keys
from analytics_client.audit.report import Report
from analytics_client.audit.verify import verify
from queries.errors import ConfigError, LogError
from trust.tlog import checkpoint, notes
from trust.tlog.merkle import HASH_SIZE
from trust.tlog.recount import BLOCK
from trust.tlog.stored import MAX_FINDINGS, Finding, Rows, StoredTree

SHARDS = "shards"
_END = (1 << 63) - 1
# Which numbers of a range have the hash that the blob has in their place. DISTINCT costs nothing where the table's key
# makes them so; whoever owns the file may have made it another table.
_SAME_LEAVES = """
SELECT count(*) FROM (
    SELECT DISTINCT seq FROM audit_entry
    WHERE seq >= ?1 AND seq < ?2 AND leaf_hash IS substr(?3, (seq - ?1) * 32 + 1, 32) AND ?4 = 0
)
"""
_SAME_NODES = """
SELECT count(*) FROM (
    SELECT DISTINCT idx FROM audit_node
    WHERE level = ?4 AND idx >= ?1 AND idx < ?2 AND hash IS substr(?3, (idx - ?1) * 32 + 1, 32)
)
"""


def verify_database(path: Path, governance_key: bytes, *, checkpoints: Sequence[bytes] = ()) -> Report:
    """Verify a copy of a store or of an SQLite export; see `verify`. `checkpoints` are heads kept elsewhere.

    Raise ConfigError where the file holds no audit log, LogError where SQLite itself cannot read it.
    """
    with _opened(path) as copy:
        memberships = _memberships(copy.connection)
        stored = StoredTree(
            copy.leaf_hashes, copy.nodes if copy.has_nodes else None, copy.count_nodes, copy.gone.size, copy.same
        )
        report = verify(
            copy.entries(),
            None,
            memberships,
            governance_key,
            checkpoints=[*copy.checkpoints(), *checkpoints],
            stored=stored,
            gone=copy.gone,
        )
        known = Keys.of(memberships, governance_key)
        findings = [*copy.findings, *stored.findings, *_check_heads(copy, known, checkpoints)]
    return replace(report, findings=_merge(findings, report.findings))


def read_database(path: Path) -> History:
    """Read a copy of a store or of an SQLite export. Raise ConfigError or LogError as `verify_database` does."""
    with _opened(path) as copy:
        entries = [Entry(*row) for row in copy.entries()]
        return History(entries, copy.checkpoints(), _memberships(copy.connection), copy.gone)


class _Part(NamedTuple):
    """A file and the entries that it answers for."""

    connection: sqlite3.Connection
    first: int
    end: int


@dataclass(frozen=True)
class _Copy:
    """A log in one file or several, oldest entries first; `connection` is the file that was named."""

    connection: sqlite3.Connection
    parts: Sequence[_Part]
    gone: Gone
    has_nodes: bool
    findings: Sequence[Finding]

    def entries(self) -> Iterator[tuple[int, bytes]]:
        return chain.from_iterable(self._pages())

    def _pages(self) -> Iterator[list[tuple[int, bytes]]]:
        for part in self.parts:
            statement = "SELECT seq, leaf FROM audit_entry WHERE seq >= ? AND seq < ? ORDER BY seq"
            rows = part.connection.execute(statement, part[1:])
            while page := rows.fetchmany(BLOCK):
                whole = {type(leaf) for _, leaf in page} == {bytes}
                yield page if whole else [(seq, _bytes(leaf)) for seq, leaf in page]

    def leaf_hashes(self, first: int, end: int) -> Rows:
        for part in self._holding(first, end):
            yield from part.connection.execute(
                "SELECT seq, leaf_hash FROM audit_entry WHERE seq >= ? AND seq < ? ORDER BY seq",
                (max(first, part.first), min(end, part.end)),
            )

    def nodes(self, level: int, first: int, end: int) -> Rows:
        for part in self.parts:
            low, high = max(first, part.first >> level), min(end, part.end >> level)
            if low < high:
                yield from part.connection.execute(
                    "SELECT idx, hash FROM audit_node WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
                    (level, low, high),
                )

    def same(self, level: int, first: int, hashes: Sequence[bytes]) -> bool:
        """Return whether one file holds exactly these hashes, as SQLite finds: no row of them becomes an object."""
        end = first + len(hashes)
        part = next((p for p in self.parts if p.first >> level <= first and end <= p.end >> level), None)
        if part is None:
            return False
        found = part.connection.execute(_SAME_NODES if level else _SAME_LEAVES, (first, end, b"".join(hashes), level))
        return bool(found.fetchone()[0] == len(hashes))

    def count_nodes(self) -> int:
        statement = "SELECT count(*) FROM audit_node WHERE (idx + 1) << level > ?"
        return sum(int(part.connection.execute(statement, (part.first,)).fetchone()[0]) for part in self.parts)

    def checkpoints(self) -> list[bytes]:
        """Return every signed head, its cosignatures added; a line that cannot be read is left out of the note."""
        return list(dict.fromkeys(note for part in self.parts for note in _checkpoints(part.connection)))

    def _holding(self, first: int, end: int) -> Iterator[_Part]:
        return (part for part in self.parts if part.first < end and first < part.end)


@contextmanager
def _opened(path: Path) -> Iterator[_Copy]:
    try:
        with ExitStack() as stack:
            connection = _connect(path, stack)
            missing = {"audit_entry", "checkpoint", "membership"} - _tables(connection)
            if missing:
                raise ConfigError(f"{path} holds no audit log", hint="give a copy of state.sqlite, or an SQLite export")
            yield _put_together(path, connection, stack)
    except sqlite3.Error as error:
        raise LogError(
            f"{path} cannot be read: {error}", hint="is the copy whole? copy it while nothing writes"
        ) from error


def _tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {_bytes(name).decode(errors="replace") for (name,) in rows}


def _connect(path: Path, stack: ExitStack) -> sqlite3.Connection:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    connection = stack.enter_context(closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)))
    connection.text_factory = bytes  # an edited cell may hold text that is not even UTF-8
    return connection


def _put_together(path: Path, connection: sqlite3.Connection, stack: ExitStack) -> _Copy:
    """Find the shards of a store beside its copy; a shard and an export say themselves what comes before them."""
    tables = _tables(connection)
    nodes = "audit_node" in tables
    if "peak" in tables:
        gone = _gone_before(connection, sealed="shard" in tables)
        return _Copy(connection, [_Part(connection, gone.size, _END)], gone, nodes, ())
    parts: list[_Part] = []
    findings: list[Finding] = []
    gone, sealed = NOTHING_GONE, 0
    shards = connection.execute("SELECT first_seq, end_seq, peaks, file, expired_at FROM shard ORDER BY end_seq")
    for first, end, peaks, name, expired_at in shards if "shard" in tables else ():
        sealed = end
        file = path.parent / SHARDS / Path(_bytes(name).decode(errors="replace")).name
        if expired_at is None and file.is_file():
            parts.append(_Part(_connect(file, stack), first, end))
            continue
        if expired_at is None:
            findings.append(
                Finding(f"these are in the sealed file {file.name}, which is not in {file.parent}", first, end - 1)
            )
        whole = _bytes(peaks)
        gone = Gone(end, tuple(whole[at : at + HASH_SIZE] for at in range(0, len(whole), HASH_SIZE)))
        parts.clear()
    return _Copy(connection, [*parts, _Part(connection, sealed, _END)], gone, nodes, findings)


def _gone_before(connection: sqlite3.Connection, *, sealed: bool) -> Gone:
    rows = connection.execute("SELECT level, hash FROM peak ORDER BY level DESC").fetchall()
    return Gone(sum(1 << level for level, _ in rows), tuple(_bytes(value) for _, value in rows), sealed)


def _memberships(connection: sqlite3.Connection) -> list[bytes]:
    return [_bytes(e) for (e,) in connection.execute("SELECT envelope FROM membership ORDER BY epoch")]


def _checkpoints(connection: sqlite3.Connection) -> list[bytes]:
    """Return every signed head, its cosignatures added; a line that cannot be read is left out of the note."""
    lines: dict[int, list[str]] = {}
    if "cosignature" in _tables(connection):
        for size, line in connection.execute("SELECT size, line FROM cosignature ORDER BY size, witness"):
            lines.setdefault(size, []).append(_bytes(line).decode(errors="replace"))
    found = []
    for size, note in connection.execute("SELECT size, note FROM checkpoint ORDER BY size"):
        try:
            found.append(notes.with_lines(_bytes(note), lines.get(size, [])))
        except LogError:
            found.append(_bytes(note))
    return found


def _bytes(value: object) -> bytes:
    """An edited cell may hold a number or nothing; what matters is that it is not what was hashed."""
    return value if isinstance(value, bytes) else str(value).encode()


def _check_heads(copy: _Copy, keys: Keys, elsewhere: Sequence[bytes]) -> list[Finding]:
    """Hold stored checkpoints against their notes and against heads kept elsewhere, cosignatures against both."""
    sizes: set[object] = set()
    findings = []
    for connection in (part.connection for part in copy.parts):
        for size, root, note in connection.execute("SELECT size, root, note FROM checkpoint ORDER BY size"):
            sizes.add(size)
            if not _same_head(size, root, _bytes(note)):
                findings.append(Finding(f"the stored checkpoint of size {size} is not the one that its note says"))
        if "cosignature" in _tables(connection):
            known = keys.witnesses()
            rows = connection.execute("SELECT size, witness, line FROM cosignature ORDER BY size, witness")
            wrong = [_wrong_cosignature(size, witness, line, sizes, known) for size, witness, line in rows]
            findings += [Finding(text) for text in wrong if text]
    if copy.has_nodes:  # a store keeps every head that was ever signed; an export may hold some
        kept = {size for note in elsewhere if (size := _size_of(note)) is not None}
        findings += [
            Finding(f"the head of size {size}, which is kept elsewhere, is not stored")
            for size in sorted(kept)
            if size not in sizes and size > copy.gone.size
        ]
    return findings[:MAX_FINDINGS]


def _wrong_cosignature(
    size: object, witness: object, line: object, sizes: Set[object], known: Mapping[tuple[str, bytes], object]
) -> str:
    """Return what is wrong with a stored line before its signature is looked at (`verify` does that)."""
    if size not in sizes:
        return f"there is a cosignature of a checkpoint of size {size}, which is not there"
    try:
        parsed = notes.parse_line(_bytes(line).decode(errors="replace"))
    except LogError:
        return f"a cosignature of the checkpoint of size {size} cannot be read"
    if parsed.name.encode() != _bytes(witness) or (known and (parsed.name, parsed.key_id) not in known):
        return f"a cosignature of the checkpoint of size {size} is by nobody's key"
    return ""


def _size_of(note: bytes) -> int | None:
    try:
        return checkpoint.parse(notes.parse(note).text).size
    except LogError:
        return None  # `verify` says that it cannot be read


def _same_head(size: object, root: object, note: bytes) -> bool:
    try:
        head = checkpoint.parse(notes.parse(note).text)
    except LogError:
        return True  # `verify` says that it cannot be read
    return (size, root) == (head.size, head.root)


def _merge(stored: Sequence[Finding], found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Put first what names the fewest entries.

    A wrong node over two entries and a head that stopped matching in a batch of three name together only the entries
    that are in both. What follows from another tree comes last.
    """
    narrow: list[Finding] = []
    ranges = [f for f in (*stored, *found) if f.first is not None and f.last is not None and not f.follows]
    if ranges:
        first = max(f.first for f in ranges if f.first is not None)
        last = min(f.last for f in ranges if f.last is not None)
        smallest = min(ranges, key=lambda finding: finding.width)
        if first <= last and last - first + 1 < smallest.width:
            narrow.append(Finding("all that is wrong below points here", first, last))
    ordered = sorted((*stored, *found), key=lambda finding: (finding.follows, finding.width))
    return (*narrow, *ordered)[:MAX_FINDINGS]
