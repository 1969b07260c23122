"""One institution's side of a round, without I/O: bytes in, bytes or a refusal out.

The object lives in memory only and is never stored: an agent that restarts takes no further part in the round. What
must be durable before which bytes leave is the caller's: see `join` and `on_confirmations`. Must not know: transport,
database, what the vector means.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from trust.secagg import keys
from trust.secagg.dealing import Dealt, HeldShares, Terms, deal, layer_keys, open_share
from trust.secagg.drawn import Register
from trust.secagg.field import RandomBytes
from trust.secagg.graph import SEED_BYTES, draw
from trust.secagg.masks import MaskStream, Ring, masked_pieces
from trust.secagg.messages import Complaint, Confirm, Join, JoinPublic, Manifest, RosterEntry, encode_reveal
from trust.secagg.parameters import Member, RoundParameters, check_local_policy, parse_parameters
from trust.secagg.refusals import COORDINATOR, OutOfStep
from trust.secagg.shown import Cohort, Observer, Roster, Survivors
from trust.secagg.steps import AGENT_STEPS, AgentState

LARGEST_CHUNK = 1 << 20

T = TypeVar("T")


class AgentRound:
    """A member's part in one round. Every method is called at most once, in the order in which they stand here.

    A refusal is final: the secrets are dropped and every later call is refused. The object is not thread-safe. It never
    reveals twice, confirms at most one survivor list, and masks at most one vector.
    """

    def __init__(
        self,
        parameters: bytes,
        *,
        me: str,
        identity_key: Ed25519PrivateKey,
        epoch_key: X25519PrivateKey,
        members: Mapping[str, Member],
        minimum_cohort: int,
        colluders: int,
        pair_keys: keys.PairKeys | None = None,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        """Check the announced parameters against safety rules, membership and this institution's own policy.

        `members` is the membership document that governance signed; that `parameters.membership_hash` is that
        document's, and `parameters.request_id` the request's that was announced, is for the caller to compare, as is
        that this round id is new to it. `pair_keys`, kept across rounds, saves the exchanges of static keys.

        Raises MalformedMessage, UnacceptableRound.
        """
        self.parameters: RoundParameters = parse_parameters(parameters)
        check_local_policy(self.parameters, members, me=me, minimum_cohort=minimum_cohort, colluders=colluders)
        self.round_id = self.parameters.round_id
        self.state = AgentState.ANNOUNCED
        self._me = me
        self._members = members
        self._identity_key = identity_key
        self._pair_keys = pair_keys or keys.PairKeys(epoch_key)
        if self._pair_keys.public != members[me].epoch_key:
            raise ValueError(f"the epoch key of {me} is not the one in the membership document")
        if identity_key.public_key().public_bytes_raw() != members[me].identity_key:
            raise ValueError(f"the identity key of {me} is not the one in the membership document")
        self._random_bytes = random_bytes
        self._dealt: Dealt | None = None
        self._join: Join | None = None
        self._shown = Observer(self.parameters, members, me)
        self._cohort: Cohort | None = None
        self._roster: Roster | None = None
        self._held: dict[str, HeldShares] = {}
        self._shared: dict[str, bytes] = {}  # X25519 of the round keys, per partner
        self._uploaded = False
        self._vector_hash = blake3()
        self._manifest: Manifest | None = None
        self._survivors: Survivors | None = None
        self._confirm: Confirm | None = None

    def join(self) -> bytes:
        """Return JOIN, or, where neighbours are drawn, REGISTER, whose JOIN `on_cohort` returns.

        Before sending it the caller makes durable that this round id is used (and reserves budget).
        """
        p = self.parameters
        if p.drawn:
            with self._step("register", self._me):
                statement = keys.register_statement(self.round_id, self._me)
                return Register(self._me, self._identity_key.sign(statement)).encode()
        with self._step("join", self._me):
            return self._deal(Terms(p, p.invited, p.threshold))

    def on_cohort(self, message: bytes) -> bytes:
        """Check COHORT, draw neighbours from it and return JOIN, with their shares.

        Raises MalformedMessage, BadCohort, OutOfStep: the coordinator's doing.
        """
        with self._step("cohort", COORDINATOR):
            cohort = self._cohort = self._shown.cohort(message)
            seed, size = self._random_bytes(SEED_BYTES), len(cohort.names)
            own, count = cohort.names.index(self._me), cohort.degree.holders
            drawn = draw(size, own, member=self._me, seed=seed, count=count, context=cohort.hash)
            holders = (*(cohort.names[position] for position in drawn), self._me)
            return self._deal(Terms(self.parameters, holders, cohort.degree.threshold, seed))

    def _deal(self, terms: Terms) -> bytes:
        dealt = deal(terms, self._me, self._members, self._pair_keys, self._random_bytes)
        if self._cohort is None:
            statement = keys.join_statement(self.round_id, dealt.public.data)
        else:
            statement = keys.drawn_join_statement(self.round_id, self._cohort.hash, dealt.public.data)
        self._dealt, self._join = dealt, Join(dealt.public, self._identity_key.sign(statement), dealt.shares)
        return self._join.encode()

    def layer_keys(self) -> tuple[bytes, ...]:
        """Return the keys, one for each rung, under which this agent is to draw layers of its noise, once it dealt.

        A rung's layer and all before it are opened if so many survive. Raises OutOfStep before or after.
        """
        if self._dealt is None:
            raise OutOfStep(f"institution {self._me} is {self.state.value} in this round: no layers", party=self._me)
        return layer_keys(self._dealt.seeds, self.round_id, self._me)

    def on_roster(self, message: bytes) -> bytes | None:
        """Check ROSTER and return None to go on, or a signed complaint to send instead, after which this agent is out.

        Raises MalformedMessage, BadSignature, BadRoster, OutOfStep: the coordinator's doing. Shares that do not open or
        do not match their dealer's hashes are the dealer's, and are complained of.
        """
        with self._step("roster", COORDINATOR):
            join, dealt = _given(self._join), _given(self._dealt)
            if self._cohort is None:
                roster = self._roster = self._shown.roster(message, join)
            else:
                roster = self._roster = self._shown.drawn_roster(message, self._cohort, join.public.graph_seed)
            partners = frozenset(roster.topology.partners(self._me))
            self._held[self._me] = dealt.own
            bad = []
            for entry in roster.entries:
                public = entry.public
                if public.member == self._me:
                    continue
                if not (self._take_share(entry) and (public.member not in partners or self._take_key(dealt, public))):
                    bad.append(public.member)
            if not bad:
                return None
            statement = keys.complaint_statement(self.round_id, roster.hash, self._me, bad)
            complaint = Complaint(self._me, tuple(bad), self._identity_key.sign(statement))
        self._end(AgentState.COMPLAINED)
        return complaint.encode()

    def _take_share(self, entry: RosterEntry) -> bool:
        """Open what a dealer sealed to this agent, if anything; False if the dealer is bad."""
        dealer = entry.public.member
        if entry.share is None:
            return True
        pair = self._pair_keys.secret(self._members[dealer].epoch_key)
        held = open_share(self.parameters, dealer, self._me, pair, entry.share)
        if held is None:
            return False
        self._held[dealer] = held
        return True

    def _take_key(self, dealt: Dealt, partner: JoinPublic) -> bool:
        """Make the secret of the mask shared with a partner; False if its round key is bad."""
        try:
            self._shared[partner.member] = keys.exchange(dealt.round_key, partner.round_key)
        except ValueError:  # a round key of small order would make the mask known to all
            return False
        return True

    def masked_chunks(self, vector: Ring, chunk_bytes: int = LARGEST_CHUNK) -> Iterator[bytes]:
        """Return an iterator over the masked vector in chunks of `chunk_bytes` (the last may be shorter).

        `vector` has `parameters.length` entries of uint32 or uint64, by `parameters.ring_bits`, with its noise share
        already in it, and is left as it is. Raises ValueError for another vector or a chunk that is not a whole number
        of entries or above 1 MiB, OutOfStep for a second call: two vectors under one mask would show their difference.
        """
        p = self.parameters
        if vector.dtype != p.dtype or vector.shape != (p.length,):
            raise ValueError(f"the round takes {p.length} entries of {p.dtype}, not {vector.shape} of {vector.dtype}")
        if not 0 < chunk_bytes <= LARGEST_CHUNK or chunk_bytes % p.dtype.itemsize:
            raise ValueError(f"a chunk is a positive multiple of {p.dtype.itemsize} bytes, at most {LARGEST_CHUNK}")
        with self._step("upload", self._me):
            streams = self._mask_streams()
        return self._masked(vector, chunk_bytes // p.dtype.itemsize, streams)

    def _mask_streams(self) -> list[MaskStream]:
        streams = [
            MaskStream(keys.self_mask_keys(_given(self._dealt).seeds[0], self.round_id, self._roster_hash, self._me), 1)
        ]
        for peer, shared in self._shared.items():
            key = keys.pair_mask_keys(shared, self.round_id, self._roster_hash, self._me, peer)
            streams.append(MaskStream(key, 1 if peer > self._me else -1))
        return streams

    def _masked(self, vector: Ring, step: int, streams: list[MaskStream]) -> Iterator[bytes]:
        sent = 0
        for data in masked_pieces(vector, step, streams):
            if self.state is not AgentState.UPLOADING:  # survivors were named, or the round ended, meanwhile
                raise OutOfStep("the round went on before the masked vector was read to its end", party=self._me)
            self._vector_hash.update(data)
            sent += len(data)
            self._uploaded = sent == vector.nbytes
            yield data

    def manifest(self) -> bytes:
        """Return the signed manifest of the upload, once its last chunk was taken."""
        with self._step("manifest", self._me):
            if not self._uploaded:
                raise OutOfStep("a manifest was asked for before the last chunk", party=self._me)
            vector_hash = self._vector_hash.digest()
            statement = keys.manifest_statement(self.round_id, self._roster_hash, self._me, vector_hash)
            self._manifest = Manifest(self._me, vector_hash, self._identity_key.sign(statement))
            self._dealt, self._shared = None, {}  # no second vector can ever be masked
            return self._manifest.encode()

    def on_survivors(self, message: bytes) -> bytes:
        """Check SURVIVORS and return CONFIRM, this agent's only one.

        Raises MalformedMessage, BadSurvivors, OutOfStep.
        """
        with self._step("survivors", COORDINATOR):
            survivors = self._survivors = self._shown.survivors(message, _given(self._roster), self._manifest)
            statement = keys.confirm_statement(self.round_id, self._roster_hash, survivors.hash, self._me)
            self._confirm = Confirm(self._me, self._identity_key.sign(statement))
            return self._confirm.encode()

    def on_confirmations(self, message: bytes) -> bytes:
        """Check CONFIRMATIONS and return REVEAL, this agent's only one: one opened share of every dealer's.

        The caller makes durable that it revealed (and charges the budget) between this call and sending: a process that
        died in between may have sent.

        Raises MalformedMessage, BadSignature, BadConfirmations, OutOfStep.
        """
        with self._step("confirmations", COORDINATOR):
            roster, survivors = _given(self._roster), _given(self._survivors)
            self._shown.confirmations(message, roster, survivors, _given(self._confirm))
            level = self.parameters.level(len(survivors.names))
            openings = []
            for dealer in roster.topology.dealers(self._me):
                held = self._held[dealer]
                openings.append(held.of_seeds[level] if dealer in survivors.names else held.of_key)
            reveal = encode_reveal(openings)
        self._end(AgentState.REVEALED)
        return reveal

    def close(self) -> None:
        """Take no further part: drop the secrets. To be called before joining another round for the same request."""
        self._end(AgentState.CLOSED)

    @property
    def _roster_hash(self) -> bytes:
        return _given(self._roster).hash

    @contextmanager
    def _step(self, event: str, party: str) -> Iterator[None]:
        """Move along the table of steps; whatever goes wrong on the way ends this agent's part for good."""
        try:
            after = AGENT_STEPS.get((self.state, event))
            if after is None:
                raise OutOfStep(
                    f"institution {self._me} is {self.state.value} in this round: the step {event!r} is not possible",
                    party=party,
                )
            yield
        except BaseException:
            self._end(AgentState.REFUSED)
            raise
        self.state = after

    def _end(self, state: AgentState) -> None:
        self.state = state
        self._dealt = None
        self._held, self._shared = {}, {}


def _given(value: T | None) -> T:
    """Return what an earlier step has set; the table of steps sees to it."""
    if value is None:
        raise AssertionError("a step ran before the one it needs")
    return value
