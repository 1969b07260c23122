"""The ledger's accounts: what was spent, by each analyst and by all, and whether the next cost still fits.

Functions over an open transaction of `ledger`. Must not know: requests, rounds, jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import sqlalchemy as sa

from analytics_client.agent import ledger_file as file
from analytics_client.agent.grants import Limits
from analytics_client.agent.ledger_file import TOTAL, account, dump, load
from queries.accounting import NANO, Budget, Curve, rho_to_epsilon
from queries.errors import BudgetError


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent or reserved of a dataset by one analyst, or by all together where `analyst` is TOTAL.

    `budget` is the one that was last applied to it.
    """

    dataset: str
    analyst: str
    spent: Curve
    rho_nano: int
    budget: Budget


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request or a job costs, or an account holds: its curve, and its rho in units of 10^-9."""

    curve: Curve
    rho_nano: int


def spend(connection: sa.Connection, dataset: str, analyst: str, cost: Cost, limits: Limits) -> None:
    """Add a cost to what an analyst and all together have spent. Raise BudgetError where a budget does not admit it."""
    both = ((TOTAL, limits.total, "all analysts together"), (analyst, limits.analyst, f"analyst {analyst!r}"))
    for owner, budget, who in both:
        spent = spent_by(connection, dataset, owner)
        if not budget.admits(spent.curve, cost.curve):
            left = rho_to_epsilon(budget.left(spent.curve) / NANO, budget.delta)
            if budget.delta == 0 and not spent.curve.pure:
                raise BudgetError(
                    f"dataset {dataset!r} was answered with a delta before: nothing can be promised without one now",
                    hint="its governance can publish it under another name, or with a delta again",
                )
            raise BudgetError(
                f"the budget of {who} for dataset {dataset!r} does not cover this query",
                hint=f"one query of epsilon {floor(left * 1000) / 1000:g} would still fit"
                if left >= 0.001
                else "it is used up: ask the institution's steward for a larger one",
            )
        total = {"spent": dump(spent.curve + cost.curve), "rho_nano": spent.rho_nano + cost.rho_nano}
        row = {"dataset": dataset, "analyst": owner, "delta": budget.delta, "epsilon": budget.epsilon, **total}
        connection.execute(file.PUT_ACCOUNT, row)


def unspend(connection: sa.Connection, dataset: str, analyst: str, cost: Cost) -> None:
    """Take a cost back from both accounts."""
    for owner in (TOTAL, analyst):
        spent = spent_by(connection, dataset, owner)
        rest = Curve(tuple(had - gave for had, gave in zip(spent.curve.nano, cost.curve.nano, strict=True)))
        mine = account.c.dataset == dataset, account.c.analyst == owner
        total = {"spent": dump(rest), "rho_nano": spent.rho_nano - cost.rho_nano}
        connection.execute(account.update().where(*mine).values(**total))


def spent_by(connection: sa.Connection, dataset: str, analyst: str) -> Cost:
    """Return what an analyst has spent or reserved of a dataset, or all together where it is TOTAL."""
    stored = connection.execute(file.FIND_SPENT, {"of_dataset": dataset, "of_analyst": analyst}).first()
    return Cost(Curve.zero(), 0) if stored is None else Cost(load(stored.spent), stored.rho_nano)


def accounts(connection: sa.Connection) -> tuple[Account, ...]:
    """Return every account that was ever drawn on, datasets' totals before their analysts."""
    rows = connection.execute(sa.select(account).order_by(account.c.dataset, account.c.analyst)).all()
    return tuple(
        Account(row.dataset, row.analyst, load(row.spent), row.rho_nano, Budget(row.epsilon, row.delta)) for row in rows
    )
