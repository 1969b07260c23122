"""What is spent and what is left of an agent's budgets, for people. Must not know: how anything is charged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from analytics_client.agent.ledger_accounts import Account
from analytics_client.agent.ledger_file import TOTAL
from queries.accounting import NANO, rho_to_epsilon


@dataclass(frozen=True, slots=True)
class Balance:
    """One account in epsilon at its dataset's delta. `left` is the largest single query that would still fit."""

    dataset: str
    analyst: str | None
    spent: float
    budget: float
    left: float
    delta: float

    def __str__(self) -> str:
        who = "All analysts together have" if self.analyst is None else f"Analyst {self.analyst!r} has"
        rest = (
            f"one query of epsilon {self.left:g} would still fit"
            if self.left > 0
            else "nothing more can be asked of it"
        )
        return f"{who} used epsilon {self.spent:g} of {self.budget:g} on dataset {self.dataset!r}; {rest}."


def balances(accounts: Sequence[Account]) -> tuple[Balance, ...]:
    """Return the balance of every account. Epsilons are rounded against the spender, to thousandths."""
    return tuple(
        Balance(
            dataset=account.dataset,
            analyst=None if account.analyst == TOTAL else account.analyst,
            spent=ceil(account.spent.epsilon(account.budget.delta) * 1000) / 1000,
            budget=account.budget.epsilon,
            left=floor(rho_to_epsilon(account.budget.left(account.spent) / NANO, account.budget.delta) * 1000) / 1000,
            delta=account.budget.delta,
        )
        for account in accounts
    )
