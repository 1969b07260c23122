"""DuckDB over real files: with the noise left out every statistic is pandas' on the pooled rows; odd files say why."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analytics_client.agent import config
from analytics_client.agent.sources import Source, open_source
from analytics_client.agent.sources import duckdb as duckdb_source
from queries import ir, schema, sql
from queries.errors import ConfigError, DataError
from queries.estimate import BinEstimate, Table, estimate
from queries.noise import NoiseShape
from queries.plan import make_plan

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SALT = bytes(range(32))
NO_NOISE = NoiseShape(0, Fraction(0), Fraction(0))  # in this harness only: nothing in the product makes such a shape

HEART = """
name = "heart"
privacy_unit = "patient_id"
[columns]
age      = { type = "integer", lower = 0, upper = 120, nullable = false }
trestbps = { type = "number", lower = 0, upper = 300 }
chol     = { type = "number", lower = 0, upper = 700 }
thalach  = { type = "number", lower = 0, upper = 250 }
oldpeak  = { type = "number", lower = -5, upper = 10 }
sex      = { type = "category", categories = ["female", "male"] }
cp       = { type = "category", categories = ["1", "2", "3", "4"] }
num      = { type = "category", categories = ["0", "1"], other = true }
"""
HEART_CONFIG = """
[datasets.heart]
path = "@PATH@"
[datasets.heart.columns.sex]
values = { "0" = "female", "1" = "male" }
"""
CNSIM = """
name = "cnsim"
privacy_unit = "patient"
[columns]
lab_tsc = { type = "number", lower = -10, upper = 20 }
lab_trig = { type = "number", lower = -10, upper = 20 }
lab_hdl = { type = "number", lower = -10, upper = 20 }
bmi = { type = "number", lower = 0, upper = 100 }
dis_ami = { type = "category", categories = ["0", "1"] }
gender = { type = "category", categories = ["male", "female"] }
pm_bmi_categorical = { type = "category", categories = ["1", "2", "3"] }
"""
CNSIM_CONFIG = """
[datasets.cnsim]
path = "@PATH@"
[datasets.cnsim.columns]
patient = ""
bmi = "PM_BMI_CONTINUOUS"
gender = { values = { "0" = "male", "1" = "female" } }
"""


def opened(text: str, dataset: schema.Dataset, path: Path, **other: Any) -> Source:
    table = config.parse(text.replace("@PATH@", str(path)), path.parent).datasets[dataset.name]
    return open_source(table.model_copy(update=other), dataset)


def answer(text: str, dataset: schema.Dataset, sources: Sequence[Source]) -> Table:
    plan = make_plan(sql.parse(text, {dataset.name: dataset}), dataset)
    total = sum((source.aggregate(plan, SALT) for source in sources), np.zeros(plan.length, dtype=np.int64))
    return estimate(plan, total, NO_NOISE, len(sources))


def values(table: Table) -> dict[tuple[str, ...], list[float]]:
    out: dict[tuple[str, ...], list[float]] = {}
    for row in table.rows:
        flat: list[float] = []
        for value in row.values:
            flat += [v.estimate.value for v in value] if isinstance(value, tuple) else [value.value]
        out[row.keys] = flat
    return out


def close(found: Sequence[float], expected: Sequence[float]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9), (a, b)


@pytest.fixture(scope="module")
def heart() -> tuple[schema.Dataset, list[Source], pd.DataFrame]:
    files = sorted((DATA / "uci-heart").glob("*.csv"))
    if not files:
        pytest.skip("the UCI heart files are not on this machine")
    dataset = schema.from_toml(HEART)
    pooled = pd.concat([pd.read_csv(file) for file in files])
    pooled["sex"] = pooled.sex.map({0: "female", 1: "male"})
    return dataset, [opened(HEART_CONFIG, dataset, file) for file in files], pooled


@pytest.fixture(scope="module")
def cnsim() -> tuple[schema.Dataset, list[Source], pd.DataFrame]:
    files = sorted((DATA / "cnsim").glob("*.csv"))
    if not files:
        pytest.skip("the CNSIM files are not on this machine")
    dataset = schema.from_toml(CNSIM)
    pooled = pd.concat([pd.read_csv(file).rename(columns=lambda name: name.strip().lower()) for file in files])
    pooled["gender"] = pooled.gender.map({0: "male", 1: "female"})
    return dataset, [opened(CNSIM_CONFIG, dataset, file) for file in files], pooled


@pytest.mark.parametrize("column", ["age", "trestbps", "chol", "thalach", "oldpeak"])
def test_moments_of_four_hospitals_equal_the_pooled_ones(column: str, heart: Any) -> None:
    dataset, sources, pooled = heart
    found = values(
        answer(
            f"SELECT COUNT({column}) AS n, SUM({column}) AS s, AVG({column}) AS m, VARIANCE({column}) AS v, "
            f"STDDEV({column}) AS d, COUNT(*) AS r FROM heart",
            dataset,
            sources,
        )
    )
    x = pooled[column]
    close(found[()], [x.count(), x.sum(), x.mean(), x.var(), x.std(), len(x)])


@pytest.mark.parametrize(
    ("where", "select"),
    [
        ("age >= 40 AND sex = 'male' OR age < 35", lambda d: (d.age >= 40) & (d.sex == "male") | (d.age < 35)),
        ("NOT (chol > 200)", lambda d: d.chol.notna() & ~(d.chol > 200)),
        ("chol IS NULL OR trestbps BETWEEN 120 AND 140", lambda d: d.chol.isna() | d.trestbps.between(120, 140)),
        ("cp IN (1, 3) AND NOT num = '0'", lambda d: d.cp.isin([1, 3]) & (d.num != 0)),
        ("num = 'other' OR age != 55", lambda d: (d.num > 1) | (d.age != 55)),
        ("NOT (chol < 250 AND thalach > 140)", lambda d: _not_and(d.chol < 250, d.chol, d.thalach > 140, d.thalach)),
        ("oldpeak = 1.1 OR oldpeak < -0.5", lambda d: (d.oldpeak == 1.1) | (d.oldpeak < -0.5)),
    ],
)
def test_conditions_follow_three_valued_logic(where: str, select: Any, heart: Any) -> None:
    dataset, sources, pooled = heart
    text = f"SELECT sex, COUNT(*) AS n, AVG(thalach) AS m FROM heart WHERE {where} GROUP BY sex"
    found = values(answer(text, dataset, sources))
    rows = pooled[select(pooled)]
    for key in ("female", "male"):
        group = rows[rows.sex == key]
        close(found[(key,)], [len(group), group.thalach.mean()])


def _not_and(a: pd.Series[bool], av: pd.Series[float], b: pd.Series[bool], bv: pd.Series[float]) -> pd.Series[bool]:
    false_a, false_b = av.notna() & ~a, bv.notna() & ~b
    return false_a | false_b


def test_groups_over_two_keys_with_an_other_cell(heart: Any) -> None:
    dataset, sources, pooled = heart
    text = "SELECT sex, num, COUNT(*) AS n, AVG(age) AS m FROM heart GROUP BY sex, num"
    found = values(answer(text, dataset, sources))
    num = pooled.num.map(lambda v: str(v) if v < 2 else "other")
    for key, group in pooled.groupby([pooled.sex, num]):
        close(found[tuple(key)], [len(group), group.age.mean()])
    assert len(found) == 6


def test_histograms_numeric_and_categorical(heart: Any) -> None:
    dataset, sources, pooled = heart
    query = ir.Query(
        "heart",
        (
            ir.NamedAggregate("h", ir.Histogram("chol", (100.0, 200.0, 250.5, 300.0))),
            ir.NamedAggregate("c", ir.Histogram("cp")),
            ir.NamedAggregate("n", ir.Count()),
        ),
        keys=(ir.Key("sex", ("male",)),),
    )
    plan = make_plan(query, dataset)
    total = sum((source.aggregate(plan, SALT) for source in sources), np.zeros(plan.length, dtype=np.int64))
    row = estimate(plan, total, NO_NOISE, 4).rows[0]
    men = pooled[pooled.sex == "male"]
    edges, _ = np.histogram(men.chol.dropna().clip(100, 300), bins=[100, 200, 250.5, 300])
    expected = [list(edges), [int((men.cp == k).sum()) for k in (1, 2, 3, 4)]]
    for value, want in zip(row.values[:2], expected, strict=True):
        assert isinstance(value, tuple)
        assert all(isinstance(each, BinEstimate) for each in value)
        close([each.estimate.value for each in value], want)


def test_messy_headers_and_published_cnsim_numbers(cnsim: Any) -> None:
    dataset, sources, pooled = cnsim
    found = values(answer("SELECT AVG(lab_tsc) AS m, COUNT(lab_tsc) AS n, COUNT(*) AS r FROM cnsim", dataset, sources))
    close(found[()], [5.85192485623003, 7825, 9379])
    text = (
        "SELECT pm_bmi_categorical, gender, STDDEV(bmi) AS d, AVG(lab_hdl) AS m, COUNT(*) AS n FROM cnsim "
        "WHERE dis_ami = 0 GROUP BY pm_bmi_categorical, gender"
    )
    found = values(answer(text, dataset, sources))
    healthy = pooled[pooled.dis_ami == 0]
    for (bmi, gender), group in healthy.groupby(["pm_bmi_categorical", "gender"]):
        close(found[(str(int(bmi)), gender)], [group.pm_bmi_continuous.std(), group.lab_hdl.mean(), len(group)])


def test_the_check_report_counts_what_does_not_fit(heart: Any) -> None:
    _, sources, pooled = heart
    reports = [source.check() for source in sources]
    assert sum(r.rows for r in reports) == sum(r.persons for r in reports) == 920
    by_name = {
        c.name: sum(x.missing for r in reports for x in r.columns if x.name == c.name) for c in reports[0].columns
    }
    assert by_name["chol"] == pooled.chol.isna().sum()
    assert sum(c.unpublished for r in reports for c in r.columns if c.name == "num") == (pooled.num > 1).sum()


SMALL = """
name = "small"
privacy_unit = "who"
max_rows = 2
[columns]
x = { type = "number", lower = 0, upper = 10 }
k = { type = "category", categories = ["a", "b"] }
"""
SMALL_CONFIG = '[datasets.small]\npath = "@PATH@"\n'


@pytest.fixture
def small() -> schema.Dataset:
    return schema.from_toml(SMALL)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def count(source: Source, dataset: schema.Dataset, text: str = "SELECT COUNT(*) AS n FROM small") -> list[float]:
    return values(answer(text, dataset, [source]))[()]


def test_parquet_in_memory_and_in_place_give_what_csv_gives(
    tmp_path: Path, small: schema.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "who": rng.integers(0, 400, 1000),
            "X ": rng.normal(5, 3, 1000).round(3),
            "k": rng.choice(["a", "b", "c"], 1000),
        }
    )
    frame.loc[::7, "X "] = np.nan
    frame.loc[::11, "X "] = np.inf
    frame.to_csv(tmp_path / "d.csv", index=False)
    frame[:500].to_parquet(tmp_path / "d1.parquet")
    frame[500:].to_parquet(tmp_path / "d2.parquet")
    query = "SELECT k, COUNT(*) AS r, COUNT(x) AS n, AVG(x) AS m, STDDEV(x) AS s FROM small GROUP BY k"
    big = replace(small, max_rows=100)
    from_csv = opened(SMALL_CONFIG, big, tmp_path / "d.csv")
    in_memory = opened(SMALL_CONFIG, big, tmp_path / "d*.parquet")
    monkeypatch.setattr(duckdb_source, "IN_PLACE_BYTES", 0)
    in_place = opened(SMALL_CONFIG, big, tmp_path / "d*.parquet")
    expected = answer(query, big, [from_csv])
    for source in (in_memory, in_place):
        assert values(answer(query, big, [source])) == values(expected)
        assert source.check().columns == from_csv.check().columns
    finite = frame.replace(np.inf, np.nan)
    for key, group in finite[finite.k != "c"].groupby("k"):
        close(values(expected)[(str(key),)][:2], [len(group), group["X "].count()])
    two = make_plan(sql.parse(query, {"small": small}), small)
    bounded = opened(SMALL_CONFIG, small, tmp_path / "d*.parquet")  # scanned in place, rows of a person bounded there
    kept = bounded.aggregate(two, SALT)[0::4][:2].sum() >> two.scale_bits
    assert kept == frame[frame.k != "c"].groupby("who").size().clip(upper=2).sum()


def test_values_are_trimmed_normalised_and_mapped(tmp_path: Path) -> None:
    dataset = schema.from_toml(
        'name = "small"\n[columns]\nk = { type = "category", categories = ["1", "2", "none"], other = true }\n'
    )
    path = written(tmp_path / "d.csv", 'k,z\n" 1 ",\n1.0,\n01,\n2,\nNA,\n,\n-,\nx,\n1.5,\n')
    text = SMALL_CONFIG + 'missing = ["NA"]\n[datasets.small.columns]\nk = { values = { "-" = "none" } }\n'
    source = opened(text, dataset, path)
    found = values(answer("SELECT k, COUNT(*) AS n FROM small GROUP BY k", dataset, [source]))
    assert {key[0]: round(n) for key, (n,) in found.items()} == {"1": 3, "2": 1, "none": 1, "other": 2}
    assert source.check().columns[0].missing == 2


def test_rows_without_a_person_or_a_needed_value_are_left_out(tmp_path: Path) -> None:
    dataset = schema.from_toml(SMALL.replace("upper = 10 }", "upper = 10, nullable = false }"))
    source = opened(SMALL_CONFIG, dataset, written(tmp_path / "d.csv", "who,x,k\np,1,a\n,1,a\nq,,a\nr,2,\n"))
    assert source.check().without_person == 1
    assert count(source, dataset) == [3]  # x is not used: the row without it counts
    close(count(source, dataset, "SELECT COUNT(*) AS n, AVG(x) AS m FROM small"), [2, 1.5])
    assert count(source, dataset, "SELECT COUNT(*) AS n FROM small WHERE x < 5") == [2]


def test_a_persons_rows_without_a_value_do_not_take_the_place_of_those_with_one(
    tmp_path: Path, small: schema.Dataset
) -> None:
    rows = "".join("p,,a\n" for _ in range(50)) + "p,4,a\np,6,a\n"
    source = opened(SMALL_CONFIG, small, written(tmp_path / "d.csv", "who,x,k\n" + rows))
    close(count(source, small, "SELECT AVG(x) AS m, COUNT(x) AS n FROM small"), [5, 2])
    assert count(source, small) == [2]


def test_which_rows_are_kept_is_a_fair_lottery_under_the_salt(tmp_path: Path, small: schema.Dataset) -> None:
    """Two of five rows, 1500 salts: each pair of rows comes up one time in ten."""
    path = written(tmp_path / "d.csv", "who,x,k\n" + "".join(f"p,{2**i / 2},a\n" for i in range(5)))
    dataset = schema.from_toml(SMALL.replace("upper = 10 }", "upper = 8 }"))
    source = opened(SMALL_CONFIG, dataset, path)
    plan = make_plan(sql.parse("SELECT SUM(x) AS s, COUNT(*) AS n FROM small", {"small": dataset}), dataset)
    salts = [int(number).to_bytes(32, "big") for number in range(3)] + [os.urandom(32) for _ in range(1500)]
    sums = [tuple(source.aggregate(plan, salt)) for salt in salts]
    assert sums[0] == sums[1] == sums[2]  # only the first eight bytes are used, and nothing else is random
    _, counts = np.unique([s[1] for s in sums[3:]], return_counts=True)
    assert len(counts) == 10
    assert (np.square(counts - 150) / 150).sum() < 60  # chi-square, 9 degrees of freedom: p about 1e-9


@pytest.mark.parametrize(
    ("text", "column", "line"),
    [
        ("who,x,k\np,1,a\nq,SECRET,a\n", "x", 3),
        ("who,x,k\np,1,a\nq,1_0,a\n", "x", 3),
        ("who,x,k\n" + "p,1,a\n" * 5000 + 'q,"1,5",a\n', "x", 5002),
        ("who,x,k\np,0x1F,a\n", "x", 2),
    ],
)
def test_text_in_a_number_names_column_and_line_but_never_the_value(
    text: str, column: str, line: int, tmp_path: Path, small: schema.Dataset
) -> None:
    with pytest.raises(DataError, match=f"column {column!r} of d.csv holds text in line {line},") as refused:
        opened(SMALL_CONFIG, small, written(tmp_path / "d.csv", text))
    for value in ("SECRET", "1_0", "1,5", "0x1F"):
        assert value not in str(refused.value)


def test_the_line_counts_within_its_own_file(tmp_path: Path, small: schema.Dataset) -> None:
    written(tmp_path / "a1.csv", "who,x,k\np,1,a\np,1,a\n")
    written(tmp_path / "a2.csv", "who,x,k\np,1,a\np,bad,a\n")
    with pytest.raises(DataError, match=r"a2\.csv holds text in line 3"):
        opened(SMALL_CONFIG, small, tmp_path / "a*.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"who,x,k\np,1\n", "line 2 of a CSV file cannot be read"),
        (b"who,x,k\np,1,a,SECRET\n", "line 2 of a CSV file cannot be read"),
        (b"who,x,k\np,1,\xe9SECRET\n", "not UTF-8"),
        (b"who,x,k\n" + b"p,1,a\n" * 50_000 + b"p,1,\xe9SECRET\n", "line 50002 of a CSV file cannot be read"),
        (b"\xff\xfewho", "not UTF-8"),
        (b"", "is empty"),
        (b"who,k\np,a\n", "no local column 'x'"),
        (b"who,x,X ,k\np,1,2,a\n", None),
        (b"who,X,X ,k\np,1,2,a\n", "2 local columns could be 'x'"),
        (b"person_x,x,k\n", "no local column 'who'"),
        (b"who,x,k\n", None),
        (b'\xef\xbb\xbfwho,x,k\r\n"p\nq",1,a\r\n', None),
    ],
)
def test_odd_files(content: bytes, message: str | None, tmp_path: Path, small: schema.Dataset) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(content)
    if message is None:
        opened(SMALL_CONFIG, small, path).close()
        return
    with pytest.raises(DataError, match=message) as refused:
        opened(SMALL_CONFIG, small, path)
    assert "SECRET" not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None or "SECRET" not in str(
        refused.value.__context__
    )


def test_a_missing_column_is_answered_with_the_nearest(tmp_path: Path, small: schema.Dataset) -> None:
    with pytest.raises(DataError, match="did you mean 'who_id'"):
        opened(SMALL_CONFIG, small, written(tmp_path / "d.csv", "who_id,x,k\n"))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ('y = "x"', "maps column 'y'"),
        ('k = { values = { "0" = "c" } }', "to 'c', which is not published"),
        ('x = { values = { "0" = "1" } }', "which is numeric"),
    ],
)
def test_a_mapping_that_fits_nothing_is_refused(
    mapping: str, message: str, tmp_path: Path, small: schema.Dataset
) -> None:
    path = written(tmp_path / "d.csv", "who,x,k\n")
    with pytest.raises(ConfigError, match=message):
        opened(SMALL_CONFIG + f"[datasets.small.columns]\n{mapping}\n", small, path)


def test_a_missing_file_is_named(tmp_path: Path, small: schema.Dataset) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        opened(SMALL_CONFIG, small, tmp_path / "nowhere.csv")


def test_a_path_with_pattern_characters_is_found(tmp_path: Path, small: schema.Dataset) -> None:
    folder = tmp_path / "odd [1] 'quoted'"
    folder.mkdir()
    source = opened(SMALL_CONFIG, small, written(folder / "d.csv", "who,x,k\np,1,a\n"))
    assert count(source, small) == [1]


def test_a_changed_file_is_read_again_and_a_broken_one_serves_nothing(tmp_path: Path, small: schema.Dataset) -> None:
    path = written(tmp_path / "d.csv", "who,x,k\np,1,a\n")
    source = opened(SMALL_CONFIG, small, path)
    assert count(source, small) == [1]
    written(path, "who,x,k\np,1,a\nq,1,a\n")
    assert count(source, small) == [2]
    written(path, "who,x,k\np,bad,a\n")
    for _ in range(2):
        with pytest.raises(DataError):
            count(source, small)
    written(path, "who,x,k\np,2,a\n")
    assert count(source, small) == [1]


def test_more_persons_than_published_are_refused(tmp_path: Path) -> None:
    dataset = schema.from_toml("max_persons = 2\n" + SMALL)
    with pytest.raises(DataError, match="max_persons"):
        opened(SMALL_CONFIG, dataset, written(tmp_path / "d.csv", "who,x,k\np,1,a\nq,1,a\nr,1,a\n"))


def test_long_conditions_are_answered(tmp_path: Path, small: schema.Dataset) -> None:
    source = opened(SMALL_CONFIG, small, written(tmp_path / "d.csv", "who,x,k\np,1,a\nq,3,b\n"))
    many = ir.AnyOf(tuple(ir.Comparison("x", "=", 1 + i / 10_000) for i in range(1400)))
    plan = make_plan(ir.Query("small", (ir.NamedAggregate("n", ir.Count()),), where=many), small)
    assert source.aggregate(plan, SALT).tolist() == [1]
