"""What a plan releases: slots, exact sensitivity, and noise that fits."""

import math
import time
from dataclasses import replace
from fractions import Fraction

import pytest

from queries import ir
from queries.errors import QueryError, UnknownName
from queries.noise import LOG_TAU, MAX_RHO_NANO, log_tau
from queries.plan import Plan, Slot, centre, make_plan
from queries.schema import Categorical, Column, Dataset, Numeric

PATIENTS = Dataset(
    name="patients",
    columns=(
        Column("age", Numeric(0, 120, integer=True), nullable=False),
        Column("chol", Numeric(100, 500)),
        Column("change", Numeric(-10, 10)),
        Column("sex", Categorical(("female", "male")), nullable=False),
        Column("site", Categorical(("a", "b", "c"), other=True)),
    ),
    privacy_unit="patient_id",
    max_rows=5,
)
CLINICAL = {"threshold": 4, "colluders": 1, "invited": 5}


def plan_of(
    *aggregates: ir.Aggregate, keys: tuple[ir.Key, ...] = (), rows: int | None = 1, data: Dataset = PATIENTS
) -> Plan:
    named = tuple(ir.NamedAggregate(f"out{i}", aggregate) for i, aggregate in enumerate(aggregates))
    return make_plan(ir.Query("patients", named, keys=keys, rows_per_person=rows), data)


def test_a_count_is_one_slot_of_sensitivity_one() -> None:
    plan = plan_of(ir.Count())
    assert (plan.slots, plan.cells, plan.length) == ((Slot("rows"),), ((),), 1)
    assert (plan.scale_bits, plan.delta_squared) == (0, 1)


def test_counting_a_nullable_column_counts_where_it_is_present() -> None:
    assert plan_of(ir.Count("chol")).slots == (Slot("present", "chol"),)
    assert plan_of(ir.Count("site")).slots == (Slot("present", "site"),)
    assert plan_of(ir.Count("age")).slots == (Slot("rows"),)


def test_outputs_over_one_column_share_its_slots() -> None:
    plan = plan_of(ir.Mean("chol"), ir.Variance("chol"), ir.Stddev("chol", ddof=0), ir.Sum("chol"), ir.Count("chol"))
    assert plan.slots == (Slot("present", "chol"), Slot("linear", "chol"), Slot("square", "chol"))
    assert plan.delta_squared == 3 << 2 * plan.scale_bits


def test_a_column_that_is_never_missing_is_divided_by_rows() -> None:
    plan = plan_of(ir.Count(), ir.Variance("age"))
    assert plan.slots == (Slot("rows"), Slot("linear", "age"), Slot("square", "age"))


def test_a_sum_within_bounds_around_zero_needs_no_count() -> None:
    plan = plan_of(ir.Sum("change"))
    assert plan.slots == (Slot("linear", "change"),)
    assert plan.delta_squared == 1 << 2 * plan.scale_bits


def test_histograms_and_moments_share_one_vector() -> None:
    tens = ir.Histogram("age", (0.0, 10.0, 20.0))
    plan = plan_of(
        ir.Count(), tens, ir.Histogram("age", (0.0, 60.0, 120.0)), ir.Histogram("site"), ir.Mean("age"), tens
    )
    assert [slot.kind for slot in plan.slots] == ["rows", *["bin"] * 8, "linear"]
    assert [slot.histogram for slot in plan.slots if slot.kind == "bin"] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert plan.histograms[2] == ir.Histogram("site")
    assert plan.delta_squared == (1 + 3 + 1) << 2 * plan.scale_bits  # one bin of each of three histograms


def test_cells_are_the_public_keys_in_order() -> None:
    plan = plan_of(ir.Count(), ir.Mean("age"), keys=(ir.Key("sex"), ir.Key("site", ("b", "other"))))
    assert plan.cells == (("female", "b"), ("female", "other"), ("male", "b"), ("male", "other"))
    assert plan.length == 4 * 2
    assert [plan.positions[slot] for slot in plan.slots] == [0, 1]


def test_sensitivity_grows_with_rows_and_institutions_of_a_person() -> None:
    assert plan_of(ir.Count(), rows=3).delta_squared == 9
    assert plan_of(ir.Count(), rows=None).delta_squared == 25
    assert plan_of(ir.Count(), rows=3, data=replace(PATIENTS, max_institutions_per_person=2)).delta_squared == 36


def test_the_scale_leaves_room_for_every_person_and_the_noise() -> None:
    crowd = replace(PATIENTS, max_persons=1 << 32)
    assert plan_of(ir.Mean("age"), data=replace(PATIENTS, max_persons=1000)).scale_bits == 40
    plan = plan_of(ir.Mean("age"), data=crowd)
    assert plan.scale_bits == 29
    assert plan.largest_sum == 1 << 61
    crowded = replace(crowd, max_rows=1000)
    with pytest.raises(QueryError) as refused:
        plan_of(ir.Mean("age"), rows=1000, data=crowded)
    assert "rows per person" in refused.value.hint


def test_bounds_map_to_minus_one_and_one() -> None:
    mid, half = centre(Numeric(-3.5, 11.25))
    assert ((-3.5 - mid) / half, (11.25 - mid) / half) == (-1.0, 1.0)


