"""How many neighbours a member of a large round needs: exact tails of the hypergeometric distribution.

Each member draws its neighbours at random from the others of the roster, of whom some collude and some will vanish. A
`Degree` is large enough that, but for stated probabilities, nobody's secrets fall to colluders, no member and no group
is cut off from the rest whichever survivors a coordinator names after it saw the graph, and nobody's secrets are lost.
docs/secure-aggregation.md has the argument. Must not know: keys, messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import ceil, comb, inf, lgamma, log, log2

import numpy as np
import numpy.typing as npt

PRIVACY_BITS = 40
"""A round's graph is unsafe with probability at most 2^-40."""
ABORT_BITS = 20
"""A round fails for want of shares with probability at most 2^-20, where no more vanish than were allowed for."""
NEGLIGIBLE_BITS = 60
"""What larger groups may add to the failure of privacy beside that of single members: at most 2^-60."""
DROPOUTS_ONE_IN = 10
COLLUDERS_ONE_IN = 20
"""The graph allows for one in twenty to collude, even where a round names fewer."""

FEWEST_PER_COLLUDER = 3
"""Where more than a third collude, as good as everybody would have to be everybody's neighbour."""


@dataclass(frozen=True, slots=True)
class Degree:
    """How a member of a large round is tied to others."""

    holders: int
    """k: the others to whom it deals a share of each of its secrets; it keeps one more share itself."""
    threshold: int
    """How many of those k + 1 shares open a secret."""
    partners: int
    """k / 2: the first of its holders, with whom it also shares masks."""
    least: int
    """How many of these must survive with it."""


@lru_cache(maxsize=256)
def degree(
    members: int,
    colluders: int,
    threshold: int,
    *,
    dropouts: int | None = None,
    privacy_bits: int = PRIVACY_BITS,
    abort_bits: int = ABORT_BITS,
) -> Degree | None:
    """Return the smallest degree that serves a roster of so many members, or None where no half of them is enough.

    `threshold` is the round's t: at least t - colluders honest members survive. `dropouts` is how many members may
    vanish after they joined, one in ten by default.
    """
    bad = max(colluders, ceil(members / COLLUDERS_ONE_IN))
    gone = members // DROPOUTS_ONE_IN if dropouts is None else dropouts
    if bad * FEWEST_PER_COLLUDER > members:
        return None
    for holders in range(2, members // 2 + 1, 2):
        share_threshold = _share_threshold(members, bad, holders, privacy_bits)
        least = _least_partners(members, bad, holders // 2, privacy_bits)
        found = Degree(holders, share_threshold, holders // 2, least)
        if (
            share_threshold <= holders
            and least <= holders // 2
            and _at_most(members, gone, holders, holders - share_threshold, abort_bits)
            and _at_most(members, gone, holders // 2, holders // 2 - least, abort_bits)
            and log2_larger_groups(found, members, bad, threshold) <= -NEGLIGIBLE_BITS
        ):
            return found
    return None


def _share_threshold(members: int, bad: int, holders: int, bits: int) -> int:
    """Return the least t' with 2t' > (k + 1) + x, where nobody has more than x colluders among its k holders.

    It is the round's own 2t > n + c, for each neighbourhood: so that even if holders were told different survivor
    lists, they could not give up both secrets of their dealer.
    """
    return (holders + 1 + _most(members, bad, holders, bits)) // 2 + 1


def _least_partners(members: int, bad: int, partners: int, bits: int) -> int:
    """Return one more than the colluders that anybody has among its partners."""
    return _most(members, bad, partners, bits) + 1


def _most(members: int, marked: int, drawn: int, bits: int) -> int:
    """Return the least x such that, with probability 1 - 2^-bits, no member draws more than x of the marked."""
    return next(x for x in range(-1, drawn + 1) if _at_most(members, marked, drawn, x, bits))


def _at_most(members: int, marked: int, drawn: int, x: int, bits: int) -> bool:
    """Return whether members * P(more than x marked among `drawn` of the others) <= 2^-bits, exactly."""
    ways = _upper_tails(members - 1, marked, drawn)
    return (members * ways[x + 1] << bits) <= comb(members - 1, drawn) if x < drawn else True


@lru_cache(maxsize=64)
def _upper_tails(population: int, marked: int, drawn: int) -> tuple[int, ...]:
    """Return, for i = 0..drawn, in how many ways `drawn` of the population hold at least i of the marked."""
    ways = [comb(marked, i) * comb(population - marked, drawn - i) for i in range(drawn + 1)]
    return tuple(accumulate(reversed(ways)))[::-1]


def log2_larger_groups(found: Degree, members: int, bad: int, threshold: int) -> float:
    """Return log2 of a bound on the probability that two or more honest members can be cut off from the others.

    A group of s that is cut off has, for each of its members, at least `least` partners inside the group or among
    colluders; and none of its members drew a partner among the other honest survivors, who are at least as many and
    at least t - c - s. The bound is the sum over s of the smaller of what these two say, over all choices of the
    groups. Draws of different members are independent.
    """
    honest = members - bad
    total = -inf
    factorials = _log_factorials(members)
    for size in range(2, honest // 2 + 1):
        groups = _log_comb(factorials, honest, size)
        inside = groups + size * _log_tail(factorials, members - 1, bad + size - 1, found.partners, found.least)
        others = max(size, threshold - bad - size)
        apart = groups + _log_comb(factorials, honest - size, others)
        apart += size * (
            _log_comb(factorials, members - 1 - others, found.partners)
            - _log_comb(factorials, members - 1, found.partners)
        )
        total = float(np.logaddexp(total, min(inside, apart)))
    return total / log(2)


def _log_factorials(members: int) -> npt.NDArray[np.float64]:
    return np.array([lgamma(i + 1) for i in range(members + 1)])


def _log_comb(factorials: npt.NDArray[np.float64], n: int, k: int) -> float:
    return float(factorials[n] - factorials[k] - factorials[n - k]) if 0 <= k <= n else -inf


def _log_tail(factorials: npt.NDArray[np.float64], population: int, marked: int, drawn: int, least: int) -> float:
    """Return log P(at least `least` marked among `drawn` of the population)."""
    i = np.arange(max(least, drawn - population + marked), min(drawn, marked) + 1)
    if not i.size:
        return -inf
    f, rest = factorials, population - marked
    ways = f[marked] - f[i] - f[marked - i] + f[rest] - f[drawn - i] - f[rest - drawn + i]
    return min(0.0, float(np.logaddexp.reduce(ways)) - _log_comb(f, population, drawn))


def log2_single(found: Degree, members: int, bad: int) -> float:
    """Return log2 of members * P(one member's partners, or its holders, give it away): what the bits above bound."""
    partners = members * _upper_tails(members - 1, bad, found.partners)[found.least]
    holders = members * _upper_tails(members - 1, bad, found.holders)[found.threshold]
    chance = partners * comb(members - 1, found.holders) + holders * comb(members - 1, found.partners)
    whole = comb(members - 1, found.holders) * comb(members - 1, found.partners)
    return log2(chance) - log2(whole) if chance else -inf
