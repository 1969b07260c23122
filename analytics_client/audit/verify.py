"""Verification of a whole log from what anybody may hold: entries, signed heads, memberships, the governance key.

Every leaf hash and the root at every signed head are recomputed; every signature of the log, of its witnesses, of
governance and of the institutions whose decisions are recorded is checked. What is wrong is named as narrowly as the
signed heads allow: between the last head that still matches and the first that does not. Pure: no files, no network,
no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from analytics_client.audit.claims import INSPECTED, SKEW_MS, Claims
from analytics_client.audit.history import NOTHING_GONE, Gone, Keys
from analytics_client.audit.report import Report
from queries.errors import LogError
from trust.identity import keys as identity_keys
from trust.tlog import checkpoint, notes
from trust.tlog.cosignature import timestamp
from trust.tlog.entries import NO_ENTRY, decode_all
from trust.tlog.merkle import Frontier
from trust.tlog.recount import Recount, blocks
from trust.tlog.stored import StoredTree


def verify(
    entries: Iterable[tuple[int, bytes]],
    checkpoint_note: bytes | None,
    memberships: Sequence[bytes],
    governance_key: bytes,
    *,
    checkpoints: Sequence[bytes] = (),
    stored: StoredTree | None = None,
    gone: Gone = NOTHING_GONE,
) -> Report:
    """Verify a whole log against its head and whatever other signed heads there are.

    `checkpoint_note` is the head that has to cover every entry, None for the largest of `checkpoints`: earlier heads,
    and heads that were kept elsewhere (by a witness, by an earlier verification), with which a rewrite cannot agree.
    `memberships` are envelopes, oldest first; `governance_key` is the raw pinned key. `stored` is held against the tree
    on the way, and keeps what it finds. `gone` are entries that the log itself says were deleted after their time: the
    tree goes on from theirs. Never raises for what it finds.
    """
    run = _Run(Keys.of(memberships, governance_key), gone, stored=stored)
    run.parse_heads([*checkpoints, *([checkpoint_note] if checkpoint_note is not None else [])])
    run.read(entries)
    run.check_heads()
    if checkpoint_note is not None and not run.covers(checkpoint_note):
        run.find("the head that was given does not cover the whole log")
    return run.report()


@dataclass(frozen=True)
class _Head:
    note: notes.Note
    raw: bytes
    checkpoint: checkpoint.Checkpoint


@dataclass
class _Run(Claims):
    """One verification, step by step."""

    stored: StoredTree | None = None
    heads: list[_Head] = field(default_factory=list)
    since_ms: int = 0
    until_ms: int = 0
    verified_heads: int = 0
    cosigned: dict[str, int] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    """Size -> when the log had it, for the sizes that heads claim."""
    next_ms: dict[int, int] = field(default_factory=dict)
    """Size -> the time that the entry after it claims, for the same sizes."""
    back_dated: list[tuple[int, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            start = self.gone.tree()
        except LogError as error:
            self.find(error.message)
            self.gone, start = NOTHING_GONE, Frontier()
        self.keys.gone = self.gone.size > 0
        self.tree = Recount(self.stored.compare if self.stored else None, start)
        self.roots[self.gone.size] = start.root()
        if self.keys.problem:
            self.find(self.keys.problem)
        if not self.keys.documents:
            self.find("no membership signed by this governance key: no signature can be checked")

    def parse_heads(self, raw: Sequence[bytes]) -> None:
        for note in dict.fromkeys(raw):
            try:
                parsed = notes.parse(note)
                self.heads.append(_Head(parsed, note, checkpoint.parse(parsed.text)))
            except LogError as error:
                self.find(f"a signed head cannot be read: {error.message}")
        self.heads.sort(key=lambda head: head.checkpoint.size)

    def read(self, entries: Iterable[tuple[int, bytes]]) -> None:
        """Recompute the tree; note the root wherever a head claims one."""
        wanted = sorted({head.checkpoint.size for head in self.heads})
        broken = False
        for block in blocks(entries, self.gone.size):
            first = self.tree.size
            seqs, leaves = [seq for seq, _ in block], [leaf for _, leaf in block]
            broken = broken or self._misplaced(first, seqs)  # everything after it is shifted: one finding says so
            hashes, roots = self.tree.extend(leaves, wanted)
            self.roots |= roots
            if self.stored is not None and not broken:
                self.stored.compare_leaves(first, hashes)
            self._inspect(first, seqs, leaves, wanted)
        if self.stored is not None and not broken:
            self.stored.finish()
        self.roots[self.tree.size] = self.tree.root()

    def _misplaced(self, first: int, seqs: list[int]) -> bool:
        """Return whether these are other numbers than the next ones, having named the first that is."""
        if seqs == list(range(first, first + len(seqs))):
            return False
        expected, seq = next((at, seq) for at, seq in enumerate(seqs, first) if seq != at)
        if seq > expected:
            self.find("missing from the log", expected, seq - 1)
        else:
            self.find("out of order, or there twice", seq)
        return True

    def _inspect(self, first: int, seqs: Sequence[int], leaves: Sequence[bytes], wanted: Sequence[int]) -> None:
        """Look into every entry; the loop is what a verification of millions of them spends a third of its time on."""
        before, times = self.until_ms, list[int]()  # what the entries say, 0 where one cannot be read
        latest = before
        for seq, entry in zip(seqs, decode_all(leaves), strict=True):
            if entry is None:
                self.find(NO_ENTRY, seq)
                times.append(0)
                continue
            at_ms = entry.at_ms
            if at_ms < latest:
                self.find("is dated before the entry above it", seq)
            else:
                latest = at_ms
            times.append(at_ms)
            if (kind := entry.WhichOneof("event")) in INSPECTED:
                self.inspect(kind, seq, entry)
        self.until_ms = latest
        self.since_ms = self.since_ms or next((at_ms for at_ms in times if at_ms > 0), 0)
        self._keep_times(first, before, times, wanted)

    def _keep_times(self, first: int, before: int, times: list[int], wanted: Sequence[int]) -> None:
        """Note what time it was at the sizes that heads claim."""
        latest = [before, *times]
        if latest != sorted(latest):
            latest = list(accumulate(latest, max))
        for size in wanted[bisect_left(wanted, first) : bisect_right(wanted, first + len(times))]:
            self.times.setdefault(size, latest[size - first])
            if size - first < len(times):
                self.next_ms[size] = times[size - first]

    def check_heads(self) -> None:
        """Check every head's signatures, then compare the roots of those that the log did sign."""
        size = self.tree.size
        matching: list[int] = [self.gone.size]
        # Matching heads that a witness vouches for: no later rewrite can have re-signed them.
        cosigned: list[int] = [self.gone.size]
        different: list[int] = []
        witnesses = self.keys.witnesses()
        previous = known_only = 0
        for head in self.heads:
            claimed = head.checkpoint
            if not self._signed_by_log(head, previous):
                continue
            previous = claimed.size
            vouched = self._cosignatures(head, witnesses)
            if claimed.size < self.gone.size:
                known_only += 1  # by its signatures: its entries are gone
            elif claimed.size > size:
                self.find(f"missing: the log signed a head of size {claimed.size}", size, claimed.size - 1)
            elif self.roots[claimed.size] == claimed.root:
                matching.append(claimed.size)
                cosigned += [claimed.size] if vouched else []
            else:
                different.append(claimed.size)
        self.verified_heads = len(matching) - 1 + known_only
        if self.gone.size and not self.gone.sealed and self.gone.size not in self.expired:
            self.find("missing, and no entry says that they were deleted after their time", 0, self.gone.size - 1)
        self._compare(matching, cosigned, different)
        covered = max(matching + different)
        if covered < size:
            self.find("under no signed head", covered, size - 1)

    def _compare(self, matching: Sequence[int], cosigned: Sequence[int], different: Sequence[int]) -> None:
        if not different:
            return
        at, last = min(different), max(matching)
        if at <= last:
            below = max(size for size in cosigned if size < at)
            self.find(
                f"rewritten by the log's own keeper: the head signed at size {at} is of another history than the one "
                f"signed at size {last}",
                below,
                at - 1,
            )
            return
        known = f", those before {last} do" if last else ""
        self.find(
            f"changed, removed or inserted: the entries do not give the root that was signed at size {at}{known}",
            last,
            at - 1,
        )

    def _log_signed(self, head: _Head, previous: int) -> bool:
        for verifier in self.keys.log_verifiers(previous, head.checkpoint.size):
            if head.checkpoint.origin != verifier.name:
                continue
            try:
                notes.open_note(head.raw, verifier)
            except LogError:
                continue
            return True
        return False

    def _signed_by_log(self, head: _Head, previous: int) -> bool:
        """Without any membership there is no key to check with; roots are compared all the same."""
        if not self.keys.documents or self._log_signed(head, previous):
            return True
        self.find(f"the head of size {head.checkpoint.size} is not signed by the log's key")
        return False

    def _cosignatures(self, head: _Head, witnesses: Mapping[tuple[str, bytes], notes.NoteVerifier]) -> bool:
        """Check the lines of known witnesses; return whether there is a good one."""
        size = head.checkpoint.size
        vouched = False
        for line in head.note.lines:
            verifier = witnesses.get((line.name, line.key_id))
            if verifier is None:
                continue
            try:
                verifier.verify(head.note.text, line.signature)
            except LogError as error:
                self.find(f"at the head of size {size}: {error.message}")
                continue
            if (after := self.next_ms.get(size)) and timestamp(line.signature) * 1000 - SKEW_MS > after:
                self.back_dated.append((size, line.name, timestamp(line.signature) * 1000))
            vouched = True
            self.cosigned[line.name] = max(size, self.cosigned.get(line.name, 0))
        return vouched

    def covers(self, note: bytes) -> bool:
        return any(head.raw == note and head.checkpoint.size == self.tree.size for head in self.heads)

    def report(self) -> Report:
        documents = self.keys.documents
        return Report(
            first=self.gone.size,
            sealed=self.gone.sealed,
            size=self.tree.size,
            root=self.tree.root(),
            since_ms=self.since_ms,
            until_ms=self.until_ms,
            heads=self.verified_heads,
            epochs=tuple(d.epoch for d in documents),
            log_keys=tuple(dict.fromkeys(identity_keys.fingerprint(d.log_key) for d in documents)),
            witnesses=self.cosigned,
            statements=self.statements,
            findings=tuple(self.findings),
            identity_keys={
                name: tuple(self.keys.identity_keys(name)) for name in {i.id for d in documents for i in d.institutions}
            },
            back_dated=tuple(self.back_dated),
            strange_heads=tuple(self.strange_heads),
            services=frozenset(p.id for d in documents for p in d.people if p.service is not None),
            consortium=documents[-1].consortium if documents else "",
            silent_since=self._silent_since(),
        )

    def _silent_since(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        newest = self.keys.documents[-1].institutions if self.keys.documents else ()
        for name in (institution.id for institution in newest):
            if size := self.cosigned.get(name, 0):
                found[name] = size, self.times.get(size, 0)
                continue
            joined = [d.epoch for d in self.keys.documents if any(i.id == name for i in d.institutions)]
            found[name] = 0, self.published_ms.get(joined[0], self.since_ms)
        return found
