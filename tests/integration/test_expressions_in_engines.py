"""Derived values in real engines: DuckDB is numpy to the last lattice step or two, and PostgreSQL is DuckDB."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from analytics_client.agent import config
from analytics_client.agent.sources import open_source, sql
from analytics_client.agent.sources.vector import vector
from queries import ir
from queries.builder import Builder, Table, _, case, count
from queries.plan import Plan, make_plan
from queries.schema import from_toml

SALT = bytes(range(32))
DATASET = from_toml("""
name = "t"
privacy_unit = "who"
[columns]
x = { type = "number", lower = -3.5, upper = 4.25 }
y = { type = "number", lower = 0, upper = 100 }
w = { type = "integer", lower = -5, upper = 5 }
k = { type = "category", categories = ["a", "b"] }
""")
TABLE = Table(DATASET)
TIES = [50 * (1 + halves * 2.0**-38) for halves in (1, -1, -1, -1, 3, -3, 5)]  # halves of a step of y's lattice, 2^-37
HARD = [0.0, 1e-300, 5e-324, 1e-141, 1e-139, 1e-110, -1e-300, 4.25, 100.0, 1e6, -1e6, None]
QUESTIONS: dict[str, Builder] = {
    "halves of a step": TABLE.agg(a=_.y.mean(), b=_.y.std()),
    "ratio": TABLE.agg(a=(_.x / (_.y + 1)).mean(), b=(_.x * _.y).std(), c=count()),
    "quotient by what may be 0": TABLE.agg(a=(_.x / _.y).clip(-50, 50).mean(), n=(_.x / _.y).clip(-50, 50).count()),
    "quotients nest": TABLE.agg(a=(1 / (_.w / _.y).clip(-9, 9)).clip(-2, 2).sum()),
    "products of almost nothing": TABLE.agg(a=(_.x * _.x * _.y * _.y).mean(), b=(_.x * _.x * _.x).sum()),
    "logarithm": TABLE.agg(a=_.y.log().clip(-20, 5).mean(), b=(_.y + 0.5).log().std(), n=_.x.log().clip(-9, 9).count()),
    "root": TABLE.agg(a=_.x.sqrt().sum(), b=(abs(_.x) + _.y).sqrt().mean(), n=_.x.sqrt().count()),
    "proportion": TABLE.agg(a=(_.x > 1).mean(), b=((_.x > 1) | (_.k == "a")).sum(), c=_.y.isnull().mean()),
    "case": TABLE.agg(a=case((_.k == "a", _.x), (_.y > 50, -1.0), otherwise=_.w).mean()),
    "grouped by a case": TABLE.derive(band=case((_.y < 10, "low"), (_.y < 60, "middle"), otherwise="high"))
    .group_by(_.band)
    .agg(n=count(), a=_.x.mean()),
    "filtered": TABLE.filter(_.x + _.y > 20, (_.x / _.y).clip(-1, 1) < 0.5).agg(n=count(), a=(_.x - _.w).median()),
    "one on another": TABLE.derive(a=_.x + _.w).derive(b=_.a * _.a).agg(m=_.b.mean(), c=case((_.a > 0, _.b)).mean()),
}


def rows() -> list[tuple[float | None, float | None, int | None, int | None]]:
    rng = np.random.default_rng(11)
    out: list[tuple[float | None, float | None, int | None, int | None]] = [(x, y, 0, 0) for x in HARD for y in HARD]
    out += [(None, y, None, None) for y in TIES]
    for number in range(400):
        x, y = float(rng.normal(0, 3)), float(rng.uniform(-5, 105))
        w = int(rng.integers(-7, 7)) if number % 9 else None
        out.append((x if number % 7 else None, y if number % 11 else None, w, number % 3 if number % 3 < 2 else None))
    return out


@pytest.fixture
def server(postgresql_database: str) -> Iterator[psycopg.Connection]:
    url = postgresql_database.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE local_rows (_row bigint, _person bigint, _rows bigint, x double precision,"
            " y double precision, w double precision, k integer)"
        )
        with connection.cursor() as cursor:
            lines = [(number, number, 1, *row) for number, row in enumerate(rows())]
            cursor.executemany("INSERT INTO local_rows VALUES (%s, %s, %s, %s, %s, %s, %s)", lines)
        yield connection


def summed(plan: Plan, folder: Path) -> NDArray[np.int64]:
    def text(value: float | None) -> str:
        return "" if value is None else repr(value)

    lines = [
        f"{number},{text(x)},{text(y)},{text(w)},{'' if k is None else 'ab'[k]}\n"
        for number, (x, y, w, k) in enumerate(rows())
    ]
    (folder / "d.csv").write_text("who,x,y,w,k\n" + "".join(lines))
    source = open_source(config.parse(f'[datasets.t]\npath = "{folder / "d.csv"}"\n', folder).datasets["t"], DATASET)
    try:
        return source.aggregate(plan, SALT)
    finally:
        source.close()


def test_engines_agree_on_every_corner_of_floating_point(server: psycopg.Connection, tmp_path: Path) -> None:
    for name, question in QUESTIONS.items():
        plan = make_plan(question.build(), DATASET)
        duck = summed(plan, tmp_path)
        with server.cursor() as cursor:
            cursor.execute(sql.render(plan, "postgres").encode(), [1])
            postgres = vector(plan, [tuple(int(v or 0) for v in row) for row in cursor.fetchall()])
        assert duck.any()
        assert np.array_equal(duck, postgres), name


def test_halves_are_rounded_up(tmp_path: Path) -> None:
    plan = make_plan(TABLE.filter(_.x.isnull(), _.w.isnull(), _.k.isnull()).agg(a=_.y.mean()).build(), DATASET)
    assert plan.scale_bits == 37
    found = dict(zip([slot.kind for slot in plan.slots], summed(plan, tmp_path).tolist(), strict=True))
    ties = {y for _x, y, w, _k in rows() if y in TIES and w is None}
    assert ties == {*TIES}
    others = [y for x, y, w, k in rows() if x is None and w is None and k is None and y is not None and y not in TIES]
    assert not others
    assert found["linear"] == 1 + 0 + 0 + 0 + 2 - 1 + 3


def clipped(value: float | None, lower: float, upper: float) -> float | None:
    return None if value is None else min(max(value, lower), upper)


def test_duckdb_computes_what_is_written(tmp_path: Path) -> None:
    asked = TABLE.agg(
        a=(_.x / (_.y + 1)).mean(), q=(_.x / _.y).clip(-50, 50).count(), s=_.x.sqrt().sum(), p=(_.x > 1).mean()
    )
    query = asked.build()
    plan = make_plan(query, DATASET)
    sums = dict(zip(plan.slots, summed(plan, tmp_path) / 2.0**plan.scale_bits, strict=True))
    names = {named.name: ir.columns_of(named.aggregate)[0] for named in query.aggregates}
    pairs = [(clipped(x, -3.5, 4.25), clipped(y, 0, 100)) for x, y, _w, _k in rows()]
    present = [(x, y) for x, y in pairs if x is not None and y is not None]

    def total(name: str) -> float:
        kind = plan.dataset.numeric(names[name])
        linear = next(s for slot, s in sums.items() if slot.kind == "linear" and slot.column == names[name])
        counted = next(s for slot, s in sums.items() if slot.kind == "present" and slot.column == names[name])
        return float((kind.lower + kind.upper) / 2 * counted + (kind.upper - kind.lower) / 2 * linear)

    assert total("a") == pytest.approx(sum(x / (y + 1) for x, y in present), abs=1e-6)
    assert total("s") == pytest.approx(sum(math.sqrt(x) for x, _y in pairs if x is not None and x >= 0), abs=1e-6)
    assert total("p") == pytest.approx(sum(x > 1 for x, _y, _w, _k in rows() if x is not None), abs=1e-6)
    known = next(s for slot, s in sums.items() if slot.kind == "present" and slot.column == names["q"])
    assert known == sum(y >= 1e-139 for _x, y in present)
