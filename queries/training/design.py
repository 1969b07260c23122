"""From a job's terms to the columns of its design matrix, scaled by public bounds alone, and back to the data's units.

A numeric column enters as u = (x - mid) / half in [-1, 1], a category as an indicator of each key but the first, or of
every key where rows are compared by distance ("kmeans"). Every entry of the matrix is then at most 1 in absolute value,
and of the indicators of one term at most one is not 0: so the squared norm of a row is at most 1 + the number of terms,
whatever the data are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from queries.plan import centre
from queries.schema import Categorical, Dataset, Numeric
from queries.training.job import Job, Term

Floats: TypeAlias = NDArray[np.float64]
Key: TypeAlias = tuple[tuple[str, int], ...]
"""Sorted factors of a column: (name, code of the category), or (name, -1) for a number."""
INTERCEPT = "(intercept)"
_NUMBER = -1


@dataclass(frozen=True)
class Design:
    """The columns of a model's matrix: the intercept first where there is one, then each term's."""

    names: tuple[str, ...]
    keys: tuple[Key, ...]
    terms: tuple[int, ...]  # number of the term of each column; -1 for the intercept
    centres: Mapping[str, tuple[float, float]]  # (mid, half) of each numeric column
    categories: Mapping[str, tuple[str, ...]]

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return len(self.keys)

    @property
    def has_intercept(self) -> bool:
        """Whether the first column is the intercept."""
        return self.keys[:1] == ((),)

    @cached_property
    def row_norm_squared(self) -> int:
        """Largest squared norm that a row can have."""
        return len(set(self.terms))

    def largest_predictor(self, theta: Floats) -> float:
        """Return a bound on |row . theta| over all possible rows."""
        bounds: dict[int, float] = {}
        for term, value in zip(self.terms, np.abs(theta), strict=True):
            bounds[term] = max(bounds.get(term, 0.0), float(value))
        return sum(bounds.values())

    def matrix(self, values: Mapping[str, NDArray[np.float64]]) -> Floats:
        """Return the matrix, shape (rows, width), of columns: numbers as they are, categories as codes."""
        rows = len(next(iter(values.values())))
        units = {name: self._unit(name, values[name]) for name in self.centres}
        out = np.ones((rows, self.width))
        for place, key in enumerate(self.keys):
            for name, code in key:
                out[:, place] *= units[name] if code == _NUMBER else values[name] == code
        return out

    def _unit(self, name: str, values: Floats) -> Floats:
        mid, half = self.centres[name]
        return np.clip((np.asarray(values, dtype=np.float64) - mid) / half, -1.0, 1.0)

    @cached_property
    def to_units(self) -> Floats:
        """Matrix A, (width, width): A theta are the coefficients of the same model in the columns' own units."""
        place = {key: number for number, key in enumerate(self.keys)}
        out = np.zeros((self.width, self.width))
        for column, key in enumerate(self.keys):
            numeric = [factor for factor in key if factor[1] == _NUMBER]
            for count in range(len(numeric) + 1):
                for kept in combinations(range(len(numeric)), count):
                    weight = 1.0
                    for number, (name, _) in enumerate(numeric):
                        mid, half = self.centres[name]
                        weight *= (1 if number in kept else -mid) / half
                    if weight == 0.0:
                        continue
                    rest = [factor for factor in key if factor[1] != _NUMBER]
                    target = place.get(tuple(sorted([*rest, *(numeric[number] for number in kept)])))
                    if target is not None:  # else it is a constant, which a baseline hazard absorbs
                        out[target, column] += weight
        return out


def make_design(job: Job, dataset: Dataset) -> Design:
    """Return the design of a resolved job. Deterministic."""
    intercept = job.model not in ("cox", "kmeans", "boosting")  # of "cox" the baseline hazard takes its place
    keys: list[Key] = [()] if intercept else []
    terms = [-1] if intercept else []
    names = [INTERCEPT] if intercept else []
    for number, term in enumerate(job.terms):
        for key in _keys(term, dataset, first=0 if job.model == "kmeans" else 1):
            keys.append(key)
            terms.append(number)
            names.append(_name(key, dataset))
    numeric = sorted({name for term in job.terms for name in term if isinstance(dataset.column(name).kind, Numeric)})
    categories = {
        name: dataset.categorical(name).keys
        for name in sorted({name for term in job.terms for name in term} - set(numeric))
    }
    if _hierarchical(keys) or (not intercept and all(len(key) == 1 for key in keys)):
        centres = {name: centre(dataset.numeric(name)) for name in numeric}
    else:  # moving the origin would change the model
        bounds = {name: dataset.numeric(name) for name in numeric}
        centres = {name: (0.0, max(abs(kind.lower), abs(kind.upper))) for name, kind in bounds.items()}
    return Design(tuple(names), tuple(keys), tuple(terms), centres, categories)


def _keys(term: Term, dataset: Dataset, *, first: int) -> list[Key]:
    choices: list[list[tuple[str, int]]] = []
    for name in term:
        kind = dataset.column(name).kind
        codes = range(first, len(kind.keys)) if isinstance(kind, Categorical) else [_NUMBER]
        choices.append([(name, code) for code in codes])
    return [tuple(sorted(chosen)) for chosen in product(*choices)]


def _name(key: Key, dataset: Dataset) -> str:
    parts = [name if code == _NUMBER else f"{name}={dataset.categorical(name).keys[code]}" for name, code in key]
    return ":".join(parts)


def _hierarchical(keys: list[Key]) -> bool:
    """Whether leaving numbers out of any column's product always leads to another column."""
    known = set(keys)
    for key in keys:
        numeric = [place for place, factor in enumerate(key) if factor[1] == _NUMBER]
        for left_out in numeric:
            if tuple(factor for place, factor in enumerate(key) if place != left_out) not in known:
                return False
    return True
