"""Local texts become the published categories that a plain reading gives, loaded or in place, however oddly written."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_client.agent import config
from analytics_client.agent.sources import columns
from analytics_client.agent.sources import duckdb as duckdb_source
from analytics_client.agent.sources.loading import WHITE
from queries import ir
from queries.plan import make_plan
from queries.schema import OTHER, Dataset, from_toml

SCHEMA = """
name = "t"
privacy_unit = ""
[columns]
k = { type = "category", categories = ["1", "2.5", "it's", "ä€", "01x", "999999999.999999"], other = true }
"""
CONFIG = """
[datasets.t]
path = "@PATH@"
missing = ["NA", "2"]
[datasets.t.columns.k]
values = { "0" = "it's", "03" = "1", "3" = "2.5", "-7.250" = "ä€", "some text" = "1" }
"""
LISTED = ["1", "2.5", "it's", "ä€", "01x", "999999999.999999", "0", "03", "3", "-7.250", "some text", "NA", "2"]
NUMBERS = ["1.0", "+1", "01", "-1", "1.0000000", "1.000001", "2.50", "3.0", "-0", "-0.0", "+0", "-7.25", "1e0", "1_0"]
NUMBERS += ["999999999.9999990", "1000000001", "000000001", "0000000001", "1.", ".5", "NaN", "inf", "0x1"]
INSIDE = st.one_of(st.sampled_from(LISTED), st.sampled_from(NUMBERS), st.text(max_size=4))
AROUND = st.text(st.sampled_from(WHITE), max_size=2)
FIELDS = st.one_of(st.none(), st.builds(lambda before, text, after: before + text + after, AROUND, INSIDE, AROUND))


def reading(field: str | None, dataset: Dataset, known: columns.Codes) -> str | None:
    """The category of a field, written without a database."""
    text = (field or "").strip(WHITE)
    if text in {"", "NA", "2"}:
        return None
    keys = dataset.categorical("k").keys
    if text in known.texts:
        return keys[known.texts[text]]
    if re.fullmatch(columns.PLAIN_NUMBER, text) and float(text) in known.numbers:
        return keys[known.numbers[float(text)]]
    return OTHER


@settings(max_examples=60, deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=40), st.booleans())
def test_fields_fall_into_the_categories_that_a_plain_reading_gives(fields: list[str | None], in_place: bool) -> None:
    dataset = from_toml(SCHEMA)
    plan = make_plan(ir.Query("t", (ir.NamedAggregate("h", ir.Histogram("k")),)), dataset)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "t.parquet"
        pd.DataFrame({"k": pd.array(fields, dtype="string")}).to_parquet(path)
        table = config.parse(CONFIG.replace("@PATH@", str(path)), Path(folder)).datasets["t"]
        table = table.model_copy(update={"format": "parquet"})
        patch.setattr(duckdb_source, "IN_PLACE_BYTES", 0 if in_place else 1 << 40)
        source = duckdb_source.DuckDBSource.open(table, dataset)
        sums = source.aggregate(plan, bytes(32))
        source.close()
    known = columns.codes("k", dataset.categorical("k"), table.columns["k"].values)
    expected = Counter(reading(field, dataset, known) for field in fields)
    keys = dataset.categorical("k").keys
    assert (sums / 2**plan.scale_bits).tolist() == [expected[key] for key in keys]
