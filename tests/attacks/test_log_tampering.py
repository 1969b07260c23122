"""Whatever is changed in a copy of the log is found, and named as narrowly as the signed heads allow."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.audit import INSTITUTIONS, ORIGIN, World, new_world

from analytics_client.audit import Entry, Report, verify, verify_database
from analytics_server.audit.log import AuditLog
from analytics_server.store import Store
from protos.v1 import log_pb2
from queries.errors import LogError
from trust.tlog import entries, merkle, notes
from trust.tlog.checkpoint import Checkpoint

pytestmark = pytest.mark.sqlite_files("its file is edited")

TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger'"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = new_world(tmp_path_factory.mktemp("honest"), queries=5)
    made.query()  # after the last cosignature
    with closing(sqlite3.connect(database(made))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return made


def database(world: World) -> Path:
    found = world.store._url.database
    assert found is not None
    return Path(found)


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    return Path(shutil.copy(database(world), tmp_path / "copy.sqlite"))


def tamper(path: Path, *statements: str | tuple[str, tuple[object, ...]]) -> None:
    """Write as the file's owner does: without triggers."""
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute(TRIGGERS).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(*((statement,) if isinstance(statement, str) else statement))
        connection.commit()


def rebuild(path: Path) -> None:
    """Recompute leaf hashes and nodes over the edited leaves: everything an adversary without keys can do."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        leaves = [leaf for (leaf,) in connection.execute("SELECT leaf FROM audit_entry ORDER BY seq").fetchall()]
        connection.execute("DELETE FROM audit_entry")
        connection.execute("DELETE FROM audit_node")
        frontier = merkle.Frontier()
        for seq, leaf in enumerate(leaves):
            hashed = merkle.leaf_hash(leaf)
            connection.execute("INSERT INTO audit_entry VALUES (?, ?, ?)", (seq, leaf, hashed))
            for (level, index), value in frontier.append(hashed):
                connection.execute("INSERT INTO audit_node VALUES (?, ?, ?)", (level, index, value))
        connection.commit()


def check(world: World, path: Path) -> Report:
    return verify_database(path, world.governance_key)


def batch_of(world: World, seq: int) -> tuple[int, int]:
    """First and last entry of the transaction that appended an entry."""
    sizes = [0, *(int(note.split(b"\n")[1]) for note in world.checkpoints())]
    after = next(size for size in sizes if size > seq)
    return max(size for size in sizes if size <= seq), after - 1


def test_honest_copy_verifies(world: World, copy: Path) -> None:
    report = check(world, copy)
    assert report.findings == ()
    assert report.size == len(world.entries())
    assert report.heads == len(world.checkpoints())
    assert set(report.witnesses) == set(INSTITUTIONS)
    assert report.statements == 6 * len(INSTITUTIONS)
    assert "VERIFIED" in report.text()
    report.require()


@pytest.mark.parametrize("seq", [0, 1, 2, 7, 12, -1])
def test_edited_leaf_is_named(world: World, copy: Path, seq: int) -> None:
    seq %= len(world.entries())
    tamper(copy, f"UPDATE audit_entry SET leaf = leaf || x'5000' WHERE seq = {seq}")
    report = check(world, copy)
    assert (report.findings[0].first, report.findings[0].last) == (seq, seq)
    with pytest.raises(LogError, match=f"entry {seq}: "):
        report.require()
    assert f"entry {seq}: " in report.text()


@pytest.mark.parametrize("seq", [2, 3, 6, 13])
def test_edited_leaf_with_its_hash_is_narrowed_by_nodes_and_heads(world: World, copy: Path, seq: int) -> None:
    leaf = world.entries()[seq][1] + b"\x50\x00"
    tamper(copy, ("UPDATE audit_entry SET leaf = ?, leaf_hash = ? WHERE seq = ?", (leaf, merkle.leaf_hash(leaf), seq)))
    finding = check(world, copy).findings[0]
    assert finding.first is not None
    assert finding.last is not None
    assert finding.first <= seq <= finding.last
    assert finding.last - finding.first <= 1


@pytest.mark.parametrize("seq", [0, 1, 2, 3, 4, 5, 6, 7, 13, -1])
def test_edited_leaf_with_the_whole_tree_rebuilt_is_narrowed_to_its_transaction(
    world: World, copy: Path, seq: int
) -> None:
    seq %= len(world.entries())
    tamper(copy, f"UPDATE audit_entry SET leaf = leaf || x'5000' WHERE seq = {seq}")
    rebuild(copy)
    findings = [f for f in check(world, copy).findings if "do not give the root" in f.text]
    assert [(f.first, f.last) for f in findings] == [batch_of(world, seq)]


@pytest.mark.parametrize("seq", [0, 2, 7, 12])
def test_deleted_entry_is_named(world: World, copy: Path, seq: int) -> None:
    tamper(copy, f"DELETE FROM audit_entry WHERE seq = {seq}")
    finding = check(world, copy).findings[0]
    assert (finding.first, finding.last, finding.text) == (seq, seq, "missing from the log")


def test_removed_denial_with_everything_renumbered_is_found(world: World, copy: Path) -> None:
    denial = next(seq for seq, leaf in world.entries() if entries.columns(entries.decode(leaf)).outcome == "denied")
    tamper(
        copy,
        f"DELETE FROM audit_entry WHERE seq = {denial}",
        *(f"UPDATE audit_entry SET seq = {n - 1} WHERE seq = {n}" for n in range(denial + 1, len(world.entries()))),
    )
    rebuild(copy)
    report = check(world, copy)
    first, last = batch_of(world, denial)
    assert any((f.first, f.last) == (first, last) for f in report.findings)


def test_swapped_entries_are_found(world: World, copy: Path) -> None:
    tamper(
        copy,
        "UPDATE audit_entry SET seq = -1 WHERE seq = 3",
        "UPDATE audit_entry SET seq = 3 WHERE seq = 4",
        "UPDATE audit_entry SET seq = 4 WHERE seq = -1",
    )
    rebuild(copy)
    findings = check(world, copy).findings
    assert any(f.first is not None and f.first <= 3 <= (f.last or 0) for f in findings)
    assert (findings[0].first, findings[0].text) == (4, "is dated before the entry above it")


def test_entry_added_at_the_end_is_under_no_head(world: World, copy: Path) -> None:
    size = len(world.entries())
    leaf = entries.encode(log_pb2.LogEntry(at_ms=1 << 45, actor="eve", log_read=log_pb2.LogRead()))
    tamper(copy, ("INSERT INTO audit_entry VALUES (?, ?, ?)", (size, leaf, merkle.leaf_hash(leaf))))
    rebuild(copy)
    finding = check(world, copy).findings[0]
    assert (finding.first, finding.text) == (size, "under no signed head")


def test_truncated_log_lacks_what_its_heads_signed(world: World, copy: Path) -> None:
    size = len(world.entries())
    tamper(copy, f"DELETE FROM audit_entry WHERE seq >= {size - 3}")
    rebuild(copy)
    assert any(f.last == size - 1 and "missing" in f.text for f in check(world, copy).findings)


def test_log_truncated_with_its_heads_is_betrayed_by_a_head_kept_elsewhere(world: World, copy: Path) -> None:
    kept = world.checkpoints()[-1]
    first, last = batch_of(world, len(world.entries()) - 1)
    tamper(
        copy,
        f"DELETE FROM audit_entry WHERE seq >= {first}",
        f"DELETE FROM cosignature WHERE size > {first}",
        f"DELETE FROM checkpoint WHERE size > {first}",
    )
    rebuild(copy)
    assert check(world, copy).ok, "without a head from elsewhere a clean truncation cannot be seen"
    finding = verify_database(copy, world.governance_key, checkpoints=[kept]).findings[0]
    assert (finding.first, finding.last) == (first, last)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_node SET hash = randomblob(32) WHERE level = 1 AND idx = 2",
        "UPDATE audit_node SET hash = 'text' WHERE level = 2 AND idx = 0",
        "DELETE FROM audit_node WHERE level = 1 AND idx = 0",
        "INSERT INTO audit_node VALUES (1, 100000, x'00')",
        "INSERT INTO audit_node VALUES (60, 0, x'00')",
        "UPDATE checkpoint SET root = randomblob(32) WHERE size = 1",
        "UPDATE checkpoint SET note = 'none' WHERE size = 1",
        "UPDATE checkpoint SET note = x'ff' WHERE size = 1",
        "UPDATE checkpoint SET note = replace(CAST(note AS TEXT), 'north', 'south') WHERE size = 2",
        "UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE size = 2) WHERE size = 1",
        "UPDATE audit_entry SET seq = 5000 WHERE seq = 5",
        "UPDATE audit_entry SET leaf_hash = randomblob(32) WHERE seq = 5",
        "UPDATE audit_entry SET leaf = 12.5 WHERE seq = 5",
        "UPDATE membership SET envelope = x'00'",
        "DELETE FROM membership",
    ],
)
def test_every_other_edit_is_found(world: World, copy: Path, statement: str) -> None:
    tamper(copy, statement)
    assert not check(world, copy).ok


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        # As many rows as there have to be, each with the right hash where it stands: one twice, another not at all.
        (["UPDATE audit_node SET idx = 2 WHERE level = 1 AND idx = 3"], "tree node (1, 2) is not theirs"),
        (
            [
                "DELETE FROM audit_node WHERE level = 1 AND idx = 3",
                "INSERT INTO audit_node SELECT * FROM audit_node WHERE level = 1 AND idx = 2",
            ],
            "tree node (1, 3) is not theirs",
        ),
        (["UPDATE audit_node SET idx = 3.5 WHERE level = 1 AND idx = 3"], "tree node (1, 3) is not theirs"),
    ],
)
def test_nodes_in_a_table_without_a_key_are_counted_once(
    world: World, copy: Path, statements: list[str], says: str
) -> None:
    tamper(
        copy,
        "CREATE TABLE other (level, idx, hash)",
        "INSERT INTO other SELECT * FROM audit_node ORDER BY level, idx",
        "DROP TABLE audit_node",
        "ALTER TABLE other RENAME TO audit_node",
    )
    assert check(world, copy).ok  # without a key: nothing else is wrong
    tamper(copy, *statements)
    assert any(says in f.text for f in check(world, copy).findings)


def test_hash_that_is_stored_as_text_is_what_its_bytes_are(world: World, copy: Path) -> None:
    tamper(copy, "UPDATE audit_entry SET leaf_hash = CAST(leaf_hash AS TEXT) WHERE seq = 5")
    assert check(world, copy).ok
    tamper(copy, "UPDATE audit_entry SET leaf_hash = CAST(leaf_hash AS TEXT) || 'x' WHERE seq = 5")
    assert [(f.first, f.last) for f in check(world, copy).findings] == [(5, 5)]


def test_cosignature_of_another_head_is_found(world: World, copy: Path) -> None:
    largest = max(int(n.split(b"\n")[1]) for n in world.checkpoints())
    tamper(copy, f"UPDATE cosignature SET size = {largest}")
    assert any("the signature of witness" in f.text for f in check(world, copy).findings)


def test_random_edits_are_all_found_and_named(world: World) -> None:
    """In memory, on what an export holds: edit, delete, insert, move, truncate; any entry."""
    honest = [Entry(*row) for row in world.entries()]
    heads = world.checkpoints()
    rng = random.Random(20)
    edits: list[Callable[[list[Entry], int], None]] = [
        lambda e, i: e.__setitem__(i, Entry(i, bytes([e[i].leaf[0] ^ 1]) + e[i].leaf[1:])),
        lambda e, i: e.__delitem__(i),
        lambda e, i: e.insert(i, Entry(i, e[i].leaf)),
        lambda e, i: e.__setitem__(i, Entry(i, e[(i + 1) % len(e)].leaf)),
        lambda e, i: e.__delitem__(slice(i, None)),
    ]
    for _ in range(300):
        changed = list(honest)
        at = rng.randrange(len(honest))
        edit = rng.choice(edits)
        edit(changed, at)
        named = {at, at + 1} if edit is edits[2] else {at}  # a copy before an entry is the same as one behind it
        if rng.random() < 0.5:
            changed = [Entry(seq, entry.leaf) for seq, entry in enumerate(changed)]
        report = verify(changed, None, world.memberships, world.governance_key, checkpoints=heads)
        assert any(f.first is not None and f.first <= seq <= (f.last or 0) for f in report.findings for seq in named), (
            report.text()
        )


def test_log_rewritten_and_signed_again_by_its_own_keeper_is_betrayed_by_a_cosigned_head(
    world: World, tmp_path: Path
) -> None:
    """The coordinator's own key signs a history without the denial; a witness's head says otherwise."""
    honest = [entries.decode(leaf) for _, leaf in world.entries()]
    witnessed = world.checkpoints()[-7:]
    store = Store.create(f"sqlite:///{tmp_path / 'forged.sqlite'}")
    forged = AuditLog(store, notes.Signer(ORIGIN, world.log_key), ORIGIN)
    with store.begin() as uow:
        for document in world.documents:
            uow.add_membership(document.epoch, document.hash, document.envelope)
    for entry in honest:
        if entry.WhichOneof("event") == "decided" and not entry.decided.allowed:
            continue
        forged.append([entry])
    store.close()
    path = tmp_path / "forged.sqlite"
    assert verify_database(path, world.governance_key).ok, "its own heads agree with a forgery"
    report = verify_database(path, world.governance_key, checkpoints=witnessed)
    finding = next(f for f in report.findings if "rewritten by the log's own keeper" in f.text)
    denial = next(n for n, e in enumerate(honest) if e.WhichOneof("event") == "decided" and not e.decided.allowed)
    assert (finding.first or 0) <= denial <= (finding.last or 0), "heads it signed again narrow nothing"


def test_made_up_decision_is_named(world: World, tmp_path: Path) -> None:
    """The coordinator logs an approval that the institution never gave."""
    other = World(
        Store.create(f"sqlite:///{tmp_path / 'state.sqlite'}"),
        governance=world.governance,
        log_key=world.log_key,
        identities=world.identities,
    )
    other.begin()
    true = other.decision(b"r" * 32, "alpha", False)
    lie = other.decision(b"r" * 32, "alpha", False)
    lie.decided.allowed = True
    stolen = other.decision(b"r" * 32, "alpha", True)
    stolen.decided.statement = other.decision(b"r" * 32, "beta", True).decided.statement
    other.identities["alpha"], keep = other.identities["beta"], other.identities["alpha"]
    unsigned = other.decision(b"r" * 32, "alpha", True)
    other.identities["alpha"] = keep
    bare = other.decision(b"r" * 32, "alpha", True)
    bare.decided.statement = b""
    seq = other.append(true, lie, stolen, unsigned, bare)
    report = verify(
        [Entry(*row) for row in other.entries()],
        other.checkpoints()[-1],
        other.memberships,
        other.governance_key,
        checkpoints=other.checkpoints(),
    )
    assert [(f.first, f.text) for f in report.findings] == [
        (seq + 1, "records another decision than alpha signed"),
        (seq + 2, "records another decision than alpha signed"),
        (seq + 3, "the decision is not signed by alpha"),
        (seq + 4, "records a decision of alpha without its signed statement"),
    ]


def test_heads_of_an_imposter_do_not_count(world: World) -> None:
    honest = [Entry(*row) for row in world.entries()]
    head = Checkpoint(ORIGIN, 3, bytes(32))
    forged = notes.sign(head.text(), notes.Signer(ORIGIN, world.governance))
    report = verify(honest, None, world.memberships, world.governance_key, checkpoints=[*world.checkpoints(), forged])
    assert [str(f) for f in report.findings] == ["the head of size 3 is not signed by the log's key"]


def test_membership_that_governance_did_not_sign_is_found(world: World) -> None:
    honest = [Entry(*row) for row in world.entries()]
    report = verify(honest, None, world.memberships, bytes(32), checkpoints=world.checkpoints())
    assert any("does not verify" in f.text for f in report.findings)
    assert report.epochs == ()


def test_head_that_covers_less_than_the_log_is_said(world: World) -> None:
    honest = [Entry(*row) for row in world.entries()]
    report = verify(honest, world.checkpoints()[2], world.memberships, world.governance_key)
    assert any("under no signed head" in f.text for f in report.findings)
    assert any("does not cover the whole log" in f.text for f in report.findings)


def test_rotated_log_key_verifies_and_the_old_one_no_longer_does(tmp_path: Path) -> None:
    made = new_world(tmp_path, queries=1)
    old = made.log
    made.log_key = Ed25519PrivateKey.generate()
    made.log = AuditLog(made.store, notes.Signer(ORIGIN, made.log_key), ORIGIN)
    made.publish()
    made.query()
    heads = made.checkpoints()
    rows = [Entry(*row) for row in made.entries()]
    assert verify(rows, heads[-1], made.memberships, made.governance_key, checkpoints=heads).ok
    made.log = old
    made.query()
    rows, heads = [Entry(*row) for row in made.entries()], made.checkpoints()
    report = verify(rows, heads[-1], made.memberships, made.governance_key, checkpoints=heads)
    assert any("is not signed by the log's key" in f.text for f in report.findings)


def test_back_dated_entry_is_named_even_where_the_keeper_signed_it(world: World) -> None:
    leaves = world.entries()
    entry = entries.decode(leaves[-1][1])
    entry.at_ms -= 3_600_000
    appended = [Entry(*row) for row in leaves] + [Entry(len(leaves), entries.encode(entry))]
    tree = merkle.Frontier()
    for row in appended:
        tree.append(merkle.leaf_hash(row.leaf))
    head = notes.sign(Checkpoint(ORIGIN, tree.size, tree.root()).text(), notes.Signer(ORIGIN, world.log_key))
    report = verify(appended, head, world.memberships, world.governance_key, checkpoints=world.checkpoints())
    assert [(f.first, f.text) for f in report.findings] == [(len(leaves), "is dated before the entry above it")]
