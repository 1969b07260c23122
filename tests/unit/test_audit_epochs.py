"""What an auditor sees of a membership that was withheld from an institution."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.audit import INSTITUTIONS, World, new_world

from analytics_client.audit import Report, verify
from trust.identity.activity import Activity

MINUTE_MS = 60_000


def report(world: World) -> Report:
    return verify(world.entries(), None, world.memberships, world.governance_key, checkpoints=[*world.checkpoints()])


@pytest.mark.parametrize(("minutes", "found"), [(0, False), (4, False), (6, True), (600, True)])
def test_decision_long_after_the_next_epoch_is_named(tmp_path: Path, minutes: int, found: bool) -> None:
    world = new_world(tmp_path)
    world.publish()
    world.now_ms += minutes * MINUTE_MS
    request_id = world.query(epoch=1)
    world.witness()
    said = report(world)
    assert said.ok is not found, said.findings
    if found:
        assert len(said.findings) == len(INSTITUTIONS)
        assert all("decided under membership epoch 1" in str(finding) for finding in said.findings)
    assert request_id


def test_decision_under_the_newest_epoch_is_as_it_must_be(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    world.publish()
    world.now_ms += 600 * MINUTE_MS
    world.query(epoch=2)
    world.witness()
    report(world).require()


SEPSIS = Activity("sepsis", "research", "GDPR art. 9(2)(j)", ("sepsis study",))
UNDER_SEPSIS = ("sepsis", "research")


@pytest.mark.parametrize("recorded", [("", ""), ("care", "research"), ("sepsis", "care")])
def test_request_put_under_another_activity_than_governance_did_is_named(
    tmp_path: Path, recorded: tuple[str, str]
) -> None:
    world = new_world(tmp_path)
    world.publish([SEPSIS])
    world.now_ms += 10 * MINUTE_MS
    world.query(epoch=2, activity=UNDER_SEPSIS)
    world.witness()
    report(world).require()
    at = len(world.entries())
    world.query(epoch=2, activity=recorded)
    world.query(epoch=2, activity=UNDER_SEPSIS)
    world.witness()
    (finding,) = report(world).findings
    assert "another processing activity" in str(finding)
    assert finding.first == at


def test_request_whose_purpose_belongs_nowhere_may_be_put_nowhere_alone(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    world.publish([SEPSIS])
    world.now_ms += 10 * MINUTE_MS
    world.query(epoch=2, purpose="quality of care")
    world.witness()
    report(world).require()
    world.query(epoch=2, purpose="quality of care", activity=UNDER_SEPSIS)
    world.witness()
    assert not report(world).ok


@pytest.mark.parametrize(("minutes", "found"), [(0, False), (4, False), (6, True)])
def test_activity_of_the_membership_before_holds_for_as_long_as_clocks_differ(
    tmp_path: Path, minutes: int, found: bool
) -> None:
    world = new_world(tmp_path)
    world.now_ms += 60 * MINUTE_MS
    world.publish([SEPSIS])
    world.now_ms += minutes * MINUTE_MS
    world.query(epoch=2)
    world.witness()
    assert report(world).ok is not found
