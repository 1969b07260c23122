"""Costs and budgets against published facts and two independent implementations."""

import math

import opendp.prelude as dp
import pytest
from dp_accounting.rdp import rdp_privacy_accountant

from queries.accounting import (
    NANO,
    ORDERS,
    Budget,
    Curve,
    epsilon_to_rho_nano,
    pure_epsilon_nano,
    rho_to_epsilon,
)
from queries.errors import BudgetError

dp.enable_features("contrib")


@pytest.mark.parametrize(("rho", "epsilon"), [(0.001, 0.1829), (0.1, 2.142), (1.0, 7.766)])
def test_known_conversions_at_one_in_a_million(rho: float, epsilon: float) -> None:
    assert rho_to_epsilon(rho, 1e-6) == pytest.approx(epsilon, abs=5e-4)


@pytest.mark.parametrize("delta", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("rho", [1e-5, 1e-3, 0.1, 1.0, 10.0])
def test_conversion_equals_opendp(rho: float, delta: float) -> None:
    space = dp.atom_domain(T=int), dp.absolute_distance(T=float)
    profile = dp.c.make_zCDP_to_approxDP(dp.m.make_gaussian(*space, scale=1 / math.sqrt(2 * rho))).map(1.0)
    assert rho_to_epsilon(rho, delta) == pytest.approx(profile.epsilon(delta), rel=1e-6)


@pytest.mark.parametrize("delta", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("rho_nano", [10_000, 1_000_000, 100_000_000, NANO, 10 * NANO])
def test_curve_equals_dp_accounting_at_the_same_orders(rho_nano: int, delta: float) -> None:
    orders = [float(order) for order in ORDERS]
    theirs, _ = rdp_privacy_accountant.compute_epsilon(orders, [rho_nano / NANO * order for order in orders], delta)
    assert Curve.from_rho_nano(rho_nano).epsilon(delta) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("delta", [1e-5, 1e-6, 1e-8])
def test_fixed_orders_cost_less_than_two_percent_of_epsilon(delta: float) -> None:
    for step in range(141):
        rho_nano = round(10 ** (step / 20 + 3))  # rho from 10^-6 to 10
        tight = rho_to_epsilon(rho_nano / NANO, delta)
        assert tight <= Curve.from_rho_nano(rho_nano).epsilon(delta) * (1 + 1e-12)
        if tight >= 0.01:
            assert Curve.from_rho_nano(rho_nano).epsilon(delta) < 1.02 * tight
            assert rho_to_epsilon(Budget(tight, delta).left(Curve.zero()) / NANO, delta) > 0.98 * tight


def test_inverse_is_the_largest_rho_within_epsilon() -> None:
    for epsilon in (0.01, 0.1, 1.0, 3.0, 10.0):
        rho_nano = epsilon_to_rho_nano(epsilon, 1e-6)
        assert rho_to_epsilon(rho_nano / NANO, 1e-6) <= epsilon < rho_to_epsilon((rho_nano + 1) / NANO, 1e-6)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, -math.inf, 1e-9])
def test_impossible_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(BudgetError) as refused:
        epsilon_to_rho_nano(epsilon, 1e-6)
    assert refused.value.hint


@pytest.mark.parametrize("delta", [-1e-6, 1.0, math.nan])
def test_impossible_delta_is_refused(delta: float) -> None:
    for call in (lambda: rho_to_epsilon(0.1, delta), lambda: Curve.zero().epsilon(delta), lambda: Budget(1.0, delta)):
        with pytest.raises(BudgetError):
            call()


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.3, 1.0, 2.5, 10.0])
def test_without_a_delta_a_cost_is_the_rho_that_pure_epsilon_implies(epsilon: float) -> None:
    rho_nano = epsilon_to_rho_nano(epsilon, 0)
    assert rho_nano / NANO == pytest.approx(epsilon**2 / 2, abs=1e-9)
    assert pure_epsilon_nano(rho_nano) <= epsilon * NANO < pure_epsilon_nano(rho_nano + 1) + 1
    assert rho_to_epsilon(rho_nano / NANO, 0) == pytest.approx(epsilon, rel=1e-4)
    space = dp.atom_domain(T=int), dp.absolute_distance(T=int)
    theirs = dp.m.make_laplace(*space, scale=1 / epsilon).map(1)
    assert Curve.of_statistic(rho_nano, 0).epsilon(0) == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 1e-9])
