"""Without noise every estimate is what pandas computes on the pooled file; with noise it is laid out and bounded."""

import math
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from queries import ir
from queries.errors import QueryError
from queries.estimate import Z95, BinEstimate, Estimate, Table, estimate, expected_widths
from queries.noise import NoiseShape
from queries.plan import Plan, make_plan
from queries.schema import Categorical, Column, Dataset, Numeric

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SILENT = NoiseShape(0, Fraction(0), Fraction(0))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the hospitals' test data are not beside this checkout")

HEART = Dataset(
    "heart",
    (
        Column("age", Numeric(0, 120, integer=True), nullable=False),
        Column("trestbps", Numeric(0, 250)),
        Column("chol", Numeric(0, 700)),
        Column("thalach", Numeric(30, 220)),
        Column("oldpeak", Numeric(-10, 10)),
        Column("sex", Categorical(("0", "1")), nullable=False),
        Column("cp", Categorical(("1", "2", "3", "4"))),
        Column("restecg", Categorical(("0", "1"), other=True)),
    ),
)
SIMULATED = Dataset(
    "simulated",
    (
        Column("lab_tsc", Numeric(0, 15)),
        Column("lab_trig", Numeric(-10, 20)),
        Column("lab_hdl", Numeric(-1, 4)),
        Column("pm_bmi_continuous", Numeric(5, 65)),
        Column("gender", Categorical(("0", "1")), nullable=False),
        Column("dis_diab", Categorical(("0", "1"))),
        Column("pm_bmi_categorical", Categorical(("1", "2", "3"))),
    ),
)


def pooled(folder: str, dataset: Dataset) -> pd.DataFrame:
    frame = pd.concat([pd.read_csv(path) for path in sorted((DATA / folder).glob("*.csv"))], ignore_index=True)
    frame.columns = frame.columns.str.strip().str.lower()
    for column in dataset.columns:
        if isinstance(column.kind, Categorical):
            codes = frame[column.name].astype("Int64").astype("string")
            if column.kind.other:
                codes = codes.where(codes.isin(column.kind.categories) | codes.isna(), "other")
            frame[column.name] = codes
    return frame


def encode(plan: Plan, frame: pd.DataFrame) -> np.ndarray:
    """The exact sums of a plan, by numpy; the frame is already filtered."""
    one = 1 << plan.scale_bits
    out = []
    for cell in plan.cells:
        group = frame
        for key, value in zip(plan.query.keys, cell, strict=True):
            group = group[group[key.column] == value]
        for slot in plan.slots:
            if slot.column is None:
                out.append(len(group) * one)
                continue
            present, kind = group[slot.column].dropna(), plan.dataset.column(slot.column).kind
            if slot.kind == "present":
                out.append(len(present) * one)
            elif slot.kind == "bin" and isinstance(kind, Categorical):
                out.append(int((present == kind.keys[slot.bin]).sum()) * one)
            elif slot.kind == "bin":
                edges = plan.histograms[slot.histogram].edges
                bins = np.searchsorted(edges, present.to_numpy(float), side="right") - 1
                out.append(int((np.clip(bins, 0, len(edges) - 2) == slot.bin).sum()) * one)
            else:
                x = np.clip(present.to_numpy(float), kind.lower, kind.upper)
                u = (x - (kind.lower + kind.upper) / 2) / ((kind.upper - kind.lower) / 2)
                out.append(int(np.rint((u if slot.kind == "linear" else u * u) * one).astype(np.int64).sum()))
    return np.array(out, dtype=np.int64)


def ask(dataset: Dataset, *aggregates: ir.Aggregate, keys: tuple[str, ...] = ()) -> Plan:
    named = tuple(ir.NamedAggregate(f"out{i}", aggregate) for i, aggregate in enumerate(aggregates))
    return make_plan(ir.Query(dataset.name, named, keys=tuple(ir.Key(key) for key in keys)), dataset)


def single(table: Table, row: int = 0, column: int = 0) -> Estimate:
    value = table.rows[row].values[column]
    assert isinstance(value, Estimate)
    return value


SELECTIONS = {
    "everyone": "index >= 0",
    "older than 55": "age > 55",
    "angina before 60": "cp in ['1', '2'] and not age >= 60",
    "cholesterol above 200, missing left out": "chol > 200",
}
COLUMNS = [
    *[
        ("uci-heart", HEART, name, where)
        for name in ("age", "trestbps", "chol", "thalach", "oldpeak")
        for where in SELECTIONS
    ],
    *[("cnsim", SIMULATED, name, "everyone") for name in ("lab_tsc", "lab_trig", "lab_hdl", "pm_bmi_continuous")],
]


