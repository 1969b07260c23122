"""What every source of local rows can do. Must not know: any engine, the network, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from queries.plan import Plan


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """How one column fits the schema; exact counts of rows, for the steward's eyes only.

    `clipped`: numbers outside the published bounds. `unpublished`: values outside the published categories.
    """

    name: str
    local: str
    missing: int
    clipped: int = 0
    unpublished: int = 0


@dataclass(frozen=True, slots=True)
class SourceReport:
    """How local data fit a schema; exact counts, for the steward's eyes only.

    `rows` are those with a person; `without_person` were left out; `most_rows` is the most that one person has.
    """

    rows: int
    persons: int
    without_person: int
    most_rows: int
    columns: tuple[ColumnReport, ...]


class Source(Protocol):
    """Local rows of one dataset, ready to be summed. Safe to use from several threads."""

    def check(self) -> SourceReport:
        """Say how the data fit the schema. Raise DataError where they cannot be served."""

    def aggregate(self, plan: Plan, salt: bytes) -> NDArray[np.int64]:
        """Return the exact sums that `plan` describes, on its unrefined lattice: `plan.length` integers.

        `salt` is secret and fresh for each request; it alone decides which rows of a person with too many are kept.
        Raise DataError where the data cannot answer, for reasons that are shown locally only.
        """

    def rows(self, plan: Plan, salt: bytes) -> dict[str, NDArray[np.float64]]:
        """Return the rows that `aggregate` would sum: by column, numbers as they are and categories as positions.

        For training, whose steps are no sums of columns. The rows never leave the process. `salt` and DataError as for
        `aggregate`.
        """

    def close(self) -> None:
        """Let go of the data."""
