"""What private training is worth and costs, each number against the named reference in the same run.

Writes benchmarks/results/training.json:

    welch_p_vs_central_dpsgd        by epsilon: p of Welch's test on the accuracies of 20 distributed and 20 central
                                    DP-SGD runs (own loop: float sums, continuous Gaussian noise of the same deviation)
    accuracy                        by epsilon: mean accuracies of both, and of training without privacy
    glm_max_relative_error          of coefficients without noise, against statsmodels (Cox: lifelines) on pooled data
    glm_interval_coverage           of 95% intervals, mean over coefficients of 2,000 simulated private jobs; also of
                                    the intervals for the pooled fit
    round_time_over_plain_fedavg_1m  a private round of federated averaging of a million weights, 10 agents, over one
                                    with the same local steps, averaged in the clear; both over mTLS in one process
    dpsgd_round_over_plain_1m       a round of DP-SGD of a million weights beside it: see `training_rounds`
    per_example_gradient_throughput_over_opacus   a network of three layers, batches of 256; _cnn: of convolutions
    round_cpu_s_10m_10_agents       the processor's seconds of the same round, of all cores together
    bits_per_weight                 on the wire, by expected persons a round, of a million weights and ten institutions:
                                    at a lattice of 2^16, and of the chosen one, with the noise that this costs
    round_s_10m_10_agents           a private round of ten million weights, 10 agents, all on this machine

    python benchmarks/training.py [section ...]      sections: glm coverage welch gradients wire rounds
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analytics_client.agent.training import descent
from queries.schema import Dataset, from_toml
from queries.subsampling import smallest_multiplier
from queries.training import newton
from queries.training.course import make_course
from queries.training.descent import Descent
from queries.training.gradients import Gradients
from queries.training.job import make_job
from queries.training.plan import NETWORK_BITS, JobPlan, make_job_plan, stated_rho_nano, stochastic_norm
from trust.lanes import lanes_of
from trust.noise import gaussian
from trust.noise.stream import Stream
from trust.secagg import default_threshold

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]
from training_rounds import AGENTS, MILLION, network, rounds  # noqa: E402 - found by the line above

RESULTS = Path(__file__).parent / "results" / "training.json"
Values = dict[str, np.ndarray]


# --- regressions ----------------------------------------------------------------------------------------------------


def fitted(plan: JobPlan, values: Values) -> newton.Fit:
    """The fit without noise."""
    theta, releases = newton.initial(plan), []
    for _ in range(plan.job.rounds):
        releases.append(newton.Released(theta, plan.sums(values, theta) / 2.0**plan.scale_bits, 0.0))
        theta = newton.advance(plan, releases[-1])
    return newton.fit(plan, releases)


def codes(frame: pd.DataFrame, dataset: Dataset, names: tuple[str, ...]) -> Values:
    out = {}
    for name in names:
        kind = dataset.column(name).kind
        keys = {key: float(code) for code, key in enumerate(getattr(kind, "keys", ()))}
        out[name] = (
            frame[name].map(lambda v, k=keys: k[str(v)]).to_numpy(float) if keys else frame[name].to_numpy(float)
        )
    return out


def glm() -> dict[str, Any]:
    import lifelines
    import statsmodels.api as sm
    import statsmodels.formula.api as smf
    from harness.data import CNSIM_SCHEMA, cnsim_pooled
    from harness.training import GAUSSIAN, POISSON, SURVIVAL, gaussian_pooled, poisson_pooled, survival_pooled

    errors: dict[str, float] = {}

    def compare(
        name: str, model: str, schema: str, frame: pd.DataFrame, *, label: str, terms: Any, truth: Any, **m: Any
    ) -> None:
        dataset = from_toml(schema)
        job = make_job(dataset, model, label, terms, **({"rounds": 24} | m))
        found = [
            c.value for c in fitted(make_job_plan(job, dataset, 10**9), codes(frame, dataset, job.columns)).coefficients
        ]
        errors[name] = float(np.max(np.abs(np.asarray(found) / np.asarray(truth) - 1)))

    frame = poisson_pooled()
    model = smf.glm("num_awards ~ C(prog, Treatment('General')) + math", frame, family=sm.families.Poisson()).fit(
        tol=1e-14
    )
    compare("poisson", "poisson", POISSON, frame, label="num_awards", terms=(("prog",), ("math",)), truth=model.params)
    frame = gaussian_pooled()
    model = smf.ols("volume ~ girth", frame).fit()
    terms: Any = (("girth",),)
    compare("gaussian", "linear", GAUSSIAN, frame, label="volume", terms=terms, truth=model.params, rounds=1)
    frame = pd.concat([pd.read_csv(Path(str(from_data())) / "v6-glm" / "binomial" / f"{p}.csv") for p in "abc"])
    schema = (
        'name = "b"\n[columns.admit]\ntype = "category"\ncategories = ["0", "1"]\n'
        '[columns.gre]\ntype = "number"\nlower = 0\nupper = 1000\n'
        '[columns.gpa]\ntype = "number"\nlower = 0\nupper = 4\n'
        '[columns.rank]\ntype = "category"\ncategories = ["1", "2", "3", "4"]\n'
    )
    model = smf.glm("admit ~ gre + gpa + C(rank)", frame, family=sm.families.Binomial()).fit(tol=1e-14)
    order = ["Intercept", "gre", "gpa", "C(rank)[T.2]", "C(rank)[T.3]", "C(rank)[T.4]"]
    terms = (("gre",), ("gpa",), ("rank",))
    compare("binomial", "logistic", schema, frame, label="admit", terms=terms, truth=model.params[order])
    frame = cnsim_pooled()[["gender", "bmi", "lab_hdl", "dis_diab"]].dropna().astype({"gender": int, "dis_diab": int})
    model = smf.glm("dis_diab ~ gender * bmi + lab_hdl", frame, family=sm.families.Binomial()).fit(tol=1e-14)
    terms = (("gender",), ("bmi",), ("gender", "bmi"), ("lab_hdl",))
    truth = model.params[["Intercept", "gender", "bmi", "gender:bmi", "lab_hdl"]]
    compare("cnsim", "logistic", CNSIM_SCHEMA, frame, label="dis_diab", terms=terms, truth=truth)
    frame = survival_pooled()
    times = np.unique(frame["eventtime"])
    edges = (0.0, *((times[1:] + times[:-1]) / 2).tolist(), 10.0)
    cox = lifelines.CoxPHFitter().fit(
        frame[["eventtime", "status", "sex", "age"]], "eventtime", "status", fit_options={"precision": 1e-12}
    )
    more = {"event": "status", "edges": edges, "rounds": 14}
    terms = (("sex",), ("age",))
    compare("cox", "cox", SURVIVAL, frame, label="eventtime", terms=terms, truth=cox.params_, **more)
    return {"glm_max_relative_error": max(errors.values()), "glm_relative_errors": errors}


def from_data() -> Path:
    from harness.data import DATA

    return DATA


def coverage(jobs: int = 2000) -> dict[str, Any]:
    """Logistic regression of 1,000 persons at rho 0.2 and 2: where noise matters more than sampling, and less."""
    dataset = from_toml(
        'name = "d"\nmax_persons = 100000\n[columns.x]\ntype = "number"\nlower = -1\nupper = 1\n'
        '[columns.z]\ntype = "category"\ncategories = ["no", "yes"]\n'
        '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
    )
    truth = {"(intercept)": -0.4, "x": 0.8, "z=yes": -0.6}
    random, out = np.random.default_rng(2024), {}
    for rho in (0.2, 2.0):
        job = make_job(dataset, "logistic", "y", (("x",), ("z",)), rounds=6, spare_rounds=0)
        plan = make_job_plan(job, dataset, int(rho * 1e9))
        deviation = math.sqrt(plan.delta_squared * 1e9 / (2 * plan.round_rho_nano)) / 2.0**plan.scale_bits
        population = pooled = total = converged = 0
        for _ in range(jobs // 2):
            x, z = random.uniform(-1, 1, 1000), (random.random(1000) < 0.4).astype(float)
            values = {
                "x": x,
                "z": z,
                "y": (random.random(1000) < 1 / (1 + np.exp(0.4 - 0.8 * x + 0.6 * z))).astype(float),
            }
            exact = {c.name: c.value for c in fitted(plan, values).coefficients}
            theta, releases = newton.initial(plan), []
            for _ in range(job.rounds):
                sums = plan.sums(values, theta) / 2.0**plan.scale_bits
                releases.append(newton.Released(theta, sums + random.normal(0, deviation, plan.length), deviation))
                theta = newton.advance(plan, releases[-1])
            found = newton.fit(plan, releases)
            converged += found.converged
            for c in found.coefficients:
                population += c.low <= truth[c.name] <= c.high
                pooled += c.pooled_low <= exact[c.name] <= c.pooled_high
                total += 1
        out[f"{rho:g}"] = {
            "population": population / total,
            "pooled": pooled / total,
            "converged": converged / (jobs // 2),
        }
    mean = float(np.mean([entry["population"] for entry in out.values()]))
    return {"glm_interval_coverage": mean, "glm_interval_coverage_by_rho": out}


# --- DP-SGD ---------------------------------------------------------------------------------------------------------


def digits() -> tuple[Dataset, Values, Values]:
    from sklearn.datasets import load_digits

    data, label = load_digits(return_X_y=True)
    columns = [f"p{place}" for place in range(64) if data[:, place].max() > 0]
    keys = json.dumps([str(digit) for digit in range(10)])
    text = f'name = "digits"\nmax_persons = 1500\n[columns.y]\ntype = "category"\ncategories = {keys}\n'
    text += "".join(f'[columns.{name}]\ntype = "number"\nlower = 0\nupper = 16\n' for name in columns)
    order = np.random.default_rng(0).permutation(len(label))
    values = {name: data[order, int(name[1:])] for name in columns} | {"y": label[order].astype(float)}
    return from_toml(text), {n: c[:1400] for n, c in values.items()}, {n: c[1400:] for n, c in values.items()}


def accuracy(plan: JobPlan, theta: np.ndarray, values: Values) -> float:
    statistic = plan.statistic
    assert isinstance(statistic, Gradients)
    return float((statistic.mean(statistic.design.matrix(values), theta).argmax(axis=1) == values["y"]).mean())


def welch(repeats: int = 20) -> dict[str, Any]:
    """Multinomial regression on scikit-learn's digits, three institutions, 30 rounds of a tenth of the persons."""
    dataset, train, test = digits()
    terms = tuple((name,) for name in train if name != "y")
    parts = [{name: column[start::3] for name, column in train.items()} for start in range(3)]
    p_values, means = {}, {}
    for epsilon in (1, 2, 4, 8):
        multiplier = smallest_multiplier(epsilon, dataset.delta, rate=0.1, rounds=31)
        how = Descent("sgd", "momentum", 0.1, multiplier, 1.0, 140.0, 1.0, momentum=0.5)
        job = make_job(dataset, "multinomial", "y", terms, rounds=30, descent=how)
        plan = make_job_plan(job, dataset, stated_rho_nano(job, dataset))
        found = [accuracies(plan, parts, train, test, repeat) for repeat in range(repeats)]
        apart, central, free = np.array(found).T
        p_values[str(epsilon)] = float(stats.ttest_ind(apart, central, equal_var=False).pvalue)
        means[str(epsilon)] = {
            "distributed": float(apart.mean()),
            "central": float(central.mean()),
            "not private": float(free.mean()),
        }
    return {"welch_p_vs_central_dpsgd": p_values, "accuracy": means}


