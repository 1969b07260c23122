"""What an agent is shown by the coordinator, and every check of it: what passes is a value, what does not a refusal.

No secret of the agent is needed for any of this. Raises MalformedMessage, BadSignature, BadCohort, BadRoster,
BadSurvivors and BadConfirmations, all the coordinator's doing. Must not know: the order of messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from queries.errors import LogError
from trust.secagg import keys
from trust.secagg.bounds import Degree
from trust.secagg.drawn import parse_cohort, parse_drawn_roster, parse_drawn_survivors
from trust.secagg.graph import FullGraph, Topology, drawn_graph
from trust.secagg.messages import (
    Confirm,
    Join,
    Manifest,
    RosterEntry,
    parse_confirmations,
    parse_roster,
    parse_survivors,
)
from trust.secagg.parameters import Member, RoundParameters, organisations
from trust.secagg.refusals import (
    COORDINATOR,
    BadCohort,
    BadConfirmations,
    BadRoster,
    BadSurvivors,
    ProtocolViolation,
)
from trust.tlog.merkle import leaf_hash, verify_inclusion


@dataclass(frozen=True, slots=True)
class Cohort:
    """Those from whom neighbours are drawn, and how many."""

    names: tuple[str, ...]
    hash: bytes
    degree: Degree


@dataclass(frozen=True, slots=True)
class Roster:
    """Who joined and who is tied to whom; `entries` are the JOINs that the agent has to do with, all verified."""

    hash: bytes
    topology: Topology
    entries: tuple[RosterEntry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Who joined."""
        return self.topology.roster


@dataclass(frozen=True, slots=True)
class Survivors:
    """A survivor list. `unproved` are manifests of others whose signatures are still to be verified."""

    names: frozenset[str]
    hash: bytes
    unproved: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True)
