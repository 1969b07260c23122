"""The condition that leaves out persons who opted out, as a sqlglot tree. Must not know: connections, formats."""

from __future__ import annotations

from pathlib import Path

from sqlglot import exp

from analytics_client.agent import opt_out
from analytics_client.agent.config import DatasetConfig
from analytics_client.agent.sources.terms import Dialect
from queries.errors import ConfigError
from queries.schema import Dataset

State = tuple[tuple[str, int, int, int], ...]


def state(config: DatasetConfig) -> State:
    """Return what changes when the list does; empty where the dataset has none. Raise ConfigError if it is gone."""
    if config.opt_out is None:
        return ()
    try:
        found = Path(config.opt_out).stat()
    except OSError:
        opt_out.read(Path(config.opt_out))  # says what is wrong
        raise
    return ((config.opt_out, found.st_mtime_ns, found.st_size, found.st_ino),)


def condition(config: DatasetConfig, dataset: Dataset, person: exp.Expr, dialect: Dialect) -> exp.Expr | None:
    """Return what holds for rows of persons (non-null text) who did not opt out; None where nobody did.

    Raise ConfigError where the list cannot be read, or where the dataset has no privacy unit to tell persons by.
    """
    if config.opt_out is None:
        return None
    if not dataset.privacy_unit:
        raise ConfigError(
            f"dataset {dataset.name!r} has an opt-out list, and its schema does not say what tells persons apart",
            hint="governance must publish a privacy_unit",
        )
    listed = opt_out.read(Path(config.opt_out))
    if not listed.hashes:
        return None
    salted: exp.Expr = exp.DPipe(this=exp.Literal.string(listed.salt), expression=person.copy(), safe=True)
    if dialect == "postgres":
        as_bytes = exp.Anonymous(this="convert_to", expressions=[salted, exp.Literal.string("UTF8")])
        digest = exp.Anonymous(this="sha256", expressions=[as_bytes])
        hashed = exp.Anonymous(this="encode", expressions=[digest, exp.Literal.string("hex")])
    elif dialect == "spark":
        hashed = exp.Anonymous(this="sha2", expressions=[salted, exp.Literal.number(256)])
    else:
        hashed = exp.Anonymous(this="sha256", expressions=[salted])
    among = exp.In(this=hashed, expressions=[exp.Literal.string(name) for name in sorted(listed.hashes)])
    return exp.Not(this=among)
