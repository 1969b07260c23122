"""What a verification found, as values and on one page. Must not know: how it was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from queries.errors import LogError
from trust.tlog.entries import moment
from trust.tlog.stored import Finding


@dataclass(frozen=True)
class Report:
    """What was checked, by which keys, and what was found."""

    size: int
    root: bytes
    since_ms: int
    until_ms: int
    heads: int
    """Signed heads whose signature and root verify."""
    epochs: tuple[int, ...]
    log_keys: tuple[str, ...]
    """Fingerprints of the log's keys, oldest first."""
    witnesses: dict[str, int]
    """Institution -> size of the largest head that it cosigned."""
    statements: int
    """Decisions that carry the institution's own valid signature."""
    findings: tuple[Finding, ...]
    identity_keys: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Institution -> the raw identity keys that memberships gave it, newest first."""
    back_dated: tuple[tuple[int, str, int], ...] = ()
    """(entry, witness, unix milliseconds): the witness signed at that time that the log ended before this entry, which
    claims to be older by more than clocks may differ."""
    strange_heads: tuple[tuple[int, str, int, int], ...] = ()
    """(entry, institution, size, unix milliseconds) of decisions under a head that is not among those given here."""
    services: frozenset[str] = frozenset()
    """Ids of accounts that no person is behind, in any membership."""
    first: int = 0
    """The oldest entry that there is: those before it were deleted after their time, as a later entry says."""
    sealed: bool = False
    """Whether those before it are in earlier shards instead, which this one goes on from."""
    consortium: str = ""
    """By the newest membership that verifies."""
    silent_since: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Institution of the newest membership -> size of the largest head that it cosigned, and when (unix milliseconds)
    the log had that size; (0, when it became a member) for one that never did."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found. Use `require` where going on matters."""
        return not self.findings

    def require(self) -> None:
        """Raise LogError naming the first finding, if there is one."""
        if self.findings:
            raise LogError(str(self.findings[0]), hint="keep this copy and the heads you hold; tell the institutions")

    def text(self) -> str:
        """Return the report on one page, for a person."""
        witnesses = ", ".join(f"{name} (to {size})" for name, size in sorted(self.witnesses.items())) or "nobody"
        lines = [
            f"Audit log of {self.size} entries, root {self.root.hex()}",
            f"  from {_time(self.since_ms)} to {_time(self.until_ms)}",
            f"  signed heads     {self.heads}, by log key {', '.join(self.log_keys) or 'none'}",
            f"  memberships      {len(self.epochs)} signed by governance (epochs {_span(self.epochs)})",
            f"  witnesses        {witnesses}",
            f"  own decisions    {self.statements} signed by the institutions themselves",
        ]
        if self.first:
            where = "are in earlier shards" if self.sealed else "were deleted after their time"
            lines.insert(2, f"  entries 0 to {self.first - 1} {where}; their root is part of this one")
        if self.ok:
            return "\n".join([*lines, "VERIFIED: every entry, hash, head and signature is as it must be."])
        shown = [f"  - {finding}" for finding in self.findings]
        return "\n".join([*lines, f"NOT VERIFIED: {len(self.findings)} finding(s)", *shown])


def _time(at_ms: int) -> str:
    return moment(at_ms) if at_ms else "-"


def _span(epochs: Sequence[int]) -> str:
    if not epochs:
        return "none"
    return str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
