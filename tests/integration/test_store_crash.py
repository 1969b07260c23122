"""SIGKILL at random instants: nothing acknowledged is lost, nothing doubled, the tree agrees with its signed head."""

from __future__ import annotations

import pytest
from harness.killing import Deaths, kill_often

KILLS, MANY_KILLS = 8, 500


def test_killed_writer_loses_and_doubles_nothing(store_url: str) -> None:
    deaths = kill_often(store_url, KILLS)
    assert deaths.acknowledged > KILLS
    assert deaths == Deaths(tried=KILLS, acknowledged=deaths.acknowledged)


def test_writers_killed_beside_others_that_go_on(store_url: str) -> None:
    """Several coordinators over one database make one sequence, whoever dies in the middle of it."""
    deaths = kill_often(store_url, KILLS, writers=3)
    assert deaths.acknowledged > KILLS
    assert deaths == Deaths(tried=KILLS, acknowledged=deaths.acknowledged)


@pytest.mark.soak
def test_writer_killed_many_times(store_url: str) -> None:
    deaths = kill_often(store_url, MANY_KILLS, check_every=25)
    assert deaths == Deaths(tried=MANY_KILLS, acknowledged=deaths.acknowledged)
