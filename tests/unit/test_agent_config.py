"""agent.toml: every key documented, unknown keys and contradictions refused by name, nothing allowed by default."""

from __future__ import annotations

import re
from pathlib import Path

import pydantic
import pytest

from analytics_client.agent import config
from queries.errors import BudgetError, ConfigError
from queries.policy import Policy
from queries.schema import Categorical, Column, Dataset

DOCS = Path(__file__).parents[2] / "docs" / "agent.md"
FOLDER = Path("/srv/agent")
GOOD = """
[datasets.patients]
path = "patients.csv"
[[policy.rules]]
dataset = "patients"
analysts = ["ada"]
purposes = ["*"]
operations = ["count"]
columns = ["*"]
max_epsilon_per_query = 0.5
[[budgets]]
dataset = "patients"
total_epsilon = 10
per_analyst_epsilon = 2.0
analysts = { ada = 4.0 }
"""


def parse(text: str) -> config.AgentConfig:
    return config.parse(text, FOLDER)


def tables() -> list[type[pydantic.BaseModel]]:
    return [table for table in vars(config).values() if isinstance(table, type) and issubclass(table, config._Table)]


def test_every_key_is_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE))
    top = set(re.findall(r"^### `\[+(\w+)", DOCS.read_text(), re.MULTILINE))
    keys = {key for table in tables() if table is not config.AgentConfig for key in table.model_fields}
    assert len(tables()) >= 7
    assert keys <= documented
    assert set(config.AgentConfig.model_fields) == top


def test_no_key_is_documented_that_does_not_exist() -> None:
    commands = {"enrol", "check", "run", "ledger", "renew", "requests"}
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE))
    assert documented - commands <= {key for table in tables() for key in table.model_fields}


def test_the_example_of_the_guide_is_accepted() -> None:
    example = re.search(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert example is not None
    read = parse(example[1])
    assert read.datasets["patients"].columns["age"].column == "ALTER"
    assert read.datasets["patients"].columns["patient_id"].column == ""


@pytest.mark.parametrize("data", [None, {"patients": "/data/patients.csv", "labs": 'a "quoted" näme\\x.parquet'}])
def test_the_template_denies_everything(data: dict[str, str] | None) -> None:
    read = parse(config.template(data))
    assert config.policy(read) == Policy()
    assert {name: table.path for name, table in read.datasets.items()} == {
        name: str(FOLDER / path) for name, path in (data or {}).items()
    }
    with pytest.raises(BudgetError):
        config.budgets(read, {}).for_request("patients", "ada")


def test_the_templates_examples_are_valid_once_uncommented() -> None:
    text = re.sub(r"^# (?=[\[a-z])(?!What|As|This)", "", config.template(), flags=re.MULTILINE)
    read = parse(text)
    assert read.policy.rules[0].analysts == ("ada",)
    assert read.datasets["patients"].columns["sex"].values == {"0": "male", "1": "female"}


def test_budgets_carry_the_schemas_delta() -> None:
    dataset = Dataset("patients", (Column("sex", Categorical(("f", "m"))),), delta=1e-5)
    limits = config.budgets(parse(GOOD), {"patients": dataset}).for_request("patients", "ada")
    assert (limits.analyst.epsilon, limits.total.epsilon, limits.analyst.delta) == (4.0, 10.0, 1e-5)
    assert config.budgets(parse(GOOD), {"patients": dataset}).for_request("patients", "bo").analyst.epsilon == 2.0
    with pytest.raises(BudgetError):
        config.budgets(parse(GOOD), {}).for_request("patients", "ada")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("path =", "paht =", "did you mean 'path'"),
        ("max_epsilon_per_query", "max_epsilon", "did you mean 'max_epsilon_per_query'"),
        ("[[budgets]]", "[[budget]]", "did you mean 'budgets'"),
        ('"patients.csv"', "3", "datasets.patients.path: input should be a valid string"),
        ("total_epsilon = 10", "total_epsilon = true", "total_epsilon"),
        ("total_epsilon = 10", "total_epsilon = nan", "finite"),
        ("total_epsilon = 10", "total_epsilon = 3", "more than total_epsilon"),
        ("0.5", "5.0", "more than any budget holds"),
        ("0.5", "-1", "max_epsilon"),
        ("0.5", "inf", "max_epsilon"),
        ('["count"]', '["cuont"]', "no operation 'cuont'"),
        ('["ada"]', "[]", "analysts"),
        ('["ada"]', '["ada", ""]', "analysts"),
        ('["ada"]', '"ada"', "analysts"),
        ('dataset = "patients"\nanalysts', 'dataset = "patient"\nanalysts', "did you mean 'patients'"),
        ('dataset = "patients"\ntotal', 'dataset = "pat"\ntotal', "which has no"),
        ("[[budgets]]", "[policy]\nminimum_cohort = 2\n[[budgets]]", "minimum_cohort"),
        ("patients.csv", "patients.xlsx", "does not end in"),
        ("[datasets.patients]", "[datasets.patients", "not valid TOML"),
        ('path = "patients.csv"', 'path = "patients.csv"\nschema_sha256 = "ABC"', "schema_sha256"),
        ('path = "patients.csv"', 'path = "patients.csv"\ncolumns = { age = 3 }', "columns.age"),
    ],
)
def test_mistakes_are_refused_by_name(old: str, new: str, message: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if "[policy]" in text:
        text = text.replace("[policy]\nminimum_cohort = 2\n", "").replace(
            "[[policy.rules]]", "[policy]\nminimum_cohort = 2\n[[policy.rules]]", 1
        )
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(text)


def test_a_rule_without_a_budget_is_a_contradiction() -> None:
    with pytest.raises(ConfigError, match="no \\[\\[budgets\\]\\] entry pays"):
        parse(GOOD[: GOOD.index("[[budgets]]")])


def test_two_budgets_for_one_dataset_are_a_contradiction() -> None:
    with pytest.raises(ConfigError, match="two budgets"):
        parse(GOOD + GOOD[GOOD.index("[[budgets]]") :])


def test_a_missing_or_unreadable_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        config.load(tmp_path)
    (tmp_path / config.FILE).write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        config.load(tmp_path)
    (tmp_path / config.FILE).write_text(GOOD)
    assert config.load(tmp_path).datasets["patients"].path == str(tmp_path / "patients.csv")


def test_a_pinned_description_is_the_only_one_accepted() -> None:
    pinned = parse(GOOD.replace("[[policy.rules]]", f'schema_sha256 = "{"ab" * 32}"\n[[policy.rules]]', 1))
    assert pinned.datasets["patients"].accepts(b"\xab" * 32)
    assert not pinned.datasets["patients"].accepts(b"\xac" * 32)
    assert parse(GOOD).datasets["patients"].accepts(b"\xac" * 32)