class Observer:
    """Reads the coordinator's messages for one member."""

    parameters: RoundParameters
    members: Mapping[str, Member]
    me: str

    def cohort(self, message: bytes) -> Cohort:
        """Check COHORT: large enough to draw neighbours from, with this agent in it."""
        p = self.parameters
        present, names = parse_cohort(message, p.invited)
        self._check_size(names, BadCohort, "cohort")
        if self.me not in names:
            raise BadCohort(f"the coordinator left institution {self.me} out of the cohort", party=COORDINATOR)
        degree = p.degree(len(names))
        if degree is None:
            raise BadCohort(
                f"no number of neighbours is safe among {len(names)} institutions of which {p.colluders} may collude",
                party=COORDINATOR,
            )
        return Cohort(names, keys.cohort_hash(p.round_id, present), degree)

    def roster(self, message: bytes, own: Join) -> Roster:
        """Check ROSTER where everybody is everybody's neighbour."""
        p = self.parameters
        entries = parse_roster(message, self.me, p.invited, layers=len(p.rungs))
        names = [entry.public.member for entry in entries]
        self._check_size(names, BadRoster, "roster")
        if self.me not in names:
            raise BadRoster(f"the coordinator sent a roster without institution {self.me}", party=COORDINATOR)
        topology = FullGraph(p.invited, names, p.threshold)
        for entry in entries:
            if entry.share is not None:
                self._check_entry(entry, topology, keys.join_statement(p.round_id, entry.public.data))
            elif entry.public.data != own.public.data or entry.signature != own.signature:
                raise BadRoster(f"the coordinator altered the JOIN of institution {self.me}", party=COORDINATOR)
        return Roster(keys.roster_hash(p.round_id, (entry.public.data for entry in entries)), topology, entries)

    def drawn_roster(self, message: bytes, cohort: Cohort, graph_seed: bytes) -> Roster:
        """Check ROSTER where neighbours are drawn: the whole graph, and the JOINs of this agent's own neighbours."""
        p = self.parameters
        said = parse_drawn_roster(message, p.invited)
        self._check_size(said.joined, BadRoster, "roster")
        if self.me not in said.joined or not frozenset(said.joined) <= frozenset(cohort.names):
            raise BadRoster(
                f"the coordinator sent a roster without institution {self.me}, or with some outside its cohort",
                party=COORDINATOR,
            )
        topology = drawn_graph(cohort.names, said.joined, said.graph_seeds, cohort.degree, cohort.hash)
        if topology.seed(self.me) != graph_seed:
            raise BadRoster(f"the coordinator altered what institution {self.me} drew", party=COORDINATOR)
        dealers = frozenset(topology.dealers(self.me)) - {self.me}
        neighbours = sorted(dealers.union(topology.partners(self.me)))
        if [entry.public.member for entry in said.entries] != neighbours:
            raise BadRoster(
                f"the coordinator did not send institution {self.me} its neighbours' JOINs", party=COORDINATOR
            )
        for entry in said.entries:
            public = entry.public
            if (entry.share is not None) != (public.member in dealers) or public.graph_seed != topology.seed(
                public.member
            ):
                raise BadRoster(
                    f"the coordinator misrepresents what institution {public.member} drew", party=COORDINATOR
                )
            self._check_entry(entry, topology, keys.drawn_join_statement(p.round_id, cohort.hash, public.data))
        roster_hash = keys.drawn_roster_hash(p.round_id, cohort.hash, said.present, said.graph_seeds)
        return Roster(roster_hash, topology, said.entries)

    def _check_entry(self, entry: RosterEntry, topology: Topology, statement: bytes) -> None:
        """Another's JOIN is signed by it, and the share that came with it is the one under its signed root."""
        public, share = entry.public, entry.share
        keys.verify(self.members[public.member], entry.signature, statement, what="JOIN", party=COORDINATOR)
        if share is None:
            return
        index, count = topology.index(public.member, self.me)
        leaf = keys.share_leaf(self.me, share.key_hash, share.seed_hash, share.sealed)
        try:
            verify_inclusion(leaf_hash(leaf), index, count, entry.proof, public.share_root)
        except LogError as error:
            raise BadRoster(
                f"the coordinator did not deliver the share that institution {public.member} dealt to {self.me}",
                party=COORDINATOR,
            ) from error

    def survivors(self, message: bytes, roster: Roster, own: Manifest | None) -> Survivors:
        """Check SURVIVORS, but for the signatures of others' manifests, which `confirmations` leaves none unproved."""
        p = self.parameters
        manifests: tuple[Manifest, ...] = ()
        if p.drawn:
            named = parse_drawn_survivors(message, p.invited, roster.names)
        else:
            manifests = parse_survivors(message, roster.names)
            named = [(manifest.member, manifest.vector_hash) for manifest in manifests]
        self._check_size([member for member, _ in named], BadSurvivors, "survivor list")
        claimed = dict(named).get(self.me)
        if claimed is not None and (own is None or claimed != own.vector_hash):
            raise BadSurvivors(f"the coordinator altered the upload of institution {self.me}", party=COORDINATOR)
        for manifest in manifests:
            if manifest.member == self.me and manifest != own:
                raise BadSurvivors(f"the coordinator altered the upload of institution {self.me}", party=COORDINATOR)
        lonely = roster.topology.cut_off(member for member, _ in named)
        if lonely:
            raise BadSurvivors(
                f"the coordinator sent a survivor list in which institution {lonely[0]} is left with too few "
                "of those who share its masks",
                party=COORDINATOR,
            )
        others = tuple(manifest for manifest in manifests if manifest.member != self.me)
        names = frozenset(member for member, _ in named)
        return Survivors(names, keys.survivors_hash(p.round_id, roster.hash, named), others)

    def confirmations(self, message: bytes, roster: Roster, survivors: Survivors, own: Confirm) -> None:
        """Check CONFIRMATIONS: at least t members confirmed what this agent confirmed, and every survivor uploaded.

        A member confirms only a list on which its own upload is what it signed. So its CONFIRM proves its manifest too,
        and of those who are not shown to have confirmed the manifest's signature is verified now. Where neighbours are
        drawn no manifests are shown: there only survivors' CONFIRMs count, from enough organisations.
        """
        p = self.parameters
        confirms = parse_confirmations(message, roster.names)
        for confirm in confirms:
            if confirm.member == self.me:
                if confirm != own:
                    raise BadConfirmations(f"the coordinator altered the CONFIRM of {self.me}", party=COORDINATOR)
                continue
            statement = keys.confirm_statement(p.round_id, roster.hash, survivors.hash, confirm.member)
            member = self.members[confirm.member]
            keys.verify(member, confirm.signature, statement, what="CONFIRM", party=COORDINATOR)
        counted = [c.member for c in confirms if not p.drawn or c.member in survivors.names]
        if len(counted) < p.threshold:
            raise BadConfirmations(
                f"the coordinator asks for shares with {len(counted)} confirmations of the survivor list; "
                f"{p.threshold} are needed",
                party=COORDINATOR,
            )
        if p.drawn:
            self._check_size(counted, BadConfirmations, "set of confirmations")
        confirmed = {confirm.member for confirm in confirms}
        for manifest in survivors.unproved:
            if manifest.member not in confirmed:
                statement = keys.manifest_statement(p.round_id, roster.hash, manifest.member, manifest.vector_hash)
                member = self.members[manifest.member]
                keys.verify(member, manifest.signature, statement, what="manifest", party=COORDINATOR)

    def _check_size(self, names: Sequence[str], refusal: Callable[..., ProtocolViolation], what: str) -> None:
        p = self.parameters
        if len(names) < p.threshold:
            raise refusal(
                f"the coordinator sent a {what} of {len(names)} institutions, below the threshold {p.threshold}",
                party=COORDINATOR,
            )
        found = organisations(names, self.members)
        if found < p.minimum_cohort:
            raise refusal(
                f"the coordinator sent a {what} of {found} organisations, below the minimum cohort {p.minimum_cohort}",
                party=COORDINATOR,
            )
