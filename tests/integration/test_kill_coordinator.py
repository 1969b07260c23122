"""A coordinator that is killed in the middle of a round, at the points that decide something.

The whole sweep over every point that a request passes is in tests/soak.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.campaign import EVERYONE, Campaign, campaign

from analytics_client.result import Result
from queries.errors import QuorumError, ServiceError


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with campaign(tmp_path_factory.mktemp("coordinator")) as built:
        yield built


@pytest.mark.parametrize(
    "point",
    [
        "before RequestDesk._enter.work",
        "after receive manifest#2",
        "before unmask",
        "within RequestDesk._release.work",
        "after RequestDesk._release.work",
    ],
)
def test_a_killed_coordinator_ends_the_round_clearly_and_loses_nothing(running: Campaign, point: str) -> None:
    earlier = running.ask_everyone()
    kept = running.release_of(earlier)
    answer = running.ask_and_kill("coordinator", point)
    if point == "before RequestDesk._enter.work":
        assert isinstance(answer, ServiceError)  # nobody has heard of the request: it can be sent again
    elif point == "after RequestDesk._release.work":
        assert isinstance(answer, Result), repr(answer)  # it was durable: the next process delivers it
    else:
        assert isinstance(answer, QuorumError), repr(answer)
        assert "stopped in the middle of this round" in answer.message
    running.check_kept(earlier, kept)
    running.ask_everyone()
    running.wait_until_settled()
    for name in EVERYONE:
        running.check_agent(name)
    running.check_log()
