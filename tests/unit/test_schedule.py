"""Answers leave at a few fixed times, whatever the data took."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_client.agent.schedule import (
    FIRST_S,
    LAST_DOUBLED_S,
    LAST_OF_ROUNDS_S,
    ROUND_STEPS,
    leaves_after,
    wait,
)

LAST = {1: LAST_DOUBLED_S, ROUND_STEPS: LAST_OF_ROUNDS_S}
KINDS = st.sampled_from([1, ROUND_STEPS])


@given(KINDS, st.floats(0, 1))
def test_short_answers_leave_at_one_of_few_times(steps: int, share: float) -> None:
    elapsed = share * LAST[steps]
    times = [FIRST_S * 2 ** (k / steps) for k in range(9 * steps)]
    assert sum(at <= LAST[steps] * (1 + 1e-9) for at in times) == {1: 7, ROUND_STEPS: 33}[steps]
    assert min(abs(leaves_after(elapsed, steps=steps) - at) for at in times) < 1e-8
    assert leaves_after(elapsed, steps=steps) >= elapsed * (1 - 1e-8)
    assert leaves_after(elapsed, steps=steps) <= max(FIRST_S, 2 ** (1 / steps) * elapsed * (1 + 1e-8))


@given(KINDS, st.floats(1, 100))
def test_long_answers_leave_at_multiples(steps: int, times: float) -> None:
    elapsed = times * LAST[steps] * (1 + 1e-9)
    leaves = leaves_after(elapsed, steps=steps) / LAST_DOUBLED_S
    assert abs(leaves - round(leaves)) < 1e-8
    assert elapsed * (1 - 1e-8) <= leaves_after(elapsed, steps=steps) <= elapsed + LAST_DOUBLED_S


@given(KINDS, st.floats(0, 100), st.floats(0, 100))
def test_who_is_later_does_not_leave_earlier(steps: int, one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    assert leaves_after(earlier, steps=steps) <= leaves_after(later, steps=steps) * (1 + 1e-12)


@pytest.mark.parametrize("steps", [1, ROUND_STEPS])
def test_waiting_ends_at_the_time(steps: int) -> None:
    since = time.monotonic()
    wait(since, steps=steps)
    assert time.monotonic() - since >= FIRST_S
