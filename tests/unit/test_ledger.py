"""The ledger: charged once, never over budget, never after it was lost; says why when it serves nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from analytics_client.agent.grants import Budgets, DatasetBudget, Limits
from analytics_client.agent.ledger import Ledger, Reservation
from queries.accounting import Budget, Curve, epsilon_to_rho_nano
from queries.errors import BudgetError, ConfigError, LogError, ProtocolViolation, RoundError

DELTA = 1e-6
GRANT = epsilon_to_rho_nano(1.0, DELTA)


def limits(grants: int = 10) -> Limits:
    """Budgets that cover `grants` queries of rho GRANT and not one more."""
    epsilon = Curve.from_rho_nano(GRANT * grants).epsilon(DELTA) * 1.0000001
    budget = Budget(epsilon, DELTA)
    assert budget.left(Curve.zero()) // GRANT == grants
    return Limits(budget, budget)


def reserve(ledger: Ledger, number: int, *, round_number: int | None = None, **other: Any) -> Reservation:
    values: dict[str, Any] = {
        "request_id": number.to_bytes(32, "big"),
        "digest": b"d%d" % number,
        "dataset": "patients",
        "analyst": "ada",
        "charge": Curve.from_rho_nano(GRANT),
        "rho_nano": GRANT,
        "budgets": limits(),
        "round_id": b"round-%d" % (number if round_number is None else round_number),
    } | other
    return ledger.reserve(**values)


def spent(ledger: Ledger) -> dict[tuple[str, str], Curve]:
    return {(a.dataset, a.analyst): a.spent for a in ledger.accounts()}


def ids(number: int, round_number: int | None = None) -> tuple[bytes, bytes]:
    return number.to_bytes(32, "big"), b"round-%d" % (number if round_number is None else round_number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_a_served_request_is_charged_to_analyst_and_dataset(path: Path) -> None:
    with Ledger.open(path) as ledger:
        first = reserve(ledger, 1)
        assert first == Reservation(0, GRANT)
        assert first.used == pytest.approx(0.1, abs=1e-6)
        ledger.upload(*ids(1))
        ledger.reveal(*ids(1))
        ledger.release(*ids(1))
        assert reserve(ledger, 2, analyst="bob") == Reservation(0, GRANT)
        assert spent(ledger) == {
            ("patients", ""): Curve.from_rho_nano(GRANT) + Curve.from_rho_nano(GRANT),
            ("patients", "ada"): Curve.from_rho_nano(GRANT),
            ("patients", "bob"): Curve.from_rho_nano(GRANT),
        }
        assert [(e.analyst, e.state) for e in ledger.history()] == [("bob", "reserved"), ("ada", "charged")]


def test_a_round_that_ends_before_upload_costs_nothing(path: Path) -> None:
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
        ledger.release(*ids(1))
        ledger.release(*ids(1))
        assert set(spent(ledger).values()) == {Curve.zero()}
        with pytest.raises(RoundError):
            ledger.upload(*ids(1))


def test_a_round_that_fails_after_upload_is_charged(path: Path) -> None:
    """The others can open the sum without this agent, so only its own silence before upload gives budget back."""
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
        ledger.upload(*ids(1))
        ledger.release(*ids(1))
        assert spent(ledger)["patients", "ada"] == Curve.from_rho_nano(GRANT)
        with pytest.raises(RoundError, match="already answered"):
            reserve(ledger, 1, round_number=2)


def test_another_round_before_upload_is_paid_by_the_same_reservation(path: Path) -> None:
    with Ledger.open(path) as ledger:
        reserve(ledger, 1, round_number=1)
        assert reserve(ledger, 1, round_number=2) == Reservation(0, GRANT)
        with pytest.raises(RoundError):
            ledger.upload(*ids(1, 1))  # the earlier round ended
        ledger.upload(*ids(1, 2))
        ledger.reveal(*ids(1, 2))
        with pytest.raises(RoundError):
            ledger.reveal(*ids(1, 2))


def test_reveal_needs_the_upload_to_be_charged_first(path: Path) -> None:
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
        with pytest.raises(RoundError):
            ledger.reveal(*ids(1))


def test_repeated_forged_and_replayed_requests_are_refused(path: Path) -> None:
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
        with pytest.raises(ProtocolViolation, match="round id"):
            reserve(ledger, 2, round_number=1)
        for forged in ({"digest": b"x"}, {"analyst": "eve"}, {"dataset": "other"}, {"charge": Curve.zero()}):
            with pytest.raises(ProtocolViolation, match="another request"):
                reserve(ledger, 1, round_number=3, **forged)
        ledger.upload(*ids(1))
        with pytest.raises(RoundError, match="already answered"):
            reserve(ledger, 1, round_number=4)
        assert spent(ledger)["patients", ""] == Curve.from_rho_nano(GRANT)


def test_a_round_of_one_request_serves_no_other(path: Path) -> None:
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
        reserve(ledger, 2)
        with pytest.raises(RoundError):
            ledger.upload(ids(2)[0], ids(1)[1])


def test_refusals_leave_nothing_behind(path: Path) -> None:
    with Ledger.open(path) as ledger:
        for number in range(10):
            reserve(ledger, number)
        with pytest.raises(BudgetError, match="used up"):
            reserve(ledger, 10, head=(5, b"root"))
        assert ledger.head() == (0, b"")
        assert len(ledger.history()) == 10
        ledger.release(*ids(3))
        reserve(ledger, 10)  # the refused round id was not used up either


def test_the_total_bounds_all_analysts_together(path: Path) -> None:
    one, ten = limits(1).total, limits(10).total
    with Ledger.open(path) as ledger:
        reserve(ledger, 1, budgets=Limits(analyst=ten, total=one))
        with pytest.raises(BudgetError, match="all analysts"):
            reserve(ledger, 2, analyst="bob", budgets=Limits(analyst=ten, total=one))
        assert ("patients", "bob") not in spent(ledger)


def test_a_refusal_says_what_would_still_fit(path: Path) -> None:
    half = Curve.from_rho_nano(GRANT * 10)
    with Ledger.open(path) as ledger, pytest.raises(BudgetError, match="one query of epsilon 1"):
        reserve(ledger, 1, charge=half, rho_nano=GRANT * 10, budgets=limits(1))


def test_budgets_are_looked_up_by_dataset_and_analyst() -> None:
    each, total, own = Budget(1, DELTA), Budget(5, DELTA), Budget(2, DELTA)
    budgets = Budgets({"patients": DatasetBudget(total, each, {"ada": own})})
    assert budgets.for_request("patients", "ada") == Limits(own, total)
    assert budgets.for_request("patients", "bob") == Limits(each, total)
    with pytest.raises(BudgetError):
        budgets.for_request("labs", "ada")


def test_the_witnessed_head_only_advances(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.set_head(5, b"five")
        reserve(ledger, 1, head=(7, b"seven"))
        for size, root in ((6, b"six"), (7, b"other")):
            with pytest.raises(LogError):
                ledger.set_head(size, root)
            with pytest.raises(LogError):
                reserve(ledger, 2, head=(size, root))
        ledger.set_head(7, b"seven")
    with Ledger.open(path) as ledger:
        assert ledger.head() == (7, b"seven")


def test_64_threads_share_ten_grants(path: Path) -> None:
    with Ledger.open(path) as ledger:
        start = threading.Barrier(64)

        def ask(number: int) -> bool:
            start.wait()
            try:
                reserve(ledger, number)
            except BudgetError:
                return False
            return True

        with ThreadPoolExecutor(64) as pool:
            assert sum(pool.map(ask, range(64))) == 10


CHILD = textwrap.dedent(
    """
    import sys
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    import importlib.util
    spec = importlib.util.spec_from_file_location("ledger_tests", sys.argv[4])
    tests = importlib.util.module_from_spec(spec); sys.modules["ledger_tests"] = tests; spec.loader.exec_module(tests)
    ledger = tests.Ledger.open(Path(sys.argv[1]))
    def ask(number):
        try:
            tests.reserve(ledger, number)
        except tests.BudgetError:
            return 0
        return 1
    print("ready", flush=True); sys.stdin.readline()
    first = int(sys.argv[2])
    with ThreadPoolExecutor(16) as pool:
        print(sum(pool.map(ask, range(first, first + 16))), flush=True)
    sys.stdin.readline()
    """
)


def test_two_processes_of_16_threads_share_ten_grants(path: Path) -> None:
    here = Path(__file__)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(first), str(here.parents[2]), str(here)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (1000, 2000)
    ]
    answers = []
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        assert child.stdout is not None
        answers.append(int(child.stdout.readline()))
    with Ledger.open(path) as third:  # beside living processes nothing is recovered
        assert spent(third)["patients", "ada"].nano[0] == 10 * Curve.from_rho_nano(GRANT).nano[0]
    for child in children:
        child.communicate("\n", timeout=30)
    assert sum(answers) == 10
    with Ledger.open(path) as alone:  # they are gone, and nothing had been uploaded
        assert spent(alone)["patients", "ada"] == Curve.zero()


def test_a_restart_releases_what_was_not_uploaded_and_keeps_what_was(path: Path) -> None:
    ledger = Ledger.open(path)
    reserve(ledger, 1)
    reserve(ledger, 2)
    ledger.upload(*ids(2))
    ledger.close()
    with Ledger.open(path) as again:
        assert spent(again)["patients", "ada"] == Curve.from_rho_nano(GRANT)
        with pytest.raises(ProtocolViolation):
            reserve(again, 1)  # its round id stays used
        reserve(again, 1, round_number=9)


def test_a_ledger_that_vanished_is_refused_until_acknowledged(path: Path) -> None:
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
    for part in path.parent.glob("ledger.sqlite*"):
        part.unlink()
    for opener in (Ledger.open, Ledger.read):
        with pytest.raises(ConfigError, match="gone"):
            opener(path)
    with pytest.raises(ConfigError, match="reason"):
        Ledger.acknowledge_loss(path, "  ")
    with Ledger.acknowledge_loss(path, "disk was replaced") as fresh:
        assert "disk was replaced" in fresh.notes()[0].text
    with pytest.raises(ConfigError, match="whole"):
        Ledger.acknowledge_loss(path, "again")
    Ledger.open(path).close()


def test_an_emptied_ledger_is_refused(path: Path) -> None:
    Ledger.open(path).close()
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="gone"):
        Ledger.open(path)


def test_another_agents_ledger_is_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Ledger.open(path).close()
    Ledger.open(other / "ledger.sqlite").close()
    (other / "ledger.sqlite").replace(path)
    with pytest.raises(ConfigError, match="not the one"):
        Ledger.open(path)


def test_a_damaged_ledger_is_refused_and_kept(path: Path) -> None:
    with Ledger.open(path) as ledger:
        for number in range(10):
            reserve(ledger, number)
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        Ledger.open(path)
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigError, match="damaged"):
        Ledger.open(path)
    Ledger.acknowledge_loss(path, "bad sectors").close()
    assert list(path.parent.glob("ledger.sqlite.lost-*"))


@pytest.mark.parametrize("statement", ["UPDATE account SET spent = (SELECT cost FROM request)", "DELETE FROM account"])
def test_a_ledger_edited_from_outside_does_not_add_up(path: Path, statement: str) -> None:
    with Ledger.open(path) as ledger:
        for number in range(2):
            reserve(ledger, number)
            ledger.upload(*ids(number))
    with sqlite3.connect(path) as raw:
        raw.execute(statement)
    raw.close()
    with pytest.raises(ConfigError, match="add up"):
        Ledger.open(path)


def test_a_ledger_removed_while_open_serves_nothing(path: Path) -> None:
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
        path.rename(path.with_name("elsewhere"))
        for action in (lambda: reserve(ledger, 2), lambda: ledger.upload(*ids(1)), ledger.head):
            with pytest.raises(ConfigError, match="removed or replaced"):
                action()


FULL_DISK = textwrap.dedent(
    """
    import importlib.util, resource, sys
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("ledger_tests", sys.argv[2])
    tests = importlib.util.module_from_spec(spec); sys.modules["ledger_tests"] = tests; spec.loader.exec_module(tests)
    path = Path(sys.argv[1])
    ledger = tests.Ledger.open(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("ledger.sqlite-wal").stat().st_size, -1))
    try:
        tests.reserve(ledger, 1)
    except tests.ConfigError as error:
        print("refused:", error.message)
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    tests.reserve(ledger, 1)
    print("served")
    """
)


def test_a_full_disk_serves_nothing_and_says_why(path: Path) -> None:
    """The kernel refuses the write-ahead log's next byte, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(Path(__file__))], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["refused: the ledger cannot be written, so nothing is served", "served"], done


def test_reading_changes_nothing_beside_a_running_agent(path: Path) -> None:
    with pytest.raises(ConfigError, match="no ledger yet"):
        Ledger.read(path)
    with Ledger.open(path) as ledger:
        reserve(ledger, 1)
        with Ledger.read(path) as looking:
            assert looking.history()[0].state == "reserved"
        ledger.upload(*ids(1))