def accuracies(
    plan: JobPlan, parts: list[Values], train: Values, test: Values, repeat: int
) -> tuple[float, float, float]:
    """One repeat: distributed, central with noise of the same deviation, and central without noise."""
    noise = plan.noise(plan.rho_nano, threshold=3, colluders=1, invited=3)
    unit = 2.0 ** (plan.scale_bits + noise.refine_bits)
    deviation = math.sqrt(float(noise.total_variance(3))) / unit
    random = np.random.default_rng(repeat)
    return (
        accuracy(plan, run(plan, lambda t: sum_of(plan, parts, t, noise) / unit, deviation), test),
        accuracy(plan, run(plan, lambda t: central_sum(plan, train, t, deviation, random), deviation), test),
        accuracy(plan, run(plan, lambda t: central_sum(plan, train, t, 0.0, random), 0.0), test),
    )


def run(plan: JobPlan, ask: Callable[[np.ndarray], np.ndarray], deviation: float) -> np.ndarray:
    course = make_course(plan)
    for _ in range(plan.job.rounds):
        course.take(newton.Released(course.theta, ask(course.theta), deviation, 3))
    return course.theta


def sum_of(plan: JobPlan, parts: list[Values], theta: np.ndarray, noise: Any) -> np.ndarray:
    """What three agents would release together."""
    return sum(
        (descent.sums(plan, part, theta) << noise.refine_bits)
        + gaussian.draw(plan.length, noise.share_variance, Stream.fresh())
        for part in parts
    ).astype(float)


