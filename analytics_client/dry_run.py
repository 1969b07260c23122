"""A question answered from invented rows: what an answer will look like, before any institution is asked.

Rows are drawn from the published description alone (bounds, categories, which columns may be missing), and run through
the agents' own engine and noise. Nothing is sent, logged or spent, and the numbers say nothing about anybody. Must not
know: the network.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np

from analytics_client.result import Cost, Result
from queries.errors import ConfigError, QueryError
from queries.estimate import estimate
from queries.plan import Plan
from queries.resolve import shape
from queries.schema import Categorical, Dataset

MOST_ROWS = 1_000_000
MISSING_SHARE = 0.1
"""Of the values of a column that may be missing."""


def dry_run(
    plan: Plan, cost: Cost, rho_nano: int, *, institutions: int, colluders: int, rows: int, seed: int
) -> Result:
    """Return a Result marked as mock, of `rows` invented rows spread over as many institutions.

    Raise QueryError for an impossible number of rows, ConfigError where the agents' engine is not installed.
    """
    if not institutions <= rows <= MOST_ROWS:
        raise QueryError(f"a dry run takes between {institutions} and {MOST_ROWS:,} rows")
    try:
        from analytics_client.agent.config import DatasetConfig
        from analytics_client.agent.noise import share
        from analytics_client.agent.sources import open_source
    except ImportError:
        raise ConfigError(
            "a dry run computes with the agents' engine", hint='install it: pip install "cohortium[agent]"'
        ) from None
    from trust.secagg import default_threshold

    threshold = default_threshold(institutions)
    noise = plan.noise(rho_nano, threshold=threshold, colluders=colluders, invited=institutions)
    random = np.random.default_rng(seed)
    total = np.zeros(plan.length, dtype=np.int64)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(institutions):
            file = Path(folder) / f"{number}.csv"
            _invent(plan.published, file, rows // institutions + (number < rows % institutions), number, random)
            source = open_source(DatasetConfig(path=str(file), format="csv"), plan.published)
            sums = source.aggregate(plan, random.bytes(32))
            source.close()
            total += (sums << noise.refine_bits) + share(plan.length, noise.share_variance, noise.scale)
    return Result(
        table=estimate(plan, total, noise, institutions),
        dataset=plan.dataset.name,
        question=shape(plan.query),
        request_id="",
        cost=cost,
        survivors=tuple(f"mock-{number + 1}" for number in range(institutions)),
        invited=institutions,
        log_seq=-1,
        log_size=0,
        mock=True,
    )


def _invent(dataset: Dataset, file: Path, rows: int, number: int, random: np.random.Generator) -> None:
    """Write a file of rows in which every published value and combination may occur."""
    columns: list[list[str]] = []
    names = [column.name for column in dataset.columns]
    if dataset.privacy_unit:
        persons = np.arange(rows) if dataset.max_rows == 1 else random.integers(0, max(1, rows * 2 // 3), rows)
        columns.append([f"{number}-{person}" for person in persons])
        names.insert(0, dataset.privacy_unit)
    for column in dataset.columns:
        kind = column.kind
        if isinstance(kind, Categorical):
            values = [kind.keys[at] for at in random.integers(0, len(kind.keys), rows)]
        else:
            middle, spread = (kind.lower + kind.upper) / 2, (kind.upper - kind.lower) / 6
            drawn = np.clip(random.normal(middle, spread, rows), kind.lower, kind.upper)
            values = [repr(value) for value in (np.round(drawn) if kind.integer else drawn).tolist()]
        if column.nullable:
            values = ["" if lost else v for v, lost in zip(values, random.random(rows) < MISSING_SHARE, strict=True)]
        columns.append(values)
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
