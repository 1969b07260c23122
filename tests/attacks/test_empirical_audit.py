"""Audits of released values: a right mechanism passes, and every planted bug is found.

A right mechanism fails an audit here with probability at most 10^-6 each: limits are one-sided at that level.
"""

from __future__ import annotations

import numpy as np
import pytest
from adversary.audit import Setting, averaged, clamping, event_audit, forgetful, gdp_audit, one_key, releases

DELTA = 1e-5
MANY = 200_000
"""Releases in each world: long enough that the agent's own sampler draws them."""
MORE = 1_500_000
"""Releases from which the event audit, which sees less, proves a doubled sensitivity with room to spare."""


@pytest.mark.parametrize(
    "setting",
    [
        Setting(0.1),
        Setting(0.5),
        Setting(0.5, survivors=5),
        Setting(0.5, institutions=10, colluders=2),
        Setting(0.5, institutions=10, colluders=2, survivors=9),
    ],
)
def test_released_values_prove_no_more_than_their_cost(setting: Setting) -> None:
    without = releases(setting, MANY, person=False)
    present = releases(setting, MANY, person=True)
    gdp = gdp_audit(without, present, setting.rho)
    assert not gdp.violated
    assert gdp.estimate == pytest.approx(gdp.promised, rel=0.05)  # and the coalition gets all that it was promised
    assert not event_audit(without, present, setting.rho, DELTA).violated


@pytest.mark.parametrize(
    "setting",
    [
        Setting(0.5, pure=True),
        Setting(0.5, survivors=5, pure=True),
        Setting(0.5, institutions=10, colluders=2, survivors=9, pure=True),
    ],
)
def test_without_a_delta_no_event_is_more_than_epsilon_likelier(setting: Setting) -> None:
    """Epsilon is 1 at rho 0.5, and a tail shows very nearly all of it."""
    without, present = (releases(setting, MANY, person=p) for p in (False, True))
    verdict = event_audit(without, present, setting.rho, 0.0)
    assert verdict.promised == 1.0
    assert not verdict.violated
    assert verdict.low > 0.8


@pytest.mark.parametrize("bug", [forgetful, one_key])
def test_a_planted_bug_in_noise_without_a_delta_is_found(bug: object) -> None:
    setting = Setting(0.5, pure=True)
    without, present = (releases(setting, 2 * MANY, person=p, draw=bug()) for p in (False, True))  # type: ignore[operator]
    assert event_audit(without, present, setting.rho, 0.0).violated


def test_without_a_delta_a_layer_taken_off_too_many_is_found() -> None:
    setting = Setting(0.5, institutions=10, colluders=2, survivors=7, too_many=1, pure=True)
    without, present = (releases(setting, 2 * MANY, person=p) for p in (False, True))
    assert event_audit(without, present, setting.rho, 0.0).violated


@pytest.mark.parametrize("bug", [forgetful, averaged, one_key, clamping])
def test_a_planted_bug_in_the_noise_is_found(bug: object) -> None:
    setting = Setting(0.5)
    without = releases(setting, MANY, person=False, draw=bug())  # type: ignore[operator]  # one of four factories
    present = releases(setting, MANY, person=True, draw=bug())  # type: ignore[operator]
    assert gdp_audit(without, present, setting.rho).violated


@pytest.mark.parametrize("survivors", [7, 9])
def test_a_layer_of_noise_taken_off_too_many_is_found(survivors: int) -> None:
    setting = Setting(0.5, institutions=10, colluders=2, survivors=survivors, too_many=1)
    without, present = (releases(setting, MANY, person=p) for p in (False, True))
    assert gdp_audit(without, present, setting.rho).violated


def test_a_person_who_moves_a_count_by_more_than_was_stated_is_found() -> None:
    setting = Setting(0.5)
    without = releases(setting, MANY, person=False)
    assert gdp_audit(without, releases(setting, MANY, person=True, rows=2), setting.rho).violated
    absent, present = (releases(setting, MORE, person=p, rows=2) for p in (False, True))
    assert event_audit(absent, present, setting.rho, DELTA).violated


def test_short_vectors_by_opendp_pass_the_same_audit() -> None:
    setting = Setting(0.5)
    pieces = 10_000  # per vector: OpenDP draws up to 50,000
    without = np.concatenate([releases(setting, pieces, person=False) for _ in range(2)])
    present = np.concatenate([releases(setting, pieces, person=True) for _ in range(2)])
    verdict = gdp_audit(without, present, setting.rho)
    assert not verdict.violated
    assert verdict.estimate == pytest.approx(verdict.promised, rel=0.1)