def test_impossible_epsilon_without_a_delta_is_refused(epsilon: float) -> None:
    with pytest.raises(BudgetError):
        epsilon_to_rho_nano(epsilon, 0)


def test_without_a_delta_epsilons_add_up_to_the_budget_and_no_further() -> None:
    budget, step = Budget(1.0, 0), Curve.of_statistic(epsilon_to_rho_nano(0.1, 0), 0)
    spent = Curve.zero()
    for served in range(10):
        assert budget.used(spent) == pytest.approx(served / 10)
        assert budget.admits(spent, step)
        spent += step
    assert not budget.admits(spent, Curve.of_statistic(1, 0))
    assert (budget.left(spent), budget.used(spent), spent.epsilon(0)) == (0, 1.0, 1.0)


def test_what_is_left_without_a_delta_is_the_largest_query_that_fits() -> None:
    budget, spent = Budget(1.0, 0), Curve.of_statistic(epsilon_to_rho_nano(0.7, 0), 0)
    left = budget.left(spent)
    assert budget.admits(spent, Curve.of_statistic(left, 0))
    assert not budget.admits(spent, Curve.of_statistic(left + 1, 0))


def test_a_dataset_that_had_a_delta_can_promise_nothing_without_one() -> None:
    budget, pure = Budget(5.0, 0), Curve.of_statistic(1000, 0)
    tainted = Curve.from_rho_nano(1) + pure
    assert not budget.admits(tainted, pure)
    assert not budget.admits(Curve.zero(), Curve.from_rho_nano(1))
    assert (budget.left(tainted), tainted.epsilon(0)) == (0, math.inf)


def test_pure_costs_count_at_every_order_where_a_delta_was_published_later() -> None:
    pure = Curve.of_statistic(epsilon_to_rho_nano(0.5, 0), 0)
    assert 0.5 <= pure.epsilon(1e-6) < 0.502
    assert not Budget(0.4, 1e-6).admits(Curve.zero(), pure)


@pytest.mark.parametrize("rho", [-1e-9, math.nan, math.inf])
def test_impossible_rho_is_refused(rho: float) -> None:
    with pytest.raises(BudgetError):
        rho_to_epsilon(rho, 1e-6)


def test_a_curve_rounds_up_and_never_loses_a_unit() -> None:
    curve = Curve.from_rho_nano(1)
    assert all(isinstance(n, int) and order <= n < order + 1 for n, order in zip(curve.nano, ORDERS, strict=True))
    assert any(n > order for n, order in zip(curve.nano, ORDERS, strict=True))


def test_nothing_costs_nothing() -> None:
    assert Curve.zero().epsilon(1e-6) == 0.0
    assert rho_to_epsilon(0.0, 1e-6) == 0.0
    with pytest.raises(BudgetError):
        Curve.from_rho_nano(-1)


def test_budget_admits_up_to_what_is_left_and_not_a_unit_more() -> None:
    budget = Budget(epsilon=2.0, delta=1e-6)
    spent = Curve.from_rho_nano(7_000_000)
    left = budget.left(spent)
    assert left > 0
    assert budget.admits(spent, Curve.from_rho_nano(left))
    assert not budget.admits(spent, Curve.from_rho_nano(left + 1))
    assert (spent + Curve.from_rho_nano(left)).epsilon(1e-6) <= 2.0


def test_a_budget_too_small_for_any_order_admits_nothing() -> None:
    budget = Budget(epsilon=1e-4, delta=1e-9)
    assert budget.left(Curve.zero()) == 0
    assert not budget.admits(Curve.zero(), Curve.from_rho_nano(1))


def test_a_curve_of_other_orders_is_refused() -> None:
    with pytest.raises(BudgetError):
        Curve((1, 2, 3))