def central_sum(
    plan: JobPlan, values: Values, theta: np.ndarray, deviation: float, random: np.random.Generator
) -> np.ndarray:
    """One round of DP-SGD as a trusted curator runs it, in floats."""
    statistic = plan.statistic
    assert isinstance(statistic, Gradients)
    chosen = random.random(len(values["y"])) < statistic.how.rate
    rows = statistic.rows({name: column[chosen] for name, column in values.items()}, theta)
    clipped = rows / np.maximum(np.linalg.norm(rows, axis=1), 1)[:, None]
    return clipped.sum(axis=0) + random.normal(0, 1, plan.length) * deviation


# --- speed ----------------------------------------------------------------------------------------------------------


def gradients() -> dict[str, Any]:
    """Gradients of single rows alone, batches of 256: 60-256-128-10, and two convolutions over 16 x 16 pixels."""
    import torch
    from opacus import GradSampleModule

    linear, relu = torch.nn.Linear, torch.nn.ReLU
    dense = torch.nn.Sequential(linear(61, 256), relu(), linear(256, 128), relu(), linear(128, 10))
    convolved = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), relu(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1), relu(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), linear(512, 64), relu(), linear(64, 10),
    )  # fmt: skip
    image = {"model": "cnn", "inputs": 256, "image": (16, 16, 1), "filters": (16, 32), "kernel": 3, "pool": 2}
    cases = {"mlp": (network((256, 128)), dense), "cnn": (network((64,), **image), convolved)}
    ratios = {}
    for name, (plan, plain) in cases.items():
        statistic = plan.statistic
        assert isinstance(statistic, Gradients)
        random, inputs = np.random.default_rng(1), len(plan.job.terms)
        values = {f"x{n}": random.uniform(-1, 1, 256) for n in range(inputs)}
        values["y"] = random.integers(0, 10, 256).astype(float)
        ours_of, theta = descent.local_gradients(statistic).rows, statistic.initial()
        module = GradSampleModule(plain, loss_reduction="sum")
        x = torch.from_numpy(statistic.arrange(statistic.design.matrix(values)).astype(np.float32))
        y = torch.from_numpy(values["y"].astype(np.int64))
        assert sum(parameter.numel() for parameter in plain.parameters()) == plan.length

        def theirs(module: Any = module, x: Any = x, y: Any = y) -> None:
            module.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(module(x), y, reduction="sum").backward()

        def ours(of: Any = ours_of, values: Values = values, theta: np.ndarray = theta) -> None:
            of(values, theta)

        ratios[name] = best(theirs) / best(ours)
    return {
        "per_example_gradient_throughput_over_opacus": ratios["mlp"],
        "per_example_gradient_throughput_over_opacus_cnn": ratios["cnn"],
    }


