"""Old entries move into sealed files, and go when their time is over; every proof stays what it was."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from harness import sealer
from harness.audit import INSTITUTIONS, ORIGIN, World

from analytics_server.audit import sealing
from analytics_server.audit.fsck import Report, fsck
from analytics_server.store import ShardRow, Store
from queries.errors import ConfigError, LogError, ServiceError
from trust.identity import keys
from trust.tlog.entries import decode
from trust.tlog.merkle import leaf_hash, verify_consistency, verify_inclusion

DAY_MS = 86_400_000
SEALER = Path(sealer.__file__)


@pytest.fixture
def world(store_url: str, tmp_path: Path) -> Iterator[World]:
    """Five days of requests, each witnessed at its end but the last."""
    Store.create(store_url).close()
    made = World(Store.open(store_url, tmp_path / "shards"))
    made.begin()
    for day in range(5):
        for number in range(3):
            made.query(denied_by="beta" if number % 2 else "", dataset=("patients", "labs")[number % 2])
        if day < 4:
            made.witness()
        made.now_ms += DAY_MS
    yield made
    made.store.close()


def seal(world: World, *, days: float) -> ShardRow | None:
    """Seal what is older than so many days, counted from the end of the fixture's history."""
    before = world.now_ms - int(days * DAY_MS)
    return sealing.seal(world.store, world.log, before_ms=before, now_ms=world.now_ms)


def expire(world: World, *, days: float) -> list[ShardRow]:
    before = world.now_ms - int(days * DAY_MS)
    return sealing.expire(world.store, world.log, before_ms=before, now_ms=world.now_ms)


def check(world: World) -> Report:
    return fsck(
        world.store, origin=ORIGIN, log_key=keys.public_bytes(world.log_key), governance_key=world.governance_key
    )


def counted(world: World, table: str) -> int:
    with world.store.read() as uow:
        return int(uow._connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar() or 0)


def check_proofs(world: World, kept: list[tuple[int, bytes]], first: int, roots: dict[int, bytes]) -> None:
    """Prove some kept entries under some heads of `roots` that hold them, and these heads under the newest one."""
    newest, drawn = max(roots), Random(len(kept))
    some = sorted({min(roots), newest, *drawn.sample(sorted(roots), min(6, len(roots)))})
    with world.store.read() as uow:
        for size, root in ((size, roots[size]) for size in some):
            assert uow.root(size) == root
            proof = uow.consistency(size, newest)
            verify_consistency(size, root, newest, roots[newest], proof)
            here = kept[first:size]
            for seq, leaf in [*here[:1], *here[-1:], *drawn.sample(here, min(6, len(here)))]:
                assert uow.leaf(seq) == leaf
                verify_inclusion(leaf_hash(leaf), seq, size, uow.inclusion(seq, size), root)


def heads(world: World) -> dict[int, bytes]:
    with world.store.read() as uow:
        return {head.size: head.root for head in uow.checkpoints(1, 10_000)}


def test_sealed_entries_are_read_searched_and_proved_as_before(world: World) -> None:
    before, notes, roots = world.entries(), world.checkpoints(), heads(world)
    labs = find(world, dataset="labs")
    sealed = seal(world, days=2.5)
    assert sealed is not None
    assert (sealed.first, 0 < sealed.end < len(before)) == (0, True)
    assert counted(world, "audit_entry") == len(world.entries()) - sealed.end
    assert world.entries()[:-1] == before
    assert world.checkpoints()[: len(notes)] == notes
    assert find(world, dataset="labs") == labs
    check_proofs(world, before, 0, roots)
    second = seal(world, days=1.5)
    assert second is not None
    assert second.first == sealed.end
    world.query()
    world.witness()
    check_proofs(world, world.entries(), 0, heads(world))
    assert seal(world, days=1.5) is None
    report = check(world)
    assert report.findings == ()
    assert report.size == len(world.entries())
    with world.store.begin() as uow:
        assert uow.rebuild_index() == len(world.entries()) or uow.tree_size()
    assert find(world, dataset="labs")[: len(labs)] == labs


