"""Who holds whose shares and who shares masks with whom: everybody with everybody, or drawn neighbours in large rounds.

In a large round each member draws its own neighbours, from 16 random bytes that it shows only when the cohort to draw
from is fixed; from everybody's bytes everybody can work out the whole graph. Nobody else's choice has a part in what a
member draws. Must not know: keys, messages, the order of steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trust.secagg.bounds import Degree
from trust.transcript import frame

SEED_BYTES = 16
_WORD = np.dtype(">u4")


class Topology(Protocol):
    """The ties of a round's members, once its roster is fixed."""

    @property
    def roster(self) -> tuple[str, ...]:
        """Whose shares were dealt, sorted."""

    @property
    def threshold(self) -> int:
        """How many shares open a secret."""

    def holders(self, dealer: str) -> Sequence[str]:
        """Return who holds a share of the dealer's secrets, in order of share index; the dealer is among them."""

    def index(self, dealer: str, holder: str) -> tuple[int, int]:
        """Return at which position, from 0, the holder is among the dealer's holders, and how many those are."""

    def dealers(self, holder: str) -> Sequence[str]:
        """Return the members of the roster of whose secrets this one holds shares, sorted."""

    def partners(self, member: str) -> Sequence[str]:
        """Return the others of the roster with whom this one shares masks, sorted."""

    def cut_off(self, survivors: Iterable[str]) -> tuple[str, ...]:
        """Return the survivors that too few of their own partners survive with, sorted."""


class FullGraph:
    """Everybody with everybody. Shares are indexed by position in the invited list."""

    def __init__(self, invited: Sequence[str], roster: Sequence[str], threshold: int) -> None:
        self.roster, self.threshold = tuple(roster), threshold
        self._invited = invited
        self._positions = {name: position for position, name in enumerate(invited)}

    def holders(self, _dealer: str) -> Sequence[str]:
        """Return everybody who is invited."""
        return self._invited

    def index(self, _dealer: str, holder: str) -> tuple[int, int]:
        """Return the holder's position in the invited list, and that list's length."""
        return self._positions[holder], len(self._invited)

    def dealers(self, _holder: str) -> Sequence[str]:
        """Return the roster."""
        return self.roster

    def partners(self, member: str) -> Sequence[str]:
        """Return the rest of the roster."""
        return [name for name in self.roster if name != member]

    def cut_off(self, _survivors: Iterable[str]) -> tuple[str, ...]:
        """Return nobody."""
        return ()


class DrawnGraph:
    """Neighbours as the members of a cohort drew them. Whoever of the cohort dealt no shares is not in the roster."""

    def __init__(
        self, cohort: Sequence[str], roster: Sequence[str], seeds: bytes, degree: Degree, context: bytes
    ) -> None:
        """`cohort` and `roster` are sorted; `seeds` has those of the roster, one after the other."""
        self.roster, self.threshold = tuple(roster), degree.threshold
        self._degree = degree
        self._seeds = seeds
        self._cohort = cohort
        self._orders: dict[str, dict[str, int]] = {}
        self._position = {name: position for position, name in enumerate(cohort)}
        self._row = {name: row for row, name in enumerate(roster)}
        self._dealt = np.isin(np.arange(len(cohort)), [self._position[name] for name in roster])
        drawn = np.empty((len(roster), degree.holders), dtype=np.int32)
        for row, name in enumerate(roster):
            seed, position = self.seed(name), self._position[name]
            drawn[row] = draw(len(cohort), position, member=name, seed=seed, count=degree.holders, context=context)
        self._drawn = drawn
        self._drawn_partners = np.ascontiguousarray(drawn[:, : degree.partners])

    def holders(self, dealer: str) -> Sequence[str]:
        """Return whom the dealer drew, in the order in which it drew them, then itself."""
        return (*(self._cohort[position] for position in self._drawn[self._row[dealer]].tolist()), dealer)

    def index(self, dealer: str, holder: str) -> tuple[int, int]:
        """Return as which of the dealer's draws, from 0, the holder came; the dealer itself is the last."""
        order = self._orders.get(dealer)
        if order is None:
            order = self._orders[dealer] = {name: index for index, name in enumerate(self.holders(dealer))}
        return order[holder], len(order)

    def seed(self, member: str) -> bytes:
        """Return the bytes by which a member of the roster drew."""
        start = self._row[member] * SEED_BYTES
        return self._seeds[start : start + SEED_BYTES]

    def dealers(self, holder: str) -> Sequence[str]:
        """Return who drew this member as a holder, and itself where it is in the roster."""
        found = self._drew(self._drawn, holder)
        return sorted({*found, holder} if holder in self._row else found)

    def partners(self, member: str) -> Sequence[str]:
        """Return those of the roster whom the member drew as partners or who drew it as theirs."""
        own = self._drawn_partners[self._row[member]]
        drawn = {self._cohort[position] for position in own[self._dealt[own]].tolist()}
        return sorted(drawn.union(self._drew(self._drawn_partners, member)))

    def cut_off(self, survivors: Iterable[str]) -> tuple[str, ...]:
        """Return whose own drawn partners survive in too small a number.

        Partners that drew the member do not count: colluders may all have drawn it.
        """
        names = sorted(survivors)
        alive = np.zeros(len(self._cohort), dtype=np.int32)
        alive[[self._position[name] for name in names]] = 1
        counts = alive[self._drawn_partners].sum(axis=1)
        return tuple(name for name in names if counts[self._row[name]] < self._degree.least)

    def _drew(self, drawn: npt.NDArray[np.int32], member: str) -> list[str]:
        rows = np.flatnonzero((drawn == self._position[member]).any(axis=1))
        return [self.roster[row] for row in rows.tolist()]


def draw(size: int, position: int, *, member: str, seed: bytes, count: int, context: bytes) -> list[int]:
    """Return the positions of the `count` others whom the member at `position` of a cohort of `size` draws by its seed.

    They are uniform and distinct. SHAKE-256 of the framed context, member and seed is read as big-endian 32-bit words.
    Words of 2^32 - (2^32 mod (size - 1)) or above are skipped; of the others, each modulo size - 1 is a position in the
    cohort without the member; repetitions are skipped.
    """
    others = size - 1
    stream = hashlib.shake_256(frame("secagg/draw", context, member.encode(), seed))
    limit = (1 << 32) - (1 << 32) % others
    words, found = 2 * count, list[int]()
    while len(found) < count:
        values = np.frombuffer(stream.digest(words * _WORD.itemsize), _WORD).astype(np.int64)
        found = list(dict.fromkeys((values[values < limit] % others).tolist()))
        words *= 2
    return [other + (other >= position) for other in found[:count]]


@lru_cache(maxsize=4)
def drawn_graph(
    cohort: tuple[str, ...], roster: tuple[str, ...], seeds: bytes, degree: Degree, context: bytes
) -> DrawnGraph:
    """Return the graph of a round, kept while the round lasts."""
    return DrawnGraph(cohort, roster, seeds, degree, context)
