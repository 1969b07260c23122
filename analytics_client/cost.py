"""What `cohortium cost` computes: costs in all their units, how many fit a budget, and what a job costs.

The same functions that agents charge by. Must not know: the network, a consortium's data sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from queries.accounting import NANO, Budget, Curve, epsilon_to_rho_nano, rho_to_epsilon
from queries.errors import BudgetError
from queries.subsampling import cost_of_round, smallest_multiplier

MAX_QUERIES = 10**9


@dataclass(frozen=True, slots=True)
class QueryCost:
    """One statistic. `queries` is how many of them `budget` (epsilon at delta) allows; None without a budget."""

    epsilon: float
    delta: float
    rho: float
    budget: float | None = None
    queries: int | None = None

    def lines(self) -> list[str]:
        """Return what people read."""
        found = [f"A query of epsilon {self.epsilon:.4g} at delta {self.delta:g} costs rho {self.rho:.6g} (zCDP)."]
        if self.budget is not None:
            found.append(f"A budget of epsilon {self.budget:g} allows {self.queries:,} of them.")
            found.append(
                "Costs add up as rho, and epsilon grows about with its root: ask once for what you need, not twice."
                if self.delta > 0
                else "Without a delta, costs add up as epsilon: ask once for what you need, not twice."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "rho": self.rho,
            "budget": self.budget,
            "queries": self.queries,
        }


@dataclass(frozen=True, slots=True)
class JobCost:
    """A job of equal rounds in which each person takes part with probability `rate`.

    `multiplier` is the noise's standard deviation over the norm that bounds a person, `jobs` how many a budget allows.
    """

    epsilon: float
    delta: float
    rounds: int
    rate: float
    multiplier: float
    budget: float | None = None
    jobs: int | None = None

    def lines(self) -> list[str]:
        """Return what people read."""
        who = "everybody" if self.rate == 1 else f"{self.rate:.4g} of the persons, drawn anew each time"
        found = [
            f"{self.rounds:,} rounds over {who}, with a noise multiplier of {self.multiplier:.4f},",
            f"cost epsilon {self.epsilon:.4g} at delta {self.delta:g}, all of it charged before the first round.",
        ]
        if self.budget is not None:
            found.append(f"A budget of epsilon {self.budget:g} allows {self.jobs:,} such jobs.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "rounds": self.rounds,
            "rate": self.rate,
            "multiplier": self.multiplier,
            "budget": self.budget,
            "jobs": self.jobs,
        }


def of_query(*, delta: float, epsilon: float | None, rho: float | None, budget: float | None) -> QueryCost:
    """Return the cost of one statistic, given as epsilon or as rho. Raise BudgetError unless exactly one is given."""
    if (epsilon is None) == (rho is None):
        raise BudgetError("give the cost of one query either as epsilon or as rho", hint="as in --epsilon 0.5")
    if epsilon is not None:
        rho_nano = epsilon_to_rho_nano(epsilon, delta)
    elif rho is None or not 1 <= rho * NANO <= 100 * NANO:
        raise BudgetError("rho must be between 1e-9 and 100")
    else:
        rho_nano = round(rho * NANO)
    step = Curve.of_statistic(rho_nano, delta)
    times = None if budget is None else _times(Budget(budget, delta), step)
    return QueryCost(rho_to_epsilon(rho_nano / NANO, delta), delta, rho_nano / NANO, budget, times)


def of_job(
    *, delta: float, rounds: int, rate: float, epsilon: float | None, multiplier: float | None, budget: float | None
) -> JobCost:
    """Return what a job costs at a noise multiplier, or which multiplier makes it cost at most epsilon.

    Raise BudgetError unless exactly one of the two is given, and where nothing satisfies it.
    """
    if (epsilon is None) == (multiplier is None):
        raise BudgetError("give a job's --noise to learn its epsilon, or its --epsilon to learn the noise")
    if delta == 0:
        raise BudgetError("the noise of training needs a delta", hint="as in --delta 1e-6")
    if rounds < 1:
        raise BudgetError("a job has at least one round")
    if multiplier is None:
        multiplier = smallest_multiplier(epsilon or 0.0, delta, rate=rate, rounds=rounds)
    whole = cost_of_round(rate, multiplier) * rounds
    times = None if budget is None else _times(Budget(budget, delta), whole)
    return JobCost(whole.epsilon(delta), delta, rounds, rate, multiplier, budget, times)


def _times(budget: Budget, step: Curve) -> int:
    """Return how often `step` fits the budget, by the filter that the ledger decides by."""
    low, high = 0, MAX_QUERIES
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if budget.admits(Curve.zero(), step * middle) else (low, middle - 1)
    return low