def find(world: World, **filters: str) -> list[int]:
    with world.store.read() as uow:
        return [row.seq for row in uow.leaves(0, 10_000, **filters)]


def test_expired_shard_leaves_a_log_that_verifies(world: World) -> None:
    first, second = seal(world, days=3.5), seal(world, days=2.5)
    assert first is not None
    assert second is not None
    kept, roots = world.entries(), heads(world)
    assert expire(world, days=4.1) == []
    assert [shard.end for shard in expire(world, days=3.5)] == [first.end]
    assert not (world.store.shards / first.file).exists()
    assert world.entries()[0][0] == first.end
    check_proofs(world, kept, first.end, {size: root for size, root in roots.items() if size >= first.end})
    with world.store.read() as uow:
        with pytest.raises(LogError, match=r"entries 0 to \d+ were deleted after their time, on 20"):
            uow.leaf(0)
        with pytest.raises(LogError, match="deleted after their time"):
            uow.inclusion(0)
    report = check(world)
    assert report.findings == ()
    assert expire(world, days=-1) != []
    assert expire(world, days=-1) == []
    world.query()
    report = check(world)
    assert report.findings == ()
    assert world.entries()[0][0] == second.end


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_what_may_not_be_sealed(world: World) -> None:
    assert seal(world, days=5.1) is None  # nothing that old is cosigned
    with world.store.begin() as uow:
        uow.add_request(request_id=b"runs", analyst="a", dataset="d", envelope=b"", expires_at=1)
    ended = len(world.entries())
    with world.store.read() as uow:
        asked = uow.leaves(0, 1, kind="requested")[0].seq
    assert asked < ended
    sealed = seal(world, days=-1)
    assert sealed is not None
    with world.store.read() as uow:
        assert sealed.end == uow.cosigned_size(ended)  # not the last day: nobody has cosigned it


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_running_request_stays_in_the_tables(world: World) -> None:
    with world.store.read() as uow:
        third = uow.leaves(0, 9, kind="requested")[6]
    with world.store.begin() as uow:
        request_id = decode(third.leaf).requested.request_id
        uow._connection.execute(sa.text("DROP TRIGGER IF EXISTS request_update" + on(uow._connection, "request")))
        uow._connection.execute(
            sa.text("UPDATE request SET state = 'running' WHERE request_id = :id"), {"id": request_id}
        )
    sealed = seal(world, days=0)
    assert sealed is not None
    assert sealed.end <= third.seq


