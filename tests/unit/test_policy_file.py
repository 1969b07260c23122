"""agent.toml edited while the agent runs: what is understood counts at once, what is not stops everything."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from analytics_client.agent.config import FILE, policy
from analytics_client.agent.policy_file import PolicyFile
from queries.errors import ConfigError

TEXT = """
[datasets.people]
path = "people.csv"
[policy]
quiet_hours = ["22:00-06:00", "12:00-13:00"]
[[policy.rules]]
dataset = "people"
analysts = ["*"]
purposes = ["*"]
operations = ["count"]
columns = ["*"]
max_epsilon_per_query = 1.0
max_queries_per_day = 3
approval = "manual"
[[budgets]]
dataset = "people"
total_epsilon = 2.0
per_analyst_epsilon = 2.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / FILE).write_text(TEXT)
    return tmp_path


def test_an_edit_counts_at_once(folder: Path) -> None:
    file = PolicyFile(folder)
    assert file.current().policy.rules[0].max_queries_per_day == 3
    assert file.digest == hashlib.sha256(TEXT.encode()).digest()
    edited = TEXT.replace("max_queries_per_day = 3", "max_queries_per_day = 4")
    (folder / FILE).write_text(edited)
    assert file.current().policy.rules[0].max_queries_per_day == 4
    assert file.digest == hashlib.sha256(edited.encode()).digest()


def test_one_that_is_replaced_in_place_counts_too(folder: Path) -> None:
    file = PolicyFile(folder)
    before = (folder / FILE).stat()
    new = folder / "new.toml"
    new.write_text(TEXT.replace("per_day = 3", "per_day = 5"))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(folder / FILE)
    assert file.current().policy.rules[0].max_queries_per_day == 5


def test_what_is_not_understood_stops_everything_until_it_is_mended(folder: Path) -> None:
    file = PolicyFile(folder)
    (folder / FILE).write_text(TEXT.replace("[policy]", "[policy"))
    for _ in range(2):
        with pytest.raises(ConfigError):
            file.current()
    (folder / FILE).unlink()
    with pytest.raises(ConfigError):
        file.current()
    (folder / FILE).write_text(TEXT)
    assert file.current().policy.rules[0].max_queries_per_day == 3


def test_keys_of_the_policy_arrive_in_the_rules(folder: Path) -> None:
    found = policy(PolicyFile(folder).current())
    assert [str(hours) for hours in found.quiet] == ["22:00 to 06:00", "12:00 to 13:00"]
    (rule,) = found.rules
    assert (rule.per_day, rule.approval) == (3, True)


@pytest.mark.parametrize("window", ["22:00", "22-6-1", "24:00-06:00", "", "ten-eleven"])
def test_odd_hours_are_refused_by_name(folder: Path, window: str) -> None:
    (folder / FILE).write_text(TEXT.replace("12:00-13:00", window))
    with pytest.raises(ConfigError, match="quiet_hours"):
        PolicyFile(folder)
