"""An agent that is killed between making a step durable and sending it, at the points that decide something.

The whole sweep over every point that a round passes is in tests/soak.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.campaign import EVERYONE, Campaign, campaign

from analytics_client.result import Result

VICTIM = "cedar"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with campaign(tmp_path_factory.mktemp("agents")) as built:
        built.ask_everyone()
        yield built


@pytest.mark.parametrize(
    ("point", "counted"),
    [
        ("after commit reserve", False),
        ("after commit upload", False),
        ("after send chunk", None),
        ("after commit reveal", True),
        ("after send round reveal", True),
    ],
)
def test_a_killed_agent_costs_at_most_its_own_part(running: Campaign, point: str, counted: bool | None) -> None:
    """`counted`: whether its vector is in the sum, where that is certain."""
    result = running.ask_and_kill(VICTIM, point)
    assert isinstance(result, Result), repr(result)
    assert {name for name in EVERYONE if name != VICTIM} <= set(result.survivors)
    if counted is not None:
        assert (VICTIM in result.survivors) == counted
    running.ask_everyone()
    running.wait_until_settled()
    for name in EVERYONE:
        running.check_agent(name)


def test_the_log_is_whole_after_all_that(running: Campaign) -> None:
    running.check_log()
