"""A witness without data: an auditor's folder that cosigns over the wire, and what it does when the log is another."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from harness.consortium import Consortium, consortium

from analytics_client.agent.watch import FILE, _alone, watch
from analytics_client.audit_session import open_log
from analytics_server import governance
from queries.errors import ConfigError, LogError, PolicyDenied
from trust.identity import files

SCHEMA = """
name = "people"
privacy_unit = "id"
max_persons = 1000
[columns.age]
type = "integer"
lower = 0
upper = 100
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """A coordinator with an auditor, an analyst, and no institution: the board is the only witness."""
    with consortium(tmp_path_factory.mktemp("board"), [SCHEMA], {}) as built:
        yield built


def test_the_board_cosigns_and_the_log_keeps_it(running: Consortium) -> None:
    said: list[str] = []
    watch(running.folder / "olga", once=True, say=said.append)
    kept = json.loads((running.folder / "olga" / FILE).read_text())
    assert said == [f"cosigned the head of {kept['size']} entries of {running.config.log_origin}"]
    with open_log(running.folder / "olga") as session:
        report, _ = session.verify()
    assert report.ok
    assert report.witnesses == {"olga": kept["size"]}
    # The read just made is an entry: the next head continues this one.
    watch(running.folder / "olga", once=True, say=said.append)
    assert json.loads((running.folder / "olga" / FILE).read_text())["size"] == kept["size"] + 1


def test_the_head_is_durable_before_the_cosignature_leaves(
    running: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_log(running.folder / "olga") as session:
        session.reader.heads()
        list(session.reader.entries(limit=1))
    before = (running.folder / "olga" / FILE).read_text()

    def full(*_: object, **__: object) -> None:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(files, "replace", full)
    said: list[str] = []
    with pytest.raises(ConfigError, match="full"):
        watch(running.folder / "olga", once=True, say=said.append)
    assert said == []
    assert (running.folder / "olga" / FILE).read_text() == before


@pytest.mark.parametrize(("size", "message"), [(0, "forked"), (1000, "seen")], ids=["forked", "rewound"])
def test_a_rewritten_log_is_refused(running: Consortium, size: int, message: str) -> None:
    path = running.folder / "olga" / FILE
    watch(running.folder / "olga", once=True, say=lambda _: None)
    good = path.read_text()
    kept = json.loads(good)
    path.write_text(json.dumps({"size": size or kept["size"], "root": "00" * 32}))
    try:
        with pytest.raises(LogError, match=message):
            watch(running.folder / "olga", once=True, say=lambda _: None)
    finally:
        path.write_text(good)


def test_others_are_no_witnesses(running: Consortium) -> None:
    with pytest.raises(ConfigError, match="not of an auditor"):
        watch(running.folder / "ada", once=True, say=lambda _: None)


def test_one_witness_per_folder(running: Consortium) -> None:
    with _alone(running.folder / "olga"), pytest.raises(ConfigError, match="already running"):
        watch(running.folder / "olga", once=True, say=lambda _: None)


def kept_cosignatures(running: Consortium) -> int:
    with governance.opened(running.config) as (store, _), store.read() as uow:
        newest = uow.latest_checkpoint()
        assert newest is not None
        return len(uow.cosignatures(0, newest.size))


def test_a_cosignature_by_another_key_is_not_kept(running: Consortium) -> None:
    from protos.v1 import audit_pb2, audit_pb2_grpc
    from trust.rpc import channel as channels
    from trust.rpc.errors import translated

    before = kept_cosignatures(running)
    with open_log(running.folder / "olga") as session:
        profile = session.profile
        note = session.reader.heads().checkpoint
    request = audit_pb2.WitnessRequest(
        size=int(note.split(b"\n")[1]), cosignature="— olga AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    )
    with (
        channels.connect(profile.address, profile.tls()) as channel,
        pytest.raises(LogError),
        translated(profile.address),
    ):
        audit_pb2_grpc.AuditStub(channel).Witness(request, timeout=10)
    assert kept_cosignatures(running) == before


def test_an_analyst_gets_no_heads(running: Consortium) -> None:
    with open_log(running.folder / "ada") as session, pytest.raises(PolicyDenied):
        session.reader.heads()
