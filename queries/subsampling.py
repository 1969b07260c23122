"""What one round costs when each person takes part in it by chance: Renyi divergence under Poisson sampling.

Two bounds, both as `Curve` at the ledger's orders and rounded up: `sampled_zcdp` holds for every mechanism of known
zCDP, hence for sums of discrete Gaussians, and is what agents charge; `sampled_gaussian` holds for one continuous
Gaussian and is the yardstick that others publish. Rounds add up: `curve * rounds`. The argument is docs/privacy.md.
Must not know: jobs, models, who spends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache, lru_cache
from math import ceil, exp, floor, fsum, inf, isfinite, log, log1p

from queries.accounting import NANO, ORDERS, Curve
from queries.errors import BudgetError

_SLACK = 1e-12
"""Added to each divergence before it is rounded up: far above the error of summing in floats, far below 10^-9."""
_LARGEST_MULTIPLIER = 2.0**14

LogMoment = Callable[[int], float]
"""(order - 1) times the divergence, at a whole order of at least 2; at order 1 it is 0."""


@lru_cache(maxsize=256)
def sampled_gaussian(rate: float, multiplier: float) -> Curve:
    """Return the cost of one round of the sampled Gaussian mechanism, for adding or removing a person.

    Each person takes part with probability `rate`; the noise's standard deviation is `multiplier` times the norm that
    bounds a person. At whole orders it is exact (Mironov, Talwar, Zhang 2019, section 3.3); between two of them the
    log moment, being convex, lies below its chord. Raise BudgetError where the rate is not in (0, 1] or the multiplier
    not above 0.
    """
    _check(rate, multiplier, "the noise multiplier")
    rho = 1 / (2 * multiplier * multiplier)

    def log_moment(order: int) -> float:
        return _log_sum(weight + k * (k - 1) * rho for k, weight in enumerate(_log_binomial(order, rate)))

    return _curve(log_moment, rate, rho)


@lru_cache(maxsize=256)
def sampled_zcdp(rate: float, rho: float) -> Curve:
    """Return the cost of one round of any rho-zCDP mechanism over a Poisson sample of the persons.

    Zhu and Wang 2019, Theorem 5, which asks nothing of the mechanism but its divergences; never more than without
    sampling. Raise BudgetError for a rate not in (0, 1] or no positive rho.
    """
    _check(rate, rho, "rho")

    def log_moment(order: int) -> float:
        # Below k = 2 the moments of a likelihood ratio are 1; from k = 3 on the theorem has a factor of 3.
        extra = (0.0, 0.0, 2 * rho, *(k * (k - 1) * rho + log(3) for k in range(3, order + 1)))
        return _log_sum(weight + more for weight, more in zip(_log_binomial(order, rate), extra, strict=True))

    return _curve(log_moment, rate, rho)


def smallest_multiplier(epsilon: float, delta: float, *, rate: float, rounds: int, discrete: bool = True) -> float:
    """Return the smallest noise multiplier, to 0.0001, at which `rounds` rounds stay within (epsilon, delta).

    `discrete`: by `sampled_zcdp`, as agents charge; else by `sampled_gaussian`. Raise BudgetError where none does.
    """
    if delta == 0:
        raise BudgetError("the noise of training needs a delta", hint="no multiplier gives epsilon without one")
    if rounds < 1:
        raise BudgetError("a job has at least one round")
    if not (isfinite(epsilon) and epsilon > 0):
        raise BudgetError("epsilon must be a finite number above 0", hint="choose epsilon between 0.01 and 10")

    def fits(multiplier: float) -> bool:
        return (cost_of_round(rate, multiplier, discrete=discrete) * rounds).epsilon(delta) <= epsilon

    high = 1.0
    while not fits(high):
        high *= 2
        if high > _LARGEST_MULTIPLIER:
            raise BudgetError("no noise makes so many rounds fit that epsilon", hint="ask for fewer rounds")
    low = 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def cost_of_round(rate: float, multiplier: float, *, discrete: bool = True) -> Curve:
    """Return the cost of one round whose noise is `multiplier` times the norm that bounds a person."""
    if not discrete:
        return sampled_gaussian(rate, multiplier)
    _check(rate, multiplier, "the noise multiplier")
    return sampled_zcdp(rate, 1 / (2 * multiplier * multiplier))


def _curve(log_moment: LogMoment, rate: float, rho: float) -> Curve:
    def divergence(order: Fraction) -> float:
        plain = float(order) * rho  # without sampling, which never helps an adversary
        if rate == 1:
            return plain
        below, above = floor(order), ceil(order)
        share = float(order - below)
        chord = (1 - share) * at(below) + share * at(above)
        return min(plain, chord / float(order - 1))

    @cache
    def at(order: int) -> float:
        return max(0.0, log_moment(order))

    values = [divergence(order) for order in ORDERS]
    if not all(isfinite(value) for value in values):
        raise BudgetError("so little noise protects nobody", hint="choose a larger noise multiplier")
    return Curve(tuple(ceil((value + _SLACK * (1 + value)) * NANO) for value in values))


@lru_cache(maxsize=64)
def _log_combinations(n: int) -> tuple[float, ...]:
    """Return log C(n, k) for k from 0 to n, each from the exact integer."""
    found, exact = [0.0], 1
    for k in range(1, n + 1):
        exact = exact * (n - k + 1) // k
        found.append(log(exact))
    return tuple(found)


def _log_binomial(n: int, rate: float) -> list[float]:
    """Return the logs of the probabilities that k of n independent events of probability `rate` (below 1) happen."""
    happens, not_ = log(rate), log1p(-rate)
    return [ways + k * happens + (n - k) * not_ for k, ways in enumerate(_log_combinations(n))]


def _log_sum(terms: Iterable[float]) -> float:
    values = list(terms)
    largest = max(values)
    return largest if largest == inf else largest + log(fsum(exp(value - largest) for value in values))


def _check(rate: float, size: float, what: str) -> None:
    if not 0 < rate <= 1:
        raise BudgetError("the sampling rate must be above 0 and at most 1", hint="expected batch / number of persons")
    if not (isfinite(size) and size > 0):
        raise BudgetError(f"{what} must be a finite number above 0")
