"""Random changes to a log's database are found and named, and honest histories are not accused."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.tampering import Campaign, run

from analytics_server.store import Store

pytestmark = pytest.mark.sqlite_files("its file is edited")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    Store.create(f"sqlite:///{tmp_path / 'template.sqlite'}").close()
    return tmp_path / "template.sqlite"


def check(campaign: Campaign) -> None:
    assert campaign.missed == []
    assert (campaign.detected, campaign.named, campaign.false_alarms) == (campaign.tried, campaign.tried, 0)


def test_random_changes_are_named(tmp_path: Path, template: Path) -> None:
    check(run(tmp_path, template, changes=200, histories=60, seed=5))


@pytest.mark.soak
def test_ten_thousand_changes_are_named(tmp_path: Path, template: Path) -> None:
    check(run(tmp_path, template, changes=10_000, histories=10_000, seed=6))
