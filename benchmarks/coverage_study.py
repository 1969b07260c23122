"""Do 95% intervals cover 95% of the time, and do tests reject one true null hypothesis in twenty?

For every estimator, size and privacy cost: 10,000 simulated releases by five institutions, all present, through the
product's `make_plan`, `Plan.noise` and `estimate`. One release of a query over 10,000 equal groups is
10,000 independent runs. Noise is drawn as rounded normals, which from a standard deviation of 4 steps up no
test could tell from discrete Gaussians; where a name says "no delta", as rounded parts of Laplace variables.

An interval covers the value that the pooled data have: the noise is new in every run, the data are the same. Intervals
that count sampling in, and tests, are about a population: there the data are new in every run as well, drawn as the
sums of normal or multinomial samples.

Writes benchmarks/results/coverage.json:

    intervals      coverage of each estimator by size and rho, as far as the noise leaves information
    tests          how often each test at 5% rejects a true null hypothesis
    uninformative  the rest, where the noise drowns the data: `bounded` is the share of intervals that are not all there
                   is (of tests, of those with a verdict)
    conservative   quantiles, read from a grid and covering at least 95%; among them a median that is the last value
                   before a gap in the data, where one end of an interval can never miss; and without a delta skewness
                   and kurtosis, whose errors add up from four or five noises of the Laplace kind
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from harness.encoding import Columns, exact_sums  # noqa: E402 -- found through the line above

from queries import ir  # noqa: E402
from queries.builder import (  # noqa: E402
    _,
    anova,
    correlation,
    correlation_matrix,
    count,
    covariance,
    independence_test,
    intercept,
    linear_model,
    log_rank,
    principal_components,
    r_squared,
    slope,
    survival,
    t_test,
)
from queries.estimate import Output, estimate  # noqa: E402
from queries.noise import NoiseShape  # noqa: E402
from queries.plan import Plan, make_plan  # noqa: E402
from queries.schema import Categorical, Column, Dataset, Numeric  # noqa: E402

RUNS = 10_000
SIZES = (200, 1_000, 10_000, 100_000)
RHOS = (0.001, 0.01, 0.1, 1.0)
INFORMED = 0.99
"""A setting counts as informative where this share of its intervals is bounded, or of its tests has a verdict."""
BATCH = 50
"""Runs in one release of quantiles, which are read from thousands of counts each."""
INVITED, THRESHOLD, COLLUDERS = 5, 4, 1
EDGES = tuple(np.linspace(0.0, 20.0, 21).tolist())
TIMES = len(EDGES) - 1
RESULTS = Path(__file__).parent / "results" / "coverage.json"
DATASET = Dataset(
    "runs",
    (
        Column("run", Categorical(tuple(f"r{i}" for i in range(RUNS))), nullable=False),
        Column("batch", Categorical(tuple(f"b{i}" for i in range(BATCH))), nullable=False),
        *(Column(name, Numeric(0, 100), nullable=False) for name in ("x", "y", "z")),
        Column("time", Numeric(0, 20), nullable=False),
        *(Column(name, Categorical(("0", "1")), nullable=False) for name in ("event", "arm")),
        Column("group", Categorical(("a", "b", "c")), nullable=False),
    ),
)
PURE = replace(DATASET, delta=0)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One row of the report."""

    name: str
    rate: float
    bounded: float


# --- releases --------------------------------------------------------------------------------------------------------


def planned(key: str = "run", dataset: Dataset = DATASET, **outputs: ir.Aggregate) -> Plan:
    named = tuple(ir.NamedAggregate(name, each) for name, each in outputs.items())
    return make_plan(ir.Query("runs", named, keys=(ir.Key(key),)), dataset)


def released(plan: Plan, cells: NDArray[np.int64], rho: float, generator: np.random.Generator) -> dict[str, Output]:
    """Return the outputs of a release; `cells` are exact sums, one cell for all runs or one each."""
    shape: NoiseShape = plan.noise(round(rho * 1e9), threshold=THRESHOLD, colluders=COLLUDERS, invited=INVITED)
    sums = np.broadcast_to(cells, (len(plan.cells), len(plan.slots))) << shape.refine_bits
    if shape.scale is None:
        noise = generator.normal(0, math.sqrt(shape.total_variance(INVITED)), sums.shape)
    else:
        part_ = float(shape.part(shape.total_variance(INVITED)))
        up, down = generator.gamma(part_, float(shape.scale), (2, *sums.shape))
        noise = up - down
    sums = sums + np.rint(noise).astype(np.int64)
    return {output.name: _by_run(output) for output in estimate(plan, sums.reshape(-1), shape, INVITED).outputs}


