"""`cohortium-server` as its user runs it: real processes, real folders, a coordinator running beside."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from harness.live import heavy_modules

from analytics_client import profile as profiles
from analytics_client.enrolment import enrol, renew
from analytics_client.profile import Profile
from analytics_server import governance
from analytics_server.cli import app, main
from protos.v1 import analyst_pb2, analyst_pb2_grpc
from queries.errors import IdentityError
from trust.identity import membership
from trust.rpc.channel import connect
from trust.rpc.errors import translated

COMMAND = str(Path(sys.executable).with_name("cohortium-server"))
SCHEMA = """
name = "patients"
[columns.age]
type = "integer"
lower = 0
upper = 120
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a short command in this process, as its entry point does: a process each would take half a second."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["cohortium-server", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    return subprocess.CompletedProcess(arguments, int(left.value.code or 0), out.getvalue(), err.getvalue())


def spawn(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def found(folder: Path, *options: str | Path) -> Path:
    members, newcomers = free_ports()
    made = run(
        "init", folder, "--name", "heart-study", "--address", f"localhost:{members}",
        "--enrolment-address", f"localhost:{newcomers}", *options,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    log = (folder / "run.log").open("w")
    process = subprocess.Popen([COMMAND, "run", str(folder)], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline(), (folder / "run.log").read_text()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)
        log.close()


def invite(folder: Path, role: str, participant: str, *options: str) -> str:
    made = run("invite", folder, "--role", role, "--id", participant, *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def overview(profile: Profile) -> analyst_pb2.OverviewResponse:
    with connect(profile.address, profile.tls()) as channel, translated(profile.address):
        response: analyst_pb2.OverviewResponse = analyst_pb2_grpc.AnalystStub(channel).Overview(
            analyst_pb2.OverviewRequest(), timeout=5
        )
    return response


def complaint(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of a failure: one error, at most one hint, no traceback, nothing on stdout."""
    lines = result.stderr.splitlines()
    assert result.returncode != 0
    assert result.stdout == ""
    assert lines[0].startswith("error: ")
    assert [line.startswith("hint: ") for line in lines[1:]] in ([], [True])
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found(tmp_path_factory.mktemp("consortium") / "server")


def test_help_loads_little_and_names_every_command() -> None:
    shown = spawn("--help")
    assert shown.returncode == 0
    assert heavy_modules("analytics_server.cli") == []
    for command in ("init", "run", "invite", "membership", "dataset"):
        assert command in shown.stdout


@pytest.mark.parametrize("command", [["init"], ["run"], ["invite"], ["membership", "publish"], ["dataset", "add"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    shown = spawn(*command, "--help", environment={"COLUMNS": "200"})
    assert shown.returncode == 0
    assert "DIR" in shown.stdout
    assert "--json" in shown.stdout


def test_init_makes_private_folders_and_a_started_log(tmp_path: Path) -> None:
    made = run("init", tmp_path / "server", "--name", "heart-study", "--json")
    facts = json.loads(made.stdout)
    assert facts["address"] == "localhost:7443"
    assert facts["enrolment_address"] == "localhost:7444"
    server, office = tmp_path / "server", tmp_path / "server" / "governance"
    assert Path(facts["governance"]) == office
    assert bytes.fromhex(facts["governance_key"]) == bytes.fromhex((server / "governance.pub").read_text())
    assert {p.name for p in office.iterdir()} == {"ca.key", "ca.pem", "governance.key", "governance.toml"}
    for path in [server, office, *server.glob("*.key"), *office.glob("*.key"), server / "server.toml"]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.sqlite_files("its file is private")
def test_init_makes_a_private_database(folder: Path) -> None:
    assert stat.S_IMODE((folder / "state.sqlite").stat().st_mode) & 0o077 == 0


def test_init_never_overwrites(folder: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert "exists already" in complaint(run("init", folder, "--name", "other"))[0]
    assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    (tmp_path / "file").write_text("x")
    assert "exists already" in complaint(run("init", tmp_path / "file", "--name", "other"))[0]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--name", "Heart Study"], 4, "no consortium name"),
        (["--name", "heart", "--address", "localhost"], 2, "no address"),
        (["--name", "heart", "--store", "mysql://x"], 2, "no store on 'mysql'"),
        (
            ["--name", "heart", "--store", "postgresql+psycopg://nobody@127.0.0.1:1/x"],
            7,
            "PostgreSQL cannot be reached",
        ),
    ],
)
def test_init_that_cannot_be_leaves_nothing(tmp_path: Path, options: list[str], code: int, words: str) -> None:
    failed = run("init", tmp_path / "server", *options)
    assert words in complaint(failed)[0]
    assert failed.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_governance_folder_may_live_elsewhere_and_move(tmp_path: Path) -> None:
    folder = found(tmp_path / "server", "--governance", tmp_path / "stick")
    assert not (folder / "governance").exists()
    (tmp_path / "schema.toml").write_text(SCHEMA)
    lines = complaint(run("dataset", "add", folder, tmp_path / "schema.toml"))
    assert "no governance keys" in lines[0]
    assert "--governance" in lines[1]
    (tmp_path / "stick").rename(tmp_path / "safe")
    added = run("dataset", "add", folder, tmp_path / "schema.toml", "--governance", tmp_path / "safe", "--json")
    assert json.loads(added.stdout)["dataset"] == "patients"


def test_governance_of_another_consortium_cannot_publish(folder: Path, tmp_path: Path) -> None:
    other = found(tmp_path / "server")
    failed = run("membership", "publish", folder, "--governance", other / "governance")
    assert "do not govern consortium 'heart-study'" in complaint(failed)[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--role", "king", "--id", "x"], "no role 'king'"),
        (["--role", "agent", "--id", "x"], "needs an organisation"),
        (["--role", "analyst", "--id", "X Y"], "no participant id"),
        (["--role", "analyst", "--id", "x", "--valid-hours", "0"], "valid"),
    ],
)
def test_invitation_that_cannot_be_is_refused_in_words(folder: Path, options: list[str], words: str) -> None:
    assert words in complaint(run("invite", folder, *options))[0]


def test_invitation_is_one_word_on_stdout(folder: Path) -> None:
    made = run("invite", folder, "--role", "analyst", "--id", "eve")
    assert made.stdout.startswith("cohortium-invite-v1.")
    assert made.stdout.count("\n") == 1
    assert "cohortium enrol" in made.stderr
    listed = json.loads(run("invite", folder, "--role", "analyst", "--id", "eve", "--json").stdout)
    assert listed["token"].startswith("cohortium-invite-v1.")
    assert abs(listed["expires_at"] - time.time() - 86_400) < 60


def test_folder_that_is_none_is_told_with_the_next_step(tmp_path: Path) -> None:
    for command in (["run"], ["membership", "show"], ["dataset", "list"]):
        lines = complaint(spawn(*command, tmp_path))
        assert "no coordinator's folder" in lines[0]
        assert "init" in lines[1]


def test_schema_that_contradicts_itself_is_not_published(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(SCHEMA.replace("upper = 120", "upper = -1"))
    failed = run("dataset", "add", folder, bad)
    assert "'age'" in complaint(failed)[0]
    assert "is missing" in complaint(run("dataset", "add", folder, tmp_path / "none.toml"))[0]
    bad.write_bytes(b"\xff\xfe")
    assert "UTF-8" in complaint(run("dataset", "add", folder, bad))[0]


@pytest.mark.parametrize("text", ["", "consortium = 3", "nonsense", "extra = true"])
def test_damaged_server_toml_is_named(tmp_path: Path, text: str) -> None:
    folder = found(tmp_path / "server")
    path = folder / "server.toml"
    path.write_text(path.read_text() + text if text == "extra = true" else text)
    assert "server.toml" in complaint(run("membership", "pending", folder))[0]


def test_key_that_others_may_read_stops_the_coordinator(tmp_path: Path) -> None:
    folder = found(tmp_path / "server")
    (folder / "log.key").chmod(0o644)
    lines = complaint(spawn("run", folder))
    assert "open to other users" in lines[0]
    assert "chmod 600" in lines[1]


@pytest.mark.sqlite_files("its file is not there")
def test_absent_database_is_told_with_the_next_step(tmp_path: Path) -> None:
    folder = found(tmp_path / "server")
    (folder / "state.sqlite").unlink()
    assert "no store" in complaint(spawn("run", folder))[0]


def test_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    folder = found(tmp_path / "server")
    port = int(
        next(line for line in (folder / "server.toml").read_text().splitlines() if line.startswith("listen"))
        .rpartition(":")[2]
        .strip('"')
    )
    with socket.create_server(("127.0.0.1", port)):
        failed = spawn("run", folder)
    assert f"port {port} of 127.0.0.1 is taken" in failed.stderr.splitlines()[-2]
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr


def test_running_coordinator_takes_up_what_the_commands_publish(tmp_path: Path) -> None:
    folder = found(tmp_path / "server")
    (tmp_path / "schema.toml").write_text(SCHEMA)
    with running(folder):
        ada = enrol(invite(folder, "analyst", "ada"), tmp_path / "ada", roles=["analyst"])
        agent = enrol(invite(folder, "agent", "h1", "--organisation", "City"), tmp_path / "h1", roles=["agent"])
        with pytest.raises(IdentityError, match=r"no membership|not yet"):
            overview(ada)
        pending = json.loads(run("membership", "pending", folder, "--json").stdout)
        assert [entry["id"] for entry in pending["added"]] == ["ada", "h1"]
        shown = run("membership", "pending", folder).stdout
        assert "+ h1, agent of City, key " in shown
        published = run("membership", "publish", folder)
        assert "Epoch 1 is published: added ada, h1" in published.stdout
        assert "1 organisations have an agent" in published.stderr
        assert run("dataset", "add", folder, tmp_path / "schema.toml").returncode == 0
        seen = overview(ada)
        document = membership.verify(seen.membership.SerializeToString(), ada.governance_key, consortium="heart-study")
        assert document.epoch == 1
        assert document.institution("h1").organisation == "City"
        assert len(seen.datasets) == 1

        revoked = run("membership", "revoke", folder, "--id", "ada", "--reason", "left", "--json")
        assert json.loads(revoked.stdout) == {"revoked": "ada"}
        with pytest.raises(IdentityError, match="revoked"):
            overview(ada)
        second = json.loads(run("membership", "publish", folder, "--json").stdout)
        assert (second["epoch"], second["added"], second["removed"]) == (2, [], ["ada"])
        again = run("membership", "publish", folder)
        assert "nothing to change" in again.stdout
        assert json.loads(run("membership", "show", folder, "--json").stdout)["epoch"] == 2
        renew(agent)


def test_publishing_extends_an_issuing_authority_that_ends_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = found(tmp_path / "server")
    path = folder / "issuing-ca.pem"
    before = x509.load_pem_x509_certificate(path.read_bytes())
    with running(folder):
        enrol(invite(folder, "analyst", "ada"), tmp_path / "ada", roles=["analyst"])
    assert "issuing CA" not in run("membership", "publish", folder).stderr
    monkeypatch.setattr(governance.founding, "RENEW_ISSUING_BEFORE", timedelta(days=731))
    assert "issuing CA was renewed" in run("membership", "publish", folder).stderr
    after = x509.load_pem_x509_certificate(path.read_bytes())
    assert after.serial_number != before.serial_number
    assert after.public_key() == before.public_key()
    with running(folder):
        newcomer = enrol(invite(folder, "analyst", "eve"), tmp_path / "eve", roles=["analyst"])
        assert run("membership", "publish", folder).returncode == 0
        for profile in (profiles.load(tmp_path / "ada"), newcomer):  # certificates from before and after
            assert overview(profile).datasets == []


def test_lists_are_readable_and_in_json(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(SCHEMA)
    assert "No dataset" in run("dataset", "list", folder).stdout
    assert run("dataset", "add", folder, tmp_path / "schema.toml").returncode == 0
    assert "patients" in run("dataset", "list", folder).stdout
    [listed] = json.loads(run("dataset", "list", folder, "--json").stdout)
    assert (listed["dataset"], listed["columns"]) == ("patients", ["age"])
    assert "no membership" in complaint(run("membership", "show", folder))[0]
    assert "nobody has enrolled" in complaint(run("membership", "publish", folder))[0]
    assert "no participant 'x'" in complaint(run("membership", "revoke", folder, "--id", "x"))[0]


def test_only_one_coordinator_runs_in_a_folder(tmp_path: Path) -> None:
    folder = found(tmp_path / "server")
    with running(folder) as first:
        second = spawn("run", folder)
        assert second.returncode == 2
        assert "Traceback" not in second.stderr
        assert first.poll() is None
    assert not (folder / "control.sock").exists()


def test_killed_coordinator_can_be_started_again(tmp_path: Path) -> None:
    folder = found(tmp_path / "server")
    with running(folder) as process:
        process.kill()
        process.wait(10)
    with running(folder):
        assert invite(folder, "analyst", "ada").startswith("cohortium-invite-v1.")


def test_fault_of_ours_is_one_line_without_its_text(tmp_path: Path) -> None:
    program = (
        "import typer; from trust.command import run_command\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def boom(): raise ValueError('patient 17')\n"
        "run_command(app)\n"
    )
    quiet, loud = (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **extra}, check=False
        )
        for extra in ({}, {"COHORTIUM_DEBUG": "1"})
    )
    assert quiet.returncode == 70
    assert "ValueError" in complaint(quiet)[0]
    assert "patient" not in quiet.stderr
    assert "Traceback" in loud.stderr


def test_every_command_option_and_setting_is_documented(folder: Path) -> None:
    from typer.main import get_command

    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()

    def walk(command: Any, path: str) -> Iterator[str]:
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{path} {name}".strip())
        if not hasattr(command, "commands"):
            yield f"`{path}`"
            yield from (o for p in command.params for o in p.opts if o.startswith("--") and o != "--help")

    named = set(walk(get_command(app), ""))
    assert {"`membership publish`", "--governance", "--valid-hours"} <= named
    for setting in (folder / "server.toml", folder / "governance" / "governance.toml"):
        named |= {f"`{key}`" for key in tomllib.loads(setting.read_text())}
    named |= {
        f"`{path.name}`"
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(("run.", "state.sqlite-"))
    }
    assert {name for name in named if name not in text} == set()
