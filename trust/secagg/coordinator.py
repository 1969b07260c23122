"""The coordinator's side of a round, without I/O: it forwards what members sign and adds what they mask.

Nothing here is trusted for privacy. It checks all the same, so that whoever breaks the protocol is named and the others
finish without it. Must not know: transport, database, what the vector means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from queries.errors import QuorumError, RoundError, ServiceError
from trust.secagg import blame, keys
from trust.secagg.admission import Admission
from trust.secagg.dealing import share_tree
from trust.secagg.drawn import Register, encode_cohort, encode_drawn_survivors, pack_present
from trust.secagg.field import parse_element
from trust.secagg.graph import FullGraph, Topology, draw, drawn_graph
from trust.secagg.masks import Ring
from trust.secagg.messages import (
    Complaint,
    Confirm,
    Join,
    JoinPublic,
    Manifest,
    Opening,
    RosterEntry,
    SealedShare,
    encode_confirmations,
    encode_roster,
    encode_survivors,
    parse_reveal,
)
from trust.secagg.parameters import Member, parse_parameters
from trust.secagg.refusals import BadDealer, BadShare, BadUpload, LateMessage
from trust.secagg.shown import Cohort
from trust.secagg.spool import Spool, spool_in
from trust.secagg.steps import CoordinatorState
from trust.secagg.tree import LeafTree
from trust.secagg.unmask import Ground, open_secrets, remove_masks
from trust.secagg.upload import UploadSink


class CoordinatorRound(Admission):
    """One round. `member` arguments are the peer that the transport authenticated, never what a message claims.

    An `on_...` method raises a ProtocolViolation for a message that it does not accept; the sender is then in `blamed`
    and is treated as vanished, and the round goes on. LateMessage alone blames nobody: a slow member is not a bad one.
    A `close_...` method ends a step and raises QuorumError if too few answered; the round is then over. The object is
    not thread-safe, but for this: sinks of different members may be fed from different threads, and one at a time may
    be finished in a thread, during which no step is closed. Memory: the sum, and little beside it, as `spool` says.
    """

    def __init__(self, parameters: bytes, *, members: Mapping[str, Member], spool: Spool | None = None) -> None:
        """Start the round that `make_parameters` described. Raises MalformedMessage, UnacceptableRound."""
        super().__init__(parse_parameters(parameters), members)
        self.round_id = self.parameters.round_id
        self.survivors: tuple[str, ...] = ()
        self.layer_keys: tuple[tuple[bytes, ...], ...] = ()
        """Of every survivor, once there is a result: the keys of its noise layers that were opened, the first ones."""
        self._registered: dict[str, Register] = {}
        self._cohort: Cohort | None = None
        self._joins: dict[str, Join] = {}
        self._trees: dict[str, LeafTree] = {}
        self._topology: Topology = FullGraph(self.parameters.invited, (), self.parameters.threshold)
        self._roster_hash = b""
        self._complaints: dict[str, Complaint] = {}
        self._sinks: dict[str, UploadSink] = {}
        self._manifests: dict[str, Manifest] = {}
        self._sum: Ring = np.zeros(self.parameters.length, dtype=self.parameters.dtype)
        self._spool = spool or spool_in(None)
        self._lost: RoundError | None = None
        self._survivors_hash = b""
        self._confirms: dict[str, Confirm] = {}
        self._reveals: set[str] = set()
        self._openings: dict[str, dict[int, bytes]] = {}
        """Per dealer, the shares that were opened, by the position of their holders."""

    @property
    def roster(self) -> tuple[str, ...]:
        """The members whose JOIN was accepted, sorted; empty before joins are closed."""
        return self._topology.roster

    def ready(self) -> bool:
        """Return whether the present step needs nobody more and can be closed.

        Registering waits for all who are invited, as joining does, or for all who registered; uploading for an upload
        or a complaint of each in the roster (the caller's deadline cuts all three short). Confirming needs t answers
        and revealing enough shares of everybody's, t answers in a full graph: more would change nothing.
        """
        roster, cohort = self.roster, self._cohort
        match self.state:
            case CoordinatorState.REGISTERING:
                return len(self._registered) == len(self.parameters.invited)
            case CoordinatorState.JOINING:
                return len(self._joins) == len(cohort.names if cohort else self.parameters.invited)
            case CoordinatorState.UPLOADING:
                return len(self._manifests) + len(self._complaints) == len(roster)
            case CoordinatorState.CONFIRMING:
                return len(self._confirmers()) >= self._confirms_needed
            case CoordinatorState.REVEALING:
                return all(len(self._openings[dealer]) >= self._topology.threshold for dealer in roster)
            case _:
                return False

    def on_join(self, member: str, message: bytes) -> None:
        """Take a JOIN, or a REGISTER where neighbours are drawn and registration is open.

        Raises MalformedMessage, BadSignature, BadDealer, OutOfStep, LateMessage.
        """
        if self.state is CoordinatorState.REGISTERING:
            self._on_register(member, message)
            return
        cohort = self._cohort
        if cohort is not None and member in self.parameters.positions and member not in cohort.names:
            raise LateMessage(f"institution {member} registered after the cohort was fixed", party=member)
        with self._from(member, "join", cohort.names if cohort else self.parameters.invited, self._joins):
            if cohort is None:
                holders: Sequence[str] = self.parameters.invited
                join = Join.parse(message, member, self.parameters.invited, layers=len(self.parameters.rungs))
                statement = keys.join_statement(self.round_id, join.public.data)
            else:
                join = Join.parse_drawn(message, member, cohort.degree.holders)
                holders = self._drawn_holders(cohort, join.public)
                statement = keys.drawn_join_statement(self.round_id, cohort.hash, join.public.data)
            keys.verify(self._members[member], join.signature, statement, what="JOIN", party=member)
            tree = share_tree(holders, join.shares)
            if tree.root != join.public.share_root:
                raise BadDealer(f"institution {member} joined with shares other than it signed", party=member)
            self._joins[member], self._trees[member] = join, tree

    def _on_register(self, member: str, message: bytes) -> None:
        with self._from(member, "register", self.parameters.invited, self._registered):
            register = Register.parse(message, member)
            statement = keys.register_statement(self.round_id, member)
            keys.verify(self._members[member], register.signature, statement, what="REGISTER", party=member)
            self._registered[member] = register

    def _drawn_holders(self, cohort: Cohort, public: JoinPublic) -> tuple[str, ...]:
        names, me = cohort.names, public.member
        count = cohort.degree.holders
        drawn = draw(len(names), names.index(me), member=me, seed=public.graph_seed, count=count, context=cohort.hash)
        return (*(names[position] for position in drawn), me)

    def close_registration(self) -> bytes:
        """End REGISTER, where neighbours are drawn: return COHORT, for every member that registered.

        Raises QuorumError, OutOfStep.
        """
        with self._close("close registration"):
            p = self.parameters
            names = tuple(sorted(self._registered.keys() - self.blamed.keys()))
            self._check_cohort(names, "registered")
            degree = p.degree(len(names))
            if degree is None:
                raise QuorumError(
                    f"{len(names)} institutions registered: too few to draw from if {p.colluders} may collude",
                    hint="wait until more institutions are connected",
                )
            present = pack_present(names, p.invited)
            self._cohort = Cohort(names, keys.cohort_hash(self.round_id, present), degree)
            return encode_cohort(present)

    def close_joins(self) -> dict[str, bytes]:
        """End JOIN: return the ROSTER message of every member that joined. Raises QuorumError, OutOfStep."""
        with self._close("close joins"):
            p, cohort = self.parameters, self._cohort
            roster = tuple(sorted(self._joins.keys() - self.blamed.keys()))
            self._check_cohort(roster, "joined")
            self._openings = {member: {} for member in roster}
            if cohort is None:
                self._topology = FullGraph(p.invited, roster, p.threshold)
                parts = [self._joins[member].public.data for member in roster]
                self._roster_hash = keys.roster_hash(self.round_id, parts)
                rosters = {member: encode_roster(self._entries_for(member, roster)) for member in roster}
                self._trees = {}  # among 500 institutions they and their proofs take tens of MB
                return rosters
            seeds = b"".join(self._joins[member].public.graph_seed for member in roster)
            topology = self._topology = drawn_graph(cohort.names, roster, seeds, cohort.degree, cohort.hash)
            present = pack_present(roster, p.invited)
            self._roster_hash = keys.drawn_roster_hash(self.round_id, cohort.hash, present, seeds)
            rosters = {}
            for member in roster:
                neighbours = {*topology.dealers(member), *topology.partners(member)} - {member}
                entries = self._entries_for(member, sorted(neighbours))
                rosters[member] = encode_roster(entries, present=present, graph_seeds=seeds)
            self._trees = {}
            return rosters

    def _entries_for(self, holder: str, neighbours: Sequence[str]) -> list[RosterEntry]:
        entries, dealers = [], frozenset(self._topology.dealers(holder)) - {holder}
        for member in neighbours:
            join = self._joins[member]
            if member in dealers:
                position, _ = self._topology.index(member, holder)
                proof = self._trees[member].proof(position)
                entries.append(RosterEntry(join.public, join.signature, join.shares[position], proof))
            else:
                entries.append(RosterEntry(join.public, join.signature, None, ()))
        return entries

    def on_complaint(self, member: str, message: bytes) -> None:
        """Take a complaint at ROSTER; see `accused`. Raises MalformedMessage, BadSignature, OutOfStep, LateMessage."""
        with self._from(member, "complaint", self.roster, self._complaints):
            complaint = Complaint.parse(message, member, self.roster)
            statement = keys.complaint_statement(self.round_id, self._roster_hash, member, complaint.dealers)
            keys.verify(self._members[member], complaint.signature, statement, what="complaint", party=member)
            self._complaints[member] = complaint

    @property
    def accused(self) -> tuple[str, ...]:
        """Whom complaints remove from a new round (see `blame.accused`). Empty while nobody complains."""
        return blame.accused((c.member, dealer) for c in self._complaints.values() for dealer in c.dealers)

    def start_upload(self, member: str) -> UploadSink:
        """Return where the masked vector of `member` goes. Once per member. Raises OutOfStep, LateMessage."""
        with self._from(member, "upload", self.roster, self._sinks):

            def accept(manifest: bytes, vector_hash: bytes, pieces: Iterator[Ring]) -> None:
                self._accept(member, manifest, vector_hash, pieces)

            sink = UploadSink(
                self.parameters,
                member,
                spool=self._spool,
                is_open=lambda: self.state is CoordinatorState.UPLOADING and member not in self.blamed,
                accept=accept,
                blame=self._blame,
            )
            self._sinks[member] = sink
            return sink

    def _accept(self, member: str, message: bytes, vector_hash: bytes, pieces: Iterator[Ring]) -> None:
        manifest = Manifest.parse(message, member)
        if manifest.vector_hash != vector_hash:
            raise BadUpload(f"institution {member} signed another vector than it uploaded", party=member)
        statement = keys.manifest_statement(self.round_id, self._roster_hash, member, vector_hash)
        keys.verify(self._members[member], manifest.signature, statement, what="manifest", party=member)
        self._add(member, pieces)
        self._manifests[member] = manifest

    def _add(self, member: str, pieces: Iterator[Ring]) -> None:
        """Add a verified vector to the sum. One that is added in part only has spoilt it: the round is lost."""
        done = 0
        try:
            for piece in pieces:
                part = self._sum[done : done + len(piece)]
                np.add(part, piece, out=part)
                done += len(piece)
        except ServiceError as error:
            self._lost = RoundError(f"the upload of {member} was lost half added: {error.message}", hint=error.hint)
            raise self._lost from error

    def close_uploads(self) -> bytes:
        """End UPLOAD: return SURVIVORS, for every roster member. Unfinished uploads are dropped.

        Raises QuorumError, also where neighbours are drawn and so many vanished that somebody is left with too few;
        BadDealer if there are complaints, since the masks of this roster cannot be undone without
        those who complained about: start a new round without `accused`.
        """
        with self._close("close uploads"):
            for sink in self._sinks.values():
                sink.drop()
            if self._lost is not None:
                raise self._lost
            if self.accused:
                raise BadDealer(
                    f"shares dealt in this round are bad, and {self.accused[0]} stands at most of the complaints",
                    party=self.accused[0],
                    hint=f"start a new round without {', '.join(self.accused)}",
                )
            self._check_cohort(sorted(self._manifests), "uploaded")
            if lonely := self._topology.cut_off(self._manifests):
                raise QuorumError(
                    f"so many institutions vanished that {lonely[0]} is left with too few who share its masks",
                    hint="wait until more institutions are connected",
                )
            self.survivors = tuple(sorted(self._manifests))
            named = [(member, self._manifests[member].vector_hash) for member in self.survivors]
            self._survivors_hash = keys.survivors_hash(self.round_id, self._roster_hash, named)
            manifests = [self._manifests[member] for member in self.survivors]
            if self.parameters.drawn:
                return encode_drawn_survivors(manifests, self.parameters.invited)
            return encode_survivors(manifests)

    def on_confirm(self, member: str, message: bytes) -> None:
        """Take a CONFIRM. Raises MalformedMessage, BadSignature, OutOfStep, LateMessage."""
        with self._from(member, "confirm", self.roster, self._confirms):
            confirm = Confirm.parse(message, member)
            statement = keys.confirm_statement(self.round_id, self._roster_hash, self._survivors_hash, member)
            keys.verify(self._members[member], confirm.signature, statement, what="CONFIRM", party=member)
            self._confirms[member] = confirm

    def close_confirms(self) -> bytes:
        """End CONFIRM: return CONFIRMATIONS, for every roster member. Raises QuorumError, OutOfStep.

        No more than needed are forwarded: they would prove nothing more, and every agent verifies each.
        """
        with self._close("close confirms"):
            chosen = self._confirmers()
            self._check_cohort(chosen, "confirmed the survivors")
            return encode_confirmations([self._confirms[member] for member in chosen])

    @property
    def _confirms_needed(self) -> int:
        return max(self.parameters.threshold, self.parameters.minimum_cohort)

    def _confirmers(self) -> list[str]:
        """Whose CONFIRMs are forwarded: of as many organisations as can be; survivors where neighbours are drawn."""
        names = sorted(self._confirms)
        if self.parameters.drawn:
            surviving = frozenset(self.survivors)
            names = [name for name in names if name in surviving]
        first = {self._members[name].organisation: name for name in reversed(names)}
        of_their_own = frozenset(first.values())
        names.sort(key=lambda name: (name not in of_their_own, name))
        return sorted(names[: self._confirms_needed])

    def on_reveal(self, member: str, message: bytes) -> None:
        """Take a REVEAL: every share must be the one that its dealer committed to.

        Raises MalformedMessage, BadShare (the helper's doing), OutOfStep, LateMessage.
        """
        with self._from(member, "reveal", self.roster, self._reveals):
            dealers = self._topology.dealers(member)
            openings = parse_reveal(message, member, len(dealers))
            positions = [self._topology.index(dealer, member)[0] for dealer in dealers]
            surviving, level = frozenset(self.survivors), self._level
            for dealer, position, opening in zip(dealers, positions, openings, strict=True):
                share = self._joins[dealer].shares[position]
                self._check_opening(member, dealer, share, opening, level if dealer in surviving else None)
            self._reveals.add(member)
            for dealer, position, opening in zip(dealers, positions, openings, strict=True):
                self._openings[dealer][position] = opening.share

    @property
    def _level(self) -> int:
        return self.parameters.level(len(self.survivors))

    def _check_opening(self, helper: str, dealer: str, share: SealedShare, opening: Opening, level: int | None) -> None:
        """`level` is that of the seed which is to be opened; None for the round key, where the dealer vanished."""
        kind = "key" if level is None else keys.seed_kind(level)
        if opening.hash(kind, self.round_id, dealer=dealer, holder=helper) != share.expected(level):
            raise BadShare(
                f"institution {helper} revealed a share that does not match what its dealer {dealer} committed to",
                party=helper,
            )
        try:
            parse_element(opening.share)
        except ValueError as error:
            raise BadDealer(f"institution {dealer} dealt a share that is no field element", party=dealer) from error

    def result(self) -> Ring:
        """Open what was revealed, remove the masks and return the sum of the survivors' vectors.

        Raises QuorumError; BadDealer if a member's shares reconstruct something else than it committed to: the sum is
        then lost, and a new round without that member is a new charge to everyone.
        """
        with self._close("result"):
            topology = self._topology
            if not self.parameters.drawn:
                self._check_threshold(len(self._reveals), "revealed their shares")
            for dealer, opened in self._openings.items():
                if len(opened) < topology.threshold:
                    raise QuorumError(
                        f"{len(opened)} of the shares of institution {dealer} were revealed, "
                        f"and {topology.threshold} are needed",
                        hint="wait until more institutions are connected",
                    )
            publics = {member: self._joins[member].public for member in self.roster}
            ground = Ground(self.round_id, self._roster_hash, publics, topology)
            secrets = open_secrets(ground, self.survivors, self._openings, self._level)
            self.layer_keys = tuple(secrets.layer_keys.values())
            remove_masks(self._sum, ground, secrets)
            return self._sum
