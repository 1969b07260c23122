"""How much less accurate than a trusted curator? RMSE of every statistic over that of central OpenDP at the same rho.

Five institutions, all present, draw their shares with the agents' own exact sampler; the curator holds all rows and
adds OpenDP's discrete Gaussian to the same sums, once. Both are estimated alike. Shares carry n / (t - c) times the
curator's variance, because the noise must do without those who may drop out or collude; so the ratio should be its
root, 1.291, and may be at most 1.02 times that. Writes benchmarks/results/accuracy.json.
"""

from __future__ import annotations

import json
import math
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import opendp.prelude as dp
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT), str(Path(__file__).parent)]

from coverage_study import COLLUDERS, EDGES, INVITED, RUNS, THRESHOLD, patients, planned  # noqa: E402
from harness.encoding import exact_sums  # noqa: E402

from analytics_client.agent.noise import share  # noqa: E402
from queries import ir  # noqa: E402
from queries.builder import (  # noqa: E402
    _,
    correlation,
    count,
    covariance,
    intercept,
    linear_model,
    principal_components,
    slope,
    survival,
)
from queries.estimate import estimate  # noqa: E402
from queries.plan import NoiseShape, Plan  # noqa: E402

ROWS, RHO, REPEATS = 100_000, 0.05, 6
LIMIT = math.sqrt(INVITED / (THRESHOLD - COLLUDERS)) * 1.02
RESULTS = Path(__file__).parent / "results" / "accuracy.json"
STATISTICS: dict[str, ir.Aggregate] = {
    "count": count(),
    "sum": _.x.sum(),
    "mean": _.x.mean(),
    "variance": _.x.var(),
    "stddev": _.x.std(),
    "histogram": _.x.histogram(edges=(0.0, 40.0, 50.0, 60.0, 100.0)),
    "covariance": covariance(_.x, _.y),
    "correlation": correlation(_.x, _.y),
    "slope": slope(_.y, _.x),
    "intercept": intercept(_.y, _.x),
    "linear_model": linear_model(_.y, on=[_.x, _.z, _.arm], population=False),
    "components": principal_components(_.x, _.y),
    "survival": survival(_.time, _.event, happened="1", edges=EDGES),
}


def values(plan: Plan, sums: NDArray[np.int64], shape: NoiseShape, survivors: int) -> NDArray[np.float64]:
    """Return the values of a release, (runs, numbers)."""
    (output,) = estimate(plan, sums.reshape(-1), shape, survivors).outputs
    return output.value.reshape(RUNS, -1)


def ratios(node: ir.Aggregate) -> NDArray[np.float64]:
    """Return RMSE over the curator's of every number of one statistic."""
    plan = planned(statistic=node)
    shape = plan.noise(round(RHO * 1e9), threshold=THRESHOLD, colluders=COLLUDERS, invited=INVITED)
    exact = np.tile(exact_sums(plan, patients(ROWS, np.random.default_rng(1))) << shape.refine_bits, (RUNS, 1))
    curator = NoiseShape(shape.refine_bits, shape.central_variance, shape.central_variance)
    truth = values(plan, exact, NoiseShape(shape.refine_bits, Fraction(0), Fraction(0)), 1)[0]
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="i64")
    central = dp.m.make_gaussian(*space, scale=math.sqrt(shape.central_variance))
    ours, theirs = np.zeros(truth.size), np.zeros(truth.size)
    for _repeat in range(REPEATS):
        noise = sum((share(exact.size, shape.share_variance) for _ in range(INVITED)), np.zeros(exact.size, np.int64))
        ours += np.sum((values(plan, exact + noise.reshape(exact.shape), shape, INVITED) - truth) ** 2, axis=0)
        one = np.array(central(exact.reshape(-1).tolist()), dtype=np.int64)
        theirs += np.sum((values(plan, one.reshape(exact.shape), curator, 1) - truth) ** 2, axis=0)
    moved = theirs > 0
    return np.sqrt(ours[moved] / theirs[moved])


def main() -> None:
    dp.enable_features("contrib")
    begun, found = time.perf_counter(), {}
    for name, node in STATISTICS.items():
        each = ratios(node)
        # numbers of one statistic rest on the same sums: their common ratio is less of a lottery than the largest
        found[name] = float(np.sqrt(np.mean(each**2)))
        print(f"{name:14} {found[name]:.4f}")
    worst = max(found.values())
    report = {"rows": ROWS, "rho": RHO, "releases": RUNS * REPEATS, "limit": LIMIT, "worst": worst, "ratios": found}
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(f"worst {worst:.4f}, limit {LIMIT:.4f}; {time.perf_counter() - begun:.0f} s")
    if worst > LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