def _by_run(output: Output) -> Output:
    """Return an output with a row for each run, which a table of a lone output with bins lays out long."""
    if not output.bins or output.value.ndim > 1:
        return output
    return output.mapped(lambda array: array.reshape(-1, len(output.bins)))


def covered(name: str, low: Floats, high: Floats, truth: Floats | float, whole: float) -> Finding:
    """Return how often intervals cover; one of at least the width `whole` says nothing."""
    return Finding(name, float(np.mean((low <= truth) & (truth <= high))), float(np.mean(high - low < whole)))


def scalar(output: Output, truth: float, whole: float = np.inf) -> Finding:
    return covered(output.name, output.low, output.high, truth, whole)


def part(output: Output, label: str, truth: Floats | float, whole: float = np.inf) -> Finding:
    place = [each.label for each in output.bins].index(label)
    return covered(f"{output.name} {label}", output.low[:, place], output.high[:, place], truth, whole)


def rejected(output: Output) -> Finding:
    p_value = output.value[:, [each.label for each in output.bins].index("p_value")]
    return Finding(output.name, float(np.mean(p_value < 0.05)), float(np.mean(p_value < 1)))


# --- what is fixed: pooled data, intervals for the noise alone --------------------------------------------------------


def patients(rows: int, generator: np.random.Generator) -> Columns:
    x = np.clip(generator.normal(55, 15, rows), 0, 100)
    y = np.clip(20 + 0.3 * x + generator.normal(0, 12, rows), 0, 100)
    life = generator.exponential(12, rows)
    leaves = generator.exponential(25, rows)
    return {
        "x": x,
        "y": y,
        "z": np.clip(0.2 * x + generator.normal(35, 15, rows), 0, 100),
        "time": np.clip(np.minimum(life, leaves), 0, 20),
        "event": (life <= np.minimum(leaves, 20)).astype(float),
        "arm": (generator.random(rows) < 0.4).astype(float),
        "group": generator.choice(3, rows, p=[0.2, 0.3, 0.5]).astype(float),
    }


def one_column(
    data: Columns, rho: float, generator: np.random.Generator, dataset: Dataset = DATASET
) -> Iterator[Finding]:
    x = data["x"]
    edges = (0.0, 40.0, 60.0, 100.0)
    plan = planned(
        dataset=dataset,
        count=count(),
        sum=_.x.sum(),
        mean=_.x.mean(),
        variance=_.x.var(),
        stddev=_.x.std(),
        histogram=_.x.histogram(edges=edges),
    )
    found = released(plan, exact_sums(plan, data), rho, generator)
    yield scalar(found["count"], len(x))
    yield scalar(found["sum"], x.sum())
    yield scalar(found["mean"], x.mean(), 100)
    yield scalar(found["variance"], x.var(ddof=1), 2499)
    yield scalar(found["stddev"], x.std(ddof=1), 49.9)
    yield part(found["histogram"], "[40, 60)", float(np.sum((x >= 40) & (x < 60))))


def two_columns(data: Columns, rho: float, generator: np.random.Generator) -> Iterator[Finding]:
    x, y = data["x"], data["y"]
    plan = planned(
        covariance=covariance(_.x, _.y), correlation=correlation(_.x, _.y), slope=slope(_.y, _.x),
        intercept=intercept(_.y, _.x), r_squared=r_squared(_.y, _.x),
    )  # fmt: skip
    found = released(plan, exact_sums(plan, data), rho, generator)
    line = stats.linregress(x, y)
    yield scalar(found["covariance"], np.cov(x, y)[0, 1], 4 * 50 * 50)
    yield scalar(found["correlation"], line.rvalue, 2)
    yield scalar(found["slope"], line.slope)
    yield scalar(found["intercept"], line.intercept)
    yield scalar(found["r_squared"], line.rvalue**2, 1)


