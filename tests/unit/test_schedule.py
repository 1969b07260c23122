"""Answers leave at a few fixed times, whatever the data took."""

import time

from hypothesis import given
from hypothesis import strategies as st

from analytics_client.agent.schedule import FIRST_S, LAST_DOUBLED_S, leaves_after, wait

TIMES = [FIRST_S * 2**k for k in range(7)]


@given(st.floats(0, LAST_DOUBLED_S))
def test_short_answers_leave_at_one_of_seven_times(elapsed: float) -> None:
    assert min(abs(leaves_after(elapsed) - at) for at in TIMES) < 1e-9
    assert leaves_after(elapsed) >= elapsed * (1 - 1e-8)
    assert leaves_after(elapsed) <= max(FIRST_S, 2 * elapsed)


@given(st.floats(LAST_DOUBLED_S, 1000))
def test_long_answers_leave_at_multiples(elapsed: float) -> None:
    steps = leaves_after(elapsed) / LAST_DOUBLED_S
    assert abs(steps - round(steps)) < 1e-9
    assert elapsed * (1 - 1e-8) <= leaves_after(elapsed) <= elapsed + LAST_DOUBLED_S


@given(st.floats(0, 100), st.floats(0, 100))
def test_who_is_later_does_not_leave_earlier(one: float, other: float) -> None:
    assert leaves_after(min(one, other)) <= leaves_after(max(one, other))


def test_waiting_ends_at_the_time() -> None:
    since = time.monotonic()
    wait(since)
    assert time.monotonic() - since >= FIRST_S
