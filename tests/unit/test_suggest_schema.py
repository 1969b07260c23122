"""Drafts of schemas: they parse, they know clinical ranges, and they mark what came from the data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from harness.live import command
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_client.agent import config
from analytics_client.agent.sources import open_source
from analytics_client.agent.suggest import suggest
from queries.errors import DataError
from queries.schema import Categorical, Numeric, from_toml

CSV = """Patient ID,AGE,Sex,Chol,Note,Smoker,Visit,score,weight
p1,63,f,233,likes tea and long walks,true,2020-01-02,0.5,70.5
p2,41,m,250,was seen twice in May,false,2021-11-30,0.9,
p3,56,f,199,came with their sister,true,2019-05-05,12.75,82
p4,57,m,301,no news since the autumn,true,2020-02-29,-0.25,65
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text(CSV)
    return path


def test_a_draft_parses_and_knows_what_is_clinically_plausible(file: Path) -> None:
    dataset = from_toml(suggest(file))
    assert dataset.name == "patients"
    assert dataset.privacy_unit == "patient_id"
    age, chol = dataset.column("age").kind, dataset.column("chol").kind
    assert age == Numeric(0, 120, integer=True)
    assert chol == Numeric(40, 800)  # mg/dl, as the numbers say
    assert dataset.column("weight").nullable
    assert not dataset.column("age").nullable
    assert dataset.column("sex").kind == Categorical(("f", "m"))
    assert dataset.column("smoker").kind == Categorical(("false", "true"))


def test_what_came_from_the_data_is_marked_and_text_and_dates_are_left_out(file: Path) -> None:
    text = suggest(file)
    lines = text.splitlines()
    assert all("REVIEW" in line for line in lines if line.startswith("categories"))
    [score] = [number for number, line in enumerate(lines) if line == "[columns.score]"]
    assert "REVIEW" in lines[score + 2]
    assert "REVIEW" in lines[score + 3]
    assert "# note: left out" in text
    assert "# visit: left out, it holds dates" in text
    assert "tea" not in text


def test_a_draft_fits_the_file_that_it_came_from(file: Path, tmp_path: Path) -> None:
    dataset = from_toml(suggest(file))
    table = config.parse(
        f'[datasets.patients]\npath = "{file}"\n[datasets.patients.columns]\npatient_id = "Patient ID"\n', tmp_path
    )
    report = open_source(table.datasets["patients"], dataset).check()
    assert report.persons == report.rows == 4
    assert all(column.unpublished == 0 and column.clipped == 0 for column in report.columns)


def test_parquet_gives_the_draft_that_csv_gives(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "patients.parquet"
    pd.read_csv(file).to_parquet(other)
    assert from_toml(suggest(other)) == from_toml(suggest(file))


def test_several_rows_of_a_person_and_none_that_names_one_are_said(tmp_path: Path) -> None:
    path = tmp_path / "visits.csv"
    path.write_text("patient_id,hr\n" + "".join(f"p{i % 30},{60 + i % 40}\n" for i in range(60)))
    assert "persons here have several rows" in suggest(path)
    path.write_text("hr,rr\n" + "".join(f"{60 + i % 40},{12 + i % 9}\n" for i in range(60)))
    text = suggest(path)
    assert "no column looks as if it named persons" in text
    assert from_toml(text).privacy_unit == ""


@pytest.mark.parametrize(
    ("data", "match"),
    [(b"", "no table"), (b"a,b\n", "has no rows"), (b"a,b\n\xff\xfe,1\n", "not UTF-8")],
)
def test_a_file_that_is_no_table_is_refused(data: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=match):
        suggest(path)


NASTY = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(names=st.lists(NASTY, min_size=1, max_size=5), values=st.lists(NASTY, min_size=1, max_size=8))
def test_whatever_a_file_holds_the_draft_is_a_schema_or_has_no_columns(names: list[str], values: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        unique = list(dict.fromkeys(names))
        pd.DataFrame(dict.fromkeys(unique, values)).to_parquet(path)
        text = suggest(path)
        if "[columns." in text:
            from_toml(text)


def test_the_command_writes_a_draft_once(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "draft.toml"
    first = command("cohortium-agent", "suggest-schema", file, "--name", "cohort", "--output", target)
    assert first.returncode == 0, first.stderr
    assert "Review it" in first.stdout
    assert from_toml(target.read_text()).name == "cohort"
    assert oct(target.stat().st_mode)[-3:] == "600"
    again = command("cohortium-agent", "suggest-schema", file, "--output", target)
    assert again.returncode != 0
    assert "exists already" in again.stderr
