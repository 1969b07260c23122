"""`fsck`: everything that the store holds of the log, recomputed and held against itself.

For the operator, on the coordinator's machine, with either database: after a crash, a restore, or a doubt. An auditor
verifies a copy, with `cohortium audit verify`, and trusts neither this machine nor this program. What is checked: the
file or the triggers; the order of entries; every leaf hash, tree node and signed root; the log's signatures; witnesses'
lines; memberships under the governance key; the search table; sealed files; and that requests, releases, memberships
and datasets beside the log are those that it names. Must not know: gRPC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from analytics_server.store import RequestRow, ShardRow, Store, UnitOfWork, postings
from protos.v1 import analyst_pb2, log_pb2
from queries.errors import CohortiumError, LogError
from trust.identity import membership
from trust.identity.dataset import verify_dataset
from trust.identity.envelope import unverified_payload
from trust.identity.requests import PAYLOAD_TYPE
from trust.release import release_hash, request_envelope_hash
from trust.tlog import checkpoint, entries, notes
from trust.tlog.cosignature import CosignatureVerifier
from trust.tlog.merkle import Frontier
from trust.tlog.recount import BLOCK, Recount, blocks
from trust.tlog.stored import MAX_FINDINGS, Finding, StoredTree

_PAGE = 2000
_ALL = (1 << 63) - 1


@dataclass(frozen=True)
class Report:
    """What was checked and what was found. `heads` and `cosignatures` count those that verify."""

    size: int
    root: bytes
    heads: int
    cosignatures: int
    epochs: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found. Use `require` where going on matters."""
        return not self.findings

    def require(self) -> None:
        """Raise LogError naming the narrowest finding, if there is one."""
        if self.findings:
            raise LogError(
                f"the store is not as it was written: {self.findings[0]}",
                hint="stop the coordinator, keep this file, restore a backup, and compare heads with the institutions",
            )


def fsck(store: Store, *, origin: str, log_key: bytes, governance_key: bytes, heads: Sequence[bytes] = ()) -> Report:
    """Check a store, in one read transaction that sees one state of it.

    `log_key` is the raw key that signs now; earlier ones come from the memberships. `heads` are signed notes kept
    elsewhere (by an institution, by an earlier check): without any, a log cut off cleanly looks like a younger one.
    Never raises for what it finds; raises LogError where the database itself cannot be read.
    """
    run = _Run(governance_key)
    with store.read() as uow:
        for text in uow.damage():
            run.find(text)
        run.memberships(uow)
        run.keys(origin, log_key)
        recomputable = run.begin(uow)
        run.heads(uow, heads)
        if recomputable:
            run.entries(uow)
            run.compare_heads()
        run.shards(uow)
        run.beside(uow)
    return run.report()