def best(work: Callable[[], None], times: int = 25) -> float:
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def wire() -> dict[str, Any]:
    """What the lattice saves, and costs in noise; see docs/adr/0028."""
    out = {}
    for persons, rate in ((1_000, 0.2), (10_000, 0.05), (100_000, 0.01), (100_000, 0.05)):
        chosen = network(MILLION, persons=persons, rate=rate, batch=rate * persons)
        norm = stochastic_norm(NETWORK_BITS, chosen.length)
        finest = replace(chosen, scale_bits=NETWORK_BITS, row_norm=norm, delta_squared=norm**2)
        bits = {}
        for name, plan in (("at_2_to_16", finest), ("chosen", chosen)):
            noise = plan.noise(plan.rho_nano, threshold=default_threshold(AGENTS), colluders=1, invited=AGENTS)
            lanes = lanes_of(plan, noise, AGENTS)
            bits[name] = lanes.elements(plan.length) * lanes.ring_bits / plan.length
        more = chosen.row_norm / 2**chosen.scale_bits / (norm / 2**NETWORK_BITS)
        out[str(round(persons * rate))] = bits | {"lattice": chosen.scale_bits, "noise_over_2_to_16": round(more, 5)}
    return {"bits_per_weight": out}


SECTIONS = {"glm": glm, "coverage": coverage, "welch": welch, "gradients": gradients, "wire": wire, "rounds": rounds}


def main(asked: list[str]) -> None:
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in asked or list(SECTIONS):
        started = time.perf_counter()
        found |= SECTIONS[name]()
        found.setdefault("sections", {})[name] = {
            "seconds": round(time.perf_counter() - started, 1),
            "load_before_and_after": [round(os.getloadavg()[1], 1), round(os.getloadavg()[0], 1)],
        }
        found["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
        print(
            name,
            json.dumps({key: value for key, value in found.items() if key not in ("sections", "machine")}, indent=1),
        )


if __name__ == "__main__":
    main(sys.argv[1:])
