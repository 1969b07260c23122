"""The game every attack plays: two worlds that differ in one person, a fair coin, a guess.

An adversary is shown one of two worlds at random, does what it can, and says which it was. Its **advantage** is the
probability of a right guess, mapped from [1/2, 1] to [0, 1]. Of a release that is rho-zCDP, as a Gaussian mechanism of
that rho is, no test has more than `membership_bound(rho)`. A **row is recovered** where the adversary claims an exact
value of a person and is right: it claims only what its evidence pins down with 99.9% confidence.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scipy import stats

FALSE_ALARM = 1e-6
CONFIDENT = 3.29
"""Standard deviations on either side that hold 99.9% of a normal distribution."""


@dataclass(frozen=True)
class Outcome:
    """What one attack achieved. `low` is what its true advantage certainly (up to 10^-6) exceeds."""

    name: str
    tried: str
    advantage: float
    low: float
    bound: float
    rows_recovered: int
    trials: int

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the promise."""
        return self.low <= self.bound and self.rows_recovered == 0

    def record(self) -> dict[str, Any]:
        """Return the outcome as it is written to JSON."""
        return {
            "name": self.name,
            "tried": self.tried,
            "advantage": round(self.advantage, 4),
            "advantage_low_1e-6": round(self.low, 4),
            "bound": round(self.bound, 4),
            "rows_recovered": self.rows_recovered,
            "trials": self.trials,
            "holds": self.holds,
        }


@dataclass(frozen=True)
class Evidence:
    """What the adversary concludes in one trial: its guess, and how many exact values it claims and has right."""

    guess: bool
    rows_recovered: int = 0


def membership_bound(rho: float) -> float:
    """Return the largest advantage in telling whether one person is in the data: 2 Phi(mu / 2) - 1, mu^2 = 2 rho."""
    return math.erf(math.sqrt(rho) / 2)


def attribute_bound(rho: float) -> float:
    """Return the largest advantage in telling which of two values a person has: one removed, another added."""
    return math.erf(math.sqrt(rho))


def play(name: str, tried: str, attack: Callable[[bool], Evidence], *, bound: float, trials: int) -> Outcome:
    """Play `trials` games. `attack` is called with the secret coin, which only chooses the world it may look at."""
    right = recovered = 0
    for _ in range(trials):
        coin = bool(secrets.randbits(1))
        evidence = attack(coin)
        right += evidence.guess == coin
        recovered += evidence.rows_recovered
    return Outcome(
        name=name,
        tried=tried,
        advantage=max(0.0, 2 * right / trials - 1),
        low=lower_limit(right, trials),
        bound=bound,
        rows_recovered=recovered,
        trials=trials,
    )


def lower_limit(right: int, trials: int) -> float:
    """Return the advantage that so many right guesses prove, but for a chance of 10^-6 (Clopper and Pearson 1934)."""
    if right == 0:
        return -1.0
    return 2 * float(stats.beta.ppf(FALSE_ALARM, right, trials - right + 1)) - 1


def pins_down(error: float, spacing: float) -> bool:
    """Return whether an estimate with this standard error leaves one of the values that lie `spacing` apart."""
    return CONFIDENT * error < spacing / 2
