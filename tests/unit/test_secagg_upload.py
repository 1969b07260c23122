"""Uploads: added only when complete and verified, kept on disk where large, dropped by name where the disk fails."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from queries.errors import QuorumError, RoundError, ServiceError
from trust.secagg import spool as spools
from trust.secagg.coordinator import CoordinatorRound
from trust.secagg.refusals import OutOfStep
from trust.secagg.rehearsal import Consortium, Rehearsal
from trust.secagg.spool import SMALL_BYTES, Spool

LARGE = SMALL_BYTES // 8 + 5
"""Entries of a vector that waits on the disk, and needs two chunks."""


def rehearse(spool: Spool, length: int = LARGE, names: str = "abcd") -> Rehearsal:
    consortium = Consortium(names)
    rehearsal = Rehearsal(consortium, consortium.parameters(length=length))
    rehearsal.coordinator = CoordinatorRound(rehearsal.encoded, members=consortium.members, spool=spool)
    rehearsal.join(rehearsal.parameters.invited)
    return rehearsal


def finish(rehearsal: Rehearsal, who: str) -> bool:
    """Take the round from closed uploads to its end; whether the sum is right."""
    rehearsal.survivors = rehearsal.coordinator.close_uploads()
    rehearsal.confirm(who)
    return bool((rehearsal.reveal(who) == rehearsal.expected()).all())


def upload(rehearsal: Rehearsal, *who: str) -> None:
    for name in who:
        sink = rehearsal.coordinator.start_upload(name)
        for chunk in rehearsal.agents[name].masked_chunks(rehearsal.vectors[name]):
            sink.feed(chunk)
        sink.finish(rehearsal.agents[name].manifest())


def open_files(folder: Path) -> int:
    """Files in `folder` that this process holds open, unlinked ones included."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except OSError:
            continue  # the one that lists them
    return sum(link.startswith(f"{folder}/") for link in links)


def test_uploads_that_come_in_side_by_side_add_up(tmp_path: Path) -> None:
    rehearsal = rehearse(Spool(tmp_path))
    coordinator = rehearsal.coordinator
    sinks = {name: coordinator.start_upload(name) for name in "abcd"}
    chunks = {name: rehearsal.agents[name].masked_chunks(rehearsal.vectors[name]) for name in "abcd"}
    while chunks:
        for name in list(chunks):
            chunk = next(chunks[name], None)
            if chunk is None:
                del chunks[name]
            else:
                sinks[name].feed(chunk)
    assert open_files(tmp_path) == 4
    assert list(tmp_path.iterdir()) == [], "a file of an upload has no name"
    for name in "abcd":
        sinks[name].finish(rehearsal.agents[name].manifest())
    assert finish(rehearsal, "abcd")


def test_threads_may_feed_while_another_upload_is_finished(tmp_path: Path) -> None:
    rehearsal = rehearse(Spool(tmp_path), length=4 * LARGE)
    adding = threading.Lock()
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            agent, sink = rehearsal.agents[name], rehearsal.coordinator.start_upload(name)
            for chunk in agent.masked_chunks(rehearsal.vectors[name], 1 << 16):
                sink.feed(chunk)
            with adding:
                sink.finish(agent.manifest())
        except BaseException as error:  # shown by the test's own thread
            failed.append(error)

    assert len(rehearsal.vectors) == 4  # drawn here, since the property is not made for threads
    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert finish(rehearsal, "abcd")


def test_a_file_serves_one_upload_after_the_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for length in (LARGE, 2 * LARGE, LARGE):  # a shorter vector after a longer one must not read the longer one's tail
        rehearsal = rehearse(spool, length=length)
        upload(rehearsal, *"abcd")
        assert finish(rehearsal, "abcd")
        assert open_files(tmp_path) == 1
    spool.shrink()
    assert open_files(tmp_path) == 0


def test_files_are_kept_only_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "IDLE_BYTES", LARGE * 8 - 1)
    rehearsal = rehearse(Spool(tmp_path))
    upload(rehearsal, *"abcd")
    assert open_files(tmp_path) == 0


def test_small_uploads_stay_in_memory_while_they_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MEMORY_BYTES", 3 * 80)
    spool = Spool(tmp_path)
    rehearsal = rehearse(spool, length=10)
    sinks = {name: rehearsal.coordinator.start_upload(name) for name in "abcd"}
    for name, sink in sinks.items():
        (chunk,) = rehearsal.agents[name].masked_chunks(rehearsal.vectors[name])
        sink.feed(chunk)
    assert open_files(tmp_path) == 1
    for name, sink in sinks.items():
        sink.finish(rehearsal.agents[name].manifest())
    assert finish(rehearsal, "abcd")
    upload(rehearse(spool, length=10), *"abcd")
    assert open_files(tmp_path) == 1, "memory that came back is used again"


