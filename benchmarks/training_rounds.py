"""Whole rounds of large models: ten agents and the coordinator in this process, everything over mTLS on loopback.

Processor seconds beside wall seconds tell, on a machine that others use too, what a round takes of an idle one.
`private` runs the product: signed requests, policy, ledgers, noise, masks, the log, SQLite, verification by nobody but
the parties of the round (the analyst verifies afterwards). `plain_fedavg` is the yardstick.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plain_fedavg import seconds_per_round

from analytics_client.agent.training.descent import LOCAL_BATCH
from analytics_server.coordinator.rounds import Deadlines
from queries.schema import Dataset, from_toml
from queries.training.descent import Descent
from queries.training.job import make_job
from queries.training.plan import JobPlan, make_job_plan, stated_rho_nano

AGENTS = 10
INPUTS = 60
SLOW = Deadlines(join=120, upload=300, confirm=120, reveal=120)
MILLION, TEN_MILLION = (1000, 900), (3300, 2930)
"""Hidden layers of 971,910 and 9,911,540 weights on 60 columns and 10 classes."""
LOCAL = {"method": "average", "rate": 1.0, "local_steps": 50, "local_rate": 0.05, "learning_rate": 1.0, "batch": 1.0}
SAMPLED = {"method": "sgd", "rate": 0.1, "learning_rate": 0.1, "batch": 640.0}


def network(
    hidden: tuple[int, ...],
    *,
    inputs: int = INPUTS,
    classes: int = 10,
    persons: int = 1000,
    model: str = "mlp",
    **how: Any,
) -> JobPlan:
    """The plan of a job of three rounds on a network."""
    keys = json.dumps([str(digit) for digit in range(classes)])
    text = f'name = "net"\nmax_persons = {persons}\n[columns.y]\ntype = "category"\ncategories = {keys}\n'
    text += "".join(
        f'[columns.x{n}]\ntype = "number"\nnullable = false\nlower = -1\nupper = 1\n' for n in range(inputs)
    )
    dataset = from_toml(text)
    asked = {"method": "sgd", "rate": 0.5, "batch": 100.0, "learning_rate": 0.1} | how
    descent = Descent(optimizer="sgd", noise_multiplier=1.0, clip=1.0, hidden=hidden, **asked)
    terms = tuple((f"x{n}",) for n in range(inputs))
    job = make_job(dataset, model, "y", terms, rounds=3, spare_rounds=0, descent=descent)
    return make_job_plan(job, dataset, stated_rho_nano(job, dataset))


def rounds() -> dict[str, Any]:
    """Medians of rounds after the first."""
    local = compared(MILLION, rows=640, rounds=6, **LOCAL)
    sampled = compared(MILLION, rows=640, rounds=4, **SAMPLED)
    large = compared(TEN_MILLION, rows=640, rounds=3, **(LOCAL | {"local_steps": 10}))
    large_sampled = compared(TEN_MILLION, rows=40, rounds=3, **SAMPLED)
    return {
        "round_time_over_plain_fedavg_1m": local["private_s"] / local["plain_s"],
        "dpsgd_round_over_plain_1m": sampled["private_s"] / sampled["plain_s"],
        "round_s_10m_10_agents": large["private_s"],
        "round_cpu_s_10m_10_agents": large["private_cpu_s"],
        "dpsgd_round_s_10m_10_agents": large_sampled["private_s"],
        "rounds": {
            "averaging_1m": local,
            "dpsgd_1m": sampled,
            "averaging_10m": large,
            "dpsgd_10m": large_sampled,
        },
    }


def compared(hidden: tuple[int, ...], *, rows: int, rounds: int, **how: Any) -> dict[str, Any]:
    """Seconds of private and of plain rounds over the same rows; for DP-SGD a plain round is one local step."""
    from harness.consortium import consortium

    plan = network(hidden, persons=AGENTS * rows, **how)
    random = np.random.default_rng(5)
    with tempfile.TemporaryDirectory() as name:
        folder, files, parts = Path(name), {}, []
        for agent in range(AGENTS):
            values = {f"x{n}": random.uniform(-1, 1, rows) for n in range(INPUTS)}
            values["y"] = random.integers(0, 10, rows).astype(float)
            parts.append(values)
            frame = pd.DataFrame(values).astype({"y": int})
            frame.to_csv(folder / f"{agent}.csv", index=False)
            files[f"agent-{agent}"] = {"net": f'path = "{folder / str(agent)}.csv"\n'}
        ends: list[float] = []
        worked: list[float] = []

        def ended(progress: Any) -> None:
            if progress.step in ("round", "released"):
                ends.append(time.perf_counter())
                worked.append(time.process_time())

        schema = schema_of(plan.dataset)
        with (
            consortium(folder / "c", [schema], files, epsilon=1e9, deadlines=SLOW) as built,
            built.session() as session,
        ):
            session.train(
                "mlp", dataset="net", label="y", features=[f"x{n}" for n in range(INPUTS)], clip=1.0,
                noise_multiplier=1.0, hidden=list(hidden), rounds=rounds + 1, spare_rounds=0,
                on_progress=ended,
                **how,
            )  # fmt: skip
            verified = time.perf_counter() - ends[-1]
            if how["method"] == "sgd":  # what a plain round does on as many rows as are sampled: a single step
                once = {"method": "average", "rate": 1.0, "local_steps": 1, "local_rate": 0.1, "batch": 1.0}
                plan = network(hidden, persons=AGENTS * rows, learning_rate=1.0, **once)
            started = time.process_time()
            plain = seconds_per_round(built.config, [built.folder / f for f in files], plan, parts, rounds)
            plain_cpu = (time.process_time() - started) / (rounds + 1)
    private = np.diff(ends)
    setting = {key: how[key] for key in ("method", "local_steps", "rate") if key in how}
    return {
        "weights": plan.length,
        "agents": AGENTS,
        "rows_each": rows,
        "local_batch": LOCAL_BATCH,
        **setting,
        "private_s": round(float(np.median(private)), 3),
        "plain_s": round(float(np.median(plain)), 3),
        "private_cpu_s": round(float(np.median(np.diff(worked))), 3),
        "plain_cpu_s": round(plain_cpu, 3),
        "load": [round(os.getloadavg()[1], 1), round(os.getloadavg()[0], 1)],
        "all_private_s": [round(float(s), 2) for s in private],
        "all_plain_s": [round(float(s), 2) for s in plain],
        "verification_of_the_job_s": round(verified, 2),
    }


def schema_of(dataset: Dataset) -> str:
    text = f'name = "{dataset.name}"\nmax_persons = {dataset.max_persons}\n'
    for column in dataset.columns:
        keys = getattr(column.kind, "categories", None)
        text += f"[columns.{column.name}]\nnullable = {str(column.nullable).lower()}\n"
        text += (
            f'type = "category"\ncategories = {json.dumps(list(keys))}\n'
            if keys
            else 'type = "number"\nlower = -1\nupper = 1\n'
        )
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    print(json.dumps(rounds(), indent=1))
