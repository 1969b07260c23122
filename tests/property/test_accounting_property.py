"""Costs add exactly, and a filter over any adaptive sequence never grants more than its budget."""

from hypothesis import given
from hypothesis import strategies as st

from queries.accounting import NANO, ORDERS, Budget, Curve, epsilon_to_rho_nano, rho_to_epsilon

RHO_NANO = st.integers(1, 10 * NANO)
DELTAS = st.sampled_from([1e-4, 1e-6, 1e-8])
CURVES = st.lists(st.integers(0, 10**12), min_size=len(ORDERS), max_size=len(ORDERS)).map(lambda n: Curve(tuple(n)))


@given(st.lists(RHO_NANO, max_size=20))
def test_parts_never_cost_less_than_the_whole(parts: list[int]) -> None:
    total = Curve.zero()
    for part in parts:
        total += Curve.from_rho_nano(part)
    whole = Curve.from_rho_nano(sum(parts))
    assert all(0 <= a - b < len(parts) + 1 for a, b in zip(total.nano, whole.nano, strict=True))


@given(CURVES, CURVES, CURVES)
def test_costs_form_a_commutative_monoid(a: Curve, b: Curve, c: Curve) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Curve.zero() == a


@given(st.floats(0.05, 10), DELTAS, st.lists(RHO_NANO | CURVES, max_size=30))
def test_what_a_budget_grants_in_all_stays_within_its_epsilon(
    epsilon: float, delta: float, asked: list[int | Curve]
) -> None:
    budget, spent = Budget(epsilon, delta), Curve.zero()
    for cost in asked:
        charge = Curve.from_rho_nano(cost) if isinstance(cost, int) else cost
        before = spent
        if budget.admits(spent, charge):
            spent += charge
        assert budget.admits(before, charge) == (spent != before or not any(charge.nano))
        assert spent.epsilon(delta) <= epsilon


@given(RHO_NANO, RHO_NANO, DELTAS)
def test_epsilon_rises_with_rho(a: int, b: int, delta: float) -> None:
    low, high = sorted((a, b))
    assert rho_to_epsilon(low / NANO, delta) <= rho_to_epsilon(high / NANO, delta)
    assert Curve.from_rho_nano(low).epsilon(delta) <= Curve.from_rho_nano(high).epsilon(delta)


@given(st.floats(0.01, 20), DELTAS)
def test_conversion_there_and_back_stays_below(epsilon: float, delta: float) -> None:
    back = rho_to_epsilon(epsilon_to_rho_nano(epsilon, delta) / NANO, delta)
    assert 0.99 * epsilon < back <= epsilon
