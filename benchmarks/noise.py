"""Noise on one core: the project's sampler beside OpenDP's, at several widths, in one run.

Writes benchmarks/results/noise.json, keyed by sigma where not said otherwise:

    samples_per_s          draws a second of ten million coordinates, one thread, key and allocation included (median)
    opendp_samples_per_s   the same of OpenDP's discrete Gaussian, 50,000 coordinates, sampler built (median)
    over_opendp            one number: the smallest ratio of the two
    over_opendp_by_sigma   every ratio
    first_draw_ms          building the tables of a variance that was never drawn before: paid once for each
    numeric_samples_per_s  one number: at sigma 2^44, the width that sums of numeric columns reach
    laplace_samples_per_s  exact quarters of discrete Laplace, keyed by scale
    share_ms               a whole share, keyed by length: the longest that OpenDP draws, and one coordinate more
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from analytics_client.agent import noise
from trust.noise import gaussian, laplace, table
from trust.noise.stream import Stream

SIGMAS = [1, 10, 100, 1000, 1_000_000]
LENGTH, OPENDP_LENGTH, RUNS = 10_000_000, 50_000, 5
RESULTS = Path(__file__).parent / "results" / "noise.json"


def seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median time of a call."""
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def fast(sigma: int) -> float:
    """Return draws a second of the project's sampler."""
    return LENGTH / seconds(lambda: gaussian.draw(LENGTH, Fraction(sigma) ** 2, Stream.fresh()))


def opendp(sigma: int) -> float:
    """Return draws a second of OpenDP, which draws every share this short."""
    assert OPENDP_LENGTH <= noise.LONGEST_OPENDP
    return OPENDP_LENGTH / seconds(lambda: noise.share(OPENDP_LENGTH, Fraction(sigma) ** 2), 3)


def first_draw(sigma: int) -> float:
    """Return the milliseconds that the tables of a new variance take, all of a process's first ones included."""

    def build() -> None:
        gaussian.tables.cache_clear()
        table.table.cache_clear()
        gaussian.tables(Fraction(sigma) ** 2)

    return round(1e3 * seconds(build), 2)


def main() -> None:
    """Run everything and write the results."""
    samples = {str(sigma): round(fast(sigma)) for sigma in SIGMAS}
    slow = {str(sigma): round(opendp(sigma)) for sigma in SIGMAS}
    ratios = {sigma: round(samples[sigma] / slow[sigma]) for sigma in samples}
    results = {
        "samples_per_s": samples,
        "opendp_samples_per_s": slow,
        "over_opendp": min(ratios.values()),
        "over_opendp_by_sigma": ratios,
        "first_draw_ms": {str(sigma): first_draw(sigma) for sigma in SIGMAS},
        "numeric_samples_per_s": round(fast(1 << 44)),
        "laplace_samples_per_s": {
            str(scale): round(
                10**6 / seconds(lambda t=scale: laplace.draw(10**6, Fraction(t), Fraction(1, 4), Stream.fresh()))
            )
            for scale in (1, 1000, 1 << 44)
        },
        "share_ms": {
            str(length): round(1e3 * seconds(lambda n=length: noise.share(n, Fraction(10**6))), 2)
            for length in (noise.LONGEST_OPENDP, noise.LONGEST_OPENDP + 1)
        },
        "coordinates": LENGTH,
        "load_before": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
