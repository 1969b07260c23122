"""Service accounts: programs that ask on their own, each for named datasets and until a day that governance signed.

An account is listed like a person, with a key of its own and no person behind it. Must not know: who issues it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from queries.errors import IdentityError

ROLES = ("analyst", "auditor")
MAX_DATASETS = 100
MAX_DAYS = 366


@dataclass(frozen=True, slots=True)
class Service:
    """Until when (unix seconds, the last) an account may act, and of which datasets, sorted, it may ask."""

    expires_at: int
    datasets: tuple[str, ...] = ()

    @classmethod
    def of(cls, role: str, datasets: Iterable[str], expires_at: int, *, now: int) -> Service:
        """Return what an account of this role is to be allowed. Raise IdentityError where it cannot be."""
        service = cls(expires_at, tuple(sorted(datasets)))
        check_service((role,), service)
        if not now < expires_at <= now + MAX_DAYS * 86_400:
            raise IdentityError(f"a service account ends within {MAX_DAYS} days", hint="prolong it when that is near")
        return service

    @classmethod
    def from_text(cls, text: str) -> Service | None:
        """Return what `to_text` wrote, None for ""."""
        if not text:
            return None
        read = json.loads(text)
        return cls(read["expires_at"], tuple(read["datasets"]))

    def to_text(self) -> str:
        """Return it as one line of JSON, for a store."""
        return json.dumps({"expires_at": self.expires_at, "datasets": list(self.datasets)})

    def check_time(self, name: str, now: int) -> None:
        """Raise IdentityError where the account has ended."""
        if now > self.expires_at:
            raise IdentityError(
                f"service account {name!r} ended {(now - self.expires_at) // 3600} hours ago",
                hint="governance prolongs it: cohortium-server service set, then membership publish",
            )

    def check_dataset(self, name: str, dataset: str) -> None:
        """Raise IdentityError where the account is not for this dataset."""
        if dataset not in self.datasets:
            raise IdentityError(
                f"service account {name!r} is not for dataset {dataset[:80]!r}",
                hint=f"it is for: {', '.join(self.datasets) or 'none'}",
            )


def check_service(roles: tuple[str, ...], service: Service) -> None:
    """Raise IdentityError for an account that no membership may list."""
    if len(roles) != 1 or roles[0] not in ROLES:
        raise IdentityError("a service account has one role", hint=f"one of: {', '.join(ROLES)}")
    if service.expires_at <= 0:
        raise IdentityError("a service account has an end")
    names = service.datasets
    if list(names) != sorted(set(names)) or len(names) > MAX_DATASETS or not all(n and n.isprintable() for n in names):
        raise IdentityError(f"a service account names at most {MAX_DATASETS} different datasets, sorted")
    if (roles[0] == "analyst") != bool(names):
        raise IdentityError("an analyst's service account names its datasets, an auditor's none", hint="--datasets a,b")
