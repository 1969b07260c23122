"""Privacy costs and budgets: conversion, composition and the filter that decides before anything is spent.

A cost is a curve of Renyi divergences at fixed orders, held in integer units of 10^-9 that are rounded up, so that
sums are exact and never flatter the spender. The argument is docs/privacy.md. Must not know: who spends, on what,
where spending is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import ceil, floor, inf, isfinite, isqrt, log, log1p, sqrt
from typing import TypeAlias

from queries.errors import BudgetError

Order: TypeAlias = Fraction

NANO = 1_000_000_000
ORDERS: tuple[Order, ...] = (
    *(Fraction(n, 5) for n in (10, 12, 15, 19, 25, 33)),
    *(Fraction(n) for n in (9, 12, 17, 23, 33, 46, 65, 91, 129, 182, 257, 363, 513, 725, 1025, 1449, 2049, 2897)),
)
"""Fixed Renyi orders; order - 1 grows by about sqrt(2), which costs a budget of one zCDP sum less than 2% of epsilon.
They are part of every stored curve: never change one without migrating the ledgers."""
_MAX_RHO_NANO = 100 * NANO
_BISECTIONS = 60  # epsilon is flat at the best order: half the bits of a float would do


def rho_to_epsilon(rho: float, delta: float) -> float:
    """Return the smallest epsilon with (epsilon, delta) differential privacy that a cost of rho is known to imply.

    Minimises `_epsilon_at` over all orders: the tight conversion of Canonne, Kamath and Steinke 2020, Corollary 13.
    Without a delta the cost stands for pure noise of epsilon = sqrt(2 rho); see `pure_epsilon_nano`.
    Raise BudgetError where rho is negative or not finite, or delta not in [0, 1).
    """
    _check_delta(delta)
    if not (isfinite(rho) and rho >= 0):
        raise BudgetError("rho must be a finite number of at least 0")
    if rho == 0:
        return 0.0
    if delta == 0:
        return sqrt(2 * rho)

    def rises(below: float) -> bool:  # the sign of the derivative in the order, 1 + below
        return rho * below * below > -log(delta) - log1p(below)

    low, high = 0.0, 1.0
    while not rises(high):
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return max(0.0, _epsilon_at(rho * (1 + high), 1 + high, delta))


@lru_cache(maxsize=1024)
def epsilon_to_rho_nano(epsilon: float, delta: float) -> int:
    """Return the largest rho, in units of 10^-9 and at most 100 * 10^9, that stays within (epsilon, delta).

    Raise BudgetError where epsilon is not a finite positive number or too small for any rho.
    """
    _check_delta(delta)
    if not (isfinite(epsilon) and epsilon > 0):
        raise BudgetError("epsilon must be a finite number above 0", hint="choose epsilon between 0.01 and 10")
    low, high = 0, _MAX_RHO_NANO + 1
    if delta == 0:
        low = high = min(_MAX_RHO_NANO, floor(Fraction(epsilon) ** 2 * NANO / 2))
    while high - low > 1:
        middle = (low + high) // 2
        if rho_to_epsilon(middle / NANO, delta) <= epsilon:
            low = middle
        else:
            high = middle
    if low == 0:
        raise BudgetError("epsilon is too small to answer anything", hint="choose epsilon between 0.01 and 10")
    return low


def pure_epsilon_nano(rho_nano: int) -> int:
    """Return, in units of 10^-9, the epsilon of a release without a delta that costs rho_nano / 10^9.

    Pure epsilon implies rho = epsilon^2 / 2 of zCDP (Bun and Steinke 2016, Proposition 1.4), so a cost is signed,
    logged and compared as rho whatever the noise is. Noise and charge are both made for this very number.
    """
    return isqrt(2 * rho_nano * NANO)


@dataclass(frozen=True)
class Curve:
    """Renyi divergence at each of ORDERS, in units of 10^-9 nats. Costs add: `spent + charge`.

    What is as large at every order is a bound at order infinity too: pure epsilon, without a delta.
    """

    nano: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.nano) != len(ORDERS):
            raise BudgetError(f"a privacy cost has {len(ORDERS)} orders, this one {len(self.nano)}")

    @classmethod
    def zero(cls) -> Curve:
        """Return the cost of nothing."""
        return cls((0,) * len(ORDERS))

    @classmethod
    def from_rho_nano(cls, rho_nano: int) -> Curve:
        """Return the cost of a statistic of rho_nano / 10^9 zCDP: rho times the order, rounded up.

        Raise BudgetError where rho_nano is negative.
        """
        if rho_nano < 0:
            raise BudgetError("a privacy cost is never negative")
        return cls(tuple(ceil(rho_nano * order) for order in ORDERS))

    @classmethod
    def of_statistic(cls, rho_nano: int, delta: float) -> Curve:
        """Return the cost of a statistic of a dataset with this delta; without one, of pure epsilon at every order."""
        if delta > 0:
            return cls.from_rho_nano(rho_nano)
        if rho_nano < 0:
            raise BudgetError("a privacy cost is never negative")
        return cls((pure_epsilon_nano(rho_nano),) * len(ORDERS))

    @property
    def pure(self) -> bool:
        """Whether this is a cost without a delta."""
        return len(set(self.nano)) == 1

    def __add__(self, other: Curve) -> Curve:
        return Curve(tuple(a + b for a, b in zip(self.nano, other.nano, strict=True)))

    def __sub__(self, other: Curve) -> Curve:
        return Curve(tuple(a - b for a, b in zip(self.nano, other.nano, strict=True)))

    def __mul__(self, times: int) -> Curve:
        """Return the cost of `times` such costs. Raise BudgetError where that is negative."""
        if times < 0:
            raise BudgetError("a privacy cost is never negative")
        return Curve(tuple(times * nano for nano in self.nano))

    def epsilon(self, delta: float) -> float:
        """Return epsilon at delta by the best of the fixed orders; an upper bound on the true one.

        Infinite without a delta, where not all that was spent is pure.
        """
        _check_delta(delta)
        if not any(self.nano):
            return 0.0
        if delta == 0:
            return self.nano[-1] / NANO if self.pure else inf
        return max(
            0.0, min(_epsilon_at(n / NANO, float(order), delta) for n, order in zip(self.nano, ORDERS, strict=True))
        )


@dataclass(frozen=True)
class Budget:
    """What may be spent in all, as (epsilon, delta). Raise BudgetError where that promises nothing.

    Without a delta only pure costs are admitted, and only beside pure ones; their epsilons add up.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        _check_delta(self.delta)
        if not (isfinite(self.epsilon) and self.epsilon > 0):
            raise BudgetError("a budget's epsilon must be a finite number above 0")

    @cached_property
    def order(self) -> int:
        """Index into ORDERS of the one order that decides: where the most zCDP fits. A function of the budget alone."""
        if self.delta == 0:
            return len(ORDERS) - 1
        return max(range(len(ORDERS)), key=lambda i: self.allowance().nano[i] / ORDERS[i])

    def allowance(self) -> Curve:
        """Return what each order may hold, rounded down; negative where an order cannot give this (epsilon, delta)."""
        return self._allowance

    @cached_property
    def _allowance(self) -> Curve:
        if self.delta == 0:
            return Curve((floor(self.epsilon * NANO),) * len(ORDERS))
        free = (self.epsilon - _epsilon_at(0.0, float(order), self.delta) for order in ORDERS)
        return Curve(tuple(floor(value * NANO) for value in free))

    def admits(self, spent: Curve, charge: Curve) -> bool:
        """Return whether `charge` still fits after `spent`. Decides only: nothing is changed anywhere.

        A Renyi filter (Feldman and Zrnic 2021): the total at one order, fixed by the budget before anything is asked,
        stays within its allowance. So queries, and their costs, may be chosen in the light of earlier answers; letting
        the order depend on what was spent would not be covered by that theorem. Pure costs may be chosen so, too: the
        total of their epsilons is a filter (Rogers, Roth, Ullman and Vadhan 2016, Theorem 3.6).
        """
        if self.delta == 0 and not (spent + charge).pure:
            return False
        return spent.nano[self.order] + charge.nano[self.order] <= self.allowance().nano[self.order]

    def used(self, spent: Curve) -> float:
        """Return the part of this budget that `spent` takes, 0 to 1."""
        return spent.nano[self.order] / self.allowance().nano[self.order]

    def left(self, spent: Curve) -> int:
        """Return how much rho, in units of 10^-9, statistics may still cost after `spent`; at least 0."""
        free = max(0, self.allowance().nano[self.order] - spent.nano[self.order])
        if self.delta == 0:
            return free * free // (2 * NANO) if spent.pure else 0
        return floor(free / ORDERS[self.order])


def _epsilon_at(divergence: float, order: float, delta: float) -> float:
    """Return epsilon at delta of a Renyi divergence (Canonne, Kamath and Steinke 2020, Proposition 12)."""
    return divergence + log1p(-1 / order) - (log(delta) + log(order)) / (order - 1)


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise BudgetError("delta must be at least 0 and below 1", hint="well below 1 / number of persons")
