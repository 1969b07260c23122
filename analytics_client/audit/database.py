"""Verification of a copy of an SQLite database: the coordinator's store, or an export.

A store keeps, beside each leaf, its hash and the inner nodes of the tree. Whoever edits a leaf and not these has told
which one; whoever edits these as well is found by the signed heads (see `verify`). Reads only, and never the live file:
verify a copy. Must not know: how a store is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from analytics_client.audit.history import Entry, History
from analytics_client.audit.verify import MAX_FINDINGS, Finding, Report, verify
from queries.errors import ConfigError, LogError
from trust.tlog import checkpoint, notes
from trust.tlog.merkle import Frontier, leaf_hash


def verify_database(path: Path, governance_key: bytes, *, checkpoints: Sequence[bytes] = ()) -> Report:
    """Verify a copy of a store or of an SQLite export; see `verify`. `checkpoints` are heads kept elsewhere.

    Raise ConfigError where the file holds no audit log, LogError where SQLite itself cannot read it.
    """
    with _opened(path) as connection:
        stored = _check_stored(connection)
        report = verify(
            _entries(connection),
            None,
            _memberships(connection),
            governance_key,
            checkpoints=[*_checkpoints(connection), *checkpoints],
        )
    return replace(report, findings=_merge(stored, report.findings))


def read_database(path: Path) -> History:
    """Read a copy of a store or of an SQLite export. Raise ConfigError or LogError as `verify_database` does."""
    with _opened(path) as connection:
        return History(list(_entries(connection)), _checkpoints(connection), _memberships(connection))


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


def _entries(connection: sqlite3.Connection) -> Iterator[Entry]:
    for seq, leaf in connection.execute("SELECT seq, leaf FROM audit_entry ORDER BY seq"):
        yield Entry(seq, _bytes(leaf))


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


def _check_stored(connection: sqlite3.Connection) -> list[Finding]:
    """Compare the stored hashes with the entries."""
    findings: list[Finding] = []
    frontier = Frontier()
    levels = _Levels(connection) if "audit_node" in _tables(connection) else None
    for seq, leaf, stored in connection.execute("SELECT seq, leaf, leaf_hash FROM audit_entry ORDER BY seq"):
        if seq != frontier.size:  # `verify` says so; from here on nothing is where it was
            return findings
        hashed = leaf_hash(_bytes(leaf))
        if hashed != stored:
            findings.append(Finding("its bytes do not have the hash that was stored with it", seq, seq))
        for (level, index), value in frontier.append(hashed):
            if levels is not None and levels.take(level) != (index, value):
                first, last = index << level, ((index + 1) << level) - 1
                # What is above something wrong is wrong for that reason; only the lowest says where it is.
                if not any(f.first is not None and first <= f.first <= last for f in findings):
                    findings.append(Finding(f"the stored tree node ({level}, {index}) is not theirs", first, last))
        if len(findings) >= MAX_FINDINGS:
            return findings
    if levels is not None and levels.left():
        findings.append(Finding("the store holds tree nodes of entries that are not there"))
    for size, root, note in connection.execute("SELECT size, root, note FROM checkpoint ORDER BY size"):
        if not _same_head(size, root, _bytes(note)):
            findings.append(Finding(f"the stored checkpoint of size {size} is not the one that its note says"))
    return findings[:MAX_FINDINGS]


def _same_head(size: object, root: object, note: bytes) -> bool:
    try:
        head = checkpoint.parse(notes.parse(note).text)
    except LogError:
        return True  # `verify` says that it cannot be read
    return (size, root) == (head.size, head.root)


class _Levels:
    """The stored tree nodes, level by level, in the order in which a growing tree completes them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursors: dict[int, sqlite3.Cursor] = {}
        self._taken = 0

    def take(self, level: int) -> tuple[int, bytes] | None:
        """Return the next node of this level."""
        if level not in self._cursors:
            self._cursors[level] = self._connection.execute(
                "SELECT idx, hash FROM audit_node WHERE level = ? ORDER BY idx", (level,)
            )
        row: tuple[int, bytes] | None = self._cursors[level].fetchone()
        self._taken += row is not None
        return row

    def left(self) -> bool:
        """Return whether there are nodes that were not asked for."""
        (count,) = self._connection.execute("SELECT count(*) FROM audit_node").fetchone()
        return bool(count != self._taken)


def _merge(stored: Sequence[Finding], found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Put first what names the fewest entries.

    A wrong node over two entries and a head that stopped matching in a batch of three name together only the entries
    that are in both.
    """
    narrow: list[Finding] = []
    ranges = [f for f in (*stored, *found) if f.first is not None and f.last is not None]
    if ranges:
        first = max(f.first for f in ranges if f.first is not None)
        last = min(f.last for f in ranges if f.last is not None)
        smallest = min(ranges, key=_width)
        if first <= last and last - first < _width(smallest):
            narrow.append(Finding("all that is wrong below points here", first, last))
    ordered = sorted((*stored, *found), key=_width)
    return (*narrow, *ordered)[:MAX_FINDINGS]


def _width(finding: Finding) -> int:
    return 1 << 62 if finding.first is None or finding.last is None else finding.last - finding.first