@needs_data
@pytest.mark.parametrize(("folder", "dataset", "name", "where"), COLUMNS)
@pytest.mark.parametrize("grouped", [False, True])
def test_without_noise_statistics_equal_pandas_on_the_pooled_file(
    folder: str, dataset: Dataset, name: str, where: str, grouped: bool
) -> None:
    key = "sex" if dataset is HEART else "dis_diab"
    frame = pooled(folder, dataset).query(SELECTIONS[where])
    outputs = ir.Count(name), ir.Sum(name), ir.Mean(name), ir.Variance(name), ir.Stddev(name), ir.Variance(name, 0)
    plan = ask(dataset, ir.Count(), *outputs, keys=(key,) if grouped else ())
    table = estimate(plan, encode(plan, frame), SILENT, 5)
    for row in table.rows:
        part = frame[frame[key] == row.keys[0]] if grouped else frame
        x = part[name]
        expected = [len(part), x.count(), x.sum(), x.mean(), x.var(), x.std(), x.var(ddof=0)]
        for value, truth in zip(row.values, expected, strict=True):
            assert isinstance(value, Estimate)
            assert value.value == pytest.approx(truth, rel=1e-9, abs=0)
            assert value.low == pytest.approx(value.high, rel=1e-9)
            assert value.standard_error == pytest.approx(0, abs=1e-9 * abs(truth))


@needs_data
def test_without_noise_the_published_mean_of_the_simulated_cohort() -> None:
    plan = ask(SIMULATED, ir.Mean("lab_tsc"), ir.Count("lab_tsc"), ir.Count())
    table = estimate(plan, encode(plan, pooled("cnsim", SIMULATED)), SILENT, 3)
    assert [single(table, 0, i).value for i in range(3)] == pytest.approx([5.85192485623003, 7825, 9379], rel=1e-9)


@needs_data
def test_without_noise_histograms_equal_pandas() -> None:
    frame = pooled("uci-heart", HEART)
    edges = (40.0, 50.0, 60.0, 65.0, 70.0)
    plan = ask(HEART, ir.Histogram("age", edges), ir.Histogram("cp"), ir.Histogram("restecg"), keys=("sex",))
    table = estimate(plan, encode(plan, frame), SILENT, 4)
    for row in table.rows:
        part = frame[frame["sex"] == row.keys[0]]
        clipped = part["age"].clip(edges[0], edges[-1])
        expected = (
            np.histogram(clipped, edges)[0].tolist(),
            [int((part["cp"] == key).sum()) for key in ("1", "2", "3", "4")],
            [int((part["restecg"] == key).sum()) for key in ("0", "1", "other")],
        )
        for bins, counts in zip(row.values, expected, strict=True):
            assert isinstance(bins, tuple)
            assert [each.estimate.value for each in bins] == counts


def test_a_lone_histogram_has_a_row_a_bin() -> None:
    plan = ask(HEART, ir.Histogram("age", (0.0, 50.0, 120.0)), keys=("sex",))
    table = estimate(plan, [1, 2, 3, 4], SILENT, 5)
    assert table.keys == ("sex", "age")
    assert [row.keys for row in table.rows] == [
        ("0", "[0, 50)"), ("0", "[50, 120]"), ("1", "[0, 50)"), ("1", "[50, 120]"),
    ]  # fmt: skip
    assert [single(table, row).value for row in range(4)] == [1, 2, 3, 4]
    both = ask(HEART, ir.Histogram("sex"), keys=("sex",))
    assert estimate(both, [1, 0, 0, 1], SILENT, 5).keys == ("sex", "sex_bin")


def test_a_histogram_beside_other_outputs_is_a_tuple_of_bins() -> None:
    plan = ask(HEART, ir.Count(), ir.Histogram("sex"))
    table = estimate(plan, [7, 3, 4], SILENT, 5)
    assert table.columns == ("out0", "out1")
    bins = table.rows[0].values[1]
    assert isinstance(bins, tuple)
    assert isinstance(bins[1], BinEstimate)
    assert (bins[1].bin.label, bins[1].bin.lower, bins[1].estimate.value) == ("1", None, 4)


def test_counts_may_be_negative_and_carry_the_noise_of_all_survivors() -> None:
    plan = ask(HEART, ir.Count())
    shape = plan.noise(10_000_000, threshold=4, colluders=1, invited=5)
    answer = single(estimate(plan, [-3 << shape.refine_bits], shape, 4))
    sigma = math.sqrt(4 / 3 / (2 * 0.01))
    assert answer.value == -3
    assert answer.standard_error == pytest.approx(sigma)
    assert (answer.low, answer.high) == pytest.approx((-3 - Z95 * sigma, -3 + Z95 * sigma))