def on(connection: sa.Connection, table: str) -> str:
    return "" if connection.dialect.name == "sqlite" else f" ON {table}"


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_absent_file_is_named_and_the_rest_goes_on(world: World) -> None:
    sealed = seal(world, days=2.5)
    assert sealed is not None
    path = world.store.shards / sealed.file
    path.rename(path.with_suffix(".away"))
    with world.store.read() as uow:
        with pytest.raises(LogError, match=f"{sealed.file}, which is not here"):
            uow.leaf(0)
        assert uow.consistency(sealed.end, uow.tree_size())
        assert uow.leaf(sealed.end)
    world.query()
    report = check(world)
    assert [(f.first, f.last) for f in report.findings] == [(0, sealed.end - 1)]
    path.with_suffix(".away").rename(path)
    assert check(world).findings == ()


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_the_newest_entries_are_kept(world: World) -> None:
    with world.store.read() as uow:
        cosigned = sorted(
            {head.size for head in uow.checkpoints(1, 10_000) if uow.cosigned_size(head.size) == head.size}
        )
        size = uow.tree_size()
    keep = size - cosigned[1]  # one entry more could not be moved: the head before ends the shard
    for number, end in ((size, None), (keep + 1, cosigned[0]), (keep, cosigned[1]), (keep, None)):
        sealed = sealing.seal(world.store, world.log, keep=number, now_ms=world.now_ms)
        assert (sealed.end if sealed else None) == end, number
    with world.store.read() as uow:
        oldest_day = uow.first_since(world.now_ms - 3 * DAY_MS)
    sealed = sealing.seal(world.store, world.log, before_ms=world.now_ms - 3 * DAY_MS, keep=0, now_ms=world.now_ms)
    assert sealed is None or sealed.end <= oldest_day
    assert check(world).findings == ()


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_another_seal_waits(world: World) -> None:
    with sealing._alone(world.store.shards), pytest.raises(ConfigError, match="another process seals"):
        seal(world, days=2.5)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_folder_that_cannot_be_written(world: World) -> None:
    world.store.shards.write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="cannot open"):
        seal(world, days=2.5)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_full_disk_while_sealing_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.entries()

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("analytics_server.store.shard_file._sync", full)
    with pytest.raises(ServiceError, match="nothing was lost"):
        seal(world, days=2.5)
    monkeypatch.undo()
    assert world.entries() == before
    assert counted(world, "audit_entry") == len(before)
    assert seal(world, days=2.5) is not None


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_damaged_store_is_not_sealed(world: World) -> None:
    with world.store._engine.begin() as connection:
        for table in ("audit_entry",):
            connection.execute(sa.text(f"DROP TRIGGER {table}_update{on(connection, table)}"))
        connection.execute(sa.text("UPDATE audit_entry SET leaf = :x WHERE seq = 3"), {"x": b"forged"})
    with pytest.raises(LogError, match="entry 3: its bytes do not have the hash"):
        seal(world, days=2.5)
    assert counted(world, "audit_entry") == len(world.entries())


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE audit_entry SET leaf = x'00' WHERE seq = 5", (5, 5)),
        ("UPDATE audit_entry SET leaf_hash = zeroblob(32) WHERE seq = 5", (5, 5)),
        ("DELETE FROM audit_entry WHERE seq = 5", (5, 5)),
        ("UPDATE audit_node SET hash = zeroblob(32) WHERE level = 2 AND idx = 1", (4, 7)),
        ("DELETE FROM audit_node WHERE level = 1 AND idx = 2", (4, 5)),
        ("UPDATE checkpoint SET root = zeroblob(32) WHERE size = 2", None),
        ("DELETE FROM cosignature", None),
    ],
)
def test_changed_file_is_found_and_the_entry_named(world: World, statement: str, named: tuple[int, int] | None) -> None:
    sealed = seal(world, days=2.5)
    assert sealed is not None
    path = world.store.shards / sealed.file
    path.chmod(0o600)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    found = [(f.first, f.last) for f in check(world).findings]
    assert (0, sealed.end - 1) in found, "the file is not the one that was sealed"
    assert named is None or named in found


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_forged_records_of_shards_are_found(world: World) -> None:
    first, second = seal(world, days=3.5), seal(world, days=2.5)
    assert first is not None
    assert second is not None
    path = world.store.shards / second.file
    forged = path.read_bytes()[:-1] + b"x"
    path.chmod(0o600)
    path.write_bytes(forged)

    def write(statement: str, **values: object) -> None:
        with world.store._engine.begin() as connection:
            connection.execute(sa.text(f"DROP TRIGGER IF EXISTS shard_update{on(connection, 'shard')}"))
            connection.execute(sa.text(statement), values)

    write("UPDATE shard SET file_hash = :h WHERE end_seq = :e", h=hashlib.sha256(forged).digest(), e=second.end)
    assert any("no entry says that this shard was sealed" in f.text for f in check(world).findings)
    write("UPDATE shard SET file_hash = :h, root = :h WHERE end_seq = :e", h=b"r" * 32, e=second.end)
    assert any("is not the one that was signed" in f.text for f in check(world).findings)
    write("UPDATE shard SET peaks = :h WHERE end_seq = :e", h=b"r" * 7, e=second.end)
    assert any("is not the one that was signed" in f.text for f in check(world).findings)
    write("UPDATE shard SET root = :r, expired_at = 1 WHERE end_seq = :e", r=second.root, e=second.end)
    assert any("no entry says that the time of this shard is over" in f.text for f in check(world).findings)


