"""Which processing activity an agent lets the log give a request: one of a membership that can have been in force."""

from __future__ import annotations

import time

import pytest

from analytics_client.agent.announced import check_logged
from protos.v1 import log_pb2
from queries.errors import LogError
from trust import logged
from trust.identity.activity import Activity
from trust.identity.requests import VerifiedRequest

NOW = int(time.time())
CARE = Activity("care", "care", "", ("weekly counts",))
RESEARCH = Activity("registry", "research", "", ("weekly counts", "yearly counts"))
EPOCHS = {3: (CARE,), 4: (RESEARCH,), 5: ()}


def entry(epoch: int, activity: Activity | None) -> tuple[log_pb2.LogEntry, VerifiedRequest]:
    request = VerifiedRequest(
        request_id=b"r", consortium="c", analyst="ada", roles=("analyst",), purpose="weekly counts", dataset="d",
        schema_hash=b"", query=b"q", job=b"", rho_nano=1, minimum_cohort=3, issued_at=NOW, expires_at=NOW + 60,
        seen=None, seen_note=b"", epoch=epoch, membership_hash=b"", payload=b"p", envelope=b"e",
    )  # fmt: skip
    record = logged.requested(request, "shape", activity)
    return log_pb2.LogEntry(at_ms=NOW * 1000, actor="ada", requested=record), request


@pytest.mark.parametrize(
    ("epoch", "activity", "right"),
    [
        (5, None, True),
        (5, CARE, False),
        (5, RESEARCH, False),
        (4, None, True),
        (4, RESEARCH, True),
        (4, CARE, False),  # of before the analyst asked
        (3, CARE, True),
        (3, Activity("care", "research", "", ()), False),
        (3, Activity("other", "care", "", ()), False),
        (2, Activity("other", "care", "", ()), True),  # this agent has not seen epoch 2: it cannot tell
    ],
)
def test_the_activity_is_of_a_membership_since_the_one_that_the_analyst_knew(
    epoch: int, activity: Activity | None, right: bool
) -> None:
    written, request = entry(epoch, activity)
    if right:
        check_logged(written, request, "shape", EPOCHS)
    else:
        with pytest.raises(LogError, match="processing activity"):
            check_logged(written, request, "shape", EPOCHS)


def test_everything_else_is_exact_where_the_activity_cannot_be_told() -> None:
    written, request = entry(2, CARE)
    written.requested.shape = "another"
    with pytest.raises(LogError, match="another request"):
        check_logged(written, request, "shape", EPOCHS)
    written, request = entry(2, CARE)
    written.at_ms += 3_600_000
    with pytest.raises(LogError, match="time"):
        check_logged(written, request, "shape", EPOCHS)
