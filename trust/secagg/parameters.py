"""What a round is: its parameters, their safety rules, and the members that may be in it.

The rules are one function, `check_parameters`, run by whoever makes parameters and by every agent that receives them.
Must not know: keys of a round, messages between its parties.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from protos.v1 import secagg_pb2
from queries.errors import IdentityError
from trust.secagg.bounds import Degree, degree
from trust.secagg.field import RandomBytes
from trust.secagg.refusals import COORDINATOR, UnacceptableRound
from trust.secagg.wire import parse_canonical, require
from trust.transcript import digest, frame, integer

SMALLEST_COHORT = 3
LARGEST_FULL_GRAPH = 500
"""Above, members draw their neighbours."""
LARGEST_COHORT = 2000
LONGEST_VECTOR = 1 << 31
LONGEST_ID = 128
MOST_RUNGS = 16
HASH_BYTES = 32
PARAMETERS_LIMIT = 512 << 10


@dataclass(frozen=True, slots=True)
class Member:
    """An institution as the membership document certifies it: raw Ed25519 identity key, raw X25519 epoch key."""

    id: str
    organisation: str
    identity_key: bytes
    epoch_key: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.id.encode()) <= LONGEST_ID or not self.organisation:
            raise IdentityError(f"institution {self.id[:LONGEST_ID]!r} has an unusable id or no organisation")
        if len(self.identity_key) != 32 or len(self.epoch_key) != 32:
            raise IdentityError(f"institution {self.id} has a key that is not 32 bytes long")


@dataclass(frozen=True)
class RoundParameters:
    """The announced parameters of one round; see `check_parameters` for what makes them acceptable."""

    membership_hash: bytes
    request_id: bytes
    invited: tuple[str, ...]  # sorted; a member's share index is its position + 1
    threshold: int  # t: shares that open a secret, confirmations that free a share, fewest survivors
    minimum_cohort: int  # fewest distinct organisations among the survivors
    colluders: int  # c: institutions that may collude with the coordinator
    length: int  # entries of the vector
    ring_bits: int  # 32 or 64
    nonce: bytes
    rungs: tuple[int, ...] = ()
    """Rising numbers of survivors, each above the threshold: a layer of every survivor's noise is opened at each."""

    @cached_property
    def round_id(self) -> bytes:
        """The digest of every parameter, 32 bytes. An agent takes part in a round id at most once."""
        return digest(
            "secagg/round-id",
            self.membership_hash,
            self.request_id,
            frame("secagg/invited", *(name.encode() for name in self.invited)),
            integer(self.threshold),
            integer(self.minimum_cohort),
            integer(self.colluders),
            integer(self.length),
            integer(self.ring_bits),
            self.nonce,
            *(integer(rung) for rung in self.rungs),
        )

    def level(self, survivors: int) -> int:
        """Return how many layers of noise are opened where so many survive: the first that many rungs are reached."""
        return sum(rung <= survivors for rung in self.rungs)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of every invited member, from 0."""
        return {name: position for position, name in enumerate(self.invited)}

    @property
    def drawn(self) -> bool:
        """Whether members draw their neighbours; otherwise everybody is everybody's."""
        return len(self.invited) > LARGEST_FULL_GRAPH

    def degree(self, cohort: int) -> Degree | None:
        """Return how many neighbours each of so many members must draw, None if no number is safe."""
        return degree(cohort, self.colluders, self.threshold)

    @property
    def dtype(self) -> np.dtype[np.uint32] | np.dtype[np.uint64]:
        """Ring elements as they travel: unsigned, little-endian."""
        return np.dtype("<u4") if self.ring_bits == 32 else np.dtype("<u8")

    @property
    def vector_bytes(self) -> int:
        """Size of one vector on the wire."""
        return self.length * self.ring_bits // 8

    def encode(self) -> bytes:
        """Return the one valid encoding, which `parse_parameters` reads."""
        return secagg_pb2.RoundParameters(
            membership_hash=self.membership_hash,
            request_id=self.request_id,
            invited=self.invited,
            threshold=self.threshold,
            minimum_cohort=self.minimum_cohort,
            colluders=self.colluders,
            length=self.length,
            ring_bits=self.ring_bits,
            nonce=self.nonce,
            rungs=self.rungs,
        ).SerializeToString(deterministic=True)


def default_threshold(n: int) -> int:
    """floor(2n/3) + 1 of n invited members."""
    return 2 * n // 3 + 1


def make_parameters(
    *,
    membership_hash: bytes,
    request_id: bytes,
    invited: Iterable[str],
    minimum_cohort: int,
    colluders: int,
    length: int,
    ring_bits: int = 64,
    threshold: int | None = None,
    rungs: Iterable[int] = (),
    random_bytes: RandomBytes = os.urandom,
) -> bytes:
    """Return the encoded parameters of a fresh round. Raises UnacceptableRound if no agent could accept them."""
    names = tuple(sorted(invited))
    parameters = RoundParameters(
        membership_hash=membership_hash,
        request_id=request_id,
        invited=names,
        threshold=default_threshold(len(names)) if threshold is None else threshold,
        minimum_cohort=minimum_cohort,
        colluders=colluders,
        length=length,
        ring_bits=ring_bits,
        nonce=random_bytes(32),
        rungs=tuple(rungs),
    )
    check_parameters(parameters)
    return parameters.encode()


