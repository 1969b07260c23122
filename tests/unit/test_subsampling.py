"""Costs of sampled rounds against dp-accounting, published noise multipliers, and their own definitions."""

import math

import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import rdp_privacy_accountant
from hypothesis import given, settings
from hypothesis import strategies as st

from queries.accounting import NANO, ORDERS, Budget, Curve
from queries.errors import BudgetError
from queries.subsampling import cost_of_round, sampled_gaussian, sampled_zcdp, smallest_multiplier

RATE, ROUNDS, DELTA = 256 / 20_000, 2343, 1e-5


@pytest.mark.parametrize(("epsilon", "multiplier"), [(1, 2.643), (2, 1.537), (4, 1.009), (8, 0.751)])
def test_published_noise_multipliers(epsilon: float, multiplier: float) -> None:
    found = smallest_multiplier(epsilon, DELTA, rate=RATE, rounds=ROUNDS, discrete=False)
    assert multiplier - 2e-3 <= found <= 1.025 * multiplier  # the ledger's orders are fewer than dp-accounting's


@pytest.mark.parametrize("multiplier", [0.751, 1.009, 1.537, 2.643, 10.0])
@pytest.mark.parametrize("rate", [1e-4, RATE, 0.3])
def test_sampled_gaussian_equals_dp_accounting_at_whole_orders(rate: float, multiplier: float) -> None:
    ours = sampled_gaussian(rate, multiplier)
    whole = [i for i, order in enumerate(ORDERS) if order.denominator == 1]
    accountant = rdp_privacy_accountant.RdpAccountant([float(ORDERS[i]) for i in whole])
    accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(multiplier)))
    for i, theirs in zip(whole, accountant._rdp, strict=True):
        assert theirs * NANO - 1e-3 <= ours.nano[i] <= theirs * NANO * (1 + 1e-6) + 2


@pytest.mark.parametrize("multiplier", [0.751, 1.537, 2.643])
def test_total_epsilon_equals_dp_accounting_at_the_same_orders(multiplier: float) -> None:
    whole = [i for i, order in enumerate(ORDERS) if order.denominator == 1]
    accountant = rdp_privacy_accountant.RdpAccountant([float(ORDERS[i]) for i in whole])
    accountant.compose(dp_event.PoissonSampledDpEvent(RATE, dp_event.GaussianDpEvent(multiplier)), ROUNDS)
    ours = (sampled_gaussian(RATE, multiplier) * ROUNDS).epsilon(DELTA)
    # up to 10^-9 is added in each of 2343 rounds; fractional orders may only help
    assert ours <= accountant.get_epsilon(DELTA) + ROUNDS * 2e-9 + 1e-9
    assert ours == pytest.approx(accountant.get_epsilon(DELTA), rel=0.02)


def test_chords_lie_above_the_exact_moment_at_fractional_orders() -> None:
    fractional = [i for i, order in enumerate(ORDERS) if order.denominator != 1]
    accountant = rdp_privacy_accountant.RdpAccountant([float(ORDERS[i]) for i in fractional])
    accountant.compose(dp_event.PoissonSampledDpEvent(RATE, dp_event.GaussianDpEvent(1.0)))
    for i, theirs in zip(fractional, accountant._rdp, strict=True):
        assert theirs * NANO <= sampled_gaussian(RATE, 1.0).nano[i] <= 1.5 * theirs * NANO


@given(rate=st.floats(1e-5, 1), multiplier=st.floats(0.3, 100))
@settings(max_examples=40, deadline=None)
def test_the_safe_bound_lies_between_the_exact_one_and_no_sampling(rate: float, multiplier: float) -> None:
    safe, exact = cost_of_round(rate, multiplier), cost_of_round(rate, multiplier, discrete=False)
    plain = Curve.from_rho_nano(math.ceil(NANO / (2 * multiplier**2)))
    for low, mid, high, order in zip(exact.nano, safe.nano, plain.nano, ORDERS, strict=True):
        assert 0 < low <= mid <= high + order + 2


def test_everybody_in_every_round_costs_what_a_statistic_costs() -> None:
    plain = Curve.from_rho_nano(125_000_000)
    assert all(p <= c <= p + 2 + p * 1e-11 for c, p in zip(sampled_zcdp(1.0, 0.125).nano, plain.nano, strict=True))


@pytest.mark.parametrize("discrete", [True, False])
def test_the_multiplier_found_fits_a_budget_and_a_smaller_one_does_not(discrete: bool) -> None:
    found = smallest_multiplier(2.0, DELTA, rate=RATE, rounds=300, discrete=discrete)
    assert (cost_of_round(RATE, found, discrete=discrete) * 300).epsilon(DELTA) <= 2.0
    assert (cost_of_round(RATE, found - 2e-4, discrete=discrete) * 300).epsilon(DELTA) > 2.0


def test_a_job_is_charged_whole_or_not_at_all() -> None:
    budget = Budget(2.0, DELTA)
    step = cost_of_round(RATE, 4.0)
    rounds = 1
    while budget.admits(Curve.zero(), step * rounds):
        rounds += 1
    assert rounds > 2
    assert budget.admits(Curve.zero(), step * (rounds - 1))
    assert not budget.admits(step, step * (rounds - 1))


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, math.nan])
def test_impossible_rates_are_refused(rate: float) -> None:
    for bound in (sampled_gaussian, sampled_zcdp):
        with pytest.raises(BudgetError):
            bound(rate, 1.0)


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan, math.inf])
def test_impossible_noise_is_refused(size: float) -> None:
    for bound in (sampled_gaussian, sampled_zcdp, cost_of_round):
        with pytest.raises(BudgetError):
            bound(0.1, size)


def test_too_much_to_ask_is_refused() -> None:
    with pytest.raises(BudgetError):
        smallest_multiplier(0.001, DELTA, rate=1.0, rounds=10**9)
