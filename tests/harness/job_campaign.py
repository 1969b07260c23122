"""Training jobs in the sandbox of `campaign`, one of whose processes is killed on the way, and what must hold then.

The job is a clustering with so little noise that its sizes tell whose persons a round counted: noise has a standard
deviation below 2, and sums of three or four institutions lie at least 12 apart.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from analytics_client.agent.ledger import Ledger
from analytics_client.training import ClusterModel
from harness.campaign import EVERYONE, PAUSE_S, PERSONS, QUIET_S, WITHIN_S, Campaign
from queries.errors import CohortiumError
from queries.training.kmeans import Clustering

ROUNDS, SPARE = 3, 4
RHO = 70.0
PER_ROUND_NANO = round(RHO * 1e9) // (ROUNDS + SPARE)
LONGEST_S = 120.0


def train(running: Campaign) -> ClusterModel | CohortiumError:
    """Train, and hold every round to the persons of its survivors; an error that an analyst reads is an answer too."""
    try:
        model = running.session.train(
            "kmeans", dataset="people", features=["age"], clusters=2, rho=RHO, rounds=ROUNDS, spare_rounds=SPARE
        )
    except CohortiumError as error:
        return error
    assert isinstance(model, ClusterModel)
    check_rounds(running, model)
    return model


def check_rounds(running: Campaign, model: ClusterModel) -> None:
    """Every round counts each of its survivors once."""
    statistic, plan = model.plan.statistic, model.plan
    assert isinstance(statistic, Clustering)
    rounds = running.session._rounds(bytes.fromhex(model.request_id), plan)
    for round_, release in zip(rounds.rounds, rounds.releases, strict=True):
        counted = float(statistic.read(release.sums)[0].sum())
        expected = sum(PERSONS[name] for name in round_.survivors)
        assert abs(counted - expected) < 12, (round_, counted, expected)


def train_and_maybe_kill(running: Campaign, name: str, label: str) -> ClusterModel | CohortiumError | None:
    """Train while a process is armed; start it again when it has died. None where it never came to that point."""
    running.arm(name, label)
    with ThreadPoolExecutor(1) as other:
        training = other.submit(train, running)
        alive_after_end_s = 0.0
        process = running.box._processes[name].popen
        while process.poll() is None and alive_after_end_s < QUIET_S:
            threading.Event().wait(PAUSE_S)
            alive_after_end_s += PAUSE_S if training.done() else 0
        if process.poll() is None:
            running.disarm(name)
            training.result(LONGEST_S)
            return None
        running.wait_for_death(name)
        running.revive(name)
        return training.result(LONGEST_S)


def wait_until_closed(running: Campaign) -> None:
    """Return once no agent holds anything for a job: they are told of its end, also those that were away."""
    deadline = time.monotonic() + WITHIN_S
    for name in EVERYONE:
        while True:
            with Ledger.read(running.folder(name) / "ledger.sqlite") as ledger:
                if all(job.reason for job in ledger.jobs()):
                    break
            assert time.monotonic() < deadline, f"{name} keeps a job that is over"
            time.sleep(PAUSE_S)


def check_agent(running: Campaign, name: str) -> None:
    """An institution has paid for every round whose vector may have left, and for nothing else."""
    uploaded = {point.round_id for point in running.points(name) if point.label == "after commit upload"}
    sent = Counter(point.round_id for point in running.points(name) if point.label == "before send answer")
    assert max(sent.values(), default=0) <= 1, f"{name} answered a round twice"
    with Ledger.read(running.folder(name) / "ledger.sqlite") as ledger:
        states = Counter(entry.state for entry in ledger.history(10_000))
        totals = [account.rho_nano for account in ledger.accounts() if not account.analyst]
        used = sum(job.used for job in ledger.jobs())
    assert not states["reserved"], f"{name} keeps a reservation of a round that is over"
    # A process may die after its ledger took the charge, and before it could write down that it did.
    assert len(uploaded) <= states["charged"] == used
    assert totals == [used * PER_ROUND_NANO] or not (totals and used)