def shapes(data: Columns, rho: float, generator: np.random.Generator, dataset: Dataset = DATASET) -> Iterator[Finding]:
    for name, node, truth in (
        ("skewness", _.time.skew(), stats.skew(data["time"], bias=False)),
        ("kurtosis", _.time.kurt(), stats.kurtosis(data["time"], bias=False)),
    ):
        found = released(plan := planned(dataset=dataset, **{name: node}), exact_sums(plan, data), rho, generator)
        yield scalar(found[name], float(truth), 2 * math.sqrt(len(data["time"])))


def quantiles(
    data: Columns, rho: float, generator: np.random.Generator, dataset: Dataset = DATASET
) -> Iterator[Finding]:
    rows = len(data["x"])
    apart = np.where(np.arange(rows) < rows // 2 + 1, 20.0, 80.0) + np.random.default_rng(rows).random(rows)
    cases = {"quartile": (data["x"], 0.25), "median": (data["x"], 0.5), "median before a gap": (apart, 0.5)}
    for name, (values, share) in cases.items():
        plan = planned("batch", dataset, out=_.x.quantile(share))
        exact = exact_sums(plan, {"x": values})
        batches = [released(plan, exact, rho, generator)["out"] for _batch in range(RUNS // BATCH)]
        low, high = (np.concatenate([getattr(each, side) for each in batches]) for side in ("low", "high"))
        yield covered(name, low, high, float(np.quantile(values, share)), 100)


def matrices(data: Columns, rho: float, generator: np.random.Generator) -> Iterator[Finding]:
    columns = np.column_stack([data[name] for name in "xyz"])
    plan = planned(correlation_matrix=correlation_matrix(_.x, _.y, _.z), components=principal_components(_.x, _.y, _.z))
    found = released(plan, exact_sums(plan, data), rho, generator)
    yield part(found["correlation_matrix"], "x z", np.corrcoef(columns.T)[0, 2], 2)
    values, vectors = np.linalg.eigh(np.cov(columns.T))
    vector = vectors[:, -1] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])
    for place in range(3):
        finding = part(found["components"], f"{place + 1} variance", values[-1 - place])
        # a component that the noise may have turned into another has a variance that is none of one component
        loading = part(found["components"], f"{place + 1} y", 0.0, 2 - 1e-9)
        yield Finding(finding.name, finding.rate, loading.bounded)
    yield part(found["components"], "1 y", vector[1], 2 - 1e-9)


def regression(data: Columns, rho: float, generator: np.random.Generator) -> Iterator[Finding]:
    plan = planned(model=linear_model(_.y, on=[_.x, _.z, _.arm], population=False))
    found = released(plan, exact_sums(plan, data), rho, generator)["model"]
    design = np.column_stack([np.ones(len(data["x"])), data["x"], data["z"], data["arm"]])
    beta, (rss,), _rank, _singular = np.linalg.lstsq(design, data["y"], rcond=None)
    for label, truth in zip(("intercept", "x", "z", "arm=1"), beta, strict=True):
        yield part(found, label, truth)
    informed = float(np.mean(np.all(np.isfinite(found.high[:, :4]), axis=1)))
    for label, truth in {"deviance": rss, "r_squared": 1 - rss / ((data["y"] - data["y"].mean()) ** 2).sum()}.items():
        finding = part(found, label, truth)
        yield Finding(finding.name, finding.rate, informed)


def curves(data: Columns, rho: float, generator: np.random.Generator) -> Iterator[Finding]:
    plan = planned(survival=survival(_.time, _.event, happened="1", edges=EDGES))
    found = released(plan, exact_sums(plan, data), rho, generator)["survival"]
    places = np.clip(data["time"].astype(int), 0, TIMES - 1)
    happened = np.bincount(places[data["event"] == 1], minlength=TIMES)
    risk = np.cumsum(np.bincount(places, minlength=TIMES)[::-1])[::-1]
    truth = np.cumprod(1 - happened / risk)
    for place in (0, 5, 10, 15):
        yield part(found, found.bins[place].label, truth[place], 0.9)


FIXED: tuple[Callable[[Columns, float, np.random.Generator], Iterator[Finding]], ...] = (
    one_column, two_columns, shapes, matrices, regression, curves,
)  # fmt: skip


# --- what is new in every run: tests, and intervals that count sampling in --------------------------------------------


def lattice(plan: Plan, moments: Floats) -> NDArray[np.int64]:
    """Return moments in units of one row, (runs, slots), as exact sums."""
    return np.rint(moments * float(1 << plan.scale_bits)).astype(np.int64)


def normal_sample(rows: int, sd: float, generator: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Count, sum and sum of squares of u in every run, for a normal sample of mean 0.1 well within the bounds."""
    mean = generator.normal(0.1, sd / math.sqrt(rows), RUNS)
    return np.full(RUNS, float(rows)), rows * mean, sd * sd * generator.chisquare(rows - 1, RUNS) + rows * mean**2


def means(rows: int, rho: float, generator: np.random.Generator) -> Iterator[tuple[str, Finding]]:
    sizes = [int(0.2 * rows), int(0.3 * rows), rows - int(0.2 * rows) - int(0.3 * rows)]
    cases: dict[str, tuple[ir.Aggregate, list[int], list[float]]] = {
        "student": (t_test(_.x, by=_.arm, equal_variances=True), [sizes[1], rows - sizes[1]], [0.3, 0.3]),
        "welch": (t_test(_.x, by=_.arm), [sizes[1], rows - sizes[1]], [0.3, 0.15]),
        "anova": (anova(_.x, _.group), sizes, [0.3] * 3),
    }
    for name, (node, counts, deviations) in cases.items():
        plan = planned(**{name: node})
        samples = [normal_sample(n, sd, generator) for n, sd in zip(counts, deviations, strict=True)]
        cells = np.stack([part_ for sample in samples for part_ in sample], axis=1)
        output = released(plan, lattice(plan, cells), rho, generator)[name]
        yield "tests", rejected(output)
        if name != "anova":
            yield "intervals", part(output, "difference", 0.0)
    plan = planned(one_sample=t_test(_.x, mean=55.0))  # 0.1 in units of u
    cells = np.stack(normal_sample(rows, 0.3, generator), axis=1)
    output = released(plan, lattice(plan, cells), rho, generator)["one_sample"]
    yield "tests", rejected(output)
    yield "intervals", part(output, "mean", 55.0)


def tables(rows: int, rho: float, generator: np.random.Generator) -> Iterator[tuple[str, Finding]]:
    plan = planned(chi_square=independence_test(_.arm, _.group))
    drawn = generator.multinomial(rows, np.outer([0.4, 0.6], [0.2, 0.3, 0.5]).ravel(), RUNS)
    yield "tests", rejected(released(plan, lattice(plan, drawn.astype(float)), rho, generator)["chi_square"])


def lifetimes() -> tuple[Floats, Floats]:
    """Probabilities (event or not, bin), and survival after each bin, of exponential lives and withdrawals."""
    alive, stays = np.exp(-np.arange(TIMES + 1) / 12), np.exp(-np.arange(TIMES) / 25)
    happens = 1 - alive[1:] / alive[:-1]
    entering = alive[:-1] * stays
    leaving = 1 - np.append(stays[1:] / stays[:-1], 0.0)
    return np.stack([entering * happens, entering * (1 - happens) * leaving]), alive[1:]


def populations_of_lives(rows: int, rho: float, generator: np.random.Generator) -> Iterator[tuple[str, Finding]]:
    probabilities, truth = lifetimes()
    arms = np.stack([0.4 * probabilities, 0.6 * probabilities])
    plan = planned(log_rank=log_rank(_.time, _.event, happened="1", by=_.arm, edges=EDGES))
    drawn = generator.multinomial(rows, arms.ravel(), RUNS)
    yield "tests", rejected(released(plan, lattice(plan, drawn.astype(float)), rho, generator)["log_rank"])
    plan = planned(survival_population=survival(_.time, _.event, happened="1", edges=EDGES, population=True))
    drawn = generator.multinomial(rows, probabilities.ravel(), RUNS)
    output = released(plan, lattice(plan, drawn.astype(float)), rho, generator)["survival_population"]
    for place in (5, 10):
        yield "intervals", part(output, output.bins[place].label, truth[place], 0.9)


def populations_of_models(rows: int, rho: float, generator: np.random.Generator) -> Iterator[tuple[str, Finding]]:
    """y = 0.1 + 0.3 x - 0.2 z + e in units of u, x and z normal: the sums are those of a Wishart matrix."""
    plan = planned(model_population=linear_model(_.y, on=[_.x, _.z]))
    beta, predictors = np.array([0.3, -0.2]), np.array([[0.09, 0.02], [0.02, 0.06]])
    cross = predictors @ beta
    both = np.block([[predictors, cross[:, None]], [cross[None], np.array([[beta @ cross + 0.04]])]])
    centre = np.array([0.05, -0.1, 0.1 + beta @ [0.05, -0.1]])
    scatter = stats.wishart(rows - 1, both).rvs(RUNS, random_state=generator)
    mean = generator.multivariate_normal(centre, both / rows, RUNS)
    second = scatter + rows * mean[:, :, None] * mean[:, None, :]
    at = {"x": 0, "z": 1, "y": 2}
    cells = np.empty((RUNS, len(plan.slots)))
    for place, slot in enumerate(plan.slots):
        factors = {"linear": (slot.column,), "square": (slot.column,) * 2}.get(slot.kind, slot.factors)
        names = [at[str(name)] for name in factors]
        cells[:, place] = (
            rows if not names else rows * mean[:, names[0]] if len(names) == 1 else second[:, names[0], names[1]]
        )
    output = released(plan, lattice(plan, cells), rho, generator)["model_population"]
    # all three columns have the same bounds, so slopes are the same in their own units
    for label, truth in {"x": 0.3, "z": -0.2}.items():
        yield "intervals", part(output, label, truth)


DRAWN: tuple[Callable[[int, float, np.random.Generator], Iterator[tuple[str, Finding]]], ...] = (
    means, tables, populations_of_lives, populations_of_models,
)  # fmt: skip


def study() -> Iterator[tuple[str, int, float, Finding]]:
    """Yield every finding: "intervals" or "tests", size, rho, and what was found."""
    for rows in SIZES:
        data = patients(rows, np.random.default_rng(rows))
        for rho in RHOS:
            generator = np.random.default_rng([rows, round(rho * 1000)])
            for group in FIXED:
                for finding in group(data, rho, generator):
                    yield "intervals", rows, rho, finding
            for finding in quantiles(data, rho, generator):
                yield "conservative", rows, rho, finding
            for family in DRAWN:
                for kind, finding in family(rows, rho, generator):
                    yield kind, rows, rho, finding


def study_without_delta() -> Iterator[tuple[str, int, float, Finding]]:
    """Yield what is found where a dataset has no delta, as `study` does."""
    for rows in SIZES:
        data = patients(rows, np.random.default_rng(rows))
        for rho in RHOS:
            generator = np.random.default_rng([rows, round(rho * 1000), 0])
            for finding in one_column(data, rho, generator, PURE):
                yield "intervals", rows, rho, finding
            for finding in shapes(data, rho, generator, PURE):
                yield "conservative", rows, rho, finding
            if rows in SIZES[1::2] and rho in RHOS[1::2]:
                for finding in quantiles(data, rho, generator, PURE):
                    yield "conservative", rows, rho, finding


PROMISED = {
    "intervals": ("coverage", 0.94, 0.96),
    "tests": ("false_positive_rate", 0.04, 0.06),
    "conservative": ("coverage", 0.94, 1.0),
}


def main() -> None:
    report: dict[str, list[dict[str, float | str | int]]] = {
        "intervals": [],
        "tests": [],
        "conservative": [],
        "uninformative": [],
    }
    begun, outside = time.perf_counter(), []
    both = (("", study()), (", no delta", study_without_delta()))
    for suffix, (kind, rows, rho, finding) in ((suffix, each) for suffix, part_ in both for each in part_):
        what, least, most = PROMISED[kind]
        record: dict[str, float | str | int] = {
            "name": f"{finding.name} ({rows:,} rows, rho {rho:g}{suffix})",
            what: finding.rate,
            "bounded": finding.bounded,
        }
        informative = kind == "conservative" or finding.bounded >= INFORMED
        report[kind if informative else "uninformative"].append(record)
        # where little is known an interval may cover more, and a test reject less, but never the other way round
        worse = finding.rate > most if kind == "tests" else finding.rate < least
        if worse or (informative and not least <= finding.rate <= most):
            outside.append(f"{record['name']}: {what} {finding.rate:.4f}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"runs": RUNS, **report}, indent=1) + "\n")
    print("\n".join(outside))
    sizes = ", ".join(f"{len(found)} {kind}" for kind, found in report.items())
    print(f"{sizes}; {len(outside)} that are not what they say; {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
