"""Where an institution's rows come from: one file per kind of source, all answering a plan with the same integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analytics_client.agent.sources.base import ColumnReport, Source, SourceReport
from queries.errors import ConfigError

if TYPE_CHECKING:
    from analytics_client.agent.config import DatasetConfig
    from queries.schema import Dataset

__all__ = ["ColumnReport", "Source", "SourceReport", "open_source"]


def open_source(config: DatasetConfig, dataset: Dataset, *, threads: int = 1) -> Source:
    """Open a dataset's local data as agent.toml describes them. Raise ConfigError or DataError if they do not fit."""
    if config.engine == "postgresql":
        try:
            from analytics_client.agent.sources.postgresql import PostgreSQLSource
        except ImportError:
            raise _not_installed("PostgreSQL driver", "postgres") from None
        return PostgreSQLSource.open(config, dataset)
    if config.engine == "spark":
        try:
            from analytics_client.agent.sources.spark import SparkSource
        except ImportError:
            raise _not_installed("Spark", "spark") from None
        return SparkSource.open(config, dataset)
    from analytics_client.agent.sources.duckdb import DuckDBSource

    return DuckDBSource.open(config, dataset, threads=threads)


def _not_installed(what: str, extra: str) -> ConfigError:
    return ConfigError(f"this agent has no {what}", hint=f'install it: pip install "cohortium[agent,{extra}]"')
