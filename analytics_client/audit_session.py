"""An auditor's session: the coordinator's log read over the wire, and verified against what was verified before.

Must not know: how anything is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from analytics_client import enrolment
from analytics_client import profile as profiles
from analytics_client.audit import AuditReader, History, Proof, Report, verify
from queries.errors import LogError
from trust.identity import files, membership
from trust.rpc import channel as channels

KEPT_HEAD = "verified-head.note"
"""The newest head that verified, kept with its signatures: a log rewritten since then cannot agree with it."""


@dataclass(frozen=True)
class AuditSession:
    """An open connection of someone who may read the log: an auditor, a steward or an operator."""

    profile: profiles.Profile
    reader: AuditReader

    def entry(self, seq: int) -> Proof:
        """Return one entry, with proof that the log holds it. Raise LogError where it does not."""
        found = next(self.reader.entries(first=seq, limit=1), None)
        if found is None or found.seq != seq:
            raise LogError(f"the log has no entry {seq}", hint="cohortium audit log lists them")
        memberships = self.reader.heads().memberships
        if not memberships:
            raise LogError("no membership has been published yet, so nothing says which key signs the log")
        document = membership.verify(memberships[-1], self.profile.governance_key, consortium=self.profile.consortium)
        return self.reader.prove(found, document)

    def verify(self, heads: Sequence[bytes] = ()) -> tuple[Report, History]:
        """Fetch the whole log and verify it, also against the head that verified last; keep the new one if it does.

        `heads` are signed heads that were kept elsewhere.
        """
        history = self.reader.history()
        kept = self._kept_head()
        report = verify(
            history.entries,
            None,
            history.memberships,
            self.profile.governance_key,
            checkpoints=[*history.checkpoints, *kept, *heads],
            gone=history.gone,
        )
        if report.ok and history.checkpoints:
            files.replace(self.profile.folder / KEPT_HEAD, history.checkpoints[-1], secret=False)
        return report, history

    def _kept_head(self) -> list[bytes]:
        path = self.profile.folder / KEPT_HEAD
        return [path.read_bytes()] if path.exists() else []


@contextmanager
def open_log(folder: Path) -> Iterator[AuditSession]:
    """Connect with the profile in `folder`. Raise as `analytics_client.session.connect` does."""
    profile = profiles.load(folder)
    enrolment.renew_if_due(profile)
    with channels.connect(profile.address, profile.tls()) as channel:
        yield AuditSession(profile, AuditReader(channel, profile.address))
