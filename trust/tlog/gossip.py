"""Heads that the parties show each other, so that a log that shows each of them another history is found out.

Every request carries the newest head that its analyst has seen, every decision the head that its institution has seen,
both signed by whoever saw it: the coordinator, through whose hands they go, can leave them out, and is refused, but not
change them. Who receives one demands proof that it and the own head are of one log (RFC 9162 section 2.1.4). Must not
know: how heads and proofs travel.
"""

from __future__ import annotations

from collections.abc import Sequence

from queries.errors import LogError
from trust.tlog.merkle import verify_consistency

_TELL = "do not go on: keep both heads and tell the auditor"


def require_one_log(who: str, seen: tuple[int, bytes], newer: tuple[int, bytes], proof: Sequence[bytes]) -> None:
    """Raise LogError unless the head that `who` has seen, (size, root), is of the same log as `newer`.

    `proof` is the consistency proof from the one to the other.
    """
    if seen[0] > newer[0]:
        raise LogError(f"{who} has seen a log of {seen[0]} entries, here it has {newer[0]}", hint=_TELL)
    if seen == newer:
        return
    try:
        verify_consistency(*seen, *newer, proof)
    except LogError as error:
        raise LogError(
            f"{who} was shown another log: its head of {seen[0]} entries does not lead to the one of {newer[0]} here",
            hint=_TELL,
        ) from error
