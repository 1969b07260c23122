"""What an agent answers for, and what its steward allows: what judging a request starts from.

Must not know: requests, rounds, the network.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytics_client.agent.grants import Budgets
from analytics_client.agent.sources import Source
from analytics_client.agent.training import Installed
from queries.policy import Policy
from queries.schema import Dataset


@dataclass(frozen=True, slots=True)
class Served:
    """A dataset that this agent answers for."""

    dataset: Dataset
    schema_hash: bytes
    source: Source


@dataclass(frozen=True, slots=True)
class Granted:
    """What the steward allows now: who may ask what, for how much, and which packages' models may run.

    `digest` is SHA-256 of the file that says so.
    """

    policy: Policy
    budgets: Budgets
    digest: bytes
    models: tuple[Installed, ...] = ()
