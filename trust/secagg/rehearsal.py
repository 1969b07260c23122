"""Whole rounds in one process, with real keys: what tests, benchmarks and golden transcripts drive.

Everything here goes through the bytes of the public state machines. Must not know: their insides.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from trust.secagg.agent import LARGEST_CHUNK, AgentRound
from trust.secagg.coordinator import CoordinatorRound
from trust.secagg.field import RandomBytes
from trust.secagg.keys import PairKeys
from trust.secagg.masks import Ring
from trust.secagg.parameters import Member, make_parameters


def seeded(seed: bytes) -> RandomBytes:
    """Return a deterministic source of bytes (SHAKE-256 of seed and counter), for transcripts only."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(seed + count.to_bytes(8, "big")).digest(size)

    return draw


class Consortium:
    """Institutions with keys; each is its own organisation unless `organisations` says otherwise."""

    def __init__(
        self,
        names: Iterable[str],
        *,
        organisations: Mapping[str, str] | None = None,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        self.names = sorted(names)
        self.identity_keys = {n: Ed25519PrivateKey.from_private_bytes(random_bytes(32)) for n in self.names}
        self.epoch_keys = {n: X25519PrivateKey.from_private_bytes(random_bytes(32)) for n in self.names}
        self.pair_keys = {n: PairKeys(self.epoch_keys[n]) for n in self.names}
        self.members = {
            n: Member(
                n,
                (organisations or {}).get(n, f"organisation of {n}"),
                self.identity_keys[n].public_key().public_bytes_raw(),
                self.epoch_keys[n].public_key().public_bytes_raw(),
            )
            for n in self.names
        }

    def parameters(
        self,
        *,
        invited: Iterable[str] | None = None,
        minimum_cohort: int = 3,
        colluders: int = 1,
        length: int = 4,
        ring_bits: int = 64,
        threshold: int | None = None,
        rungs: Iterable[int] = (),
        random_bytes: RandomBytes = os.urandom,
    ) -> bytes:
        """Return the parameters of a fresh round of everyone, or of `invited`."""
        return make_parameters(
            membership_hash=hashlib.sha256(b"a membership").digest(),
            request_id=hashlib.sha256(b"a request").digest(),
            invited=self.names if invited is None else invited,
            minimum_cohort=minimum_cohort,
            colluders=colluders,
            length=length,
            ring_bits=ring_bits,
            threshold=threshold,
            rungs=rungs,
            random_bytes=random_bytes,
        )

    def agent(
        self,
        name: str,
        parameters: bytes,
        *,
        minimum_cohort: int = 3,
        colluders: int = 1,
        random_bytes: RandomBytes = os.urandom,
    ) -> AgentRound:
        """Return the side of one institution in a round."""
        return AgentRound(
            parameters,
            me=name,
            identity_key=self.identity_keys[name],
            epoch_key=self.epoch_keys[name],
            members=self.members,
            minimum_cohort=minimum_cohort,
            colluders=colluders,
            pair_keys=self.pair_keys[name],
            random_bytes=random_bytes,
        )


class Rehearsal:
    """One round of a consortium. Each step is a method; a member that is not named in a step is silent in it."""

    def __init__(self, consortium: Consortium, parameters: bytes | None = None) -> None:
        self.consortium = consortium
        self.encoded = parameters or consortium.parameters()
        self.coordinator = CoordinatorRound(self.encoded, members=consortium.members)
        self.parameters = self.coordinator.parameters
        colluders = self.parameters.colluders
        self.agents = {n: consortium.agent(n, self.encoded, colluders=colluders) for n in self.parameters.invited}
        self.rosters: dict[str, bytes] = {}
        self.layer_keys: dict[str, tuple[bytes, ...]] = {}
        """Of who joined, where noise has layers."""
        self.survivors = b""
        self.confirmations = b""
        self.received: list[tuple[str, str, bytes]] = []
        """All that the coordinator got: (member, step, bytes)."""

    @cached_property
    def vectors(self) -> dict[str, Ring]:
        """A random vector per institution."""
        p = self.parameters
        draw = np.random.default_rng()
        if p.ring_bits == 32:
            return {name: draw.integers(0, 1 << 32, p.length, dtype=np.uint32) for name in self.agents}
        return {name: draw.integers(0, 1 << 64, p.length, dtype=np.uint64) for name in self.agents}

    def _got(self, member: str, step: str, message: bytes) -> bytes:
        self.received.append((member, step, message))
        return message

    def join(self, who: Collection[str]) -> None:
        """JOIN of `who`, and ROSTER to them. Where neighbours are drawn, REGISTER and COHORT come first."""
        first = "register" if self.parameters.drawn else "join"
        for name in who:
            self.coordinator.on_join(name, self._got(name, first, self.agents[name].join()))
        if self.parameters.drawn:
            cohort = self.coordinator.close_registration()
            for name in who:
                self.coordinator.on_join(name, self._got(name, "join", self.agents[name].on_cohort(cohort)))
        if self.parameters.rungs:
            self.layer_keys = {name: self.agents[name].layer_keys() for name in who}
        self.rosters = self.coordinator.close_joins()
        for name, message in self.rosters.items():
            complaint = self.agents[name].on_roster(message)
            if complaint is not None:
                self.coordinator.on_complaint(name, self._got(name, "complaint", complaint))

    def upload(self, who: Collection[str], *, chunk_bytes: int = LARGEST_CHUNK) -> None:
        """UPLOAD of `who`, and SURVIVORS made."""
        for name in who:
            sink = self.coordinator.start_upload(name)
            for chunk in self.agents[name].masked_chunks(self.vectors[name], chunk_bytes):
                sink.feed(self._got(name, "chunk", chunk))
            sink.finish(self._got(name, "manifest", self.agents[name].manifest()))
        self.survivors = self.coordinator.close_uploads()

    def confirm(self, who: Collection[str]) -> None:
        """CONFIRM of `who`, and CONFIRMATIONS made."""
        for name in who:
            confirm = self._got(name, "confirm", self.agents[name].on_survivors(self.survivors))
            self.coordinator.on_confirm(name, confirm)
        self.confirmations = self.coordinator.close_confirms()

    def reveal(self, who: Collection[str]) -> Ring:
        """REVEAL of `who`, and the sum."""
        for name in who:
            reveal = self._got(name, "reveal", self.agents[name].on_confirmations(self.confirmations))
            self.coordinator.on_reveal(name, reveal)
        return self.coordinator.result()

    def run(self) -> Ring:
        """Everyone does everything."""
        everyone = self.parameters.invited
        self.join(everyone)
        self.upload(everyone)
        self.confirm(everyone)
        return self.reveal(everyone)

    def expected(self) -> Ring:
        """Return the sum over the coordinator's survivors of what they put in."""
        total = np.zeros(self.parameters.length, dtype=self.parameters.dtype)
        for name in self.coordinator.survivors:
            total += self.vectors[name]
        return total
