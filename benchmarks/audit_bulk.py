"""Logs of millions of entries, made fast, and equal to what the product's own writer makes.

`build` writes the tables of a real store directly: triggers and secondary indexes out of the way, rows in order, then
both put back from their own definitions. `prove_equal` makes a small log both ways, with the same keys, and compares
every table row by row; the benchmark runs it before it believes the large one.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from analytics_server.audit.log import AuditLog
from analytics_server.store import Store, postings
from protos.v1 import agent_pb2, log_pb2
from trust.identity import keys, membership
from trust.tlog import entries, notes
from trust.tlog.checkpoint import Checkpoint
from trust.tlog.cosignature import Cosigner
from trust.tlog.merkle import Frontier
from trust.transcript import frame

ORIGIN, CONSORTIUM = "north/log", "north"
INSTITUTIONS = ("alpha", "beta", "gamma")
BATCH = 1000
"""Entries under one signed head."""
START_MS = 1_600_000_000_000
_ROW = attrgetter(*(field.name for field in fields(entries.Columns)))
_POSTED = [place for place, field in enumerate(fields(entries.Columns)) if field.name in postings.FIELDS]
_TABLES = ("audit_entry", "audit_node", "audit_index", "audit_posting", "checkpoint", "cosignature", "membership")


def _key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(b"bench %d" % number).digest())


GOVERNANCE, LOG_KEY = _key(0), _key(1)
IDENTITIES = {name: _key(2 + number) for number, name in enumerate(INSTITUTIONS)}


def document() -> membership.MembershipDocument:
    """The one membership of these logs."""
    institutions = []
    for name, key in IDENTITIES.items():
        epoch_key = keys.public_bytes(X25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()))
        signature = keys.sign_epoch_key(key, CONSORTIUM, name, epoch_key)
        institutions.append(
            membership.Institution(name, f"Hospital {name}", keys.public_bytes(key), epoch_key, signature)
        )
    payload = membership.build(
        consortium=CONSORTIUM,
        epoch=1,
        previous_hash=b"",
        issued_at=START_MS // 1000,
        institutions=institutions,
        people=[],
        log_key=keys.public_bytes(LOG_KEY),
        log_origin=ORIGIN,
        minimum_cohort=3,
        colluders=1,
    )
    return membership.verify(membership.sign(payload, GOVERNANCE), keys.public_bytes(GOVERNANCE))


def history(size: int, epoch: membership.MembershipDocument) -> Iterator[log_pb2.LogEntry]:
    """Give `size` entries: the membership, then requests of four entries; one in a thousand has a decision more."""
    generator = random.Random(11)
    at = START_MS
    made = 1
    yield log_pb2.LogEntry(
        at_ms=at,
        actor="governance",
        membership_published=log_pb2.MembershipPublished(epoch=1, membership_hash=epoch.hash),
    )
    number = 0
    while made < size:
        number += 1
        at += 5
        analyst = f"analyst{generator.randrange(200)}" if number % 400_000 else "seldom"
        dataset = f"dataset{generator.randrange(40)}" if number % 300_000 else "rare"
        events = _request(number, analyst, dataset, generator)
        for actor, event in events[: size - made]:
            at += 1
            yield log_pb2.LogEntry(at_ms=at, actor=actor, **event)
        made += min(len(events), size - made)


def _request(
    number: int, analyst: str, dataset: str, generator: random.Random
) -> list[tuple[str, dict[str, log_pb2.Requested | log_pb2.Decided | log_pb2.RoundEnded | log_pb2.Released]]]:
    request_id = sha256(b"request %d" % number).digest()
    asked = log_pb2.Requested(
        request_id=request_id,
        envelope_hash=generator.randbytes(32),
        analyst=analyst,
        purpose="sepsis study",
        dataset=dataset,
        shape="count(*), avg(age) by sex",
        rho_nano=1_000_000,
        minimum_cohort=3,
    )
    ended = log_pb2.RoundEnded(
        request_id=request_id,
        round_id=generator.randbytes(32),
        invited=INSTITUTIONS,
        roster=INSTITUTIONS,
        survivors=INSTITUTIONS,
        outcome="released",
    )
    released = log_pb2.Released(
        request_id=request_id, release_hash=generator.randbytes(32), mechanism="discrete gaussian", rho_nano=1_000_000,
        survivors=3,
    )  # fmt: skip
    name = INSTITUTIONS[number % 3]
    found: list[tuple[str, dict[str, object]]] = [(analyst, {"requested": asked})]
    if number % 1000 == 0:
        found.append((name, {"decided": _decided(request_id, name)}))
    found += [("coordinator", {"round_ended": ended}), ("coordinator", {"released": released})]
    read = log_pb2.LogRead(what="everything", first=0, last=number)
    found.append((f"auditor{number % 7}", {"log_read": read}))
    return found  # type: ignore[return-value]


def _decided(request_id: bytes, name: str) -> log_pb2.Decided:
    decision = agent_pb2.Decision(institution=name, request_id=request_id, allowed=True, rule="r").SerializeToString(
        deterministic=True
    )
    signature = IDENTITIES[name].sign(frame("decision", decision))
    statement = agent_pb2.Answer(decision=decision, signature=signature).SerializeToString(deterministic=True)
    return log_pb2.Decided(request_id=request_id, institution=name, allowed=True, rule="r", statement=statement)


def build(path: Path, size: int) -> None:
    """Make a store of `size` entries in a new SQLite file; every BATCH entries are under a head with a cosignature."""
    Store.create(f"sqlite:///{path}").close()
    epoch = document()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous=OFF", "journal_mode=OFF", "cache_size=-400000", "temp_store=FILE"):
            connection.execute(f"PRAGMA {pragma}").close()
        laid_aside = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE type = 'trigger' OR (type = 'index' AND sql IS NOT NULL)"
        ).fetchall()
        connection.execute("BEGIN")
        for kind, name, _ in laid_aside:
            connection.execute(f"DROP {kind} {name}")
        connection.execute("INSERT INTO membership VALUES (1, ?, ?)", (epoch.hash, epoch.envelope))
        _fill(connection, history(size, epoch), size)
        for _, _, sql in laid_aside:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL").close()


def _fill(connection: sqlite3.Connection, stream: Iterator[log_pb2.LogEntry], size: int) -> None:
    frontier = Frontier()
    signer, cosigner = notes.Signer(ORIGIN, LOG_KEY), Cosigner("alpha", IDENTITIES["alpha"])
    asked: dict[str, tuple[str, str, str]] = {}
    recent: list[tuple[int, list[str]]] = []
    posted: list[tuple[str, str, int, bytes]] = []
    for first in range(0, size, BATCH):
        leaves, nodes, index = [], [], []
        for seq in range(first, min(first + BATCH, size)):
            entry = next(stream)
            leaf = entries.encode(entry)
            hashed = sha256(b"\0" + leaf).digest()
            leaves.append((seq, leaf, hashed))
            nodes += [(level, place, value) for (level, place), value in frontier.append(hashed)]
            row = list(_ROW(entries.columns(entry)))
            if row[7]:
                if row[1] == "requested":
                    asked = {row[7]: (row[3], row[4], row[5])}
                row[3:6] = asked[row[7]]
            index.append((seq, *row))
            recent.append((seq, [row[place] for place in _POSTED]))
            if seq % postings.BLOCK == postings.BLOCK - 1:
                block = seq // postings.BLOCK
                lists = postings.of_block(recent)
                posted += [(field, value, block, places) for (field, value), places in lists.items()]
                recent = []
        connection.executemany("INSERT INTO audit_entry VALUES (?, ?, ?)", leaves)
        connection.executemany("INSERT INTO audit_node VALUES (?, ?, ?)", sorted(nodes))
        connection.executemany(f"INSERT INTO audit_index VALUES ({', '.join('?' * 11)})", index)
        head = Checkpoint(ORIGIN, frontier.size, frontier.root())
        connection.execute(
            "INSERT INTO checkpoint VALUES (?, ?, ?)", (head.size, head.root, notes.sign(head.text(), signer))
        )
        line = str(cosigner.sign(head.text(), START_MS // 1000))
        connection.execute("INSERT INTO cosignature VALUES (?, 'alpha', ?)", (head.size, line))
    connection.executemany("INSERT INTO audit_posting VALUES (?, ?, ?, ?)", sorted(posted))


def build_slowly(path: Path, size: int) -> None:
    """Make the same log with the product's own writer."""
    store = Store.create(f"sqlite:///{path}")
    log = AuditLog(store, notes.Signer(ORIGIN, LOG_KEY), ORIGIN)
    epoch = document()
    with store.begin() as uow:
        uow.add_membership(epoch.epoch, epoch.hash, epoch.envelope)
    stream = history(size, epoch)
    cosigner = Cosigner("alpha", IDENTITIES["alpha"])
    for first in range(0, size, BATCH):
        log.append([next(stream) for _ in range(first, min(first + BATCH, size))])
        with store.begin() as uow:
            head = log.head(uow)
            line = str(cosigner.sign(notes.parse(head.note).text, START_MS // 1000))
            log.add_cosignature(uow, head.size, "alpha", cosigner.verifier.public_key, line)
    store.close()


def prove_equal(folder: Path, size: int = 20_500) -> None:
    """Raise AssertionError unless both ways make the same tables, and the same definitions of them."""
    quick, slow = folder / "quick.sqlite", folder / "slow.sqlite"
    build(quick, size)
    build_slowly(slow, size)
    with closing(sqlite3.connect(quick)) as one, closing(sqlite3.connect(slow)) as other:
        for table in _TABLES:
            rows = f"SELECT * FROM {table} ORDER BY 1, 2, 3"
            assert one.execute(rows).fetchall() == other.execute(rows).fetchall(), table
        definitions = "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2"
        assert one.execute(definitions).fetchall() == other.execute(definitions).fetchall()