def test_plan_passes_the_one_gate() -> None:
    with pytest.raises(UnknownName):
        plan_of(ir.Mean("ages"))


def test_noise_is_the_curators_split_over_the_shares_that_are_sure() -> None:
    plan = plan_of(ir.Mean("age"))
    shape = plan.noise(100_000_000, **CLINICAL)
    assert shape.refine_bits == 0
    assert shape.central_variance == Fraction(plan.delta_squared * 5)  # 1 / (2 rho)
    assert shape.share_variance == shape.central_variance / 3
    assert shape.total_variance(4) == shape.central_variance * 4 / 3
    assert shape.total_variance(5) == shape.central_variance * 5 / 4


def test_refinement_is_the_smallest_that_makes_shares_wide() -> None:
    shape = plan_of(ir.Count()).noise(1_000_000_000, **CLINICAL)
    assert shape.refine_bits == 5
    assert shape.central_variance == Fraction(4**5, 2)
    assert 16 <= min(shape.base_variance, *shape.layers) < 64
    assert plan_of(ir.Count()).noise(1, **CLINICAL).refine_bits == 0


PURE = replace(PATIENTS, delta=0)


def test_noise_without_a_delta_is_laplace_of_the_sensitivity_over_epsilon() -> None:
    plan = plan_of(ir.Variance("age"), data=PURE)
    assert plan.delta_one == 3 << plan.scale_bits
    shape = plan.noise(500_000_000, **CLINICAL)  # epsilon 1
    assert shape.scale == plan.delta_one << shape.refine_bits
    assert shape.central_variance == 2 * shape.scale**2
    assert shape.share_variance == shape.central_variance / 3
    assert shape.part(shape.kept_variance(5)) == Fraction(1, 4)


def test_a_narrow_laplace_is_refined_until_its_variance_is_two_scales_squared() -> None:
    shape = plan_of(ir.Count(), data=PURE).noise(100 * 10**9, **CLINICAL)
    assert shape.scale is not None
    assert 64 <= shape.scale < 128
    variance = 1 / (math.cosh(1 / shape.scale) - 1)
    assert float(shape.central_variance) == pytest.approx(variance, rel=5e-5)


def test_noise_without_a_delta_that_cannot_fit_is_refused() -> None:
    with pytest.raises(QueryError, match="62 bits"):
        plan_of(ir.Mean("age"), data=replace(PURE, max_persons=1000)).noise(1, **CLINICAL)


@pytest.mark.parametrize("model", [ir.IndependenceTest("sex", "site"), ir.Matrix("correlation", ("age", "chol"))])
def test_what_needs_gaussian_noise_is_refused_without_a_delta(model: ir.Aggregate) -> None:
    with pytest.raises(QueryError, match="has no delta") as refused:
        plan_of(model, data=PURE)
    assert "counts, sums, means" in refused.value.hint


def test_tau_is_below_its_limit_for_every_cohort_we_serve() -> None:
    assert log_tau(Fraction(16), 1000) < LOG_TAU < log_tau(Fraction(9), 2)
    direct = 10 * sum(pow(2.718281828459045, -2 * 9.869604401089358 * 4 * k / (k + 1)) for k in range(1, 7))
    assert pow(2.718281828459045, log_tau(Fraction(4), 7)) >= direct


def test_too_many_shares_for_the_proof_are_refused() -> None:
    count = plan_of(ir.Count())
    with pytest.raises(QueryError, match="more than noise in shares"):
        count.noise(1_000_000_000, threshold=10**12, colluders=10**12 - 2, invited=10**12)


@pytest.mark.parametrize("rho_nano", [0, -1, MAX_RHO_NANO + 1])
def test_impossible_costs_are_refused(rho_nano: int) -> None:
    with pytest.raises(QueryError) as refused:
        plan_of(ir.Count()).noise(rho_nano, **CLINICAL)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("threshold", "colluders", "invited"), [(3, 1, 5), (6, 1, 5), (4, 4, 5), (4, -1, 5), (0, 0, 0), (5, 5, 5)]
)
def test_impossible_cohorts_are_refused(threshold: int, colluders: int, invited: int) -> None:
    with pytest.raises(QueryError, match="threshold"):
        plan_of(ir.Count()).noise(1_000_000, threshold=threshold, colluders=colluders, invited=invited)


def test_noise_that_could_leave_the_ring_is_refused() -> None:
    plan = plan_of(ir.Mean("age"), rows=None, data=replace(PATIENTS, max_persons=1000, max_rows=1_000_000))
    assert plan.noise(1_000_000_000, **CLINICAL).refine_bits == 0
    with pytest.raises(QueryError) as refused:
        plan.noise(1, **CLINICAL)
    assert "epsilon" in refused.value.hint


def test_a_small_plan_takes_less_than_a_millisecond() -> None:
    start = time.process_time()
    for _ in range(100):
        plan_of(ir.Count(), ir.Mean("age"), ir.Stddev("chol"), keys=(ir.Key("sex"),))
    assert time.process_time() - start < 0.1


def test_ten_thousand_bins_plan_quickly() -> None:
    start = time.process_time()
    plan = plan_of(ir.Histogram("chol", tuple(100 + i / 25 for i in range(10_001))))
    assert plan.length == 10_000
    assert time.process_time() - start < 0.5
