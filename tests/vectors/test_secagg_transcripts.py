"""Golden transcripts of whole rounds: every byte of every message, and what must be refused.

`secagg-v1.json` lets an agent in another language be checked against this one. `random` of a member is all that it
draws in a round, in order; docs/secure-aggregation.md says what for. To write the file anew after a deliberate change
of the protocol: python tests/vectors/test_secagg_transcripts.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protos.v1 import secagg_pb2 as pb
from queries.errors import ProtocolViolation
from trust.secagg import AgentRound, CoordinatorRound, Member, parse_parameters, refusals
from trust.secagg.rehearsal import Consortium, seeded

PATH = Path(__file__).with_name("secagg-v1.json")
Json = dict[str, Any]


def play(case: Json, until: str = "") -> tuple[Json, dict[str, AgentRound]]:
    """Run the round that a case describes, from its inputs alone, as far as the step `until`; return its messages."""
    members = {
        name: Member(name, m["organisation"], bytes.fromhex(m["identity_public"]), bytes.fromhex(m["epoch_public"]))
        for name, m in case["members"].items()
    }
    parameters = bytes.fromhex(case["parameters"])
    coordinator = CoordinatorRound(parameters, members=members)
    agents = {name: agent_of(case, name, members) for name in coordinator.parameters.invited}
    out: Json = {step: {} for step in ("join", "roster", "upload", "manifest", "confirm", "reveal")}

    def done(step: str) -> bool:
        return step == until

    for name in case["joins"]:
        out["join"][name] = agents[name].join().hex()
        coordinator.on_join(name, bytes.fromhex(out["join"][name]))
    rosters = coordinator.close_joins()
    out["roster"] = {name: message.hex() for name, message in rosters.items()}
    if done("roster"):
        return out, agents
    for name, message in rosters.items():
        assert agents[name].on_roster(message) is None
    for name in case["uploads"]:
        vector = np.array([int(v) for v in case["vectors"][name]], dtype=coordinator.parameters.dtype)
        sink, chunks = coordinator.start_upload(name), list(agents[name].masked_chunks(vector, case["chunk_bytes"]))
        for chunk in chunks:
            sink.feed(chunk)
        out["upload"][name] = b"".join(chunks).hex()
        out["manifest"][name] = agents[name].manifest().hex()
        sink.finish(bytes.fromhex(out["manifest"][name]))
    out["survivors"] = coordinator.close_uploads().hex()
    if done("survivors"):
        return out, agents
    for name in case["confirms"]:
        out["confirm"][name] = agents[name].on_survivors(bytes.fromhex(out["survivors"])).hex()
        coordinator.on_confirm(name, bytes.fromhex(out["confirm"][name]))
    out["confirmations"] = coordinator.close_confirms().hex()
    if done("confirmations"):
        return out, agents
    for name in case["reveals"]:
        out["reveal"][name] = agents[name].on_confirmations(bytes.fromhex(out["confirmations"])).hex()
        coordinator.on_reveal(name, bytes.fromhex(out["reveal"][name]))
    out["sum"] = [str(value) for value in coordinator.result()]
    if coordinator.parameters.rungs:
        opened = zip(coordinator.survivors, coordinator.layer_keys, strict=True)
        out["layer_keys"] = {name: [key.hex() for key in layers] for name, layers in opened}
    return out, agents


def agent_of(case: Json, name: str, members: dict[str, Member]) -> AgentRound:
    secrets = case["members"][name]
    stream = bytes.fromhex(secrets["random"])
    position = 0

    def draw(size: int) -> bytes:
        nonlocal position
        position += size
        assert position <= len(stream)
        return stream[position - size : position]

    return AgentRound(
        bytes.fromhex(case["parameters"]),
        me=name,
        identity_key=Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secrets["identity_private"])),
        epoch_key=X25519PrivateKey.from_private_bytes(bytes.fromhex(secrets["epoch_private"])),
        members=members,
        minimum_cohort=3,
        colluders=1,
        random_bytes=draw,
    )


def golden() -> Json:
    if not PATH.exists():  # only while the file is being written
        return {"version": 1, "rounds": [], "refused": []}
    loaded: Json = json.loads(PATH.read_text())
    return loaded


GOLDEN = golden()


def test_the_file_is_of_this_version() -> None:
    assert GOLDEN["version"] == 1
    assert len(GOLDEN["rounds"]) == 4
    assert len(GOLDEN["refused"]) >= 20


@pytest.mark.parametrize("case", GOLDEN["rounds"], ids=lambda case: case["name"])
def test_a_round_is_the_recorded_one_byte_for_byte(case: Json) -> None:
    assert parse_parameters(bytes.fromhex(case["parameters"])).round_id.hex() == case["round_id"]
    messages, _ = play(case)
    assert messages == case["messages"]
    modulus = 1 << parse_parameters(bytes.fromhex(case["parameters"])).ring_bits
    columns = zip(*(case["vectors"][name] for name in case["uploads"]), strict=True)
    assert case["messages"]["sum"] == [str(sum(map(int, column)) % modulus) for column in columns]


@pytest.mark.parametrize("case", GOLDEN["refused"], ids=lambda case: case["name"])
def test_a_recorded_bad_message_is_refused(case: Json) -> None:
    base = next(one for one in GOLDEN["rounds"] if one["name"] == case["round"])
    kind = getattr(refusals, case["refusal"])
    message = bytes.fromhex(case["message"])
    with pytest.raises(ProtocolViolation) as caught:
        deliver(base, case["step"], case["to"], message)
    assert type(caught.value) is kind
    assert caught.value.party == "coordinator"


def deliver(base: Json, step: str, to: str, message: bytes) -> None:
    """Show one agent a message at a step, after everything honest before it."""
    if step == "parameters":
        parse_parameters(message)
        return
    _, agents = play(base, until=step)
    handlers: dict[str, Callable[[bytes], object]] = {
        "roster": agents[to].on_roster,
        "survivors": agents[to].on_survivors,
        "confirmations": agents[to].on_confirmations,
    }
    handlers[step](message)


def write() -> None:
    """Make the file anew. Keys and randomness come from fixed seeds."""
    rounds = [
        record("everyone answers, ring 2^64", 3, 64, 3, {}),
        record("one does not upload, ring 2^32, two chunks", 4, 32, 5, {"uploads": "abd", "chunk_bytes": 16}),
        record(
            "one of six does not join",
            6, 64, 2, {"joins": "abcdf", "uploads": "abcdf", "confirms": "abcdf", "reveals": "abcdf"},
        ),
        record(
            "two layers of noise, of which five of six survivors open one",
            6, 64, 2, {"uploads": "abcdf"}, threshold=4, rungs=(5, 6),
        ),
    ]  # fmt: skip
    text = json.dumps({"version": 1, "rounds": rounds, "refused": refused(rounds[1])}, indent=1)
    PATH.write_text(text + "\n")


def record(
    name: str,
    n: int,
    ring_bits: int,
    length: int,
    steps: Json,
    *,
    threshold: int | None = None,
    rungs: tuple[int, ...] = (),
) -> Json:
    names = "abcdef"[:n]
    consortium = Consortium(names, random_bytes=seeded(name.encode()))
    parameters = consortium.parameters(
        length=length,
        ring_bits=ring_bits,
        threshold=threshold,
        rungs=rungs,
        random_bytes=seeded(b"nonce" + name.encode()),
    )
    draws = 64 + n * (32 * (2 + len(rungs)) + 16 * (2 + len(rungs)) + 12)
    numbers = seeded(b"vectors" + name.encode())
    case: Json = {
        "name": name,
        "parameters": parameters.hex(),
        "round_id": parse_parameters(parameters).round_id.hex(),
        "members": {
            one: {
                "organisation": member.organisation,
                "identity_private": consortium.identity_keys[one].private_bytes_raw().hex(),
                "identity_public": member.identity_key.hex(),
                "epoch_private": consortium.epoch_keys[one].private_bytes_raw().hex(),
                "epoch_public": member.epoch_key.hex(),
                "random": seeded(b"round" + one.encode() + name.encode())(draws).hex(),
            }
            for one, member in consortium.members.items()
        },
        "vectors": {one: [str(int.from_bytes(numbers(ring_bits // 8), "big")) for _ in range(length)] for one in names},
        "joins": names,
        "uploads": names,
        "confirms": names,
        "reveals": names,
        "chunk_bytes": 1 << 20,
        **steps,
    }
    case["messages"], _ = play(case)
    return case


def refused(base: Json) -> list[Json]:
    """Bad messages to agents of one recorded round, with the refusal that each must meet."""
    found: list[Json] = []

    def add(name: str, step: str, to: str, message: bytes) -> None:
        try:
            deliver(base, step, to, message)
        except ProtocolViolation as violation:
            refusal = type(violation).__name__
        else:
            raise AssertionError(f"{name} is accepted")
        case = {
            "name": name,
            "round": base["name"],
            "step": step,
            "to": to,
            "message": message.hex(),
            "refusal": refusal,
        }
        found.append(case)

    def edited(kind: Any, message: str, edit: Callable[[Any], object]) -> bytes:
        parsed = kind.FromString(bytes.fromhex(message))
        edit(parsed)
        return bytes(parsed.SerializeToString(deterministic=True))

    says = base["messages"]
    sources = {
        "parameters": (pb.RoundParameters, base["parameters"]),
        "roster": (pb.Roster, says["roster"]["a"]),
        "survivors": (pb.Survivors, says["survivors"]),
        "confirmations": (pb.Confirmations, says["confirmations"]),
    }
    for step, (_, message) in sources.items():
        honest = bytes.fromhex(message)
        add(f"{step}: truncated", step, "a", honest[:-1])
        add(f"{step}: empty", step, "a", b"")
        add(f"{step}: an unknown field", step, "a", honest + b"\xfa\x07\x00")
        add(f"{step}: twice in one", step, "a", honest + honest)
    edits: dict[str, list[tuple[str, Callable[[Any], object]]]] = {
        "parameters": [
            ("threshold 1", lambda m: setattr(m, "threshold", 1)),
            ("2t = n + c", lambda m: setattr(m, "colluders", 2)),
            ("unsorted", lambda m: m.invited.reverse()),
            ("cohort of two", lambda m: setattr(m, "minimum_cohort", 2)),
            ("ring of 16 bits", lambda m: setattr(m, "ring_bits", 16)),
            ("short nonce", lambda m: setattr(m, "nonce", bytes(31))),
        ],
        "roster": [
            ("below the threshold", lambda m: m.entries.__delitem__(slice(2, None))),
            ("without the receiver", lambda m: m.entries.__delitem__(0)),
            ("a forged signature", lambda m: setattr(m.entries[1], "signature", bytes(64))),
            ("an altered share", lambda m: setattr(m.entries[1].share, "sealed", bytes(124))),
            ("the receiver's share to itself", lambda m: m.entries[0].share.SetInParent()),
            ("a proof cut short", lambda m: m.entries[1].proof.__delitem__(0)),
            ("a drawn graph", lambda m: setattr(m, "graph_seeds", bytes(64))),
        ],
        "survivors": [
            ("below the threshold", lambda m: m.manifests.__delitem__(0)),
            ("the receiver's hash altered", lambda m: setattr(m.manifests[0], "vector_hash", bytes(32))),
            ("the list of a drawn graph", lambda m: setattr(m, "present", bytes([15]))),
            ("a stranger", lambda m: setattr(m.manifests[2], "member", "z")),
        ],
        "confirmations": [
            ("below the threshold", lambda m: m.confirms.__delitem__(0)),
            ("a forged signature", lambda m: setattr(m.confirms[1], "signature", bytes(64))),
        ],
    }
    for step, changes in edits.items():
        for name, edit in changes:
            add(f"{step}: {name}", step, "a", edited(*sources[step], edit))
    return found


if __name__ == "__main__":
    write()
