"""A result is one set of rows, whether read as text, JSON, CSV, HTML or pandas."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from analytics_client.render import compact, number, result_table, to_text
from analytics_client.result import Cost, Result
from queries.estimate import Bin, Estimate, Output, Table

KEYS = (("female",), ("male",))


def _output(name: str, values: list[float], half: float) -> Output:
    value = np.array(values)
    return Output(name, value, np.full(len(values), half / 1.96), value - half, value + half)


def _result(table: Table) -> Result:
    return Result(
        table=table,
        dataset="patients",
        question="count(*), mean(age) by sex",
        request_id="ab" * 32,
        cost=Cost(0.01, 0.65, 1e-6),
        survivors=("mercy", "northside", "st-anne"),
        invited=4,
        log_seq=17,
        log_size=18,
    )


PLAIN = _result(
    Table(("sex",), KEYS, (_output("n", [9320.25, 8228.5], 31.5), _output("age", [52.917, 52.371], 0.1234)))
)
WIDE = _result(
    Table(
        ("sex",),
        KEYS,
        (
            _output("n", [10.0, 20.0], 1.0),
            Output(
                "h",
                np.array([[1.0, 2.0], [3.0, 4.0]]),
                np.ones((2, 2)),
                np.array([[0.0, 1.0], [2.0, 3.0]]),
                np.array([[2.0, 3.0], [4.0, 5.0]]),
                (Bin("[0, 5)", 0, 5), Bin("[5, 9]", 5, 9)),
            ),
        ),
    )
)


def test_rows_hold_estimates_by_public_key() -> None:
    assert [row.keys for row in PLAIN.rows] == [("female",), ("male",)]
    assert PLAIN.columns == ("n", "age")
    age = PLAIN.estimate("age", sex="male")
    assert (age.value, age.low, age.high) == (52.371, 52.371 - 0.1234, 52.371 + 0.1234)


@pytest.mark.parametrize(
    "question", [("bmi", {"sex": "male"}), ("age", {"sex": "x"}), ("age", {}), ("age", {"x": "y"})]
)
def test_a_number_that_is_not_there_is_a_key_error(question: tuple[str, dict[str, str]]) -> None:
    with pytest.raises(KeyError):
        PLAIN.estimate(question[0], **question[1])


def test_json_has_everything_a_script_needs() -> None:
    read = json.loads(PLAIN.to_json())
    assert read["rows"][0]["sex"] == "female"
    assert read["rows"][0]["n"] == {
        "value": 9320.25, "standard_error": 31.5 / 1.96, "low": 9288.75, "high": 9351.75, "noise_share": 1.0,
    }  # fmt: skip
    assert read["cost"] == {"epsilon": 0.65, "rho": 0.01, "delta": 1e-6}
    assert read["survivors"] == ["mercy", "northside", "st-anne"]
    assert read["invited"] == 4
    assert read["log"] == {"seq": 17, "size": 18}


def test_json_lists_the_bins_of_a_histogram() -> None:
    bins = json.loads(WIDE.to_json())["rows"][1]["h"]
    assert [b["bin"] for b in bins] == ["[0, 5)", "[5, 9]"]
    numbers = {"value": 4, "standard_error": 1, "low": 3, "high": 5, "noise_share": 1}
    assert bins[1] == {"bin": "[5, 9]", "lower": 5, "upper": 9, **numbers}


@pytest.mark.parametrize("result", [PLAIN, WIDE])
def test_csv_and_pandas_agree_to_the_last_digit(result: Result) -> None:
    lines = list(csv.reader(io.StringIO(result.to_csv())))
    frame = result.to_pandas()
    assert lines[0] == list(frame.columns)
    for line, (_, row) in zip(lines[1:], frame.iterrows(), strict=True):
        assert line[0] == row["sex"]
        assert [float(cell) for cell in line[1:]] == [float(cell) for cell in row[1:]]


def test_pandas_columns_carry_interval_and_error() -> None:
    frame = PLAIN.to_pandas()
    assert list(frame.columns) == [
        "sex", "n", "n_se", "n_low", "n_high", "n_noise", "age", "age_se", "age_low", "age_high", "age_noise",
    ]  # fmt: skip
    assert frame.loc[1, "age"] == 52.371
    assert list(WIDE.to_pandas().columns[6:8]) == ["h [0, 5)", "h [0, 5)_se"]


def test_the_text_shows_numbers_with_the_digits_they_deserve() -> None:
    lines = str(PLAIN).splitlines()
    female = next(line for line in lines if "female" in line)
    assert female.split() == ["female", "9,320", "9,289", "…", "9,352", "52.92", "52.79", "…", "53.04"]
    assert "3 of 4 institutions: mercy, northside, st-anne" in str(PLAIN)
    assert "epsilon 0.65" in str(PLAIN)
    assert "entry 17" in str(PLAIN)


def test_the_share_of_noise_is_shown_where_it_is_not_everything() -> None:
    assert "of it noise" not in str(PLAIN)
    assert "of it noise" not in PLAIN._repr_html_()
    output = _output("fit", [1.0, 2.0], 0.5)
    some = _result(Table(("sex",), KEYS, (replace(output, noise_share=np.array([0.125, np.nan])),)))
    assert "of it noise" in str(some)
    assert "12%" in str(some)
    assert "<td>12%</td>" in some._repr_html_()
    assert json.loads(some.to_json())["rows"][0]["fit"]["noise_share"] == 0.125
    assert json.loads(some.to_json())["rows"][1]["fit"]["noise_share"] is None
    assert some.to_pandas()["fit_noise"].tolist()[0] == 0.125


def test_html_escapes_what_it_shows() -> None:
    table = Table(("sex",), (("<b>",),), (_output("n&m", [1.0], 1.0),))
    shown = _result(table)._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "n&amp;m" in shown
    assert "<b>" not in shown


def test_square_brackets_in_keys_are_text_and_no_markup() -> None:
    table = Table(("bin",), (("[red]",),), (_output("n", [1.0], 1.0),))
    assert "[red]" in to_text(result_table(_result(table)))


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (52.71234, 0.341, "52.71"),
        (52.71234, 3.41, "52.7"),
        (52.71234, 34.1, "53"),
        (1234567.8, 1000.0, "1,234,568"),
        (-0.2, 20.0, "0"),
        (0.00012345, 0.0000123, "0.000123"),
        (5.0, 0.0, "5.000000"),
    ],
)
def test_a_number_is_shown_with_two_digits_of_its_uncertainty(value: float, half: float, shown: str) -> None:
    assert compact(value, value - half, value + half)[0] == shown


def test_a_negative_number_keeps_its_sign() -> None:
    assert number(-12.34, 1) == "-12.3"
    assert isinstance(PLAIN.rows[0].values[0], Estimate)
