"""Processing activities: what the purposes of requests belong to in the consortium's record (GDPR art. 30).

Governance decides on them, and every membership lists them. Must not know: who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from queries.errors import IdentityError

MAX_ACTIVITIES = 200
MAX_PURPOSES = 200
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Activity:
    """`category` is as in "research", `legal_basis` as in "GDPR art. 9(2)(j)"; `purposes`, sorted, belong to it."""

    name: str
    category: str
    legal_basis: str
    purposes: tuple[str, ...]


def check_activities(activities: Sequence[Activity]) -> None:
    """Raise IdentityError unless every purpose belongs to one activity at most, and all texts are lines."""
    if len(activities) > MAX_ACTIVITIES or [a.name for a in activities] != sorted({a.name for a in activities}):
        raise IdentityError(f"a membership lists at most {MAX_ACTIVITIES} different processing activities, sorted")
    taken: dict[str, str] = {}
    for activity in activities:
        lines = (activity.name, activity.category, *activity.purposes)
        if not all(_is_line(line) for line in lines) or (activity.legal_basis and not _is_line(activity.legal_basis)):
            raise IdentityError(
                f"processing activity {activity.name[:80]!r} has a name, a category and purposes",
                hint=f"each one printable line of at most {_MAX_TEXT} characters",
            )
        if len(activity.purposes) > MAX_PURPOSES or list(activity.purposes) != sorted(set(activity.purposes)):
            raise IdentityError(f"processing activity {activity.name!r} has different purposes, sorted")
        for purpose in activity.purposes:
            if taken.setdefault(purpose, activity.name) != activity.name:
                raise IdentityError(f"purpose {purpose!r} belongs to {taken[purpose]!r} and to {activity.name!r}")


def activity_of(activities: Iterable[Activity], purpose: str) -> Activity | None:
    """Return the one that a purpose belongs to, None where it belongs to none."""
    return next((a for a in activities if purpose in a.purposes), None)


def _is_line(text: str) -> bool:
    return bool(text.strip()) and len(text) <= _MAX_TEXT and text.isprintable()
