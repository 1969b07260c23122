"""Coverage-guided fuzzing of everything that parses bytes of strangers.

    python fuzz/parsers.py --list                      # the targets
    python fuzz/parsers.py roster -max_total_time=60   # fuzz one with atheris; options are libFuzzer's
    make fuzz                                          # all of them, FUZZ_SECONDS each

A target is given bytes and may refuse them with the error that its parser documents, and with no other; what it accepts
must come back from its encoder as the very same bytes, where there is one valid encoding. What only a signer can write
is signed here first, so that the parser behind the signature is reached. Half of all mutations change one field of the
message and encode it again, since flipped bytes rarely survive protobuf's own framing. tests/property runs the same
targets for a moment under hypothesis, so that they stay true.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parents[1] / "build" / "fuzz"


@dataclass(frozen=True)
class Target:
    """A parser as a function of bytes, honest input to start from, and the protobuf message that the bytes hold."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    kind: type[Any] | None = field(default=None)


def secagg_targets() -> Iterator[tuple[str, Target]]:
    """Every message of a round, as its receiver parses it."""
    from protos.v1 import secagg_pb2 as pb
    from queries.errors import ProtocolViolation
    from trust.secagg import parameters
    from trust.secagg.messages import (
        Complaint,
        Confirm,
        Join,
        JoinPublic,
        Manifest,
        encode_confirmations,
        encode_reveal,
        encode_roster,
        encode_survivors,
        parse_confirmations,
        parse_reveal,
        parse_roster,
        parse_survivors,
    )
    from trust.secagg.rehearsal import Consortium, Rehearsal, seeded

    everyone = ("a", "b", "c", "d")
    consortium = Consortium(everyone, random_bytes=seeded(b"fuzz"))
    round_ = Rehearsal(consortium, consortium.parameters(random_bytes=seeded(b"round")))
    round_.run()
    sent = {(member, step): message for member, step, message in round_.received}

    def same(parse: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> Callable[[bytes], None]:
        def run(data: bytes) -> None:
            try:
                value = parse(data)
            except ProtocolViolation as violation:
                if not violation.party:
                    raise AssertionError("a refusal names nobody") from violation
                return
            assert encode(value) == data, "two encodings of one message"

        return run

    join = sent["b", "join"]
    complaint = Complaint("b", ("a", "c"), bytes(64)).encode()
    own = {
        "parameters": (parameters.parse_parameters, lambda v: v.encode(), pb.RoundParameters, round_.encoded),
        "join": (lambda d: Join.parse(d, "b", everyone), lambda v: v.encode(), pb.Join, join),
        "join-public": (
            lambda d: JoinPublic.parse(d, "b"),
            lambda v: v.data,
            pb.JoinPublic,
            pb.Join.FromString(join).public_part,
        ),
        "roster": (lambda d: parse_roster(d, "b", everyone), encode_roster, pb.Roster, round_.rosters["b"]),
        "complaint": (lambda d: Complaint.parse(d, "b", everyone), lambda v: v.encode(), pb.Complaint, complaint),
        "manifest": (
            lambda d: Manifest.parse(d, "b"),
            lambda v: v.encode(),
            pb.Manifest,
            sent["b", "manifest"],
        ),
        "survivors": (lambda d: parse_survivors(d, everyone), encode_survivors, pb.Survivors, round_.survivors),
        "confirm": (lambda d: Confirm.parse(d, "b"), lambda v: v.encode(), pb.Confirm, sent["b", "confirm"]),
        "confirmations": (
            lambda d: parse_confirmations(d, everyone),
            encode_confirmations,
            pb.Confirmations,
            round_.confirmations,
        ),
        "reveal": (lambda d: parse_reveal(d, "b", len(everyone)), encode_reveal, pb.Reveal, sent["b", "reveal"]),
    }
    for name, (parse, encode, kind, seed) in own.items():
        yield name, Target(same(parse, encode), (seed,), kind)


def query_targets() -> Iterator[tuple[str, Target]]:
    """A query's bytes, a question in SQL, a description of data."""
    from protos.v1 import query_pb2, schema_pb2
    from queries import schema, sql
    from queries.encode import decode_query, encode_query
    from queries.errors import QueryError, SchemaError
    from queries.resolve import resolve

    dataset = schema.from_toml(
        'name = "people"\n[columns.age]\ntype = "integer"\nlower = 0\nupper = 100\n'
        '[columns.sex]\ntype = "category"\ncategories = ["f", "m"]\n'
    )
    questions = (
        "SELECT sex, COUNT(*) AS n, AVG(age) AS a FROM people WHERE age >= 18 AND NOT sex IN ('f') GROUP BY sex",
        "SELECT HISTOGRAM(age, 5), STDDEV(age), SUM(age) FROM people WHERE age BETWEEN 1 AND 2 OR sex IS NULL",
    )

    def query(data: bytes) -> None:
        try:
            found = decode_query(data)
        except QueryError:
            return
        assert encode_query(found) == data, "two encodings of one query"
        try:
            resolved = resolve(found, dataset)
        except QueryError:
            return
        assert resolve(resolved, dataset) == resolved

    def question(data: bytes) -> None:
        try:
            found = sql.parse(data.decode("utf-8", "replace"), {"people": dataset})
        except QueryError:
            return
        assert decode_query(encode_query(found)) == found

    def description(data: bytes) -> None:
        try:
            found = schema.from_bytes(data)
        except SchemaError:
            return
        assert schema.from_bytes(schema.to_bytes(found)) == found

    encoded = tuple(encode_query(sql.parse(text, {"people": dataset})) for text in questions)
    yield "query", Target(query, encoded, query_pb2.Query)
    yield "sql", Target(question, tuple(text.encode() for text in questions))
    yield "schema", Target(description, (schema.to_bytes(dataset),), schema_pb2.Dataset)


def identity_targets() -> Iterator[tuple[str, Target]]:
    """Envelopes as they come, what is inside signed ones, invitations with their checksum made right."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from protos.v1 import enrolment_pb2, envelope_pb2, membership_pb2, query_pb2
    from queries.errors import CohortiumError, IdentityError, InvitationError, SignatureError
    from trust.identity import envelope, invitation, keys, membership, requests

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = keys.public_bytes(key)

    def enveloped(data: bytes) -> None:
        try:
            envelope.verify(data, "application/x", public)
        except SignatureError:
            return

    def document(payload: bytes) -> None:
        try:
            membership.verify(membership.sign(payload, key), public, consortium="heart-study")
        except (IdentityError, SignatureError):
            return

    people = membership.build(
        consortium="heart-study",
        epoch=1,
        previous_hash=b"",
        issued_at=1_700_000_000,
        institutions=(),
        people=(membership.Person("ada", ("analyst",), public),),
        log_key=bytes(range(32)),
        log_origin="cohortium/heart-study",
        minimum_cohort=3,
        colluders=1,
    )
    known = membership.verify(membership.sign(people, key), public, consortium="heart-study")
    _, signed = requests.build_request(
        key=key,
        consortium="heart-study",
        analyst="ada",
        purpose="research",
        dataset="people",
        schema_hash=bytes(32),
        query=b"q",
        rho_nano=1,
        minimum_cohort=3,
        now=1_700_000_000,
    )
    asked = envelope_pb2.Envelope.FromString(signed)

    def request(payload: bytes) -> None:
        try:
            requests.verify_request(
                envelope.sign(asked.payload_type, payload, key), known, "heart-study", 1_700_000_000
            )
        except CohortiumError:
            return

    def token(body: bytes) -> None:
        text = invitation.PREFIX + invitation._encode(
            len(body).to_bytes(2, "big") + body + invitation._checksum(body) if len(body) < 1 << 16 else body
        )
        for tried in (text, body.decode("utf-8", "replace")):
            try:
                invitation.Invitation.from_token(tried)
            except InvitationError:
                continue

    body = enrolment_pb2.Invitation(
        consortium="heart-study", address="localhost:7443", ca=b"der", governance_key=public, invitation_id="i",
        secret=bytes(32), participant="ada", role="analyst", expires_at=1_700_000_000,
    ).SerializeToString(deterministic=True)  # fmt: skip
    yield "envelope", Target(enveloped, (envelope.sign("application/x", b"payload", key),), envelope_pb2.Envelope)
    yield "membership", Target(document, (people,), membership_pb2.Membership)
    yield "request", Target(request, (asked.payload,), query_pb2.QueryRequest)
    yield "invitation", Target(token, (body,), enrolment_pb2.Invitation)


def log_targets() -> Iterator[tuple[str, Target]]:
    """Signed notes, the checkpoints in them, and entries."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from protos.v1 import log_pb2
    from queries.errors import LogError
    from trust.tlog import checkpoint, entries, notes

    signer = notes.Signer("cohortium/heart", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    text = checkpoint.Checkpoint("cohortium/heart", 7, bytes(32)).text()

    def note(data: bytes) -> None:
        try:
            found = notes.parse(data)
        except LogError:
            return
        assert notes.build(found.text, found.lines) == data, "two spellings of one note"

    def head(data: bytes) -> None:
        try:
            found = checkpoint.parse(data.decode())
        except (LogError, UnicodeError):
            return
        assert found.text().encode() == data, "two spellings of one checkpoint"

    def entry(data: bytes) -> None:
        try:
            found = entries.decode(data)
        except LogError:
            return
        assert "\n" not in entries.sentence(1, found)
        entries.columns(found)

    leaf = log_pb2.LogEntry(
        actor="ada", at_ms=1, failed=log_pb2.Failed(request_id=bytes(32), reason="quorum")
    ).SerializeToString(deterministic=True)
    yield "note", Target(note, (notes.sign(text, signer),))
    yield "checkpoint", Target(head, (text.encode(),))
    yield "log-entry", Target(entry, (leaf,), log_pb2.LogEntry)


def targets() -> dict[str, Target]:
    """Return every target by name."""
    made = (secagg_targets(), query_targets(), identity_targets(), log_targets())
    return {name: target for some in made for name, target in some}


# --- mutations that know the message ---------------------------------------------------------------------------------


def mutated(kind: type[Any], data: bytes, draw: random.Random) -> bytes | None:
    """Return `data` with one field of its message changed, or None where it is no such message."""
    message = kind()
    try:
        message.ParseFromString(data)
    except Exception:  # protobuf's DecodeError lives in different modules per back end
        return None
    try:
        change(message, draw)
        return bytes(message.SerializeToString(deterministic=True))
    except (ValueError, UnicodeError):  # a text that is no UTF-8, a number out of range
        return None


def change(message: Any, draw: random.Random) -> None:
    """Change one field somewhere in a message: another value, cleared, an entry gone, repeated or put elsewhere."""
    fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return  # an empty message says all it can by being there
    descriptor = draw.choice(fields)
    value = getattr(message, descriptor.name)
    if descriptor.is_repeated:
        _change_list(value, descriptor, draw)
    elif descriptor.message_type:
        if draw.random() < 0.1:
            message.ClearField(descriptor.name)
        else:
            change(value, draw)
            value.SetInParent()
    elif descriptor.containing_oneof and draw.random() < 0.5:
        return
    else:
        setattr(message, descriptor.name, _scalar(value, draw))


def _change_list(value: Any, descriptor: Any, draw: random.Random) -> None:
    at = draw.randrange(len(value)) if len(value) else 0
    match draw.randrange(4):
        case 0 if len(value):
            del value[at]
        case 1 if descriptor.message_type and len(value):
            value.add().CopyFrom(value[at])
        case 2 if descriptor.message_type and len(value):
            change(value[at], draw)
        case _ if descriptor.message_type:
            change(value.add(), draw)
        case 1 if len(value):
            value.append(value[at])
        case 2 if len(value):
            value[at] = _scalar(value[at], draw)
        case _:
            value.append(_scalar(_empty(descriptor), draw))


def _empty(descriptor: Any) -> Any:
    return {descriptor.TYPE_BYTES: b"", descriptor.TYPE_STRING: "", descriptor.TYPE_DOUBLE: 0.0}.get(descriptor.type, 0)


def _scalar(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice((value + 1, value - 1, 0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, draw.getrandbits(8)))
    if isinstance(value, float):
        return draw.choice((-value, 0.0, 1e308, float("inf"), float("nan"), draw.gauss(0, 100)))
    if isinstance(value, str):
        return draw.choice(("", value * 2, value[1:], "b", "é\u0000\n", "x" * 129, value + "a"))
    size = draw.choice((0, 1, 16, 32, 64, len(value), len(value) + 1))
    return draw.choice((value[:-1], value + b"\0", bytes(size), draw.randbytes(size), value[::-1]))


def main() -> None:
    """List the targets, or fuzz one for as long as libFuzzer's options say."""
    if sys.argv[1:2] == ["--list"]:
        print("\n".join(targets()))
        return
    import atheris

    with atheris.instrument_imports(include=["trust", "queries", "protos", "sqlglot"]):
        chosen = targets()
    name = sys.argv.pop(1)
    target = chosen[name]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed{number}").write_bytes(seed)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)  # noqa: S311 - a fuzzer's choices are to be repeatable
        if target.kind is not None and draw.random() < 0.5:
            changed = mutated(target.kind, data, draw)
            if changed is not None and len(changed) <= most:
                return changed
        return bytes(atheris.Mutate(data, most))

    atheris.Setup([sys.argv[0], *sys.argv[1:], str(corpus)], target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
