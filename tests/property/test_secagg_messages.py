"""Whatever bytes arrive, a party answers with a ProtocolViolation that names the sender, and with nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protos.v1 import secagg_pb2 as pb
from queries.errors import ProtocolViolation
from trust.secagg import messages, parse_parameters
from trust.secagg.keys import PairKeys, complaint_statement
from trust.secagg.rehearsal import Consortium, Rehearsal

EVERYONE = "abcd"
CONSORTIUM = Consortium(EVERYONE)
Handle = Callable[[bytes], object]


class Stage:
    """A receiver that stands ready for one message of one kind, the honest message, and who would have sent it."""

    def __init__(self, kind: type[Message], honest: bytes, party: str, handle: Handle) -> None:
        self.kind, self.honest, self.party, self.handle = kind, honest, party, handle


def coordinator_after(rehearsal: Rehearsal) -> Any:
    """A copy of the coordinator that a refused message may change, without its neighbours noticing."""
    twin = copy.copy(rehearsal.coordinator)
    for name, value in vars(twin).items():
        if isinstance(value, dict | set):
            setattr(twin, name, copy.copy(value))
    return twin


def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    encoded = CONSORTIUM.parameters()
    found["parameters"] = Stage(pb.RoundParameters, encoded, "coordinator", parse_parameters)

    fresh = Rehearsal(CONSORTIUM)
    join = fresh.agents["b"].join()
    found["join"] = Stage(pb.Join, join, "b", lambda m: coordinator_after(fresh).on_join("b", m))

    before_roster = Rehearsal(CONSORTIUM)
    for name in EVERYONE:
        before_roster.coordinator.on_join(name, before_roster.agents[name].join())
    roster = before_roster.coordinator.close_joins()["a"]
    found["roster"] = Stage(pb.Roster, roster, "coordinator", lambda m: agent(before_roster, "a").on_roster(m))

    going = Rehearsal(CONSORTIUM)
    going.join(EVERYONE)
    statement = complaint_statement(going.parameters.round_id, going.agents["b"]._roster_hash, "b", ("a", "c"))
    complaint = messages.Complaint("b", ("a", "c"), CONSORTIUM.identity_keys["b"].sign(statement)).encode()
    found["complaint"] = Stage(pb.Complaint, complaint, "b", lambda m: coordinator_after(going).on_complaint("b", m))
    data = b"".join(going.agents["b"].masked_chunks(going.vectors["b"]))
    manifest = going.agents["b"].manifest()

    def finish(message: bytes) -> None:
        twin = coordinator_after(going)
        sink = twin.start_upload("b")
        sink.feed(data)
        sink.finish(message)

    found["manifest"] = Stage(pb.Manifest, manifest, "b", finish)
    finish(manifest)

    done = Rehearsal(CONSORTIUM)
    done.join(EVERYONE)
    done.upload(EVERYONE)
    ready = agent(done, "a")
    before_confirm = coordinator_after(done)
    confirm = agent(done, "b").on_survivors(done.survivors)
    found["confirm"] = Stage(pb.Confirm, confirm, "b", lambda m: copy_of(before_confirm).on_confirm("b", m))
    done.confirm(EVERYONE)
    found["survivors"] = Stage(
        pb.Survivors, done.survivors, "coordinator", lambda m: shown_survivors(ready, m, done.confirmations)
    )
    confirmed = agent(done, "a")
    found["confirmations"] = Stage(
        pb.Confirmations,
        done.confirmations,
        "coordinator",
        lambda m: copy.copy(confirmed).on_confirmations(m),
    )
    reveal = agent(done, "b").on_confirmations(done.confirmations)
    found["reveal"] = Stage(pb.Reveal, reveal, "b", lambda m: coordinator_after(done).on_reveal("b", m))
    return found


def agent(rehearsal: Rehearsal, name: str) -> Any:
    twin = agent_copy(rehearsal.agents[name])
    twin._pair_keys = PairKeys(CONSORTIUM.epoch_keys[name])
    return twin


def agent_copy(original: Any) -> Any:
    twin = copy.copy(original)
    twin._held, twin._shared = dict(twin._held), dict(twin._shared)
    return twin


def copy_of(coordinator: Any) -> Any:
    twin = copy.copy(coordinator)
    twin._confirms, twin.blamed = dict(coordinator._confirms), dict(coordinator.blamed)
    return twin


def shown_survivors(ready: Any, message: bytes, confirmations: bytes) -> None:
    """The list is refused at once or, where a signature in it is bad, when it is to be acted upon."""
    twin = agent_copy(ready)
    twin.on_survivors(message)
    twin.on_confirmations(confirmations)


STAGES = stages()
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(stage: Stage, message: bytes) -> None:
    """The message is refused in the sender's name, unless it is one that an honest sender could have sent."""
    if could_be_honest(stage, message):
        return
    with pytest.raises(ProtocolViolation) as caught:
        stage.handle(message)
    assert caught.value.party == stage.party
    assert "\n" not in caught.value.message


