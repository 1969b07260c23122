"""What shows a fork or a rewind to a stranger: evidence that is proven is, and nothing else passes for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.audit import ORIGIN, World, new_world
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from analytics_client import evidence as keeping
from analytics_client.audit import History, write_json_lines
from analytics_client.audit.history import Entry
from analytics_client.cli import app
from analytics_client.pins import Pins
from protos.v1 import agent_pb2
from queries.errors import CohortiumError, ConfigError, LogError
from trust.identity import keys
from trust.tlog import notes
from trust.tlog.checkpoint import Checkpoint
from trust.tlog.evidence import Contradiction, Evidence, Shown, Verdict, examine
from trust.tlog.merkle import leaf_hash
from trust.tlog.recount import roots_at
from trust.tlog.witness import Witness
from trust.transcript import frame

AT = 1_800_000_000


class Case:
    """A consortium's log, and another one that its log key also signed: the same up to entry 3."""

    def __init__(self, folder: Path) -> None:
        self.world: World = new_world(folder)
        self.entries = self.world.entries()
        self.leaves = [leaf for _, leaf in self.entries]
        self.size = len(self.leaves)
        self.forked = [*self.leaves[:3], b"another", *self.leaves[4:]]

    def head(
        self, leaves: Sequence[bytes], size: int, *, key: Ed25519PrivateKey | None = None, to: str = "ada"
    ) -> Shown:
        root = roots_at(enumerate(leaves), [size])[size]
        text = Checkpoint(ORIGIN, size, root).text()
        note = notes.sign(text, notes.Signer(ORIGIN, key or self.world.log_key))
        return Shown(to, size, root, note)

    def word(self, leaves: Sequence[bytes], size: int, *, by: str = "alpha") -> Shown:
        root = roots_at(enumerate(leaves), [size])[size]
        decision = agent_pb2.Decision(institution=by, log_size=size, log_root=root).SerializeToString()
        signature = self.world.identities["alpha"].sign(frame("decision", decision))
        return Shown(
            by, size, root, statement=agent_pb2.Answer(decision=decision, signature=signature).SerializeToString()
        )

    def evidence(self, first: Shown, second: Shown, proof: Sequence[bytes] = ()) -> Evidence:
        return Evidence(
            found="two heads",
            found_by="ada",
            at=AT,
            heads=(first, second),
            proof=tuple(proof),
            memberships=tuple(self.world.memberships),
            governance_key=self.world.governance_key,
        )

    def examine(self, found: Evidence, leaves: Sequence[bytes] | None = None) -> Verdict:
        again = Evidence.from_bytes(found.to_bytes())
        assert again == found
        sizes = [head.size for head in found.heads]
        roots = None if leaves is None else roots_at(enumerate(leaves), sizes)
        return examine(again, self.world.governance_key, roots)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_two_roots_of_one_size_prove_a_fork(case: Case) -> None:
    found = case.evidence(case.head(case.leaves, case.size), case.head(case.forked, case.size, to="ash"))
    assert case.examine(found).kind == "proven"


def test_heads_of_different_sizes_take_the_entries_of_the_larger(case: Case) -> None:
    found = case.evidence(case.head(case.forked, 5), case.head(case.leaves, case.size))
    assert case.examine(found).kind == "open"
    assert case.examine(found, case.leaves).kind == "proven"
    assert case.examine(found, case.forked).kind == "open"  # entries of the smaller head: the rest may be made up
    assert case.examine(found, case.leaves[:6]).kind == "open"


def test_heads_of_one_log_are_no_contradiction_however_they_are_presented(case: Case) -> None:
    small, large = case.head(case.leaves, 5), case.head(case.leaves, case.size)
    with case.world.store.read() as uow:
        proof = uow.consistency(5, case.size)
    assert case.examine(case.evidence(small, large, proof)).kind == "none"
    assert case.examine(case.evidence(large, small), case.leaves).kind == "none"  # the proof was left out
    assert case.examine(case.evidence(small, small)).kind == "none"


def test_word_of_an_institution_counts_as_that(case: Case) -> None:
    found = case.evidence(case.word(case.forked, case.size), case.head(case.leaves, case.size))
    assert case.examine(found).kind == "word"


