"""Every point of a training job in turn: an agent, then the coordinator, killed there, and started again.

Nothing that was released is lost or counted twice, every institution pays for what may have left it and for nothing
else, and the job reaches its end.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from harness.campaign import EVERYONE, Campaign, campaign
from harness.job_campaign import check_agent, train, train_and_maybe_kill, wait_until_closed

from analytics_client.training import ClusterModel
from queries.errors import ServiceError

pytestmark = pytest.mark.soak
VICTIM = "cedar"
MOST = 0.8
"""Share of the points at which a process must really have died: which points are passed depends on who is first."""


def passed_by_a_job(running: Campaign, name: str) -> list[str]:
    """LABEL#N of every point that one job passes, in order."""
    before = len(running.points(name))
    assert isinstance(train(running), ClusterModel)
    running.wait_until_settled()
    seen: Counter[str] = Counter()
    found = []
    for point in running.points(name)[before:]:
        seen[point.label] += 1
        found.append(f"{point.label}#{seen[point.label]}")
    return found


def check_everything(running: Campaign) -> None:
    running.wait_until_settled()
    wait_until_closed(running)
    for name in EVERYONE:
        check_agent(running, name)
    running.check_log(jobs=True)


@pytest.mark.parametrize("victim", [VICTIM, "coordinator"])
def test_a_job_killed_anywhere_reaches_its_end(tmp_path: Path, victim: str) -> None:
    with campaign(tmp_path) as running:
        points = passed_by_a_job(running, victim)
        assert len(points) > 30
        died = 0
        for point in points:
            try:
                model = train_and_maybe_kill(running, victim, point)
                if model is None:
                    continue
                died += 1
                if victim == VICTIM or not isinstance(model, ServiceError):
                    assert isinstance(model, ClusterModel), repr(model)
                    assert model.complete
                check_everything(running)
            except BaseException as error:
                error.add_note(f"killed at {point}")
                raise
        assert died > MOST * len(points)
