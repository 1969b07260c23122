"""Secure aggregation beside what it rests on, and whole rounds over loopback mTLS.

    python benchmarks/secagg.py                     # everything, about ten minutes on two idle cores
    python benchmarks/secagg.py --only 50x10k --only 100x1M_10drop
    python benchmarks/secagg.py --only rates --only ingest --only wire --only memory
    python benchmarks/secagg.py --ring 64           # as federated queries use it; by default 32 bits an entry

Whole rounds run through the product's services, links and state machines (`secagg_consortium` says what is real and
what is left out), one coordinator process and two that share the institutions, all on this machine. The sum of every
round is verified. Writes benchmarks/results/secagg.json; parts that were not run keep what an earlier run found:

    aes_gb_per_s                  AES-256-CTR, one core
    mask_over_aes                 rate of masking over that, one core, in turns with it
    unmask_over_aes               the same of the coordinator's last step
    two_thread_speedup            masking, two cores over one
    agent_extra_rss_mb_at_100m    MB that an agent's memory grows by, at its peak, in a round of 100M entries of 32 bits
    ingest_over_bare_mtls_stream  rate of taking uploads in (received, hashed, verified, added) over the rate at which
                                  the same server reads and forgets as many raw bytes from as many streams
    wire_over_raw_at_1m           bytes that an agent sends in a round, TLS included, over its vector of 1M entries
    loopback_round_s              seconds from announcement to sum; median of three where that is less than 10 s
    agent_cpu_s                   CPU of one institution in that round, the mean over all
    coordinator_cpu_s             CPU of the coordinator in that round
    context                       machine, load average before and after, ring, date, steps of each round

Keys of rounds are institutions x entries; in `_10drop` every tenth institution vanishes after JOIN, before it uploads.
A short round goes before each, so that keys which outlive rounds are at hand, as they are in an agent that serves; with
500 institutions it would take as long as the round itself, and there the first of them is cold. Cohorts above 500 draw
their neighbours, which takes an exchange more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import secagg_core
from secagg_consortium import Case, found, name_of
from secagg_coordinator import coordinator_process
from secagg_fleet import fleet_process

RESULTS = Path(__file__).parent / "results" / "secagg.json"
ROUNDS = (
    "10x1M", "10x10M", "50x10k", "50x1M", "100x1M", "100x1M_10drop", "500x100k", "500x100k_10drop", "1000x100k",
)  # fmt: skip
PARTS = ("rates", "memory", "ingest", "wire")
FLEETS = 2
BRIEF_S = 10.0
"""Rounds shorter than this are run three times."""
LARGE = 500
"""Institutions from which on no round is run only to warm up."""
CHUNK = 1 << 20


class Bench:
    """A coordinator's process and those of its institutions, `groups` saying who shares one."""

    def __init__(self, folder: Path, groups: Sequence[Sequence[str]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._coordinator, theirs = context.Pipe()
        self._processes = [context.Process(target=coordinator_process, args=(folder, theirs), daemon=True)]
        self._processes[0].start()
        address = f"127.0.0.1:{self._coordinator.recv()}"
        self._fleets: list[Connection] = []
        for names in groups:
            ours, theirs = context.Pipe()
            process = context.Process(target=fleet_process, args=(folder, names, address, theirs), daemon=True)
            process.start()
            self._fleets.append(ours)
            self._processes.append(process)

    def close(self) -> None:
        for pipe in (*self._fleets, self._coordinator):
            with suppress(BrokenPipeError):  # a process that failed has said why
                pipe.send(("stop",))
        for process in self._processes:
            process.join(20)
            process.kill()

    def ask(self, *command: object) -> Any:
        """Have the coordinator do something."""
        self._coordinator.send(command)
        return self._coordinator.recv()

    def ask_fleets(self, *command: object) -> list[Any]:
        """Have all institutions do something."""
        for pipe in self._fleets:
            pipe.send(command)
        return [pipe.recv() for pipe in self._fleets]

    def round(self, case: Case) -> dict[str, Any]:
        """Connect whom it takes and run one round; returns what the coordinator and the institutions measured."""
        self.ask_fleets("connect", case.names)
        self.ask("expect", case.institutions)
        self.ask_fleets("prepare", case)
        before = sum(self.ask_fleets("cpu"))
        found: dict[str, Any] = self.ask("round", case)
        found["agent_cpu"] = (sum(self.ask_fleets("cpu")) - before) / case.institutions
        return found


@contextmanager
def running(groups: Sequence[Sequence[str]], folder: Path | None = None) -> Iterator[Bench]:
    """A bench with these institutions, founded for it unless `folder` has a consortium that holds them."""
    with tempfile.TemporaryDirectory() as name:
        if folder is None:
            folder = Path(name)
            found(folder, len({institution for group in groups for institution in group}))
        bench = Bench(folder, groups)
        try:
            yield bench
        finally:
            bench.close()


def case_of(key: str, ring_bits: int) -> Case:
    """Read a key such as 100x1M_10drop."""
    match = re.fullmatch(r"(\d+)x(\d+)([kM]?)(_10drop)?", key)
    if match is None:
        raise SystemExit(f"{key!r} is no part of this benchmark: {', '.join((*ROUNDS, *PARTS))}")
    institutions, number, unit, drop = match.groups()
    length = int(number) * {"": 1, "k": 1000, "M": 1_000_000}[unit]
    return Case(int(institutions), length, ring_bits, dropouts=int(institutions) // 10 if drop else 0)


def rounds(keys: Sequence[str], ring_bits: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run whole rounds, the institutions spread over two processes."""
    cases = {key: case_of(key, ring_bits) for key in keys}
    everyone = [name_of(i) for i in range(max((case.institutions for case in cases.values()), default=0))]
    if not everyone:
        return
    with running([everyone[i::FLEETS] for i in range(FLEETS)]) as bench:
        for key, case in cases.items():
            if case.institutions < LARGE:
                bench.round(replace(case, length=1000, dropouts=0))
            measured = [bench.round(case)]
            while len(measured) < 3 and measured[0]["seconds"] < BRIEF_S:
                measured.append(bench.round(case))
            middle = sorted(measured, key=lambda one: one["seconds"])[len(measured) // 2]
            yield key, middle | {"rounds": len(measured)}


def extra_memory() -> float:
    """MB by which an agent with a process of its own grows in a round of 100M entries, over what it held before."""
    case = Case(3, 100_000_000)
    with running([[name] for name in case.names]) as bench:
        bench.round(replace(case, length=1000))
        bench.ask_fleets("prepare", case)
        before = bench.ask_fleets("memory")
        bench.ask("round", case)
        return max(peak - held for (held, _), (_, peak) in zip(before, bench.ask_fleets("peak"), strict=True)) / 1e6


def ingest() -> dict[str, Any]:
    """Rate of uploads over that of bare streams: 4 institutions at once, 128 MB each, 1 MiB a message."""
    case = Case(4, 32 * CHUNK, masked_ahead=True)
    size = case.institutions * case.length * 4
    ours, bare = [], []
    with running([case.names]) as bench:
        bench.round(replace(case, length=1000))
        for _ in range(5):
            ours.append(size / bench.round(case)["upload_seconds"])
            bench.ask_fleets("bare", case.institutions, case.length * 4 // CHUNK, CHUNK)
            received, seconds = bench.ask("bare")
            assert received == size, received
            bare.append(received / seconds)
    mine, theirs = statistics.median(ours), statistics.median(bare)
    return {
        "ingest_over_bare_mtls_stream": mine / theirs,
        "context": {"ingest_gb_per_s": mine / 1e9, "bare_mtls_stream_gb_per_s": theirs / 1e9},
    }


def wire() -> float:
    """Bytes that one of ten agents puts on its connection in a round, over the bytes of its vector of 1M entries."""
    case = Case(10, 1_000_000)
    with running([case.names[:1], case.names[1:]]) as bench:
        bench.ask_fleets("connect", case.names)
        bench.ask("expect", case.institutions)
        bench.ask_fleets("relay", case.names[0])
        bench.round(replace(case, length=1000))
        before = sum(bench.ask_fleets("sent"))
        bench.round(case)
        return (sum(bench.ask_fleets("sent")) - before) / (case.length * 4)


def measure(wanted: Sequence[str], ring_bits: int) -> Iterator[dict[str, Any]]:
    """Yield results part by part; those of rounds are nested under their keys."""
    if "rates" in wanted:
        yield secagg_core.rates()
    if "memory" in wanted:
        yield {"agent_extra_rss_mb_at_100m": extra_memory()}
    if "ingest" in wanted:
        yield ingest()
    if "wire" in wanted:
        yield {"wire_over_raw_at_1m": wire()}
    for key, found_ in rounds([key for key in wanted if key not in PARTS], ring_bits):
        yield {
            "loopback_round_s": {key: found_["seconds"]},
            "agent_cpu_s": {key: found_["agent_cpu"]},
            "coordinator_cpu_s": {key: found_["cpu"]},
            "context": {"rounds": {key: {"steps_s": found_["steps"], "runs": found_["rounds"]}}},
        }


def merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Run what was asked for, and write results as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help=f"one of {', '.join((*PARTS, *ROUNDS))}")
    parser.add_argument("--ring", type=int, choices=(32, 64), default=32, help="bits of an entry in whole rounds")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if arguments.only and RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    context = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ring_bits": arguments.ring,
        "load_average_before": round(os.getloadavg()[0], 2),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    merge(results, {"context": context})
    for part in measure(arguments.only or (*PARTS, *ROUNDS), arguments.ring):
        print(json.dumps(part), flush=True)
        merge(results, part)
        results["context"]["load_average_after"] = round(os.getloadavg()[0], 2)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
