"""A training job whose agent, then whose coordinator, is killed on the way goes on from its last release.

The sweep over every point that a job passes is in tests/soak.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.campaign import EVERYONE, Campaign, campaign
from harness.job_campaign import check_agent, train_and_maybe_kill, wait_until_closed

from analytics_client.training import ClusterModel


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with campaign(tmp_path_factory.mktemp("jobs")) as built:
        yield built


@pytest.mark.parametrize(
    ("victim", "point"),
    [
        ("cedar", "after commit upload#3"),
        ("coordinator", "after _Job._release.work#2"),
    ],
)
def test_a_job_survives(running: Campaign, victim: str, point: str) -> None:
    model = train_and_maybe_kill(running, victim, point)
    assert isinstance(model, ClusterModel), repr(model)
    assert model.complete
    assert len({round_.slot for round_ in model.rounds}) == 3
    for round_ in model.rounds:
        assert set(EVERYONE) - {victim} <= set(round_.survivors) or victim == "coordinator"
    running.wait_until_settled()
    wait_until_closed(running)
    for name in EVERYONE:
        check_agent(running, name)
    running.check_log(jobs=True)
