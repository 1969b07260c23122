"""Whom complaints remove from the next attempt. A pure rule over who accused whom."""

from __future__ import annotations

from collections.abc import Iterable


def accused(complaints: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the members to leave out so that no complaint stands between any two who remain; sorted.

    `complaints` are (holder, dealer). A complaint cannot be proved to a third party, so either end of it may lie: one
    of them goes. The member at the end of most open complaints goes first; among equals a dealer before one who only
    complained, then the smallest id. A dealer whose shares are bad for many goes alone, as does a holder that accuses
    many; a single word of one against one removes the dealer.
    """
    edges = set(complaints)
    removed = []
    while edges:
        dealers = {dealer for _, dealer in edges}
        degree: dict[str, int] = {}
        for edge in {frozenset(edge) for edge in edges}:
            for member in edge:
                degree[member] = degree.get(member, 0) + 1
        worst = min(degree, key=lambda member: (-degree[member], member not in dealers, member))
        removed.append(worst)
        edges = {edge for edge in edges if worst not in edge}
    return tuple(sorted(removed))
