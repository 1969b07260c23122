"""A consortium of hundreds of institutions on one machine, to time whole rounds of secure aggregation.

Real, the product's own code: governance, CA and membership in a real store; one TLS certificate, identity key, epoch
key, connection and `Link` per institution; the coordinator's `AgentServicer`, `Hub`, `Directory` and `Round`; every
message of a round as it travels in production, over mTLS on loopback, on uvloop as in production.

Left out, because it is no part of the aggregation: the analyst's request, policy, ledger, log and their disk writes,
the data and its noise (a vector is at hand when the round begins). Different from production: the institutions share
processes, so they also share one verified copy of the membership and one thread for their announcements.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from analytics_server import governance
from analytics_server.coordinator.rounds import Deadlines
from trust.identity import keys, x509
from trust.identity.names import Peer
from trust.rpc.channel import TlsIdentity
from trust.secagg.masks import Ring

CONSORTIUM, DATASET, SCHEMA_HASH = "bench", "vectors", bytes(32)
PATIENCE = Deadlines(join=900, upload=900, confirm=900, reveal=900)
"""Nobody is left behind for being slow: a case takes as long as it takes."""
BARE = "/bench.Bare/Stream"


@dataclass(frozen=True)
class Case:
    """One round: how many institutions with vectors of how many entries, and who vanishes before it uploads."""

    institutions: int
    length: int
    ring_bits: int = 32
    dropouts: int = 0
    masked_ahead: bool = False
    """Mask before the first chunk leaves, all at one time, so that what follows is upload alone."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name_of(i) for i in range(self.institutions))

    @property
    def gone(self) -> frozenset[str]:
        """The last ones vanish: in a graph or a sum they are no different from others."""
        return frozenset(self.names[self.institutions - self.dropouts :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<u{self.ring_bits // 8}")


def name_of(number: int) -> str:
    return f"h{number:04d}"


def vector_of(name: str, length: int, dtype: np.dtype[Any]) -> Ring:
    """The vector of one institution: an odd multiple of the same random vector, so that any sum is cheap to check."""
    number = int(name[1:])
    return _base(length, dtype) * dtype.type(2 * number + 1) + dtype.type(number)


def sum_of(names: Collection[str], length: int, dtype: np.dtype[Any]) -> Ring:
    """What the vectors of these institutions add up to."""
    numbers = [int(name[1:]) for name in names]
    return _base(length, dtype) * dtype.type(sum(2 * n + 1 for n in numbers)) + dtype.type(sum(numbers))


def _base(length: int, dtype: np.dtype[Any]) -> Ring:
    return np.random.default_rng(7).integers(0, 1 << (8 * dtype.itemsize), length, dtype=dtype)


# --- founding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keys:
    """An institution's folder, in memory."""

    name: str
    identity: bytes
    epoch: bytes
    tls: TlsIdentity


def found(folder: Path, institutions: int) -> None:
    """Make a consortium's folder with everyone enrolled and published, and `members.pickle` with their keys."""
    now = datetime.now(UTC)
    config = governance.initialise(
        folder / "server",
        consortium=CONSORTIUM,
        address="127.0.0.1:1",
        enrolment_address="127.0.0.1:2",
        governance=None,
        store="state.sqlite",
        minimum_cohort=3,
        colluders=1,
        now=now,
    )
    issuing, issuing_key = config.issuer()
    members = []
    with governance.opened(config) as (store, log):
        with store.begin() as uow:
            for number in range(institutions):
                name = name_of(number)
                identity, epoch, tls = (
                    Ed25519PrivateKey.generate(),
                    X25519PrivateKey.generate(),
                    keys.generate_tls_key(),
                )
                leaf = x509.issue_leaf(issuing, issuing_key, tls.public_key(), Peer(CONSORTIUM, "agent", name), now)
                epoch_key = keys.public_bytes(epoch)
                uow.add_participant(
                    id=name,
                    role="agent",
                    organisation=f"organisation of {name}",
                    identity_key=keys.public_bytes(identity),
                    epoch_key=epoch_key,
                    epoch_key_signature=keys.sign_epoch_key(identity, CONSORTIUM, name, epoch_key),
                    certificate_serial=x509.serial(leaf),
                )
                ca = x509.to_pem(config.ca())
                brought = TlsIdentity(CONSORTIUM, ca, x509.to_pem(leaf, issuing), keys.to_pem(tls))
                members.append(Keys(name, identity.private_bytes_raw(), epoch.private_bytes_raw(), brought))
        office = governance.open_governance(folder / "server" / governance.FOLDER, config)
        governance.publish_membership(store, log, config, office, now=int(now.timestamp()))
    (folder / "members.pickle").write_bytes(pickle.dumps(members))


def read_members(folder: Path) -> list[Keys]:
    members: list[Keys] = pickle.loads((folder / "members.pickle").read_bytes())  # noqa: S301 - written by `found`
    return members


def run(main: Callable[[], Any]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
