"""Every point of a round in turn: an agent, then the coordinator, killed there, started again, and asked again.

The points are those that an undisturbed request passes, as `harness.fatal` writes them down: before and after every
commit of the agent's ledger and every message it sends; before, within and after every transaction of the coordinator,
and at every message it receives or sends.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.campaign import EVERYONE, Campaign, campaign

from analytics_client.result import Result
from queries.errors import QuorumError, ServiceError

VICTIM = "cedar"
MOST = 0.9
"""Share of the points at which a process must really have died: the round ends at the third REVEAL, so that a fourth,
and what depends on who answers first, is not always passed."""
OF_HEADS = ("set_head", "cosignature", "send head", "Witnessing")
"""What the log's heads have a process do: how many heads a request sees depends on how long the machine takes."""

pytestmark = pytest.mark.soak


def passed_by_a_request(running: Campaign, name: str) -> list[str]:
    """LABEL#N of every point that one request passes, in order."""
    running.wait_until_settled()
    before = len(running.points(name))
    running.ask_everyone()
    running.wait_until_settled()
    time.sleep(1.5)  # the head that covers the release is witnessed when the log has been quiet for a second
    seen: Counter[str] = Counter()
    found = []
    for point in running.points(name)[before:]:
        seen[point.label] += 1
        found.append(f"{point.label}#{seen[point.label]}")
    return found


@contextmanager
def killed_at(point: str) -> Iterator[None]:
    """Say in a failure where the process was killed."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"killed at {point}")
        raise


def check_deaths(points: list[str], died: set[str]) -> None:
    """Nearly all points were died at, those of at least one head among them."""
    of_heads = {point for point in points if any(word in point for word in OF_HEADS)}
    sure = set(points) - of_heads
    assert len(sure & died) > MOST * len(sure), sorted(sure - died)
    assert of_heads & died, "no head was seen or witnessed"


def check_everything(running: Campaign) -> None:
    running.ask_everyone()
    running.wait_until_settled()
    for name in EVERYONE:
        running.check_agent(name)
    running.check_log()


def test_an_agent_killed_anywhere_costs_at_most_its_own_part(tmp_path: Path) -> None:
    with campaign(tmp_path) as running:
        points = passed_by_a_request(running, VICTIM)
        assert {"after commit reserve#1", "before send chunk#1", "after commit reveal#1"} <= set(points)
        died: set[str] = set()
        for point in points:
            with killed_at(point):
                answer = running.ask_and_maybe_kill(VICTIM, point)
                if answer is None:
                    continue
                died.add(point)
                assert isinstance(answer, Result), repr(answer)
                assert set(EVERYONE) - {VICTIM} <= set(answer.survivors)
                check_everything(running)
        check_deaths(points, died)


def test_a_coordinator_killed_anywhere_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    with campaign(tmp_path) as running:
        points = passed_by_a_request(running, "coordinator")
        assert {"within RequestDesk._release.work#1", "before unmask#1", "after receive manifest#4"} <= set(points)
        died: set[str] = set()
        for point in points:
            with killed_at(point):
                earlier = running.ask_everyone()
                kept = running.release_of(earlier)
                answer = running.ask_and_maybe_kill("coordinator", point)
                if answer is None:
                    continue
                died.add(point)
                assert isinstance(answer, Result | QuorumError | ServiceError), repr(answer)
                assert isinstance(answer, Result) or answer.hint, repr(answer)
                running.check_kept(earlier, kept)
                check_everything(running)
        check_deaths(points, died)