def test_a_sum_carries_the_noise_of_values_and_of_their_count() -> None:
    shape = ask(HEART, ir.Sum("age")).noise(10_000_000, threshold=4, colluders=1, invited=5)
    plan = ask(HEART, ir.Sum("age"))
    answer = single(estimate(plan, [0, 0], shape, 5))
    assert answer.standard_error == pytest.approx(60 * math.sqrt(2) * math.sqrt(2 * 5 / 4 / (2 * 0.01)))
    around_zero = ask(HEART, ir.Sum("oldpeak"))
    shape = around_zero.noise(10_000_000, threshold=4, colluders=1, invited=5)
    answer = single(estimate(around_zero, [0], shape, 5))
    assert answer.standard_error == pytest.approx(10 * math.sqrt(5 / 4 / (2 * 0.01)))


@pytest.mark.parametrize("rows", [-500, 0, 3])
def test_where_noise_hides_the_rows_an_interval_is_the_whole_bounds(rows: int) -> None:
    plan = ask(HEART, ir.Mean("age"), ir.Variance("age", 0), ir.Stddev("age", 0), ir.Variance("age"))
    shape = plan.noise(1_000_000, threshold=4, colluders=1, invited=5)
    table = estimate(plan, [rows << plan.scale_bits, 0, 0], shape, 5)
    bounds = [(single(table, 0, i).low, single(table, 0, i).high) for i in range(3)]
    assert bounds == [(0, 120), (0, 3600), (0, 60)]
    assert (single(table, 0, 3).low, single(table, 0, 3).high) == (0, 7200)  # two rows, one at each bound
    assert all(e.low <= e.value <= e.high for e in (single(table, 0, i) for i in range(4)))


def test_estimates_are_finite_and_inside_their_interval_whatever_the_sums() -> None:
    plan = ask(HEART, ir.Mean("chol"), ir.Variance("chol"), ir.Stddev("chol"), keys=("cp", "sex"))
    generator = np.random.default_rng(5)
    for rho_nano in (1_000_000, 100_000_000, 100_000_000_000):
        shape = plan.noise(rho_nano, threshold=4, colluders=1, invited=5)
        for size in (1, 100, 10_000):
            sums = np.rint(generator.normal(0, size, plan.length) * (1 << plan.scale_bits)).astype(np.int64)
            for output in estimate(plan, sums, shape, 5).outputs:
                assert np.isfinite([output.value, output.low, output.high, output.standard_error]).all()
                assert (output.low <= output.value).all()
                assert (output.value <= output.high).all()
                assert (output.low >= 0).all()


def test_expected_widths_are_those_of_the_answer() -> None:
    plan = ask(HEART, ir.Count(), ir.Sum("age"), ir.Mean("age"), ir.Stddev("age"), ir.Histogram("cp"))
    shape = plan.noise(10_000_000, threshold=4, colluders=1, invited=5)
    widths = expected_widths(plan, shape, 5, assumed_rows=2000)
    moments = {"linear": 0, "square": 500}
    table = estimate(plan, [moments.get(s.kind, 2000) << plan.scale_bits for s in plan.slots], shape, 5)
    for width, output in zip(widths, table.outputs, strict=True):
        assert width.name == output.name
        assert width.half_width == pytest.approx(float((output.high - output.low).flat[0]) / 2)
    assert [width.assumed_rows for width in widths] == [None, None, 2000, 2000, None]


def test_sums_of_another_plan_are_refused() -> None:
    with pytest.raises(QueryError, match="3 sums"):
        estimate(ask(HEART, ir.Variance("age")), [1, 2], SILENT, 5)


def test_a_hundred_thousand_cells_are_estimated_within_a_second() -> None:
    wide = Dataset("wide", (*HEART.columns, Column("g", Categorical(tuple(f"k{i}" for i in range(100_000))))))
    plan = ask(wide, ir.Count(), ir.Mean("chol"), ir.Stddev("chol"), keys=("g",))
    shape = plan.noise(100_000_000, threshold=4, colluders=1, invited=5)
    sums = np.random.default_rng(0).integers(0, 100 << plan.scale_bits, plan.length)
    start = time.process_time()
    table = estimate(plan, sums, shape, 5)
    assert time.process_time() - start < 1
    assert len(table.rows) == 100_000
