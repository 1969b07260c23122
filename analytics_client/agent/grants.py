"""What a steward grants of each dataset: to all analysts together, to each of them, and how many requests a day.

Must not know: what was spent of it, where that is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from queries.accounting import Budget
from queries.errors import BudgetError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one analyst may spend of one dataset, and what all analysts may spend of it together."""

    analyst: Budget
    total: Budget
    per_day: int | None = None
    """How many of this analyst's requests are answered in any 24 hours; None: as many as the budget pays for."""


@dataclass(frozen=True, slots=True)
class DatasetBudget:
    """A dataset's budget: for all analysts together, for each analyst, and for analysts with one of their own."""

    total: Budget
    each: Budget
    own: Mapping[str, Budget] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a steward grants, by dataset. A dataset without a budget is not served."""

    by_dataset: Mapping[str, DatasetBudget]

    def for_request(self, dataset: str, analyst: str) -> Limits:
        """Return what bounds this analyst on this dataset. Raise BudgetError where nothing was granted."""
        granted = self.by_dataset.get(dataset)
        if granted is None:
            raise BudgetError(
                f"no budget is granted for dataset {dataset!r}", hint="ask the institution's steward for one"
            )
        return Limits(granted.own.get(analyst, granted.each), granted.total)
