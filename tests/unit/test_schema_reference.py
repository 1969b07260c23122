"""The schema reference names every key that a schema file may hold, and shows the messages that are really given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from queries import schema
from queries.errors import SchemaError

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "schema.md").read_text()
EXAMPLE = re.findall(r"```toml\n(.*?)```", REFERENCE, re.DOTALL)[0]


def test_every_key_is_documented() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", REFERENCE))
    assert (schema._KNOWN_DATASET - {"columns"}) | schema._KNOWN_COLUMN <= documented


def test_the_example_is_a_valid_schema() -> None:
    dataset = schema.from_toml(EXAMPLE)
    assert [c.name for c in dataset.columns] == ["age", "sex", "bmi"]
    assert schema.from_bytes(schema.to_bytes(dataset)) == dataset


@pytest.mark.parametrize(
    ("good", "bad", "number"),
    [
        ("lower = 18\nupper = 100", "lower = 10\nupper = 5", 0),
        ("upper = 100\n", "", 1),
        ("max_rows = 1", "max_row = 3", 2),
        ('type = "category"', 'type = "string"', 3),
        ('privacy_unit = "patient_id"\nmax_rows = 1', "max_rows = 3", 4),
    ],
)
def test_every_mistake_in_the_reference_is_answered_as_it_says(good: str, bad: str, number: int) -> None:
    table = REFERENCE.split("## What a mistake looks like")[1]
    promised = re.findall(r"^\| .* \| `(.*)` \|$", table, re.MULTILINE)[number]
    assert good in EXAMPLE
    with pytest.raises(SchemaError) as caught:
        schema.from_toml(EXAMPLE.replace(good, bad))
    assert str(caught.value).startswith(promised.split(" ...")[0])


@pytest.mark.parametrize("name", ["patients", "labs"])
def test_the_example_schemas_are_valid(name: str) -> None:
    assert schema.from_toml((ROOT / "examples" / f"{name}.toml").read_text()).name == name
