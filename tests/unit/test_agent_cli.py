"""cohortium-agent check and ledger as a steward meets them: plain words, JSON, one-line errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness.live import heavy_modules

from analytics_client.agent.check import check
from analytics_client.agent.grants import Limits
from analytics_client.agent.ledger import Ledger
from queries.accounting import Budget, Curve, epsilon_to_rho_nano
from queries.errors import ConfigError, DataError

SCHEMA = """
name = "patients"
privacy_unit = "who"
max_rows = 2
[columns]
age = { type = "integer", lower = 0, upper = 120 }
sex = { type = "category", categories = ["female", "male"] }
"""
AGENT = """
[datasets.patients]
path = "patients.csv"
[[policy.rules]]
name = "study"
dataset = "patients"
analysts = ["ada"]
purposes = ["*"]
operations = ["count", "mean"]
columns = ["age"]
max_epsilon_per_query = 0.5
[[budgets]]
dataset = "patients"
total_epsilon = 10
per_analyst_epsilon = 2
"""
DATA = "who,AGE ,sex\np,130,male\np,,x\np,50,female\n,40,male\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agent.toml").write_text(AGENT)
    (tmp_path / "patients.csv").write_text(DATA)
    (tmp_path / "schema.toml").write_text(SCHEMA)
    return tmp_path


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from analytics_client.agent.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_check_counts_what_does_not_fit_and_says_what_could_be_asked(folder: Path) -> None:
    report = check(folder, [folder / "schema.toml"])
    source = report.findings[0].source
    assert (source.rows, source.persons, source.without_person, source.most_rows) == (3, 1, 1, 3)
    age, sex = source.columns
    assert (age.local, age.missing, age.clipped) == ("AGE ", 1, 1)
    assert (sex.missing, sex.unpublished) == (0, 1)
    said = " ".join(report.sentences)
    assert "Rule 'study': analyst ada may ask dataset patients" in said
    assert "Denies everything else." in said
    times = Budget(2, 1e-6).left(Curve.zero()) // epsilon_to_rho_nano(0.5, 1e-6)
    assert f"{times} queries of the largest size allowed" in said


def test_check_prints_for_people_and_for_programs(folder: Path) -> None:
    done = agent("check", str(folder), "--schema", str(folder / "schema.toml"))
    assert done.returncode == 0, done.stderr
    assert "3 rows of 1 persons" in done.stdout
    assert "'AGE '" in done.stdout
    pinned = next(line for line in done.stdout.splitlines() if "schema_sha256" in line).split("description: ")[1]
    as_json = agent("check", str(folder), "--schema", str(folder / "schema.toml"), "--json")
    assert json.loads(as_json.stdout)["datasets"][0]["columns"][0]["clipped"] == 1
    text = (folder / "agent.toml").read_text()
    (folder / "agent.toml").write_text(text.replace('path = "patients.csv"', f'path = "patients.csv"\n{pinned}'))
    check(folder, [folder / "schema.toml"])
    (folder / "schema.toml").write_text(SCHEMA.replace("120", "121"))
    with pytest.raises(ConfigError, match="pins"):
        check(folder, [folder / "schema.toml"])


def test_check_without_a_schema_says_what_it_left_out(folder: Path) -> None:
    done = agent("check", str(folder))
    assert "give its --schema" in done.stdout
    (folder / "patients.csv").unlink()
    missing = agent("check", str(folder))
    assert missing.returncode == ConfigError.exit_code
    assert missing.stderr.startswith("error: there is no file")
    assert "Traceback" not in missing.stderr


def test_check_refuses_a_rule_about_a_column_that_does_not_exist(folder: Path) -> None:
    (folder / "agent.toml").write_text(AGENT.replace('["age"]', '["agee"]'))
    with pytest.raises(ConfigError, match="did you mean 'age'"):
        check(folder, [folder / "schema.toml"])


def test_check_refuses_a_schema_of_another_dataset(folder: Path) -> None:
    (folder / "schema.toml").write_text(SCHEMA.replace('"patients"', '"patient"'))
    with pytest.raises(ConfigError, match="did you mean 'patients'"):
        check(folder, [folder / "schema.toml"])


def test_check_says_where_text_stands_in_a_number(folder: Path) -> None:
    (folder / "patients.csv").write_text(DATA.replace("50", "SECRET"))
    done = agent("check", str(folder), "--schema", str(folder / "schema.toml"))
    assert done.returncode == DataError.exit_code
    assert "column 'age' of patients.csv holds text in line 4" in done.stderr
    assert "SECRET" not in done.stdout + done.stderr


def test_ledger_tells_balances_in_plain_words(folder: Path) -> None:
    missing = agent("ledger", str(folder))
    assert missing.returncode == ConfigError.exit_code
    assert "no ledger yet" in missing.stderr
    cost = epsilon_to_rho_nano(0.5, 1e-6)
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        empty = agent("ledger", str(folder))
        assert "Nothing was asked" in empty.stdout
        ledger.reserve(
            request_id=b"\xab" * 32,
            digest=b"d",
            dataset="patients",
            analyst="ada",
            charge=Curve.from_rho_nano(cost),
            rho_nano=cost,
            budgets=Limits(Budget(2, 1e-6), Budget(10, 1e-6)),
            round_id=b"r",
        )
        done = agent("ledger", str(folder))
    assert "Analyst 'ada' has used epsilon 0.5" in done.stdout
    assert "of 2 on dataset 'patients'; one query of epsilon 1.9" in done.stdout
    assert "All analysts together have used epsilon 0.5" in done.stdout
    assert "ab" * 8 in done.stdout
    record = json.loads(agent("ledger", str(folder), "--json").stdout)
    assert record["requests"][0]["state"] == "reserved"
    assert {a["analyst"] for a in record["accounts"]} == {None, "ada"}


def test_a_lost_ledger_is_acknowledged_with_a_reason(folder: Path) -> None:
    Ledger.open(folder / "ledger.sqlite").close()
    (folder / "ledger.sqlite").unlink()
    lost = agent("ledger", str(folder))
    assert lost.returncode == ConfigError.exit_code
    assert "--acknowledge-loss" in lost.stderr
    done = agent("ledger", str(folder), "--acknowledge-loss", "disk died")
    assert done.returncode == 0, done.stderr
    assert "disk died" in done.stdout


def test_enrol_refuses_a_mistyped_data_option_before_anything_is_sent(folder: Path) -> None:
    done = agent("enrol", "token", str(folder / "new"), "--data", "patients.csv")
    assert done.returncode == ConfigError.exit_code
    assert "NAME=PATH" in done.stderr
    assert not (folder / "new").exists()


def test_help_loads_little() -> None:
    assert agent("--help").returncode == 0
    assert heavy_modules("analytics_client.agent.cli") == []
