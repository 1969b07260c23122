"""Groups and bins with a small noisy count: zeros from the coordinator, nothing in an answer, alike on both sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import consortium

import analytics_client.session
from analytics_client.result import Cost, Result
from queries.errors import SchemaError
from queries.estimate import Table, estimate
from queries.plan import Plan, make_plan
from queries.schema import Dataset, from_bytes, from_toml, to_bytes
from queries.sql import ask
from queries.withheld import withhold

SCHEMA = """
name = "t"
privacy_unit = "who"
max_rows = 3
smallest_count = 20
[columns.x]
type = "number"
lower = 0
upper = 10
[columns.k]
type = "category"
categories = ["a", "b", "c"]
nullable = false
[columns.s]
type = "category"
categories = ["0", "1"]
nullable = false
"""
DATASET = from_toml(SCHEMA)


def planned(sql: str, dataset: Dataset = DATASET) -> Plan:
    return make_plan(ask(sql, {"t": dataset}).query, dataset)


def released(plan: Plan, counts: dict[str, int]) -> tuple[np.ndarray, Table]:
    """A release in which every slot of a group holds its count, and what an analyst makes of it."""
    shape = plan.noise(10**8, threshold=4, colluders=1, invited=5)
    sums = np.repeat([counts[cell[0]] if cell else counts[""] for cell in plan.cells], len(plan.slots))
    kept = withhold(plan, sums * np.tile(plan.gains, len(plan.cells)) << plan.scale_bits + shape.refine_bits, shape)
    assert np.array_equal(withhold(plan, kept, shape), kept)  # whoever does it again changes nothing
    return kept.reshape(len(plan.cells), -1), estimate(plan, kept, shape, 5)


def test_a_small_group_is_zeros_for_everybody_and_nothing_in_an_answer() -> None:
    plan = planned("SELECT k, AVG(x) AS m, COUNT(*) AS n FROM t GROUP BY k")
    kept, table = released(plan, {"a": 19, "b": 20, "c": 500})
    assert (kept[0] == 0).all()
    assert (kept[1:] != 0).all()
    for output in table.outputs:
        assert np.isnan([output.value[0], output.low[0], output.high[0], output.standard_error[0]]).all()
        assert np.isfinite(output.value[1:]).all()


def test_the_rule_counts_persons_and_pays_for_it_exactly() -> None:
    sql = "SELECT k, COUNT(*) AS n FROM t GROUP BY k"
    with_rule, without = planned(sql), planned(sql, replace(DATASET, smallest_count=0))
    assert [slot.kind for slot in with_rule.slots] == ["rows", "persons"]
    assert (with_rule.delta_squared, without.delta_squared) == (9 + 1, 9)
    one_row = planned(sql, replace(DATASET, max_rows=1))
    assert [slot.kind for slot in one_row.slots] == ["rows"]


def test_bins_are_left_out_one_by_one_but_not_those_that_a_quantile_is_read_from() -> None:
    plan = planned("SELECT HISTOGRAM(k) AS h, HISTOGRAM(x, 4) AS g FROM t")
    shape = plan.noise(10**8, threshold=4, colluders=1, invited=5)
    persons = [slot.kind for slot in plan.slots].index("persons")
    sums = np.array([100, 5, 30, 7, 60, 19, 20, 0])
    sums[persons] = 300
    kept = withhold(plan, sums << plan.scale_bits + shape.refine_bits, shape)
    assert [value > 0 for value in kept] == [True, False, True, False, True, False, True, True]
    (h, g) = estimate(plan, kept, shape, 5).outputs
    assert np.isnan(h.value[0]).tolist() == [False, True, False]
    assert np.isnan(g.value[0]).tolist() == [True, False, True, False]
    tree = planned("SELECT MEDIAN(x) AS q FROM t")
    full = np.full(tree.length, 50) << tree.scale_bits + shape.refine_bits
    leaves = np.array([slot.kind == "bin" for slot in tree.slots])
    full[leaves] = 1 << tree.scale_bits + shape.refine_bits
    assert np.array_equal(withhold(tree, full, shape), full)


def test_without_the_rule_nothing_is_left_out() -> None:
    plan = planned("SELECT k, COUNT(*) AS n FROM t GROUP BY k", replace(DATASET, smallest_count=0))
    kept, table = released(plan, {"a": 1, "b": 2, "c": 3})
    assert (kept != 0).all()
    assert np.isfinite(table.outputs[0].value).all()


def test_what_is_withheld_is_said_and_neither_sorted_by_nor_filtered() -> None:
    asked = ask("SELECT k, COUNT(*) AS n FROM t GROUP BY k HAVING n <> 7 OR k = 'a' ORDER BY n DESC", {"t": DATASET})
    _kept, table = released(make_plan(asked.query, DATASET), {"a": 3, "b": 40, "c": 500})
    assert list(asked.finish(table).row_keys) == [("c",), ("b",)]
    ordered = replace(asked.finish, having=None)
    for descending in (True, False):
        order = replace(ordered.order[0], descending=descending)
        assert replace(ordered, order=(order,))(table).row_keys[-1] == ("a",)
    result = Result(table, "t", "count(*)", "ab", Cost(0.1, 1.0, 1e-6), ("x", "y", "z"), 3, 1, 2)
    assert "withheld" in str(result)
    assert "withheld" in result._repr_html_()
    assert "nan" not in str(result)
    first = json.loads(result.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["rows"][0]
    assert first == {"k": "a", "n": dict.fromkeys(("value", "standard_error", "low", "high", "noise_share"))}


def test_the_rule_is_part_of_the_published_bytes() -> None:
    assert from_bytes(to_bytes(DATASET)) == DATASET
    for wrong in (-1, 10**9):
        with pytest.raises(SchemaError, match="smallest_count"):
            from_toml(SCHEMA.replace("smallest_count = 20", f"smallest_count = {wrong}"))


def test_a_running_consortium_hands_out_no_small_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a cost that leaves hardly any noise: 3 rows of `a` at each of three institutions, 300 of `b`, none of `c`."""
    lines = [f"p{n},{n % 10},{'a' if n < 3 else 'b'},{n % 2}\n" for n in range(303)]
    files = {}
    for name in ("mercy", "northside", "st-anne"):
        file = tmp_path / f"{name}.csv"
        file.write_text("who,x,k,s\n" + "".join(f"{name}-{line}" for line in lines))
        files[name] = {"t": f'path = "{file}"'}
    seen: list[np.ndarray] = []

    def noted(plan: Plan, sums: list[int], *rest: object) -> Table:
        seen.append(np.array(sums).reshape(len(plan.cells), -1))
        return estimate(plan, sums, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(analytics_client.session, "estimate", noted)
    with consortium(tmp_path / "consortium", [SCHEMA], files) as running, running.session() as session:
        result = session.query("SELECT k, COUNT(*) AS n, AVG(x) AS m FROM t GROUP BY k", rho=50)
        assert "withholds" in str(session.explain("SELECT COUNT(*) FROM t", rho=1))
    assert (seen[0][[0, 2]] == 0).all()  # what left the coordinator
    assert np.isnan([row.values[0].value for row in result.rows]).tolist() == [True, False, True]  # type: ignore[union-attr]
    assert result.estimate("n", k="b").value == pytest.approx(900, abs=20)
