"""Latency and throughput of a small query on a whole consortium: five agents of 100,000 rows each, one coordinator.

Every process is a real one (`analytics_client.sandbox`), all on this machine, so agents, coordinator and analysts
share its cores. Writes benchmarks/results/query.json:

    median_latency_s, p95_latency_s   one analyst, query after query, from `session.query` to the verified result
    queries_per_s                     eight analysts at once
    one_at_a_time_queries_per_s       for comparison, from the same run
    typed_to_table_s                  median of the command `cohortium query`, three agents, process start included
    duckdb_alone_s                    median of the same SQL by DuckDB on the pooled rows, no privacy, in the same run
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from analytics_client import connect, sandbox
from analytics_client.session import Session

ROWS, AGENTS, ANALYSTS = 100_000, 5, 8
SEQUENTIAL, CONCURRENT, TYPED = 60, 25, 7
SQL = "SELECT sex, COUNT(*) AS n, AVG(age) AS age FROM people WHERE age >= 18 GROUP BY sex"
SCHEMA = """
name = "people"
privacy_unit = "person"
[columns.age]
type = "integer"
lower = 0
upper = 110
[columns.sex]
type = "category"
categories = ["female", "male"]
[columns.glucose]
type = "number"
lower = 2
upper = 30
"""
RESULTS = Path(__file__).parent / "results" / "query.json"


def make_files(folder: Path, agents: int) -> list[Path]:
    """Write one Parquet file per institution."""
    generator = np.random.default_rng(7)
    paths = []
    for agent in range(agents):
        frame = pd.DataFrame(
            {
                "person": [f"{agent}-{row}" for row in range(ROWS)],
                "age": generator.integers(0, 100, ROWS),
                "sex": generator.choice(["female", "male"], ROWS),
                "glucose": generator.normal(6, 1.5, ROWS).clip(2, 30),
            }
        )
        paths.append(folder / f"hospital{agent}.parquet")
        frame.to_parquet(paths[-1])
    return paths


def ask(session: Session) -> float:
    """Ask once; return seconds. The answer is checked against what the generator must have made."""
    start = time.perf_counter()
    result = session.query(SQL, epsilon=1.0)
    took = time.perf_counter() - start
    for row in result.rows:
        count, age = row.values
        assert abs(count.value - AGENTS * ROWS * 0.41) < 5000, count
        assert abs(age.value - 58.5) < 1, age
    return took


def throughput(profile: Path) -> float:
    """Queries per second of eight analysts who ask without pause."""
    sessions = [connect(profile) for _ in range(ANALYSTS)]
    for session in sessions:
        session.query(SQL, epsilon=1.0)
    errors: list[BaseException] = []

    def work(session: Session) -> None:
        try:
            for _ in range(CONCURRENT):
                ask(session)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    for session in sessions:
        session.close()
    if errors:
        raise errors[0]
    return ANALYSTS * CONCURRENT / took


def typed(profile: Path) -> float:
    """Median seconds of the whole command, from its start to its table."""
    command = [
        str(Path(sys.executable).parent / "cohortium"),
        "query",
        SQL,
        "--epsilon",
        "1",
        "--profile",
        str(profile),
    ]
    took = []
    for _ in range(TYPED):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - start)
        assert "female" in done.stdout, done
    return statistics.median(took)


def duckdb_alone(paths: list[Path]) -> float:
    """Median seconds of the same question asked of the pooled rows, in memory, with no privacy at all."""
    with duckdb.connect() as database:
        database.execute(
            "CREATE TABLE people AS SELECT * FROM read_parquet($files)", {"files": [str(p) for p in paths]}
        )
        took = []
        for _ in range(20):
            start = time.perf_counter()
            database.execute(SQL).fetchall()
            took.append(time.perf_counter() - start)
    return statistics.median(took)


def main() -> None:
    """Run everything and write the results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "people.toml").write_text(SCHEMA)
        files = make_files(folder, AGENTS)
        box = sandbox(folder / "people.toml", files, epsilon=1e5)
        with box as session:
            for _ in range(5):
                ask(session)
            latencies = sorted(ask(session) for _ in range(SEQUENTIAL))
            per_second = throughput(box.analyst)
        small = sandbox(folder / "people.toml", files[:3], epsilon=1e5)
        with small:
            whole_command = typed(small.analyst)
        alone = duckdb_alone(files)
    results = {
        "median_latency_s": round(statistics.median(latencies), 4),
        "p95_latency_s": round(latencies[int(0.95 * len(latencies))], 4),
        "queries_per_s": round(per_second, 2),
        "one_at_a_time_queries_per_s": round(1 / statistics.mean(latencies), 2),
        "typed_to_table_s": round(whole_command, 3),
        "duckdb_alone_s": round(alone, 4),
        "agents": AGENTS,
        "rows_per_agent": ROWS,
        "analysts": ANALYSTS,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
