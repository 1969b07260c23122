"""How fast an institution sums its own rows: 10 million rows of 20 columns in Parquet, GROUP BY with five aggregates.

Beside it, in the same run and with the same threads, DuckDB runs the plain SQL that bounds the same contributions by
hand: values clipped to their bounds, floats summed (persons have one row each, so neither draws lots). Writes
benchmarks/results/sources.json:

    ours_s, duckdb_s, ours_over_duckdb     medians of alternating runs; the aim is at most 1.5
    seconds_by_rows                        the same question over 1, 3 and 10 million rows: cost grows linearly
    load_s                                 reading a file of that many rows once, when the agent starts
    first_analyst_s, tenth_analyst_s       questions of ten analysts in turn, each of its own: nothing is loaded again
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analytics_client.agent import config
from analytics_client.agent.sources import open_source
from queries.plan import make_plan
from queries.schema import from_toml
from queries.sql import parse

SIZES, COLUMNS, RUNS, ANALYSTS = (1_000_000, 3_000_000, 10_000_000), 20, 7, 10
RESULTS = Path(__file__).parent / "results" / "sources.json"
ASKED = (
    "SELECT sex, COUNT(*) AS n, AVG(x0) AS a, AVG(x1) AS b, SUM(x2) AS c, STDDEV(x3) AS d FROM people"
    " WHERE x4 >= 2 GROUP BY sex"
)
BY_HAND = """
SELECT sex, count(*), sum(least(greatest(x0, 0), 10)), sum(least(greatest(x1, 0), 10)),
       sum(least(greatest(x2, 0), 10)), sum(least(greatest(x3, 0), 10)), sum(least(greatest(x3, 0), 10) ** 2)
FROM people WHERE x4 >= 2 AND sex IS NOT NULL GROUP BY sex
"""


def schema() -> str:
    """The published description."""
    numbers = "".join(f'[columns.x{i}]\ntype = "number"\nlower = 0\nupper = 10\nnullable = false\n' for i in range(18))
    sex = '[columns.sex]\ntype = "category"\ncategories = ["f", "m"]\nnullable = false\n'
    return f'name = "people"\nprivacy_unit = "person"\n{numbers}{sex}'


def write(path: Path, rows: int) -> None:
    """Write a file of a person column, 18 numbers and a category, a million rows at a time."""
    random = np.random.default_rng(7)
    writer = None
    for start in range(0, rows, 1_000_000):
        count = min(1_000_000, rows - start)
        columns = {"person": np.arange(start, start + count)}
        columns |= {f"x{i}": random.normal(5, 2, count) for i in range(COLUMNS - 2)}
        table = pa.table(columns | {"sex": np.where(random.random(count) < 0.5, "f", "m")})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Measure and write."""
    dataset = from_toml(schema())
    plan = make_plan(parse(ASKED, {"people": dataset}), dataset)
    threads = os.cpu_count() or 1
    found: dict[str, object] = {"rows": SIZES[-1], "columns": COLUMNS, "threads": threads, "load": os.getloadavg()[0]}
    loaded: dict[int, float] = {}
    taken: dict[int, list[float]] = {rows: [] for rows in SIZES}
    theirs = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        sources = {}
        for rows in SIZES:
            path = Path(name) / f"{rows}.parquet"
            write(path, rows)
            table = config.parse(f'[datasets.people]\npath = "{path}"\n', Path(name)).datasets["people"]
            begin = time.perf_counter()
            sources[rows] = open_source(table, dataset, threads=threads)
            opened.callback(sources[rows].close)
            loaded[rows] = time.perf_counter() - begin
            print(f"{rows:,} rows: loaded in {loaded[rows]:.1f} s", flush=True)
        plain = opened.enter_context(duckdb.connect(config={"threads": threads}))
        plain.read_parquet(str(path)).create("people")
        for run in range(
            RUNS + 1
        ):  # in turn, so that whatever else the machine does slows all of them; the first warms up
            for rows, source in sources.items():
                taken[rows].append(seconds(lambda source=source: source.aggregate(plan, os.urandom(32))))  # type: ignore[misc]
            theirs.append(seconds(lambda: plain.execute(BY_HAND).fetchall()))
            print(f"run {run}: {[round(taken[rows][-1], 3) for rows in SIZES]}, DuckDB {theirs[-1]:.3f} s", flush=True)
        by_rows = {rows: statistics.median(times[1:]) for rows, times in taken.items()}
        by_hand = statistics.median(theirs[1:])
        source = sources[SIZES[-1]]
        own = []
        for analyst in range(ANALYSTS):
            asked = make_plan(parse(ASKED.replace(">= 2", f">= {2 + analyst / 100}"), {"people": dataset}), dataset)
            own.append(seconds(lambda asked=asked: source.aggregate(asked, os.urandom(32))))  # type: ignore[misc]
        found |= {
            "ours_s": by_rows[SIZES[-1]],
            "duckdb_s": by_hand,
            "ours_over_duckdb": by_rows[SIZES[-1]] / by_hand,
            "seconds_by_rows": by_rows,
            "load_s": loaded,
            "first_analyst_s": own[0],
            "tenth_analyst_s": own[-1],
        }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