def changed(case: Case, number: int) -> Evidence:
    """What somebody might hand in to make an honest log look forked."""
    honest, other = case.head(case.leaves, case.size), case.head(case.forked, case.size)
    stranger = case.head(case.forked, case.size, key=Ed25519PrivateKey.generate())
    good = case.word(case.leaves, case.size)
    return [
        case.evidence(honest, stranger),
        case.evidence(honest, replace(other, note=honest.note)),
        case.evidence(honest, replace(honest, root=other.root)),
        case.evidence(honest, replace(honest, size=case.size - 1)),
        case.evidence(honest, replace(other, note=b"")),
        case.evidence(honest, replace(good, root=other.root)),
        case.evidence(honest, replace(good, to="beta")),
        case.evidence(honest, case.word(case.forked, case.size, by="beta")),
        case.evidence(honest, replace(good, statement=b"\xff")),
        replace(case.evidence(honest, other), heads=(honest,)),
        replace(case.evidence(honest, other), memberships=()),
    ][number]


@pytest.mark.parametrize("number", range(11))
def test_nothing_forged_passes_for_evidence(case: Case, number: int) -> None:
    with pytest.raises(LogError):
        case.examine(changed(case, number))


def test_evidence_counts_under_the_governance_key_of_who_reads_it(case: Case) -> None:
    found = case.evidence(case.head(case.leaves, case.size), case.head(case.forked, case.size))
    with pytest.raises(CohortiumError, match=r"signature|council|does not verify"):
        examine(found, keys.public_bytes(Ed25519PrivateKey.generate()))


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(max_size=8), st.lists, max_leaves=5))
def test_no_file_breaks_the_reader(value: object) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(ConfigError, match="no evidence file"):
        Evidence.from_bytes(data)


def test_witness_keeps_what_it_takes(case: Case, tmp_path: Path) -> None:
    own = Witness(
        name="ash", key=Ed25519PrivateKey.generate(), origin=ORIGIN, log_key=keys.public_bytes(case.world.log_key)
    )
    first, second = case.head(case.leaves, case.size), case.head(case.forked, case.size)
    own.advance(first.note, 0, [], persist=lambda *_: None)
    for shown, kind in ((second, "proven"), (case.head(case.forked, 5), "open")):
        with (
            pytest.raises(Contradiction) as found,
            keeping.kept(tmp_path, "ash", case.world.memberships, case.world.governance_key),
        ):
            own.advance(shown.note, own.size, [], persist=lambda *_: None)
        path = Path(found.value.hint.rpartition(" ")[2])
        assert path.parent == tmp_path / "evidence"
        assert examine(Evidence.from_bytes(path.read_bytes()), case.world.governance_key).kind == kind
    assert len(list((tmp_path / "evidence").iterdir())) == 2


def test_analyst_keeps_two_heads_of_one_size(case: Case, tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    first, second = case.head(case.leaves, case.size), case.head(case.forked, case.size)
    pins.accept_log_head(first.size, first.root, after=0, note=first.note)
    for _ in range(2):  # found again, it is the same file
        with (
            pytest.raises(Contradiction),
            keeping.kept(tmp_path, "ada", case.world.memberships, case.world.governance_key),
        ):
            pins.accept_log_head(second.size, second.root, after=0, note=second.note)
    (path,) = (tmp_path / "evidence").iterdir()
    assert examine(Evidence.from_bytes(path.read_bytes()), case.world.governance_key).kind == "proven"


def test_the_command_checks_offline(case: Case, tmp_path: Path) -> None:
    file, export = tmp_path / "found.json", tmp_path / "log.jsonl"
    found = case.evidence(case.head(case.forked, 5), case.head(case.leaves, case.size))
    file.write_bytes(found.to_bytes())
    history = History([Entry(*entry) for entry in case.entries], case.world.checkpoints(), case.world.memberships)
    write_json_lines(history, export)
    words = ["audit", "evidence", str(file), "--governance-key", case.world.governance_key.hex()]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, LogError)
    assert "OPEN" in done.output
    done = CliRunner().invoke(app, [*words, "--export", str(export)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "PROVEN" in done.output
    assert "ada found on 2027-01-15: two heads" in done.output
    assert leaf_hash(case.leaves[3]) != leaf_hash(case.forked[3])