def test_an_upload_dropped_half_way_leaves_sum_and_space_as_they_were(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    rehearsal = rehearse(spool)
    sink = rehearsal.coordinator.start_upload("d")
    chunks = rehearsal.agents["d"].masked_chunks(rehearsal.vectors["d"])
    sink.feed(next(chunks))
    sink.drop()
    with pytest.raises(OutOfStep):
        sink.feed(next(chunks))
    upload(rehearsal, *"abc")
    assert finish(rehearsal, "abc")
    spool.shrink()
    assert open_files(tmp_path) == 0


def test_a_drop_during_a_call_gives_the_space_back_when_the_call_ends(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    rehearsal = rehearse(spool)
    sink = rehearsal.coordinator.start_upload("d")
    chunks = rehearsal.agents["d"].masked_chunks(rehearsal.vectors["d"])
    sink.feed(next(chunks))
    stored = sink._stored
    assert stored is not None
    reached, go = threading.Event(), threading.Event()
    write = stored.write

    def slow(chunk: bytes) -> None:
        reached.set()
        go.wait(10)
        write(chunk)

    stored.write = slow  # type: ignore[method-assign]  # a disk that is slow
    feeding = threading.Thread(target=sink.feed, args=(next(chunks),))
    feeding.start()
    reached.wait(10)
    sink.drop()  # returns at once
    assert open_files(tmp_path) == 1
    go.set()
    feeding.join()
    spool.shrink()
    assert open_files(tmp_path) == 0


FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_secagg_upload import LARGE, finish, rehearse, upload
from queries.errors import ServiceError
from trust.secagg.spool import Spool
rehearsal = rehearse(Spool(Path({folder!r})))
chunks = rehearsal.agents["d"].masked_chunks(rehearsal.vectors["d"])
sink = rehearsal.coordinator.start_upload("d")
sink.feed(next(chunks))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))  # the system itself refuses to write on
try:
    sink.feed(next(chunks))
except ServiceError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
upload(rehearsal, *"abc")
print(finish(rehearsal, "abc"), rehearsal.coordinator.blamed)
"""


def test_a_disk_that_takes_no_more_costs_that_upload_and_nothing_else(tmp_path: Path) -> None:
    program = FULL.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, outcome = done.stdout.splitlines()
    assert said.startswith("the coordinator cannot keep an upload: file too large")
    assert str(tmp_path) in said
    assert outcome == "True {}"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    rehearsal = rehearse(Spool(tmp_path / "gone"))
    sink = rehearsal.coordinator.start_upload("a")
    with pytest.raises(ServiceError, match="no such file or directory"):
        sink.feed(next(rehearsal.agents["a"].masked_chunks(rehearsal.vectors["a"])))
    assert not rehearsal.coordinator.blamed


def test_a_vector_lost_half_added_ends_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsal = rehearse(Spool(tmp_path))
    upload(rehearsal, *"abc")

    def torn(stored: spools._File) -> Iterator[memoryview]:
        yield memoryview(bytes(8))
        raise ServiceError("the coordinator cannot keep an upload: input/output error")

    monkeypatch.setattr(spools._File, "read", torn)
    with pytest.raises(RoundError, match="half added"):
        upload(rehearsal, "d")
    with pytest.raises(RoundError, match="half added") as lost:
        rehearsal.coordinator.close_uploads()
    assert not isinstance(lost.value, QuorumError)
    assert not rehearsal.coordinator.blamed


SIDE_BY_SIDE = """
import resource
from pathlib import Path
from trust.secagg.coordinator import CoordinatorRound
from trust.secagg.rehearsal import Consortium, Rehearsal
from trust.secagg.spool import Spool

consortium, length = Consortium("abcdefgh"), 4_000_000  # 32 MB a vector
rehearsal = Rehearsal(consortium, consortium.parameters(length=length))
spool = Spool(Path({folder!r}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
coordinator = CoordinatorRound(rehearsal.encoded, members=consortium.members, spool=spool)
rehearsal.coordinator = coordinator
rehearsal.join(rehearsal.parameters.invited)
sinks = [coordinator.start_upload(name) for name in consortium.names]
for start in range(0, 8 * length, 1 << 20):
    for sink in sinks:
        sink.feed(bytes(min(1 << 20, 8 * length - start)))
coordinator._sum += 1  # as the first addition does, so that all of the sum is there
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_eight_uploads_at_once_need_no_more_memory_than_two_vectors(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIDE_BY_SIDE.format(folder=str(tmp_path))], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 64, "MiB; eight vectors are 244"


def test_an_upload_is_compared_with_its_manifest_before_it_is_added(tmp_path: Path) -> None:
    rehearsal = rehearse(Spool(tmp_path))
    upload(rehearsal, *"abc")
    sink, agent = rehearsal.coordinator.start_upload("d"), rehearsal.agents["d"]
    for chunk in agent.masked_chunks(rehearsal.vectors["d"]):
        sink.feed(bytes(len(chunk)))
    before = rehearsal.coordinator._sum.copy()
    with pytest.raises(RoundError, match="signed another vector"):
        sink.finish(agent.manifest())
    assert np.array_equal(rehearsal.coordinator._sum, before)
    assert finish(rehearsal, "abc")
