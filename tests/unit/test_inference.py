"""Without noise every result is the textbook's; with noise intervals cover and tests reject as often as they say.

Coverage and false positives are frequencies over 4,000 independent releases with fixed seeds. A true rate of 95% leaves
[93.2%, 96.8%] by chance once in 10^6 (5 standard deviations of 0.345%); a true 5% leaves [3.2%, 6.8%] as seldom.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from queries.inference import hypotheses, linear, pairs, spectral, survival
from queries.inference.forms import Floats

RUNS = 4_000
PAIR = pairs.Pair(6, 0, 1, 2, 3, 4, 5)


def columns(rows: int = 1_000) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(1)
    x = np.clip(generator.normal(0.1, 0.3, rows), -1, 1)
    return x, np.clip(0.3 * x + generator.normal(-0.1, 0.25, rows), -1, 1)


def pair_moments(x: Floats, y: Floats) -> Floats:
    return np.array([[x.size, x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]])


def noisy(moments: Floats, variance: float, seed: int = 7) -> tuple[Floats, Floats]:
    """`RUNS` releases of the same moments, and the variances of their noise."""
    generator = np.random.default_rng(seed)
    shape = (RUNS, *moments.shape[1:])
    return moments + generator.normal(0, variance**0.5, shape), np.full(moments.shape[1], variance)


def assert_covers(low: Floats, high: Floats, truth: float) -> None:
    covered = float(np.mean((low <= truth) & (truth <= high)))
    assert 0.932 <= covered <= 0.968, covered


PAIRED: dict[str, tuple[Callable[[Floats, Floats], pairs.Ratio], Callable[[Floats, Floats], float]]] = {
    "covariance": (lambda m, n: pairs.covariance(PAIR, m, n, ddof=1), lambda x, y: np.cov(x, y)[0, 1]),
    "slope": (lambda m, n: pairs.slope(PAIR, m, n), lambda x, y: stats.linregress(x, y).slope),
    "intercept": (lambda m, n: pairs.intercept(PAIR, m, n, at=0.0), lambda x, y: stats.linregress(x, y).intercept),
    "correlation": (lambda m, n: pairs.correlation(PAIR, m, n), lambda x, y: np.corrcoef(x, y)[0, 1]),
}


@pytest.mark.parametrize("name", PAIRED)
def test_what_two_columns_have_to_do_with_each_other(name: str) -> None:
    found, truth = PAIRED[name]
    x, y = columns()
    exact = found(pair_moments(x, y), np.zeros(6))
    assert exact.value[0] == pytest.approx(truth(x, y), rel=1e-10)
    assert exact.high[0] - exact.low[0] == pytest.approx(0, abs=1e-10)
    released = found(*noisy(pair_moments(x, y), 36.0))
    assert_covers(released.low, released.high, truth(x, y))


def test_a_slope_that_the_noise_hides_has_no_bounded_interval() -> None:
    x, y = columns(200)
    found = pairs.slope(PAIR, *noisy(pair_moments(x, y), 10_000.0))
    truth = stats.linregress(x, y).slope
    assert np.mean((found.low <= truth) & (truth <= found.high)) >= 0.94
    assert np.mean(~found.known) > 0.8
    assert np.all(np.isinf(found.high[~found.known]))


def regression() -> tuple[Floats, Floats]:
    generator = np.random.default_rng(3)
    x, y = columns()
    z = np.clip(0.2 * x + generator.normal(0, 0.3, x.size), -1, 1)
    design = np.column_stack([np.ones(x.size), x, z, generator.random(x.size) < 0.4])
    return design, np.clip(y + 0.1 * z + 0.2 * design[:, 3], -1, 1)


def regression_moments(design: Floats, y: Floats) -> tuple[linear.Design, Floats]:
    terms, moments = design.shape[1], []
    normal = np.zeros((terms, terms), dtype=np.intp)
    for i in range(terms):
        for j in range(i, terms):
            normal[i, j] = normal[j, i] = len(moments)
            moments.append(design[:, i] @ design[:, j])
    response = np.arange(terms) + len(moments)
    moments += [*(design.T @ y), y @ y]
    return linear.Design(normal, response, len(moments) - 1), np.array([moments])


def test_least_squares_without_noise() -> None:
    x, y = regression()
    design, moments = regression_moments(x, y)
    found = linear.fit(design, moments, np.zeros(moments.size), np.eye(4), sampling=True)
    truth = sm.OLS(y, x).fit()
    assert found.coefficients[0] == pytest.approx(truth.params, rel=1e-10)
    assert found.standard_error[0] == pytest.approx(truth.bse, rel=1e-10)
    assert np.column_stack([found.low[0], found.high[0]]) == pytest.approx(truth.conf_int(), rel=1e-9)
    assert (found.deviance[0], found.freedom[0]) == pytest.approx((truth.ssr, truth.df_resid), rel=1e-10)
    assert found.r_squared[0] == pytest.approx(truth.rsquared, rel=1e-10)
    assert found.ridge[0] == 0


@pytest.mark.parametrize("variance", [4.0, 50.0])
def test_least_squares_intervals_cover_the_coefficients_of_the_exact_data(variance: float) -> None:
    x, y = regression()
    design, moments = regression_moments(x, y)
    found = linear.fit(design, *noisy(moments, variance), np.eye(4), sampling=False)
    for j, truth in enumerate(np.linalg.lstsq(x, y, rcond=None)[0]):
        assert_covers(found.low[:, j], found.high[:, j], float(truth))


def test_least_squares_intervals_cover_the_population_when_they_count_sampling_in() -> None:
    """Each release has new rows: y = 0.1 + 0.3 x + noise. Intervals of the noise alone would cover far less."""
    generator, rows, truth = np.random.default_rng(5), 400, np.array([0.1, 0.3])
    drawn = []
    for _ in range(RUNS):
        x = generator.uniform(-1, 1, rows)
        y = truth[0] + truth[1] * x + generator.normal(0, 0.2, rows)
        design, moments = regression_moments(np.column_stack([np.ones(rows), x]), y)
        drawn.append(moments[0])
    released = np.array(drawn) + generator.normal(0, 2.0, (RUNS, len(drawn[0])))
    noise = np.full(released.shape[1], 4.0)
    both = linear.fit(design, released, noise, np.eye(2), sampling=True)
    alone = linear.fit(design, released, noise, np.eye(2), sampling=False)
    for j in range(2):
        assert_covers(both.low[:, j], both.high[:, j], truth[j])
        assert np.mean((alone.low[:, j] <= truth[j]) & (truth[j] <= alone.high[:, j])) < 0.9


def test_a_ridge_keeps_collinear_predictors_from_running_away() -> None:
    generator = np.random.default_rng(8)
    x = generator.uniform(-1, 1, 2_000)
    twin = np.clip(x + generator.normal(0, 0.02, x.size), -1, 1)
    y = 0.3 * x + 0.3 * twin
    design, moments = regression_moments(np.column_stack([np.ones(x.size), x, twin]), y)
    released, noise = noisy(moments, 100.0)
    found = linear.fit(design, released, noise, np.eye(3), sampling=False)
    plain = np.linalg.solve(released[:, design.normal], released[:, design.response][..., None])[..., 0]
    truth = np.array([0.0, 0.3, 0.3])
    assert np.mean(found.ridge > 0) > 0.99
    assert np.sqrt(np.mean((found.coefficients - truth) ** 2)) < 0.5
    assert np.sqrt(np.mean((plain - truth) ** 2)) > 1.0


A, B, C = (
    np.random.default_rng(9).normal(mean, sd, n) for mean, sd, n in [(0.1, 0.2, 90), (0.15, 0.3, 150), (0, 0.25, 60)]
)
NONE = (0.0, 0.0, 0.0)


def groups(*samples: Floats) -> tuple[Floats, Floats, Floats]:
    return tuple(np.array([[f(s) for s in samples]]) for f in (len, np.sum, lambda s: s @ s))  # type: ignore[return-value]


def test_tests_of_means_without_noise() -> None:
    one = hypotheses.mean_of_one(*(part[:, 0] for part in groups(A)), np.zeros(3))
    truth = stats.ttest_1samp(A, 0)
    assert (one.statistic[0], one.p_value[0], one.freedom[0]) == pytest.approx((*truth, truth.df), rel=1e-9)
    for equal in (True, False):
        two = hypotheses.means_of_two(*groups(A, B), NONE, equal_variances=equal)
        expected = stats.ttest_ind(A, B, equal_var=equal)
        assert (two.statistic[0], two.p_value[0], two.freedom[0]) == pytest.approx((*expected, expected.df), rel=1e-9)
    many = hypotheses.means_of_many(*groups(A, B, C), NONE)
    assert (many.statistic[0], many.p_value[0]) == pytest.approx(tuple(stats.f_oneway(A, B, C)), rel=1e-9)
    assert many.freedom[0] == A.size + B.size + C.size - 3


def test_independence_without_noise() -> None:
    table = np.array([[10.0, 20, 30, 5], [15, 25, 20, 8], [7, 7, 12, 30]])
    found = hypotheses.independence(table[None], 0.0)
    truth = stats.chi2_contingency(table, correction=False)
    assert (found.statistic[0], found.p_value[0]) == pytest.approx((truth.statistic, truth.pvalue), rel=1e-9)


def sampled(generator: np.random.Generator, rows: int, sd: float) -> tuple[Floats, Floats]:
    """Sum and sum of squares of `RUNS` normal samples of mean 0.2."""
    mean = generator.normal(0.2, sd / rows**0.5, RUNS)
    return mean * rows, sd * sd * generator.chisquare(rows - 1, RUNS) + rows * mean**2


@pytest.mark.parametrize(("rows", "variance"), [(200, 4.0), (1_000, 100.0), (50_000, 3_000.0)])
def test_tests_of_means_reject_true_null_hypotheses_as_often_as_they_say(rows: int, variance: float) -> None:
    generator = np.random.default_rng(10)

    def released(values: Floats) -> Floats:
        return values + generator.normal(0, variance**0.5, values.shape)

    noise, sizes = (variance,) * 3, np.array([0.3, 0.2, 0.5]) * rows
    drawn = [sampled(generator, int(n), 0.3) for n in sizes]
    totals, squares = (np.array([part[k] for part in drawn]).T for k in (0, 1))
    arguments = released(np.tile(sizes, (RUNS, 1))), released(totals), released(squares)
    two = tuple(part[:, :2] for part in arguments)
    whole = released(np.full(RUNS, rows)), released(totals.sum(1) - 0.2 * rows), released(squares.sum(1) - 0.04 * rows)
    for outcome in (
        hypotheses.means_of_many(*arguments, noise),
        hypotheses.means_of_two(*two, noise, equal_variances=True),
        hypotheses.means_of_two(*two, noise, equal_variances=False),
        hypotheses.mean_of_one(*whole, np.full(3, variance)),
    ):
        assert 0.032 <= np.mean(outcome.p_value < 0.05) <= 0.068


@pytest.mark.parametrize(("rows", "variance"), [(300, 8.0), (20_000, 800.0)])
def test_independence_rejects_as_often_as_it_says_where_the_naive_test_rejects_half(rows: int, variance: float) -> None:
    generator = np.random.default_rng(12)
    cells = np.outer([0.4, 0.6], [0.2, 0.3, 0.5]).ravel()
    tables = generator.multinomial(rows, cells, RUNS).reshape(RUNS, 2, 3)
    released = tables + generator.normal(0, variance**0.5, tables.shape)
    honest = hypotheses.independence(released, variance)
    assert 0.032 <= np.mean(honest.p_value < 0.05) <= 0.068
    naive = hypotheses.independence(released, 0.0)
    assert np.mean(naive.p_value < 0.05) > 0.08


BINS = 20


def survivors() -> tuple[Floats, Floats, Floats]:
    generator = np.random.default_rng(13)
    return generator.integers(1, BINS, 400), generator.random(400) < 0.6, generator.integers(0, 3, 400)


def test_survival_without_noise() -> None:
    time, event, arm = survivors()
    counts = np.zeros((3, 2, BINS))
    np.add.at(counts, (arm, event.astype(int), time), 1)
    test = survival.log_rank(counts[None, :, 1], counts[None, :, 0], 0.0)
    statistic, p_value = survdiff(time, event.astype(int), arm)
    assert (test.statistic[0], test.p_value[0]) == pytest.approx((statistic, p_value), rel=1e-9)
    both = counts.sum(axis=0)
    curve = survival.kaplan_meier(both[None, 1], both[None, 0], 0.0, sampling=True)
    truth = SurvfuncRight(time, event.astype(int))
    assert curve.value[0, truth.surv_times] == pytest.approx(truth.surv_prob, rel=1e-12)
    assert curve.standard_error[0, truth.surv_times] == pytest.approx(truth.surv_prob_se, rel=1e-9)


def lifetimes(arms: tuple[float, ...]) -> Floats:
    """Probabilities of (arm, event or not, bin); all arms live alike."""
    stay = np.exp(-0.08 * np.arange(BINS + 1))
    leave = stay[:-1] - stay[1:]
    leave[-1] += stay[-1]
    return np.array([[[0.7 * share * p for p in leave], [0.3 * share * p for p in leave]] for share in arms])


@pytest.mark.parametrize(("rows", "variance"), [(1_000, 10.0), (20_000, 800.0)])
def test_survival_under_noise(rows: int, variance: float) -> None:
    generator = np.random.default_rng(14)
    probabilities = lifetimes((0.4, 0.6))
    drawn = generator.multinomial(rows, probabilities.ravel(), RUNS).reshape(RUNS, 2, 2, BINS)
    released = drawn + generator.normal(0, variance**0.5, drawn.shape)
    test = survival.log_rank(released[:, :, 0], released[:, :, 1], variance)
    assert 0.032 <= np.mean(test.p_value < 0.05) <= 0.068
    exact = drawn[0].sum(axis=0)[None].astype(float)
    truth = survival.kaplan_meier(exact[:, 0], exact[:, 1], 0.0, sampling=False).value[0]
    again = exact + generator.normal(0, variance**0.5, (RUNS, 2, BINS))
    curve = survival.kaplan_meier(again[:, 0], again[:, 1], variance, sampling=False)
    for place in (1, 5, 10, 15):
        assert_covers(curve.low[:, place], curve.high[:, place], truth[place])
    assert np.all((curve.low >= 0) & (curve.high <= 1) & (np.diff(curve.value, axis=1, prepend=1) <= 0))


def test_principal_components_cover_those_of_the_exact_data() -> None:
    x, y = columns()
    data = np.column_stack([x, y, np.clip(0.5 * x + np.random.default_rng(15).normal(0, 0.2, x.size), -1, 1)])
    moments, linears, seconds = [float(x.size)], np.arange(1, 4), np.zeros((3, 3), dtype=np.intp)
    moments += data.sum(axis=0).tolist()
    for i in range(3):
        for j in range(i, 3):
            seconds[i, j] = seconds[j, i] = len(moments)
            moments.append(data[:, i] @ data[:, j])
    exact = np.array([moments])
    values, vectors = np.linalg.eigh(np.cov(data.T))

    def components(moments: Floats, noise: Floats) -> spectral.Components:
        matrix, gradient = spectral.covariance_matrix(linears, seconds, moments, noise, np.ones(3), ddof=1)
        return spectral.principal_components(matrix, gradient, noise)

    found = components(exact, np.zeros(exact.size))
    assert found.variances[0] == pytest.approx(values[::-1], rel=1e-10)
    assert np.abs(np.einsum("ic,ci->i", found.loadings[0], vectors[:, ::-1])) == pytest.approx(np.ones(3))
    released = components(*noisy(exact, 4.0))
    for j in range(3):
        assert_covers(released.low[:, j], released.high[:, j], values[2 - j])


def test_the_nearest_positive_matrix_leaves_a_positive_one_as_it_is() -> None:
    good = np.array([[[2.0, 0.5], [0.5, 1.0]]])
    assert spectral.nearest_psd(good) == pytest.approx(good)
    bad = np.array([[[1.0, 2.0], [2.0, 1.0]]])
    assert np.linalg.eigvalsh(spectral.nearest_psd(bad))[0].min() == pytest.approx(0, abs=1e-12)
