"""Data sets that training is tested on: schemas, each institution's table of agent.toml, and the pooled frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from harness.consortium import Consortium, consortium
from harness.data import DATA

POISSON = """
name = "awards"
max_persons = 10000
[columns.num_awards]
type = "integer"
lower = 0
upper = 10
[columns.math]
type = "number"
lower = 0
upper = 100
[columns.prog]
type = "category"
categories = ["General", "Academic", "Vocational"]
"""
GAUSSIAN = """
name = "trees"
max_persons = 10000
[columns.volume]
type = "number"
lower = 0
upper = 100
[columns.girth]
type = "number"
lower = 5
upper = 30
"""
SURVIVAL = """
name = "survival"
max_persons = 10000
[columns.eventtime]
type = "number"
lower = 0
upper = 10
[columns.status]
type = "category"
categories = ["0", "1"]
[columns.sex]
type = "category"
categories = ["0", "1"]
[columns.age]
type = "number"
lower = 0
upper = 120
"""
PARTIES = ("a", "b", "c")


def _pooled(folder: str) -> pd.DataFrame:
    return pd.concat([pd.read_csv(DATA / "v6-glm" / folder / f"{name}.csv") for name in PARTIES], ignore_index=True)


def poisson_pooled() -> pd.DataFrame:
    return _pooled("poisson")


def gaussian_pooled() -> pd.DataFrame:
    frame = _pooled("gaussian")
    return frame.rename(columns={name: name.lower() for name in frame.columns})


def survival_pooled() -> pd.DataFrame:
    return _pooled("survival")


def party_files(folder: str, dataset: str) -> dict[str, dict[str, str]]:
    """Per institution the agent.toml table of `dataset` over a folder of v6-glm."""
    return {f"hospital-{name}": {dataset: f'path = "{DATA}/v6-glm/{folder}/{name}.csv"\n'} for name in PARTIES}


FIVE = ("hospital-a", "hospital-b", "hospital-c", "hospital-d", "hospital-e")
AWARDS: dict[str, Any] = {"dataset": "awards", "label": "num_awards", "features": ["prog", "math"]}
"""What a job over POISSON predicts from what."""


@contextmanager
def awards_at_five(folder: Path) -> Iterator[Consortium]:
    """Run a consortium in which five institutions hold the three parties' files, two of them twice."""
    files = {
        name: {"awards": f'path = "{DATA}/v6-glm/poisson/{"abcab"[number]}.csv"\n'} for number, name in enumerate(FIVE)
    }
    with consortium(folder, [POISSON], files, epsilon=1e6) as running:
        yield running