def could_be_honest(stage: Stage, message: bytes) -> bool:
    if message == stage.honest:
        return True
    if stage.kind is pb.RoundParameters:  # other parameters may be as good; that nothing else is raised counts here
        try:
            parse_parameters(message)
        except ProtocolViolation:
            return False
        return True
    if stage.kind is pb.Roster and isinstance(message, bytes):  # one member fewer is still enough
        whole = list(pb.Roster.FromString(stage.honest).entries)
        shorter = [whole[:i] + whole[i + 1 :] for i in range(1, len(whole))]
        return message in [pb.Roster(entries=s).SerializeToString(deterministic=True) for s in shorter]
    if stage.kind is pb.Survivors and isinstance(message, bytes):
        return differs_where_confirms_vouch(stage.honest, message)
    return False


def differs_where_confirms_vouch(honest: bytes, message: bytes) -> bool:
    """Whether only the signatures of b's and c's manifests differ: their CONFIRMs prove those manifests as well."""
    try:
        changed = pb.Survivors.FromString(message)
    except DecodeError:
        return False
    if len(changed.manifests) != 4 or any(len(changed.manifests[i].signature) != 64 for i in (1, 2)):
        return False
    expected = pb.Survivors.FromString(honest)
    for i in (1, 2):
        expected.manifests[i].signature = changed.manifests[i].signature
    return message == expected.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", STAGES)
def test_the_honest_message_is_taken(name: str) -> None:
    STAGES[name].handle(STAGES[name].honest)


@pytest.mark.parametrize("name", STAGES)
@QUICK
@given(data=st.data())
def test_arbitrary_bytes_are_refused(name: str, data: st.DataObject) -> None:
    refused(STAGES[name], data.draw(st.binary(max_size=200)))


@pytest.mark.parametrize("name", STAGES)
@QUICK
@given(data=st.data())
def test_flipped_bits_are_refused(name: str, data: st.DataObject) -> None:
    message = bytearray(STAGES[name].honest)
    at = data.draw(st.integers(0, len(message) * 8 - 1))
    message[at // 8] ^= 1 << at % 8
    refused(STAGES[name], bytes(message))


@pytest.mark.parametrize("name", STAGES)
@QUICK
@given(data=st.data())
def test_truncated_extended_and_repeated_bytes_are_refused(name: str, data: st.DataObject) -> None:
    honest = STAGES[name].honest
    cut = data.draw(st.integers(0, len(honest) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=20))
    for message in (honest[:cut], honest + extra, honest[:cut] + extra + honest[cut:], honest + honest):
        refused(STAGES[name], message)


@pytest.mark.parametrize("name", STAGES)
@QUICK
@given(data=st.data())
def test_every_field_with_another_value_is_refused(name: str, data: st.DataObject) -> None:
    message = STAGES[name].kind.FromString(STAGES[name].honest)
    mutate(message, data)
    refused(STAGES[name], message.SerializeToString(deterministic=True))


def mutate(message: Message, data: st.DataObject) -> None:
    """Change one field somewhere in the message: cleared, another length, another value, an entry gone or repeated."""
    descriptor = data.draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
    value = getattr(message, descriptor.name)
    if descriptor.is_repeated:
        if value and data.draw(st.booleans()):
            inside = data.draw(st.integers(0, len(value) - 1))
            if descriptor.message_type and data.draw(st.booleans()):
                mutate(value[inside], data)
            else:
                del value[inside]
        elif descriptor.message_type:
            value.add().CopyFrom(value[0]) if value else value.add()
        else:
            value.append(scalar(descriptor, data))
    elif descriptor.message_type:
        mutate(value, data)
    else:
        setattr(message, descriptor.name, scalar(descriptor, data))


def scalar(descriptor: Any, data: st.DataObject) -> Any:
    return data.draw(
        {
            descriptor.TYPE_BYTES: st.binary(max_size=130),
            descriptor.TYPE_STRING: st.text(max_size=130),
            descriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
            descriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
        }[descriptor.type]
    )


def test_what_is_no_byte_string_is_refused() -> None:
    for stage in STAGES.values():
        refused(stage, "text")  # type: ignore[arg-type] # the point of the test


def test_oversized_messages_are_refused_unread() -> None:
    for stage in STAGES.values():
        with pytest.raises(ProtocolViolation, match="more than"):
            stage.handle(bytes(1 << 20))
