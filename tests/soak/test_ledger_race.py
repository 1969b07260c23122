"""Two processes of 64 threads each spend one account: 10,000 grants are there, and 10,000 are granted."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from analytics_client.agent.ledger import Ledger
from queries.accounting import Budget, Curve

GRANTS, ASKED = 10_000, 6_400
RHO_NANO = 1_000
DELTA = 1e-6
CHILD = textwrap.dedent(
    """
    import sys
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from analytics_client.agent.grants import Limits
    from analytics_client.agent.ledger import Ledger
    from queries.accounting import Budget, Curve
    from queries.errors import BudgetError

    path, first, asked, rho_nano, epsilon, delta = sys.argv[1:7]
    budget = Budget(float(epsilon), float(delta))
    charge = Curve.from_rho_nano(int(rho_nano))
    ledger = Ledger.open(Path(path))

    def ask(number):
        request, round_id = number.to_bytes(32, "big"), number.to_bytes(16, "big")
        try:
            ledger.reserve(request_id=request, digest=b"d", dataset="patients", analyst="ada", charge=charge,
                           rho_nano=int(rho_nano), budgets=Limits(budget, budget), round_id=round_id)
        except BudgetError:
            return 0
        if number % 3 == 0:
            ledger.upload(request, round_id)
        return 1

    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(64) as pool:
        print(sum(pool.map(ask, range(int(first), int(first) + int(asked)))), flush=True)
    sys.stdin.readline()
    """
)


@pytest.mark.soak
def test_two_processes_of_64_threads_never_exceed_ten_thousand_grants(tmp_path: Path) -> None:
    whole = Curve.from_rho_nano(RHO_NANO) * GRANTS
    budget = Budget(whole.epsilon(DELTA) * 1.000000001, DELTA)
    assert budget.left(Curve.zero()) // RHO_NANO == GRANTS
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    common = [str(ASKED), str(RHO_NANO), repr(budget.epsilon), repr(DELTA)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(first), *common],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (1_000_000, 2_000_000)
    ]
    granted = []
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        assert child.stdout is not None
        granted.append(int(child.stdout.readline()))
    with Ledger.read(path) as ledger:
        spent = {a.analyst: a.rho_nano for a in ledger.accounts()}
    for child in children:
        child.communicate("done\n")
    assert 2 * ASKED > GRANTS == sum(granted)
    assert spent == {"": GRANTS * RHO_NANO, "ada": GRANTS * RHO_NANO}
    assert all(granted)  # both took part
    Ledger.open(path).close()  # and it adds up