def parse_parameters(data: bytes) -> RoundParameters:
    """Return what `data` encodes. Raises MalformedMessage or UnacceptableRound, both naming the coordinator."""
    message = parse_canonical(secagg_pb2.RoundParameters, data, COORDINATOR, PARAMETERS_LIMIT)
    for name in ("membership_hash", "request_id", "nonce"):
        require(len(getattr(message, name)) == HASH_BYTES, COORDINATOR, f"a {name} of a wrong size")
    parameters = RoundParameters(
        membership_hash=message.membership_hash,
        request_id=message.request_id,
        invited=tuple(message.invited),
        threshold=message.threshold,
        minimum_cohort=message.minimum_cohort,
        colluders=message.colluders,
        length=message.length,
        ring_bits=message.ring_bits,
        nonce=message.nonce,
        rungs=tuple(message.rungs),
    )
    check_parameters(parameters)
    return parameters


def check_parameters(parameters: RoundParameters) -> None:
    """Raise UnacceptableRound unless the parameters are safe for anyone, whatever the local policy.

    2t > n + c makes two survivor lists with t confirmations each impossible: their confirming sets would share more
    than c members, so an honest one, which confirms once (Bonawitz et al., CCS 2017, active adversaries).
    """
    p, n = parameters, len(parameters.invited)
    if list(p.invited) != sorted(set(p.invited)):
        raise _unacceptable("its invited list is not sorted or names an institution twice")
    if not all(1 <= len(name.encode()) <= LONGEST_ID for name in p.invited):
        raise _unacceptable(f"its invited list holds an id that is empty or longer than {LONGEST_ID} bytes")
    if n < SMALLEST_COHORT:
        raise _unacceptable(f"it invites {n} institutions, and the smallest cohort is {SMALLEST_COHORT}")
    if n > LARGEST_COHORT:
        raise _unacceptable(f"it invites {n} institutions, and a round takes at most {LARGEST_COHORT}")
    if not p.threshold <= n:
        raise _unacceptable(f"its threshold {p.threshold} exceeds the {n} invited institutions")
    if not 2 * p.threshold > n + p.colluders:
        raise _unacceptable(
            f"its threshold {p.threshold} is unsafe for {n} institutions of which {p.colluders} may collude",
            hint=f"2t > n + c needs a threshold of at least {(n + p.colluders) // 2 + 1}",
        )
    if p.drawn and p.degree(n) is None:
        raise _unacceptable(f"{p.colluders} of {n} institutions may collude, and no number of neighbours is safe then")
    if not SMALLEST_COHORT <= p.minimum_cohort <= n:
        raise _unacceptable(f"its minimum cohort {p.minimum_cohort} is not between {SMALLEST_COHORT} and {n}")
    if not 1 <= p.length <= LONGEST_VECTOR:
        raise _unacceptable(f"its vector has {p.length} entries, not between 1 and {LONGEST_VECTOR}")
    if p.ring_bits not in (32, 64):
        raise _unacceptable(f"its ring has {p.ring_bits} bits, neither 32 nor 64")
    if list(p.rungs) != sorted(set(p.rungs)) or not all(p.threshold < rung <= n for rung in p.rungs):
        raise _unacceptable(f"its rungs do not rise from above the threshold {p.threshold} to at most {n}")
    if p.rungs and (len(p.rungs) > MOST_RUNGS or p.drawn):
        raise _unacceptable(f"it has more than {MOST_RUNGS} rungs, or some although neighbours are drawn")


def check_local_policy(
    parameters: RoundParameters, members: Mapping[str, Member], *, me: str, minimum_cohort: int, colluders: int
) -> None:
    """Raise UnacceptableRound unless this institution may join by its own `minimum_cohort` and `colluders`."""
    p = parameters
    if me not in p.positions:
        raise _unacceptable(f"institution {me} is not among those invited")
    if p.minimum_cohort < minimum_cohort:
        raise _unacceptable(
            f"its minimum cohort {p.minimum_cohort} is below this institution's {minimum_cohort}",
            hint="raise the cohort of the request, or this institution's minimum_cohort stays out of reach",
        )
    if p.colluders < colluders:
        raise _unacceptable(f"it tolerates {p.colluders} colluding institutions, and this one asks for {colluders}")
    check_members(p, members)


def check_members(parameters: RoundParameters, members: Mapping[str, Member]) -> None:
    """Raise UnacceptableRound unless every invited id is a member, no key serves two, and organisations suffice."""
    unknown = [name for name in parameters.invited if name not in members]
    if unknown:
        raise _unacceptable(f"it invites {unknown[0]}, which the membership document does not name")
    invited = [members[name] for name in parameters.invited]
    if any(member.id != name for member, name in zip(invited, parameters.invited, strict=True)):
        raise _unacceptable("the membership maps an id to another institution")
    for keys in ({m.identity_key for m in invited}, {m.epoch_key for m in invited}):
        if len(keys) != len(invited):
            raise _unacceptable("two of the invited institutions have the same key")
    found = organisations(parameters.invited, members)
    if found < parameters.minimum_cohort:
        raise _unacceptable(
            f"the invited institutions belong to {found} organisations, "
            f"and the minimum cohort is {parameters.minimum_cohort}"
        )


def organisations(ids: Sequence[str], members: Mapping[str, Member]) -> int:
    """Return how many distinct organisations stand behind `ids`: institutions of one organisation count once."""
    return len({members[name].organisation for name in ids})


def _unacceptable(what: str, hint: str = "") -> UnacceptableRound:
    return UnacceptableRound(f"the coordinator announced an unacceptable round: {what}", party=COORDINATOR, hint=hint)
