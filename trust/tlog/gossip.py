"""Heads that the parties show each other, so that a log that shows each of them another history is found out.

Every request carries the newest head that its analyst has seen, every decision the head that its institution has seen,
both signed by whoever saw it: the coordinator, through whose hands they go, can leave them out, and is refused, but not
change them. Who receives one demands proof that it and the own head are of one log (RFC 9162 section 2.1.4). Must not
know: how heads and proofs travel.
"""

from __future__ import annotations

from collections.abc import Sequence

from queries.errors import LogError
from trust.tlog.evidence import Contradiction, Shown
from trust.tlog.merkle import verify_consistency

_TELL = "do not go on: keep both heads and tell the auditor"


def require_one_log(seen: Shown, newer: Shown, proof: Sequence[bytes]) -> None:
    """Raise Contradiction unless the head that somebody has seen is of the same log as `newer`.

    `proof` is the consistency proof from the one to the other.
    """
    if seen.size > newer.size:
        raise Contradiction(
            f"{seen.to} has seen a log of {seen.size} entries, here it has {newer.size}",
            hint=_TELL,
            heads=(newer, seen),
            proof=proof,
        )
    if (seen.size, seen.root) == (newer.size, newer.root):
        return
    try:
        verify_consistency(seen.size, seen.root, newer.size, newer.root, proof)
    except LogError as error:
        raise Contradiction(
            f"{seen.to} was shown another log: its head of {seen.size} entries does not lead to the one of "
            f"{newer.size} here",
            hint=_TELL,
            heads=(seen, newer),
            proof=proof,
        ) from error
