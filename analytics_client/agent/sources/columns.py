"""Find a schema's columns and categories among local names and codes. Must not know: any engine, any row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from analytics_client.agent.config import ColumnConfig
from queries.errors import ConfigError, DataError
from queries.schema import OTHER, Categorical, Dataset

PLAIN_NUMBER = r"[+-]?[0-9]{1,9}(\.[0-9]{1,6})?"
"""Local codes such as 1.0 or 01 that may stand for the category 1: few enough digits to be exact as a float."""


@dataclass(frozen=True, slots=True)
class Codes:
    """Which code (position in the published keys) a local text or, failing that, a plain local number stands for."""

    texts: Mapping[str, int]
    numbers: Mapping[float, int]
    other: int | None


def locate(dataset: Dataset, configured: Mapping[str, ColumnConfig], header: Sequence[str]) -> dict[str, int]:
    """Return the position in `header` of every schema column and of the privacy unit.

    By agent.toml's mapping first, else under its own name, else ignoring case and surrounding white space. Raise
    DataError where a column is missing (naming the nearest) or ambiguous, ConfigError where a mapping fits no column.
    """
    wanted = [dataset.privacy_unit] * bool(dataset.privacy_unit) + [column.name for column in dataset.columns]
    for name in configured:
        if name not in wanted:
            raise ConfigError(
                f"agent.toml maps column {name!r}, which dataset {dataset.name!r} does not have",
                hint=_near(name, wanted),
            )
    return {name: _find(name, configured.get(name, ColumnConfig()), header) for name in wanted}


def codes(name: str, kind: Categorical, configured: Mapping[str, str]) -> Codes:
    """Return how local values of a categorical column become codes. Raise ConfigError for an unpublished target."""
    positions = {key: position for position, key in enumerate(kind.keys)}
    texts = {category: positions[category] for category in kind.categories}
    for local, category in configured.items():
        if category not in positions:
            raise ConfigError(
                f"agent.toml maps a value of {name!r} to {category!r}, which is not published",
                hint=_near(category, kind.keys),
            )
        texts[local.strip()] = positions[category]
    numbers: dict[float, int] = {}
    ambiguous: set[float] = set()
    for text, code in texts.items():
        if re.fullmatch(PLAIN_NUMBER, text):
            ambiguous |= {float(text)} if numbers.setdefault(float(text), code) != code else set()
    return Codes(texts, {n: code for n, code in numbers.items() if n not in ambiguous}, positions.get(OTHER))


def _find(name: str, configured: ColumnConfig, header: Sequence[str]) -> int:
    wanted = name if configured.column is None else configured.column
    for same in (lambda a: a == wanted, lambda a: _folded(a) == _folded(wanted)):
        found = [position for position, local in enumerate(header) if same(local)]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"{len(found)} local columns could be {name!r}", hint=f"name one in agent.toml: columns.{name}.column"
            )
    raise DataError(
        f"there is no local column {wanted!r}" + ("" if wanted == name else f" for {name!r}"),
        hint=_near(wanted, header) + f"; or map it in agent.toml: columns.{name}.column",
    )


def _folded(name: str) -> str:
    return name.strip().casefold()


def _near(name: str, known: Iterable[str]) -> str:
    names = {_folded(k): k for k in known}
    near = get_close_matches(_folded(name), names, n=1, cutoff=0.5)
    return f"did you mean {names[near[0]]!r}?" if near else f"known: {', '.join(map(repr, list(names.values())[:12]))}"