def test_database_lets_only_sealed_rows_go(world: World) -> None:
    sealed = seal(world, days=2.5)
    assert sealed is not None
    size = len(world.entries())
    for statement in (
        f"DELETE FROM audit_entry WHERE seq = {sealed.end}",
        f"DELETE FROM audit_entry WHERE seq = {size - 1}",
        f"DELETE FROM audit_node WHERE (idx + 1) << level > {sealed.end}",
        f"DELETE FROM checkpoint WHERE size > {sealed.end}",
        f"DELETE FROM cosignature WHERE size >= {sealed.end}",
        f"INSERT INTO audit_entry VALUES ({sealed.end - 1}, '00', '00')",
        "INSERT INTO audit_node VALUES (1, 0, '00')",
        "DELETE FROM shard",
        "UPDATE shard SET root = note",
        "UPDATE shard SET end_seq = end_seq + 1",
        f"INSERT INTO shard VALUES ({size}, {sealed.end + 1}, '00', '00', '00', 'f', '00', NULL)",
        f"INSERT INTO shard VALUES ({sealed.end}, 0, '00', '00', '00', 'f', '00', NULL)",
        f"INSERT INTO shard VALUES ({size}, {sealed.end}, '00', '00', '00', 'f', '00', 1)",
    ):
        with pytest.raises(LogError, match=r"append-only|recorded once|never deleted"), world.store.begin() as uow:
            uow._connection.execute(sa.text(statement))


def test_migration_is_not_undone_under_a_sealed_shard(world: World, store_url: str) -> None:
    assert seal(world, days=2.5) is not None
    from alembic import command
    from alembic.config import Config

    def down() -> None:
        with world.store._writer.begin() as connection:
            config = Config()
            config.set_main_option("script_location", "analytics_server.store:migrations")
            config.attributes["connection"] = connection
            command.downgrade(config, "0005")

    with pytest.raises(RuntimeError, match="cannot be undone once a shard is sealed"):
        down()
    assert check(world).findings == ()


# --- killed at every statement ---------------------------------------------------------------------------------------


def test_process_killed_at_every_step_of_sealing_and_expiring(world: World, store_url: str, tmp_path: Path) -> None:
    """Whoever comes after one that died goes on, and between them nothing is lost, doubled or unproved."""
    before, roots = world.entries(), heads(world)
    folder, drawn = tmp_path / "shards", Random()
    stride = 5 if store_url.startswith("sqlite") else 13
    process = subprocess.Popen(
        [sys.executable, str(SEALER), store_url, str(folder), world.log_key.private_bytes_raw().hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def until_done(kind: str, days: float) -> Iterator[None]:
        at = 1 + drawn.randrange(stride)
        while True:
            print(kind, world.now_ms - int(days * DAY_MS), world.now_ms, at, file=process.stdin)
            said = process.stdout.readline().strip()  # type: ignore[union-attr]
            assert said in ("died", "done")
            yield
            if said == "done":
                break
            at += stride
        assert at > stride, "it died at least once"

    for days in (3.5, 2.5):
        for _ in until_done("seal", days):
            found = world.entries()
            assert found[: len(before)] == before
            assert [seq for seq, _ in found] == list(range(len(found)))
            check_proofs(world, before, 0, roots)
            assert check(world).findings == ()
    with world.store.read() as uow:
        first, *others = uow.shards()
    assert others
    for _ in until_done("expire", 3.5):
        assert check(world).findings == ()
    assert not (folder / first.file).exists()
    assert world.entries()[0][0] == first.end
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_random_histories_are_proved_across_shards(world: World) -> None:
    """Seal and expire at random; whatever is kept is proved under every head that is kept."""
    drawn = Random(11)
    kept = world.entries()
    for _ in range(6):
        for _ in range(drawn.randint(1, 3)):
            world.query()
        world.witness(*drawn.sample(INSTITUTIONS, 2))
        world.now_ms += DAY_MS
        seal(world, days=drawn.choice([0.5, 1.5, 2.5]))
        if drawn.random() < 0.4:
            expire(world, days=4)
        with world.store.read() as uow:
            first = uow.kept_from()
        rest = world.entries()
        assert rest[0][0] == first
        kept = kept[:first] + rest
        check_proofs(world, kept, first, {s: r for s, r in heads(world).items() if s >= max(first, 1)})
    assert check(world).findings == ()
