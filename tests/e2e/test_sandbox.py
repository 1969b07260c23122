"""A sandbox is a real consortium of real processes, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.live import ROWS, SCHEMA, Live, command, write_patients

from analytics_client import sandbox, sandboxes
from analytics_client.sandboxes import Data, Institution, Sandbox
from analytics_client.session import Progress, Session
from queries.builder import _, count
from queries.errors import ConfigError, PolicyDenied, QuorumError, SchemaError, ServiceError

HOLDER = """
import sys
from analytics_client import sandbox, sandboxes
box = sandbox(sys.argv[1], sys.argv[2:])
with box as session:
    pids = [process.popen.pid for process in box._processes.values()] + [box._keeper.pid]
    print(box.folder, *pids, flush=True)
    sys.stdin.read()
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _eventually(condition: Callable[[], bool], within_s: float = 15.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "patients.toml"
    path.write_text(SCHEMA)
    return path


# --- what it answers -------------------------------------------------------------------------------------------------


def test_a_query_in_sql_is_answered_with_an_interval(live: Live) -> None:
    result = live.session.query("SELECT sex, COUNT(*) AS n, AVG(age) AS age FROM patients GROUP BY sex", epsilon=2.0)
    assert [row.keys for row in result.rows] == [("female",), ("male",)]
    n, age = result.estimate("n", sex="female"), result.estimate("age", sex="male")
    assert abs(n.value - 4 * ROWS / 2) < 8 * n.standard_error
    assert abs(age.value - 50) < 8 * age.standard_error
    assert len(result.survivors) == 4


def test_the_same_question_as_an_expression_is_the_same_query(live: Live) -> None:
    expression = live.session.table("patients").filter(_.age >= 50).group_by(_.sex).agg(n=count())
    by_hand = live.session.explain("SELECT sex, COUNT(*) AS n FROM patients WHERE age >= 50 GROUP BY sex", epsilon=1)
    assert live.session.explain(expression, epsilon=1).plan == by_hand.plan


def test_every_step_is_reported_in_order(live: Live) -> None:
    steps: list[Progress] = []
    live.session.query("SELECT COUNT(*) AS n FROM patients", epsilon=0.5, on_progress=steps.append)
    named = [progress.step for progress in steps]
    assert named == ["logged", "announced", "joined", "uploaded", "confirmed", "revealed", "released"]


def test_an_answer_is_found_in_the_log_and_the_log_verifies(live: Live) -> None:
    result = live.session.query("SELECT COUNT(*) AS n FROM patients", epsilon=0.5, purpose="quality assurance")
    shown = json.loads(live.audit("show", str(result.log_seq), "--json").stdout)
    assert shown["kind"] == "released"
    assert shown["request_id"] == result.request_id
    asked = json.loads(live.audit("log", "--request", result.request_id[:12], "--kind", "requested", "--json").stdout)
    assert [entry["purpose"] for entry in asked] == ["quality assurance"]
    verified = live.audit("verify")
    assert verified.returncode == 0
    assert "VERIFIED" in verified.stdout


def test_a_query_over_budget_is_refused_by_name_and_costs_nothing(live: Live) -> None:
    with pytest.raises(PolicyDenied) as caught:
        live.session.query("SELECT COUNT(*) AS n FROM patients", epsilon=90.0)
    assert caught.value.refusals
    assert not caught.value.charged


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_prints_tables_json_and_csv(live: Live) -> None:
    sql = "SELECT sex, COUNT(*) AS n FROM patients GROUP BY sex"
    table = live.cohortium("query", sql, "--epsilon", "0.5")
    assert table.returncode == 0, table.stderr
    assert "95% interval" in table.stdout
    assert "4 of 4 institutions" in table.stdout
    read = json.loads(live.cohortium("query", sql, "--rho", "0.01", "--json").stdout)
    assert [row["sex"] for row in read["rows"]] == ["female", "male"]
    assert read["cost"]["rho"] == 0.01
    lines = live.cohortium("query", sql, "--epsilon", "0.5", "--csv").stdout.splitlines()
    assert lines[0] == "sex,n,n_se,n_low,n_high,n_noise"
    assert len(lines) == 3


def test_datasets_describe_and_explain_print_json_that_agrees(live: Live) -> None:
    listed = json.loads(live.cohortium("datasets", "--json").stdout)
    assert [item["name"] for item in listed] == ["patients"]
    assert listed[0]["serving"] == ["alpha", "beta", "delta", "gamma"]
    described = json.loads(live.cohortium("describe", "patients", "--json").stdout)
    assert [column["name"] for column in described["columns"]] == ["age", "sex", "bmi"]
    sql = "SELECT COUNT(*) AS n FROM patients"
    explained = json.loads(live.cohortium("explain", sql, "--within", "5", "--json").stdout)
    assert explained["institutions"] == listed[0]["serving"]
    assert explained["epsilon_for_width"]["n"] > 0
    for arguments in (["datasets"], ["describe", "patients"], ["explain", sql, "--within", "5"]):
        shown = live.cohortium(*arguments)
        assert shown.returncode == 0, shown.stderr
        assert "patients" in shown.stdout


@pytest.mark.parametrize("name", ["log.jsonl", "log.sqlite"])
def test_an_exported_log_verifies_without_the_coordinator(live: Live, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    assert live.audit("export", file).returncode == 0
    flag = "--database" if name.endswith(".sqlite") else "--export"
    key = (live.box.server / "governance.pub").read_text().strip()
    verified = command("cohortium", "audit", "verify", flag, file, "--governance-key", key, "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["verified"] is True


def test_an_analyst_may_not_read_the_log(live: Live) -> None:
    refused = live.cohortium("audit", "log")
    assert refused.returncode != 0
    assert refused.stderr.startswith("error: ")


def test_one_line_of_the_prompt_from_the_shell(schema: Path, tmp_path: Path) -> None:
    files = write_patients(tmp_path, ("a", "b", "c"))
    done = command(
        "cohortium", "sandbox", "--schema", schema, *files, "--command", "SELECT AVG(age) AS age FROM patients"
    )
    assert done.returncode == 0, done.stderr
    assert "3 of 3 institutions: a, b, c" in done.stdout


def test_the_prompt_reads_lines_and_goes_on_after_a_mistake(schema: Path, tmp_path: Path) -> None:
    files = write_patients(tmp_path, ("a", "b", "c"))
    lines = [
        "\\d",
        "\\d patients",
        "SELECT AVG(agee) FROM patients",
        "\\epsilon 2",
        "SELECT COUNT(*) AS n FROM patients;",
    ]
    typed = "\n".join([*lines, "\\log", "\\q", ""])
    done = command("cohortium", "sandbox", "--schema", schema, *files, typed=typed)
    assert done.returncode == 0, done.stderr
    assert "did you mean 'age'?" in done.stderr
    assert "epsilon 2 " in done.stdout
    assert "ada: asked patients for count(*)" in done.stdout


# --- how it ends ---------------------------------------------------------------------------------------------------


def test_a_cohort_shrinks_comes_back_and_leaves_nothing(schema: Path, tmp_path: Path) -> None:
    sql = "SELECT COUNT(*) AS n FROM patients"
    box = sandbox(schema, write_patients(tmp_path, ("a", "b", "c", "d")))

    def kill(progress: Progress) -> None:
        if progress.step == "announced":
            box.kill("d")

    with box as session:
        result = session.query(sql, epsilon=1.0, on_progress=kill)
        assert set(result.survivors) >= {"a", "b", "c"}
        assert result.invited == 4
        box.start_agent("d")
        assert _eventually(lambda: "d" in session.datasets()[0].serving)
        assert session.query(sql, epsilon=1.0).survivors == ("a", "b", "c", "d")
        _kill_coordinator_in_the_middle(box, session, sql)
        assert _eventually(lambda: len(session.datasets()[0].serving) == 4)
        assert session.query(sql, epsilon=1.0).survivors == ("a", "b", "c", "d")
        box.kill("c")
        box.kill("d")
        assert _eventually(lambda: len(session.datasets()[0].serving) == 2)
        with pytest.raises(QuorumError) as caught:
            session.query(sql, epsilon=1.0)
        assert not caught.value.charged
        folder = box.folder
        pids = [process.popen.pid for process in box._processes.values()]
        assert sum(map(_alive, pids)) == 3
    assert not any(map(_alive, pids))
    assert not folder.exists()


def _kill_coordinator_in_the_middle(box: Sandbox, session: Session, sql: str) -> None:
    """The session follows its request over the restart and learns how it ended."""

    def restart(progress: Progress) -> None:
        if progress.step == "announced":
            box.kill("coordinator")
            box.start_coordinator()

    with pytest.raises(QuorumError, match="stopped in the middle of this round"):
        session.query(sql, epsilon=1.0, on_progress=restart)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_its_owner_is_killed(schema: Path, tmp_path: Path, how: signal.Signals) -> None:
    files = write_patients(tmp_path, ("a", "b", "c"))
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLDER, schema, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    folder, *pids = owner.stdout.readline().split()
    assert len(pids) == 5
    owner.send_signal(how)
    owner.wait(timeout=20)
    for stream in (owner.stdin, owner.stdout):
        assert stream is not None
        stream.close()
    assert _eventually(lambda: not any(_alive(int(pid)) for pid in pids))
    assert _eventually(lambda: not os.path.exists(folder))


def test_a_port_that_somebody_takes_in_between_is_replaced(
    schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, calls = sandboxes._free_ports, []
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()

        def unlucky(count: int) -> list[int]:
            calls.append(count)
            ports = choose(count)
            return ports if len(calls) > 1 else [int(squatter.getsockname()[1]), *ports[1:]]

        monkeypatch.setattr(sandboxes, "_free_ports", unlucky)
        with sandbox(schema, write_patients(tmp_path, ("a", "b", "c"))) as session:
            assert len(session.datasets()[0].serving) == 3
    assert len(calls) == 2


# --- what it refuses ------------------------------------------------------------------------------------------------


def test_fewer_than_three_files_are_refused_at_once(schema: Path, tmp_path: Path) -> None:
    files = write_patients(tmp_path, ("a", "b"))
    with pytest.raises(ConfigError, match="at least 3 institutions, and this would have 2"):
        sandbox(schema, files)
    done = command("cohortium", "sandbox", "--schema", schema, *files)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a consortium needs at least 3 institutions")


def test_files_and_schemas_that_are_missing_or_wrong_are_refused_at_once(schema: Path, tmp_path: Path) -> None:
    files = write_patients(tmp_path, ("a", "b", "c"))
    with pytest.raises(ConfigError, match=r"there is no file .*d\.csv"):
        sandbox(schema, [*files, tmp_path / "d.csv"])
    with pytest.raises(ConfigError, match="cannot be read"):
        sandbox(tmp_path / "none.toml", files)
    broken = tmp_path / "broken.toml"
    broken.write_text('name = "patients"\n')
    with pytest.raises(SchemaError, match="has no columns"):
        sandbox(broken, files)
    with pytest.raises(ConfigError, match="which dataset"):
        sandbox([schema, _another(schema)], files)
    twin = Institution("a", "A", {"patients": Data(files[0])})
    with pytest.raises(ConfigError, match="two institutions are named 'a'"):
        sandbox(schema, [twin, twin, twin])


def _another(schema: Path) -> Path:
    path = schema.with_name("visits.toml")
    path.write_text(SCHEMA.replace('"patients"', '"visits"'))
    return path


def test_a_file_that_does_not_fit_is_named_with_its_column(
    schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = write_patients(tmp_path, ("a", "b", "c"))
    files[1].write_text(files[1].read_text().replace(",40,", ",forty,", 1))
    with pytest.raises(ServiceError, match="age") as caught, sandbox(schema, files):
        pass
    assert caught.value.message.startswith("b ")
    assert "forty" not in str(caught.value)
    assert list(tmp_path.glob("cohortium-*")) == []


def test_files_of_one_name_in_different_folders_get_ids_of_their_own(schema: Path, tmp_path: Path) -> None:
    paths = []
    for name in ("x", "y", "z"):
        (tmp_path / name).mkdir()
        paths += write_patients(tmp_path / name, ("Export 2024",))
    box = sandbox(schema, paths)
    assert [one.id for one in box.institutions] == ["export-2024", "export-2024-2", "export-2024-2-2"]