@dataclass
class _Run:
    governance_key: bytes
    findings: list[Finding] = field(default_factory=list)
    documents: list[membership.MembershipDocument] = field(default_factory=list)
    verifiers: list[notes.Verifier] = field(default_factory=list)
    witnesses: dict[tuple[str, bytes], CosignatureVerifier] = field(default_factory=dict)
    signed: dict[int, bytes] = field(default_factory=dict)  # size -> root, as the log's key signed it
    roots: dict[int, bytes] = field(default_factory=dict)
    named: dict[str, dict[bytes, int]] = field(default_factory=dict)  # what the log names: kind -> hash -> entry
    asked: dict[bytes, bytes] = field(default_factory=dict)  # request id -> hash of the signed request
    vouched: set[tuple[int, str]] = field(default_factory=set)
    agreeing: int = 0
    latest_ms: int = 0
    start: int = 0  # the first entry that there is: those before it are expired, or their file is not here
    sealed: dict[int, tuple[int, bytes, bytes]] = field(default_factory=dict)  # end -> entry that says so, root, hash
    expired: set[int] = field(default_factory=set)  # ends of shards of which an entry says that their time is over
    before: Frontier = field(default_factory=Frontier)  # the tree of what is before `start`
    tree: Recount = field(default_factory=Recount)

    def find(self, text: str, first: int | None = None, last: int | None = None) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(text, first, first if last is None else last))

    def memberships(self, uow: UnitOfWork) -> None:
        """Verify every epoch against the one before it."""
        for epoch, stored, envelope in uow.raw_memberships():
            previous = self.documents[-1] if self.documents else None
            try:
                document = membership.verify(envelope or b"", self.governance_key, previous)
            except CohortiumError as error:
                self.find(f"the membership of epoch {epoch} does not verify: {error.message}")
                return
            if (document.epoch, document.hash) != (epoch, stored):
                self.find(f"the membership stored as epoch {epoch} is another one")
            self.documents.append(document)

    def keys(self, origin: str, log_key: bytes) -> None:
        """Collect whose signatures count."""
        pairs = [(origin, log_key), *((d.log_origin, d.log_key) for d in self.documents)]
        self.verifiers = [notes.Verifier(*pair) for pair in dict.fromkeys(pairs)]
        for document in self.documents:
            for institution in document.institutions:
                verifier = CosignatureVerifier(institution.id, institution.identity_key)
                self.witnesses[verifier.name, verifier.key_id] = verifier

    def begin(self, uow: UnitOfWork) -> bool:
        """See from where on there are entries to check; return whether a tree can be made over them."""
        self.start = uow.read_from()
        try:
            self.before = uow.tree_before(self.start)
        except LogError as error:
            self.find(
                f"what is kept of these is damaged, and the tree cannot be made: {error.message}", 0, self.start - 1
            )
            return False
        return True

    def heads(self, uow: UnitOfWork, elsewhere: Sequence[bytes]) -> None:
        """Check the signature of every head, and of every witness below it."""
        for shard in uow.shards():
            if shard.end <= self.start:
                self._open(shard.note, f"the head that ended the shard of size {shard.end}")
                continue
            with uow.open_shard(shard) as file:
                self._check_heads(file.checkpoints(0, _ALL), file.cosignatures(0, _ALL))
        size = -1
        while page := uow.raw_checkpoints(size + 1, _PAGE):
            self._check_heads(page, uow.raw_cosignatures(size + 1, page[-1][0]))
            size = page[-1][0]
        if uow.raw_cosignatures(size + 1, _ALL):
            self.find("there are cosignatures of heads that are not there")
        for number, note in enumerate(elsewhere, 1):
            self._open(note, f"head {number} kept elsewhere")

    def _check_heads(self, heads: Sequence[tuple[int, Any, Any]], cosignatures: Sequence[tuple[int, Any, Any]]) -> None:
        lines: dict[int, list[tuple[bytes, bytes]]] = {}
        for at, witness, line in cosignatures:
            lines.setdefault(at, []).append((witness, line))
        for size, root, note in heads:
            head = self._open(note or b"", f"the stored head of size {size}")
            if head is None:
                continue
            if (head.size, head.root) != (size, root):
                self.find(f"the stored head of size {size} is not the one that its note says")
            for witness, line in lines.pop(size, ()):
                self._cosigned(head, witness or b"", line or b"")
        for at in lines:
            self.find(f"there are cosignatures of a head of size {at}, which is not there")

    def _open(self, note: bytes, what: str) -> checkpoint.Checkpoint | None:
        try:
            head = checkpoint.parse(notes.open_note(note, *self.verifiers))
        except LogError as error:
            self.find(f"{what} does not verify: {error.message}")
            return None
        if self.signed.setdefault(head.size, head.root) != head.root:
            self.find(f"the log's key signed two heads of size {head.size}: the log was forked", 0, head.size - 1)
        return head

    def _cosigned(self, head: checkpoint.Checkpoint, witness: bytes, line: bytes) -> None:
        try:
            parsed = notes.parse_line(line.decode(errors="replace"))
            verifier = self.witnesses.get((parsed.name, parsed.key_id))
            if verifier is None or parsed.name.encode() != witness:
                raise LogError("no member's key made it")
            verifier.verify(head.text(), parsed.signature)
        except LogError as error:
            who = witness.decode(errors="replace")
            self.find(f"the cosignature of {who!r} at the head of size {head.size} is wrong: {error.message}")
        else:
            self.vouched.add((head.size, parsed.name))  # a sealed head's may be in the tables as well

    def entries(self, uow: UnitOfWork) -> None:
        """Recompute the tree, and hold stored hashes, nodes and the search table against the entries."""
        stored = StoredTree(uow.raw_leaf_hashes, uow.raw_nodes, uow.count_nodes, self.start)
        self.tree = Recount(stored.compare, self.before)
        self.roots[self.start] = self.tree.root()
        sizes = sorted(self.signed)
        whole = True
        for block in blocks(_rows(uow, self.start), self.start):
            first = self.tree.size
            for expected, (seq, _) in enumerate(block, first):
                if seq != expected:
                    whole = False  # from here on nothing is where it was: one finding says so
                    self.find("missing from the log", expected, seq - 1)
                    break
            followed = block if whole else block[: expected - first]
            leaves = [leaf if isinstance(leaf, bytes) else b"" for _, leaf in followed]
            hashes, roots = self.tree.extend(leaves, sizes)
            self.roots |= roots
            stored.compare_leaves(first, hashes)
            self._inspect(uow, first, leaves)
            if not whole:
                break
        if whole:
            stored.finish()
            if uow.stray_postings(uow.kept_from(), self.tree.size):
                self.find("there are posting lists of entries that are not there (run reindex)")
        self.roots[self.tree.size] = self.tree.root()
        self.findings += stored.findings[: MAX_FINDINGS - len(self.findings)]

    def _inspect(self, uow: UnitOfWork, first: int, leaves: Sequence[bytes]) -> None:
        columns = []
        for seq, leaf in enumerate(leaves, first):
            try:
                entry = entries.decode(leaf)
            except LogError as error:
                self.find(error.message, seq)
                return
            if entry.at_ms < self.latest_ms:
                self.find("is dated before the entry above it", seq)
            self.latest_ms = max(entry.at_ms, self.latest_ms)
            self._name(seq, entry)
            columns.append(entries.columns(entry))
        rows = {row.seq: row._asdict() for row in uow.raw_index(first, first + len(leaves))}
        expected = uow.index_rows(first, columns)
        for row in expected:
            if rows.get(row["seq"]) != row:
                self.find("the search table says something else than the entry (run reindex)", row["seq"])
        if first % BLOCK and first > uow.kept_from():
            return  # a file is not here: what the lists of this block say of its entries cannot be checked
        for block in uow.damaged_postings(first, expected):
            at = block * postings.BLOCK
            self.find(
                "the posting lists say something else than these entries (run reindex)", at, at + postings.BLOCK - 1
            )

    def _name(self, seq: int, entry: log_pb2.LogEntry) -> None:
        kind = entry.WhichOneof("event")
        if kind == "membership_published":
            self.named.setdefault("membership", {})[entry.membership_published.membership_hash] = seq
        elif kind == "dataset_published":
            self.named.setdefault("dataset", {})[entry.dataset_published.schema_hash] = seq
        elif kind == "requested":
            self.named.setdefault("request", {})[entry.requested.envelope_hash] = seq
            self.asked[entry.requested.request_id] = entry.requested.envelope_hash
        elif kind == "decided" and not entry.decided.institution:  # turned away here: such a request is not kept
            self.named.get("request", {}).pop(self.asked.get(entry.decided.request_id, b""), None)
        elif kind == "shard_sealed":
            self.sealed[entry.shard_sealed.end] = seq, entry.shard_sealed.root, entry.shard_sealed.file_hash
        elif kind == "shard_expired":
            self.expired.add(entry.shard_expired.end)
        elif kind == "released":
            self.named.setdefault("release", {})[entry.released.release_hash] = seq

    def compare_heads(self) -> None:
        """Hold signed roots against recomputed ones; name the entries between the last good one and the first bad."""
        size, matching = self.tree.size, self.start
        for signed, root in sorted(self.signed.items()):
            if signed < self.start:
                self.agreeing += 1  # of what is not here only the signatures can be checked
                continue
            if signed > size:
                self.find(f"missing: the log signed a head of size {signed}", size, signed - 1)
                break
            if signed and self.roots[signed] != root:
                self.find(
                    f"changed, removed or inserted: the entries do not give the root that was signed at size {signed}",
                    matching,
                    signed - 1,
                )
                break
            matching = signed
            self.agreeing += 1
        covered = max(self.signed, default=0)
        if covered < size:
            self.find("under no signed head", covered, size - 1)

    def shards(self, uow: UnitOfWork) -> None:
        """Hold the shards against their files, their heads, and the entries that tell of them."""
        for shard, text in uow.shard_damage():
            self.find(text, shard.first, shard.end - 1)
        for shard in uow.shards():
            if _root_of(shard) != shard.root or self.signed.get(shard.end) != shard.root:
                self.find("the root kept of this shard is not the one that was signed", shard.first, shard.end - 1)
            if shard.end < self.start:
                continue  # what tells of it may be gone as well
            _, root, file_hash = self.sealed.pop(shard.end, (0, b"", b""))
            if (root, file_hash) != (shard.root, shard.file_hash):
                self.find("no entry says that this shard was sealed as it is", shard.first, shard.end - 1)
            if shard.expired_at is not None and shard.end not in self.expired:
                self.find("no entry says that the time of this shard is over", shard.first, shard.end - 1)
        for end, (seq, _, _) in self.sealed.items():
            if end > self.start:
                self.find("the shard that this entry tells of is not known", seq)

    def beside(self, uow: UnitOfWork) -> None:
        """Hold the tables beside the log against what the log names."""
        self._beside("membership", [(f"epoch {d.epoch}", d.hash) for d in self.documents])
        self._beside("dataset", list(self._datasets(uow)))
        requests, releases = [], []
        for row in uow.all_requests():
            name = row.request_id.hex()[:12]
            try:
                requests.append((name, request_envelope_hash(unverified_payload(row.envelope, PAYLOAD_TYPE))))
            except CohortiumError as error:
                self.find(f"request {name} cannot be read: {error.message}")
            releases += [(name, release) for release in self._releases(uow, row)]
        self._beside("request", requests)
        self._beside("release", releases)

    def _datasets(self, uow: UnitOfWork) -> Iterator[tuple[str, bytes]]:
        for row in uow.dataset_history():
            try:
                _, schema_hash = verify_dataset(row.envelope, self.governance_key)
            except CohortiumError as error:
                self.find(f"the description of dataset {row.name!r} does not verify: {error.message}")
                continue
            yield repr(row.name), schema_hash

    def _releases(self, uow: UnitOfWork, row: RequestRow) -> Iterator[bytes]:
        for encoded in dict.fromkeys([*uow.job_rounds(row.request_id), row.release]):
            if encoded is None:
                continue
            try:
                yield release_hash(analyst_pb2.Progress.FromString(encoded).release)
            except DecodeError:
                self.find(f"the release of request {row.request_id.hex()[:12]} cannot be read")

    def _beside(self, kind: str, there: Sequence[tuple[str, bytes]]) -> None:
        named = self.named.get(kind, {})
        for name, value in there:
            if value not in named and not self.start:  # else an entry that is not here may name it
                self.find(f"the log does not name the {kind} {name} that is stored beside it")
        hashes = {value for _, value in there}
        for value, seq in named.items():
            if value not in hashes:
                self.find(f"the {kind} that this entry names is not stored beside the log", seq)

    def report(self) -> Report:
        return Report(
            size=self.tree.size,
            root=self.tree.root(),
            heads=self.agreeing,
            cosignatures=len(self.vouched),
            epochs=len(self.documents),
            findings=tuple(sorted(self.findings, key=lambda finding: finding.width)),
        )


def _root_of(shard: ShardRow) -> bytes:
    """Return the root that the subtrees kept of a shard give, nothing where they cannot make up a tree."""
    try:
        return Frontier(shard.end, shard.peaks).root()
    except LogError:
        return b""


def _rows(uow: UnitOfWork, first: int) -> Iterator[tuple[int, object]]:
    while page := uow.raw_leaves(first, BLOCK):
        yield from page
        first = page[-1][0] + 1
