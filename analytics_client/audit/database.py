"""Verification of a copy of an SQLite database: the coordinator's store, or an export.

A store keeps, beside each leaf, its hash and the inner nodes of the tree. Whoever edits a leaf and not these has told
which one; whoever edits these as well is found by the signed heads (see `verify`). Reads only, and never the live file:
verify a copy. Must not know: how a store is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from analytics_client.audit.history import Entry, History, Keys
from analytics_client.audit.verify import Report, verify
from queries.errors import ConfigError, LogError
from trust.tlog import checkpoint, notes
from trust.tlog.stored import MAX_FINDINGS, Finding, Rows, StoredTree


def verify_database(path: Path, governance_key: bytes, *, checkpoints: Sequence[bytes] = ()) -> Report:
    """Verify a copy of a store or of an SQLite export; see `verify`. `checkpoints` are heads kept elsewhere.

    Raise ConfigError where the file holds no audit log, LogError where SQLite itself cannot read it.
    """
    with _opened(path) as connection:
        stored, memberships = _stored_tree(connection), _memberships(connection)
        report = verify(
            _entries(connection),
            None,
            memberships,
            governance_key,
            checkpoints=[*_checkpoints(connection), *checkpoints],
            stored=stored,
        )
        findings = [*stored.findings, *_check_heads(connection, Keys.of(memberships, governance_key), checkpoints)]
    return replace(report, findings=_merge(findings, report.findings))


def read_database(path: Path) -> History:
    """Read a copy of a store or of an SQLite export. Raise ConfigError or LogError as `verify_database` does."""
    with _opened(path) as connection:
        return History(
            [Entry(*row) for row in _entries(connection)], _checkpoints(connection), _memberships(connection)
        )


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes  # an edited cell may hold text that is not even UTF-8
            missing = {"audit_entry", "checkpoint", "membership"} - _tables(connection)
            if missing:
                raise ConfigError(f"{path} holds no audit log", hint="give a copy of state.sqlite, or an SQLite export")
            yield connection
    except sqlite3.Error as error:
        raise LogError(
            f"{path} cannot be read: {error}", hint="is the copy whole? copy it while nothing writes"
        ) from error


def _tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {_bytes(name).decode(errors="replace") for (name,) in rows}


def _entries(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes]]:
    for row in connection.execute("SELECT seq, leaf FROM audit_entry ORDER BY seq"):
        yield row if type(row[1]) is bytes else (row[0], _bytes(row[1]))


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


def _stored_tree(connection: sqlite3.Connection) -> StoredTree:
    nodes = "audit_node" in _tables(connection)

    def read_leaf_hashes(first: int, end: int) -> Rows:
        return connection.execute(
            "SELECT seq, leaf_hash FROM audit_entry WHERE seq >= ? AND seq < ? ORDER BY seq", (first, end)
        )

    def read_nodes(level: int, first: int, end: int) -> Rows:
        return connection.execute(
            "SELECT idx, hash FROM audit_node WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
            (level, first, end),
        )

    def count_nodes() -> int:
        (count,) = connection.execute("SELECT count(*) FROM audit_node").fetchone()
        return int(count)

    if not nodes:  # an export keeps none
        return StoredTree(read_leaf_hashes)
    return StoredTree(read_leaf_hashes, read_nodes, count_nodes)


def _check_heads(connection: sqlite3.Connection, keys: Keys, elsewhere: Sequence[bytes]) -> list[Finding]:
    """Hold stored checkpoints against their notes and against heads kept elsewhere, cosignatures against both."""
    sizes: set[object] = set()
    findings = []
    for size, root, note in connection.execute("SELECT size, root, note FROM checkpoint ORDER BY size"):
        sizes.add(size)
        if not _same_head(size, root, _bytes(note)):
            findings.append(Finding(f"the stored checkpoint of size {size} is not the one that its note says"))
    tables = _tables(connection)
    if "cosignature" in tables:
        known = keys.witnesses()
        rows = connection.execute("SELECT size, witness, line FROM cosignature ORDER BY size, witness")
        wrong = [_wrong_cosignature(size, witness, line, sizes, known) for size, witness, line in rows]
        findings += [Finding(text) for text in wrong if text]
    if "audit_node" in tables:  # a store keeps every head that was ever signed; an export may hold some
        kept = {size for note in elsewhere if (size := _size_of(note)) is not None}
        findings += [
            Finding(f"the head of size {size}, which is kept elsewhere, is not stored")
            for size in sorted(kept)
            if size not in sizes
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
