"""The real data sets that tests use where they are at hand: schemas, and each institution's table of agent.toml."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the reference data sets are not beside this checkout")

HEART_SCHEMA = """
name = "heart"
privacy_unit = "patient_id"
max_persons = 100000
[columns.age]
type = "integer"
lower = 0
upper = 120
nullable = false
[columns.sex]
type = "category"
categories = ["female", "male"]
nullable = false
[columns.cp]
type = "category"
categories = ["1", "2", "3", "4"]
[columns.chol]
type = "number"
lower = 0
upper = 700
[columns.trestbps]
type = "number"
lower = 0
upper = 250
[columns.num]
type = "category"
categories = ["0", "1", "2", "3", "4"]
"""
HEART = ("cleveland", "hungarian", "switzerland", "va")

CNSIM_SCHEMA = """
name = "cnsim"
max_persons = 100000
[columns.lab_tsc]
type = "number"
lower = 0
upper = 15
[columns.lab_trig]
type = "number"
lower = -10
upper = 20
[columns.lab_hdl]
type = "number"
lower = -2
upper = 5
[columns.bmi]
type = "number"
lower = 5
upper = 80
[columns.gender]
type = "category"
categories = ["0", "1"]
[columns.dis_diab]
type = "category"
categories = ["0", "1"]
"""
CNSIM = ("CNSIM1", "CNSIM2", "CNSIM3")


def heart_files() -> dict[str, dict[str, str]]:
    """Per institution the agent.toml table of dataset heart."""
    return {
        name: {
            "heart": f'path = "{DATA}/uci-heart/{name}.csv"\n'
            '[datasets.heart.columns.sex]\nvalues = { "0" = "female", "1" = "male" }\n'
        }
        for name in HEART
    }


def cnsim_files() -> dict[str, dict[str, str]]:
    """Per institution the agent.toml table of dataset cnsim; its headers have trailing spaces."""
    return {
        name.lower(): {
            "cnsim": f'path = "{DATA}/cnsim/{name}.csv"\n[datasets.cnsim.columns]\nbmi = "PM_BMI_CONTINUOUS"\n'
        }
        for name in CNSIM
    }


def heart_pooled(*, without: str = "") -> pd.DataFrame:
    """All four hospitals in one frame, or all but one, as no one but a test may see them."""
    names = [name for name in HEART if name != without]
    frame = pd.concat([pd.read_csv(DATA / "uci-heart" / f"{name}.csv") for name in names], ignore_index=True)
    frame["sex"] = frame["sex"].map({0: "female", 1: "male"})
    return frame


def cnsim_pooled() -> pd.DataFrame:
    """All three studies in one frame."""
    frame = pd.concat([pd.read_csv(DATA / "cnsim" / f"{name}.csv") for name in CNSIM], ignore_index=True)
    frame.columns = [column.strip() for column in frame.columns]
    return frame.rename(
        columns={
            "LAB_TSC": "lab_tsc", "LAB_TRIG": "lab_trig", "LAB_HDL": "lab_hdl",
            "PM_BMI_CONTINUOUS": "bmi", "GENDER": "gender", "DIS_DIAB": "dis_diab",
        }
    )  # fmt: skip
