"""One institution's side of a round, without I/O: bytes in, bytes or a refusal out.

The object lives in memory only and is never stored: an agent that restarts takes no further part in the round. What
must be durable before which bytes leave is the caller's: see `join` and `on_confirmations`. Must not know: transport,
database, what the vector means.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from queries.errors import LogError
from trust.secagg import keys
from trust.secagg.dealing import Dealt, HeldShares, deal, open_share
from trust.secagg.field import RandomBytes
from trust.secagg.masks import MaskStream, Ring, masked_pieces
from trust.secagg.messages import (
    Complaint,
    Confirm,
    Join,
    Manifest,
    RosterEntry,
    encode_reveal,
    parse_confirmations,
    parse_roster,
    parse_survivors,
)
from trust.secagg.parameters import (
    Member,
    RoundParameters,
    check_local_policy,
    organisations,
    parse_parameters,
)
from trust.secagg.refusals import COORDINATOR, BadConfirmations, BadRoster, BadSurvivors, OutOfStep
from trust.secagg.steps import AGENT_STEPS, AgentState
from trust.tlog.merkle import leaf_hash, verify_inclusion

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
        self._roster: tuple[str, ...] = ()
        self._roster_hash = b""
        self._held: dict[str, HeldShares] = {}
        self._shared: dict[str, bytes] = {}  # X25519 of the round keys, per peer
        self._uploaded = False
        self._vector_hash = hashlib.sha256()
        self._manifest: Manifest | None = None
        self._survivors: frozenset[str] = frozenset()
        self._confirm: Confirm | None = None
        self._survivors_hash = b""

    def join(self) -> bytes:
        """Return JOIN. Before sending it the caller makes durable that this round id is used (and reserves budget)."""
        with self._step("join", self._me):
            dealt = deal(self.parameters, self._me, self._members, self._pair_keys, self._random_bytes)
            signature = self._identity_key.sign(keys.join_statement(self.round_id, dealt.public.data))
            self._dealt, self._join = dealt, Join(dealt.public, signature, dealt.shares)
            return self._join.encode()

    def on_roster(self, message: bytes) -> bytes | None:
        """Check ROSTER and return None to go on, or a signed complaint to send instead, after which this agent is out.

        Raises MalformedMessage, BadSignature, BadRoster, OutOfStep: the coordinator's doing. Shares that do not open or
        do not match their dealer's hashes are the dealer's, and are complained of.
        """
        with self._step("roster", COORDINATOR):
            entries = parse_roster(message, self._me, self.parameters.invited)
            self._check_roster(entries)
            self._roster = tuple(entry.public.member for entry in entries)
            self._roster_hash = keys.roster_hash(self.round_id, (entry.public.data for entry in entries))
            bad = [entry.public.member for entry in entries if not self._take_share(entry)]
            if not bad:
                return None
            statement = keys.complaint_statement(self.round_id, self._roster_hash, self._me, bad)
            complaint = Complaint(self._me, tuple(bad), self._identity_key.sign(statement))
        self._end(AgentState.COMPLAINED)
        return complaint.encode()

    def _check_roster(self, entries: Sequence[RosterEntry]) -> None:
        p, join = self.parameters, _given(self._join)
        position = p.positions[self._me]
        names = [entry.public.member for entry in entries]
        self._check_cohort(names, BadRoster, "roster")
        if self._me not in names:
            raise BadRoster(f"the coordinator sent a roster without institution {self._me}", party=COORDINATOR)
        for entry in entries:
            public = entry.public
            if entry.share is None:
                if public.data != join.public.data or entry.signature != join.signature:
                    raise BadRoster(f"the coordinator altered the JOIN of institution {self._me}", party=COORDINATOR)
                continue
            statement = keys.join_statement(self.round_id, public.data)
            member = self._members[public.member]
            keys.verify(member, entry.signature, statement, what="JOIN", party=COORDINATOR)
            share = entry.share
            leaf = keys.share_leaf(self._me, share.key_hash, share.seed_hash, share.sealed)
            try:
                verify_inclusion(leaf_hash(leaf), position, len(p.invited), entry.proof, public.share_root)
            except LogError as error:
                raise BadRoster(
                    f"the coordinator did not deliver the share that institution {public.member} dealt to {self._me}",
                    party=COORDINATOR,
                ) from error

    def _take_share(self, entry: RosterEntry) -> bool:
        """Open what a dealer sealed to this agent and make the secret of their mask; False if the dealer is bad."""
        dealer, share = entry.public.member, entry.share
        if share is None:
            self._held[dealer] = _given(self._dealt).own
            return True
        pair = self._pair_keys.secret(self._members[dealer].epoch_key)
        held = open_share(self.parameters, dealer, self._me, pair, share)
        if held is None:
            return False
        try:
            self._shared[dealer] = keys.exchange(_given(self._dealt).round_key, entry.public.round_key)
        except ValueError:  # a round key of small order would make the mask known to all
            return False
        self._held[dealer] = held
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
            MaskStream(keys.self_mask_keys(_given(self._dealt).seed, self.round_id, self._roster_hash, self._me), 1)
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

        Raises MalformedMessage, BadSignature, BadSurvivors, OutOfStep.
        """
        with self._step("survivors", COORDINATOR):
            manifests = parse_survivors(message, self._roster)
            self._check_cohort([manifest.member for manifest in manifests], BadSurvivors, "survivor list")
            for manifest in manifests:
                self._check_manifest(manifest)
            named = [(manifest.member, manifest.vector_hash) for manifest in manifests]
            self._survivors = frozenset(member for member, _ in named)
            self._survivors_hash = keys.survivors_hash(self.round_id, self._roster_hash, named)
            self._confirm = Confirm(self._me, self._identity_key.sign(self._confirm_statement(self._me)))
            return self._confirm.encode()

    def _check_manifest(self, manifest: Manifest) -> None:
        if manifest.member == self._me:
            if manifest != self._manifest:
                raise BadSurvivors(f"the coordinator altered the upload of institution {self._me}", party=COORDINATOR)
            return
        statement = keys.manifest_statement(self.round_id, self._roster_hash, manifest.member, manifest.vector_hash)
        member = self._members[manifest.member]
        keys.verify(member, manifest.signature, statement, what="manifest", party=COORDINATOR)

    def on_confirmations(self, message: bytes) -> bytes:
        """Check CONFIRMATIONS and return REVEAL, this agent's only one: one opened share of every roster member.

        The caller makes durable that it revealed (and charges the budget) between this call and sending: a process that
        died in between may have sent.

        Raises MalformedMessage, BadSignature, BadConfirmations, OutOfStep.
        """
        with self._step("confirmations", COORDINATOR):
            confirms = parse_confirmations(message, self._roster)
            for confirm in confirms:
                self._check_confirm(confirm)
            if len(confirms) < self.parameters.threshold:
                raise BadConfirmations(
                    f"the coordinator asks for shares with {len(confirms)} confirmations of the survivor list; "
                    f"{self.parameters.threshold} are needed",
                    party=COORDINATOR,
                )
            openings = []
            for dealer in self._roster:
                held = self._held[dealer]
                openings.append(held.of_seed if dealer in self._survivors else held.of_key)
            reveal = encode_reveal(openings)
        self._end(AgentState.REVEALED)
        return reveal

    def _check_confirm(self, confirm: Confirm) -> None:
        own = _given(self._confirm)
        if confirm.member == self._me:
            if confirm != own:
                raise BadConfirmations(f"the coordinator altered the CONFIRM of {self._me}", party=COORDINATOR)
            return
        statement = self._confirm_statement(confirm.member)
        keys.verify(self._members[confirm.member], confirm.signature, statement, what="CONFIRM", party=COORDINATOR)

    def close(self) -> None:
        """Take no further part: drop the secrets. To be called before joining another round for the same request."""
        self._end(AgentState.CLOSED)

    def _confirm_statement(self, member: str) -> bytes:
        return keys.confirm_statement(self.round_id, self._roster_hash, self._survivors_hash, member)

    def _check_cohort(self, names: Sequence[str], refusal: Callable[..., Exception], what: str) -> None:
        p = self.parameters
        if len(names) < p.threshold:
            raise refusal(
                f"the coordinator sent a {what} of {len(names)} institutions, below the threshold {p.threshold}",
                party=COORDINATOR,
            )
        found = organisations(names, self._members)
        if found < p.minimum_cohort:
            raise refusal(
                f"the coordinator sent a {what} of {found} organisations, below the minimum cohort {p.minimum_cohort}",
                party=COORDINATOR,
            )

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
