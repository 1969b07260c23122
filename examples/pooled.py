"""The pooled truth of the demo's four hospitals: what nobody in a real consortium can compute.

Reads the same files through the same mappings as the agents, with pandas, and bounds them by the same published rules.
"""

from __future__ import annotations

import tomllib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analytics_client.sandboxes import Data, Institution
from queries import schema
from queries.schema import Categorical, Dataset

HERE = Path(__file__).parent
SCHEMAS = (HERE / "patients.toml", HERE / "labs.toml")


def hospitals() -> list[Institution]:
    """The four hospitals as `hospitals.toml` describes them."""
    described = tomllib.loads((HERE / "hospitals.toml").read_text())
    return [
        Institution(
            name,
            body["organisation"],
            {
                dataset: Data(HERE / body[dataset]["path"], body[dataset].get("columns", {}))
                for dataset in ("patients", "labs")
            },
        )
        for name, body in described.items()
    ]


def pooled(dataset: str, *, of: Container[str] | None = None) -> pd.DataFrame:
    """All rows of all hospitals, or `of` some, under the published names: recoded, clipped, unknown codes dropped."""
    published = schema.from_toml((HERE / f"{dataset}.toml").read_text())
    chosen = [one for one in hospitals() if of is None or one.id in of]
    return pd.concat([_local(published, one.data[dataset]) for one in chosen], ignore_index=True)


def _local(published: Dataset, data: Data) -> pd.DataFrame:
    raw = pd.read_parquet(data.path)
    names = [published.privacy_unit, *(column.name for column in published.columns)]
    frame = pd.DataFrame({name: _column(raw, name, data.columns.get(name, {})) for name in names})
    for column in published.columns:
        if isinstance(column.kind, Categorical):
            frame[column.name] = frame[column.name].where(frame[column.name].isin(column.kind.categories))
        else:
            frame[column.name] = frame[column.name].astype(float).clip(column.kind.lower, column.kind.upper)
        if not column.nullable:
            frame = frame[frame[column.name].notna()]
    return frame


def _column(raw: pd.DataFrame, name: str, mapping: Mapping[str, Any]) -> pd.Series:
    values: pd.Series = raw[mapping.get("column", name)]
    return values.astype("string").replace(mapping["values"]) if "values" in mapping else values


def bounded_mean(frame: pd.DataFrame, person: str, value: str, rows_per_person: int) -> tuple[float, float]:
    """Rows and mean when every person counts with at most so many rows chosen at random: exact in expectation."""
    each = frame.groupby(person)[value].agg(["size", "mean"])
    weight = each["size"].clip(upper=rows_per_person)
    return float(weight.sum()), float((weight * each["mean"]).sum() / weight.sum())
