"""Random histories of a log, and random changes to their database by somebody who owns the file but holds no key.

What is checked is what an auditor does with a copy: `verify_database`, with the head that a witness kept. A change of
an entry counts as named where a finding points at it, alone or with the entries that share its tree node or its
transaction; a change of a node or a checkpoint, where a finding names that.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from analytics_client.audit import Report, verify_database
from analytics_server.store import Store
from harness.audit import INSTITUTIONS, ORIGIN, World
from protos.v1 import log_pb2
from trust.tlog import entries, merkle, notes
from trust.tlog.checkpoint import Checkpoint

Touched = Callable[[Report], bool]
"""Whether a report names what was changed."""


@dataclass
class Campaign:
    """What a campaign saw. `alone` counts changes of entries that were named down to the single entry."""

    tried: int = 0
    detected: int = 0
    named: int = 0
    alone: int = 0
    false_alarms: int = 0
    honest: int = 0
    missed: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass
class History:
    """An honest log in a closed file, and what somebody outside keeps of it."""

    path: Path
    governance_key: bytes
    kept: bytes
    size: int

    def verify(self, path: Path | None = None) -> Report:
        return verify_database(path or self.path, self.governance_key, checkpoints=[self.kept])


def make_history(folder: Path, template: Path, generator: Random, told: Callable[[History], None]) -> History:
    """Write an honest log of one to seven requests in random transactions, with witnesses now and then.

    `told` is given the log as it stands after every step: each of these is an honest history of its own.
    """
    path = Path(shutil.copy(template, folder / f"{generator.getrandbits(64):x}.sqlite"))
    world = World(Store.open(f"sqlite:///{path}"))
    world.begin()

    def now() -> History:
        return History(path, world.governance_key, world.checkpoints()[-1], len(world.entries()))

    for _ in range(generator.randint(1, 7)):
        world.query(denied_by=generator.choice(["", "", *INSTITUTIONS]), dataset=generator.choice(["patients", "labs"]))
        chance = generator.random()
        if chance < 0.4:
            world.witness(*generator.sample(INSTITUTIONS, generator.randint(1, 3)))
        elif chance < 0.5:
            world.publish()
        elif chance < 0.7:
            read = log_pb2.LogRead(what="everything", last=generator.randrange(50))
            world.append(*[log_pb2.LogEntry(actor="olga", log_read=read)] * generator.randint(1, 5))
        told(now())
    world.witness()
    made = now()
    world.store.close()
    told(made)
    return made


def tamper(history: History, copy: Path, generator: Random) -> tuple[str, Touched]:
    """Change one thing in a copy; return what, and how to see it named."""
    with closing(sqlite3.connect(copy)) as connection:
        drop_triggers(connection)
        kind, change = generator.choice(_CHANGES)
        touched = change(connection, history, generator)
        connection.commit()
    return kind, touched


def drop_triggers(connection: sqlite3.Connection) -> None:
    """Do what whoever owns the file can do before it changes a record."""
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")


def run(folder: Path, template: Path, *, changes: int, histories: int, seed: int) -> Campaign:
    """Verify `histories` honest histories, and `changes` changed copies of those that are complete."""
    generator = Random(seed)
    campaign = Campaign()
    copy = folder / "copy.sqlite"

    def honest(history: History) -> None:
        campaign.honest += 1
        campaign.false_alarms += not history.verify().ok

    while campaign.honest < histories or campaign.tried < changes:
        history = make_history(folder, template, generator, honest)
        for _ in range(min(changes - campaign.tried, changes * campaign.honest // histories - campaign.tried)):
            shutil.copy(history.path, copy)
            kind, touched = tamper(history, copy, generator)
            report = history.verify(copy)
            campaign.tried += 1
            campaign.kinds[kind] += 1
            campaign.detected += not report.ok
            campaign.named += touched(report)
            campaign.alone += any(f.first is not None and f.first == f.last for f in report.findings)
            if not touched(report):
                campaign.missed.append(f"{kind}: {report.findings[:3]}")
        history.path.unlink()
    return campaign


# --- what can be changed ---------------------------------------------------------------------------------------------


def _points_at(seqs: Iterable[int]) -> Touched:
    wanted = tuple(seqs)
    return lambda report: any(
        f.first is not None and f.last is not None and any(f.first <= seq <= f.last for seq in wanted)
        for f in report.findings
    )


def _says(*words: str) -> Touched:
    return lambda report: any(all(word in str(f) for word in words) for f in report.findings)


def _edit_entry(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    seq = generator.randrange(history.size)
    (leaf,) = connection.execute("SELECT leaf FROM audit_entry WHERE seq = ?", (seq,)).fetchone()
    if generator.random() < 0.5:
        forged = bytearray(leaf)
        forged[generator.randrange(len(leaf))] ^= 1 << generator.randrange(8)
        leaf = bytes(forged)
    else:
        entry = entries.decode(leaf)
        entry.actor = "mallory"
        leaf = entries.encode(entry)
    connection.execute("UPDATE audit_entry SET leaf = ? WHERE seq = ?", (leaf, seq))
    depth = generator.randrange(3)
    if depth == 1:
        connection.execute("UPDATE audit_entry SET leaf_hash = ? WHERE seq = ?", (merkle.leaf_hash(leaf), seq))
    elif depth == 2:
        _renumber(connection)
    return _points_at([seq])


def _edit_hash(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    seq = generator.randrange(history.size)
    connection.execute("UPDATE audit_entry SET leaf_hash = ? WHERE seq = ?", (generator.randbytes(32), seq))
    return _points_at([seq])


def _delete_entry(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    seq = generator.randrange(history.size)
    connection.execute("DELETE FROM audit_entry WHERE seq = ?", (seq,))
    if generator.random() < 0.5:
        _renumber(connection)
    return _points_at([seq])


def _insert_entry(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    at = generator.randrange(history.size + 1)
    rows = connection.execute("SELECT leaf FROM audit_entry ORDER BY seq").fetchall()
    made_up = log_pb2.LogEntry(at_ms=1 << 43, actor="mallory", log_read=log_pb2.LogRead(what="nothing"))
    leaf = generator.choice([entries.encode(made_up), rows[generator.randrange(len(rows))][0]])
    before = [row[0] for row in rows]
    after = [*before[:at], leaf, *before[at:]]
    _write(connection, after)
    # A copy put beside its equals could as well be the last of them.
    return _points_at([at, next(i for i, row in enumerate(after) if before[i : i + 1] != [row])])


def _reorder(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    leaves = [leaf for (leaf,) in connection.execute("SELECT leaf FROM audit_entry ORDER BY seq")]
    one, other = generator.sample([i for i, leaf in enumerate(leaves) if leaf != leaves[0]] + [0], 2)
    if leaves[one] == leaves[other]:
        one = 0
    leaves[one], leaves[other] = leaves[other], leaves[one]
    _write(connection, leaves)
    return _points_at([one, other])


def _replace_entry(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    leaves = [leaf for (leaf,) in connection.execute("SELECT leaf FROM audit_entry ORDER BY seq")]
    at = generator.randrange(len(leaves))
    leaves[at] = generator.choice([leaf for leaf in leaves if leaf != leaves[at]])
    if generator.random() < 0.5:
        _write(connection, leaves)
    else:
        connection.execute("UPDATE audit_entry SET leaf = ? WHERE seq = ?", (leaves[at], at))
    return _points_at([at])


def _truncate(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    sizes = [size for (size,) in connection.execute("SELECT size FROM checkpoint ORDER BY size")]
    size = generator.choice([*sizes[:-1], generator.randrange(1, history.size)])
    connection.execute("DELETE FROM audit_entry WHERE seq >= ?", (size,))
    if generator.random() < 0.7:  # cleanly: the copy alone is a log that is younger
        connection.execute("DELETE FROM audit_node WHERE ((idx + 1) << level) > ?", (size,))
        connection.execute("DELETE FROM cosignature WHERE size > ?", (size,))
        connection.execute("DELETE FROM checkpoint WHERE size > ?", (size,))
    return _points_at([size])


def _any_node(connection: sqlite3.Connection, generator: Random) -> tuple[int, int]:
    level, index = generator.choice(connection.execute("SELECT level, idx FROM audit_node").fetchall())
    return level, index


def _leaves_of(level: int, index: int) -> Touched:
    return _points_at(range(index << level, (index + 1) << level))


def _edit_node(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    node = _any_node(connection, generator)
    value = (generator.randbytes(32), *node)
    connection.execute("UPDATE audit_node SET hash = ? WHERE level = ? AND idx = ?", value)
    return _leaves_of(*node)


def _delete_node(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    node = _any_node(connection, generator)
    connection.execute("DELETE FROM audit_node WHERE level = ? AND idx = ?", node)
    return _leaves_of(*node)


def _insert_node(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    level = generator.randint(1, 9)
    (after,) = connection.execute("SELECT coalesce(max(idx), -1) FROM audit_node WHERE level = ?", (level,)).fetchone()
    index = after + generator.randint(1, 3)
    connection.execute("INSERT INTO audit_node VALUES (?, ?, ?)", (level, index, generator.randbytes(32)))
    return _says(f"tree node ({level}, {index})")


def _any_head(connection: sqlite3.Connection, generator: Random) -> tuple[int, bytes, bytes]:
    heads = connection.execute("SELECT size, root, note FROM checkpoint ORDER BY size").fetchall()
    size, root, note = generator.choice(heads)
    return size, root, note


def _edit_head(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    size, root, note = _any_head(connection, generator)
    field_ = generator.choice(["root", "note"])
    forged = bytearray(root if field_ == "root" else note)
    forged[generator.randrange(len(forged))] ^= 1 << generator.randrange(8)
    connection.execute(f"UPDATE checkpoint SET {field_} = ? WHERE size = ?", (bytes(forged), size))
    return lambda report: any("head" in str(f) or "checkpoint" in str(f) for f in report.findings)


def _replace_head(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    size, _, _ = _any_head(connection, generator)
    other = merkle.leaf_hash(generator.randbytes(8))
    mallory = notes.Signer(ORIGIN, World.__dataclass_fields__["log_key"].default_factory())  # type: ignore[misc]
    forged = notes.sign(Checkpoint(ORIGIN, size, other).text(), mallory)
    connection.execute("UPDATE checkpoint SET root = ?, note = ? WHERE size = ?", (other, forged, size))
    return _says(f"size {size}")


def _insert_head(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    sizes = {size for (size,) in connection.execute("SELECT size FROM checkpoint")}
    size = generator.choice([at for at in range(1, history.size + 20) if at not in sizes])
    root, note = generator.randbytes(32), _any_head(connection, generator)[2]
    connection.execute("INSERT INTO checkpoint VALUES (?, ?, ?)", (size, root, note))
    return _says(f"size {size}")


def _delete_last_head(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    size = history.size
    connection.execute("DELETE FROM cosignature WHERE size = ?", (size,))
    connection.execute("DELETE FROM checkpoint WHERE size = ?", (size,))
    return _says(f"size {size}", "not stored")


def _delete_cosigned_head(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    sizes = [size for (size,) in connection.execute("SELECT DISTINCT size FROM cosignature")]
    size = generator.choice(sizes)
    connection.execute("DELETE FROM checkpoint WHERE size = ?", (size,))
    return _says(f"size {size}")


def _edit_cosignature(connection: sqlite3.Connection, history: History, generator: Random) -> Touched:
    size, witness, line = generator.choice(connection.execute("SELECT size, witness, line FROM cosignature").fetchall())
    forged = bytearray(line.encode())
    forged[generator.randrange(len(forged))] ^= 1 << generator.randrange(7)
    text = forged.decode(errors="replace")
    connection.execute("UPDATE cosignature SET line = ? WHERE size = ? AND witness = ?", (text, size, witness))
    return _says(f"size {size}")


_CHANGES: list[tuple[str, Callable[[sqlite3.Connection, History, Random], Touched]]] = [
    ("edit entry", _edit_entry),
    ("edit leaf hash", _edit_hash),
    ("delete entry", _delete_entry),
    ("insert entry", _insert_entry),
    ("reorder entries", _reorder),
    ("replace entry", _replace_entry),
    ("truncate", _truncate),
    ("edit node", _edit_node),
    ("delete node", _delete_node),
    ("insert node", _insert_node),
    ("edit checkpoint", _edit_head),
    ("replace checkpoint", _replace_head),
    ("insert checkpoint", _insert_head),
    ("delete newest checkpoint", _delete_last_head),
    ("delete cosigned checkpoint", _delete_cosigned_head),
    ("edit cosignature", _edit_cosignature),
]


def _renumber(connection: sqlite3.Connection) -> None:
    _write(connection, [leaf for (leaf,) in connection.execute("SELECT leaf FROM audit_entry ORDER BY seq")])


def _write(connection: sqlite3.Connection, leaves: list[bytes]) -> None:
    """Write entries, hashes and nodes anew: everything that somebody without keys can make consistent."""
    connection.execute("DELETE FROM audit_entry")
    connection.execute("DELETE FROM audit_node")
    frontier = merkle.Frontier()
    for seq, leaf in enumerate(leaves):
        hashed = merkle.leaf_hash(leaf)
        connection.execute("INSERT INTO audit_entry VALUES (?, ?, ?)", (seq, leaf, hashed))
        for (level, index), value in frontier.append(hashed):
            connection.execute("INSERT INTO audit_node VALUES (?, ?, ?)", (level, index, value))
