"""A witness lets through every continuation and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import LogError
from trust.tlog import notes
from trust.tlog.checkpoint import Checkpoint
from trust.tlog.merkle import Frontier, Node, Tree, leaf_hash
from trust.tlog.witness import Witness

LOG = notes.Signer("north/log", Ed25519PrivateKey.generate())
KEY = Ed25519PrivateKey.generate()
NOW = 1_760_000_000


class Nodes(dict[Node, bytes]):
    def read(self, wanted: Sequence[Node]) -> dict[Node, bytes]:
        return {node: self[node] for node in wanted if node in self}


def tree(leaves: Sequence[bytes]) -> Tree:
    nodes, frontier = Nodes(), Frontier()
    for seq, leaf in enumerate(leaves):
        nodes[0, seq] = leaf_hash(leaf)
        nodes.update(frontier.append(nodes[0, seq]))
    return Tree(nodes, len(leaves))


def head(log: Tree, size: int, signer: notes.Signer = LOG) -> bytes:
    return notes.sign(Checkpoint("north/log", size, log.root(size)).text(), signer)


def witness(size: int = 0, root: bytes = b"") -> Witness:
    return Witness(
        name="alpha",
        key=KEY,
        origin="north/log",
        log_key=LOG.verifier.public_key,
        size=size,
        root=root,
        clock=lambda: NOW,
    )


def numbered(size: int) -> list[bytes]:
    return [b"%d" % number for number in range(size)]


def proof(log: Tree, old: int, new: int) -> list[bytes]:
    return log.consistency(old, new) if 0 < old < new else []


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_every_continuation_passes_and_is_durable_before_it_is_cosigned(steps: list[int]) -> None:
    sizes = sorted(steps)
    log = tree(numbered(sizes[-1]))
    own = witness()
    kept: list[tuple[int, bytes]] = []
    for size in sizes:
        before = own.size
        line = own.advance(head(log, size), before, proof(log, before, size), persist=lambda *state: kept.append(state))
        assert (own.size, own.root) == (size, log.root(size)) == kept[-1]
        text = Checkpoint("north/log", size, log.root(size)).text()
        assert own._cosigner.verifier.verify_line(text, line) == NOW


@given(st.integers(2, 60), st.data())
def test_no_rewritten_history_passes(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, old - 1))
    leaves = numbered(size)
    honest = tree(leaves)
    rewritten = tree([*leaves[:changed], b"other", *leaves[changed + 1 :]])
    own = witness(old, honest.root(old))
    for source in (honest, rewritten):
        with pytest.raises(LogError):
            own.advance(head(rewritten, size), old, proof(source, old, size), persist=_never)
    assert (own.size, own.root) == (old, honest.root(old))


def _never(size: int, root: bytes) -> None:
    raise AssertionError("nothing may be persisted")


def test_rewind_is_refused() -> None:
    log = tree(numbered(9))
    with pytest.raises(LogError, match="rewound from 9 to 8"):
        witness(9, log.root()).advance(head(log, 8), 9, [], persist=_never)


def test_fork_is_refused() -> None:
    log, other = tree(numbered(9)), tree([b"x"] * 9)
    with pytest.raises(LogError, match="forked"):
        witness(9, log.root()).advance(head(other, 9), 9, [], persist=_never)


def test_gap_is_refused_and_says_what_to_do() -> None:
    log = tree(numbered(9))
    with pytest.raises(LogError, match=r"proof starts at size 3, the last head seen here has 5 \(connect again"):
        witness(5, log.root(5)).advance(head(log, 9), 3, log.consistency(3, 9), persist=_never)


def test_head_signed_by_another_key_is_refused() -> None:
    log = tree(numbered(9))
    imposter = notes.Signer("north/log", Ed25519PrivateKey.generate())
    with pytest.raises(LogError, match="not signed by north/log"):
        witness().advance(head(log, 9, imposter), 0, [], persist=_never)


def test_failure_to_persist_leaves_the_witness_where_it_was() -> None:
    log = tree(numbered(9))
    own = witness(5, log.root(5))

    def full(size: int, root: bytes) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        own.advance(head(log, 9), 5, log.consistency(5, 9), persist=full)
    assert (own.size, own.root) == (5, log.root(5))


def test_the_same_head_is_cosigned_again_without_persisting() -> None:
    log = tree(numbered(9))
    assert witness(9, log.root()).advance(head(log, 9), 9, [], persist=_never)
