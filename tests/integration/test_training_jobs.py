"""Training jobs over real gRPC, ledgers and stores: exact without noise, charged once, resumed, stopped, refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from harness.consortium import EVERYTHING, Consortium, consortium
from harness.data import needs_data
from harness.noiseless import remove_noise
from harness.training import POISSON, party_files, poisson_pooled
from sklearn.datasets import load_digits

from analytics_client.agent.ledger import Ledger
from analytics_client.connection import joined
from analytics_client.session import Progress, Session
from analytics_client.training import TrainedModel, verify_rounds
from protos.v1 import analyst_pb2, query_pb2
from queries.errors import BudgetError, CohortiumError, PolicyDenied, ProtocolViolation, QueryError, RoundError

pytestmark = needs_data
AWARDS = {"dataset": "awards", "label": "num_awards", "features": ["prog", "math"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with consortium(
        tmp_path_factory.mktemp("jobs"), [POISSON], party_files("poisson", "awards"), epsilon=100_000.0
    ) as running:
        yield running


def spent(built: Consortium, institution: str) -> int:
    with Ledger.read(built.folder / institution / "ledger.sqlite") as ledger:
        return {account.analyst: account.rho_nano for account in ledger.accounts()}.get("ada", 0)


def jobs(built: Consortium, institution: str) -> list[tuple[int, str]]:
    with Ledger.read(built.folder / institution / "ledger.sqlite") as ledger:
        return [(entry.used, entry.reason) for entry in ledger.jobs()]


def wait_for(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not happen")


def test_without_noise_it_is_the_pooled_fit(built: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    sm = pytest.importorskip("statsmodels.formula.api")
    families = pytest.importorskip("statsmodels.api").families
    remove_noise(monkeypatch)
    with built.session() as session:
        model = session.train("poisson", rho=1.0, rounds=24, spare_rounds=0, **AWARDS)
    pooled = sm.glm(
        "num_awards ~ C(prog, Treatment('General')) + math", poisson_pooled(), family=families.Poisson()
    ).fit(tol=1e-14)
    for ours, theirs in zip(model.coefficients, pooled.params, strict=True):
        assert ours.value == pytest.approx(theirs, rel=1e-6)
        assert ours.noise_error == 0
    for ours, theirs in zip(model.coefficients, pooled.bse, strict=True):
        assert ours.standard_error == pytest.approx(theirs, rel=1e-6)
    assert model.fit.deviance == pytest.approx(189.4496, abs=5e-5)
    assert model.fit.null_deviance == pytest.approx(287.6722, abs=5e-5)
    assert model.complete
    assert model.participants == ("hospital-a", "hospital-b", "hospital-c")
    predicted = model.predict(poisson_pooled())
    assert predicted == pytest.approx(pooled.predict(), rel=1e-6)


def test_one_charge_and_the_spare_round_returns(built: Consortium) -> None:
    before = spent(built, "hospital-a")
    told: list[Progress] = []
    with built.session() as session:
        model = session.train("poisson", rho=5.0, rounds=4, spare_rounds=1, on_progress=told.append, **AWARDS)
        again = session.model(model.request_id[:12])
        early = session.model(model.request_id, rounds=2)
        with pytest.raises(QueryError, match="has released 4 rounds, not 5"):
            session.model(model.request_id, rounds=5)
        listed = {job.request_id: job for job in session.jobs()}
    assert [round_.slot for round_ in model.rounds] == [0, 1, 2, 3]
    assert [round_.log_seq for round_ in model.rounds] == sorted({round_.log_seq for round_ in model.rounds})
    assert again.to_dict() == model.to_dict()
    assert listed[model.request_id].state == "released"
    assert [round_.number for round_ in early.rounds] == [1, 2]
    assert not early.complete
    assert listed[model.request_id].question == "train poisson num_awards ~ prog + math where math, num_awards, prog"
    assert [progress.rounds for progress in told if progress.step in ("round", "released")] == [1, 2, 3, 4]
    done = [progress for progress in told if progress.step in ("round", "released")]
    assert [progress.epsilon for progress in done] == pytest.approx([model.plan.epsilon(n) for n in (1, 2, 3, 4)])
    assert isinstance(model, TrainedModel)
    # The last round's loss is the model's own to say: its release comes with the result.
    assert [progress.loss for progress in done] == [*model.fit.losses[:3], None]
    assert model.cost.rho == pytest.approx(4.0)
    wait_for(lambda: spent(built, "hospital-a") - before == 4_000_000_000)
    assert all(coefficient.noise_error > 0 for coefficient in model.coefficients)


def test_explain_says_what_it_costs_and_warns(built: Consortium) -> None:
    with built.session() as session:
        explained = session.explain_job("poisson", epsilon=2.0, **AWARDS)
        hopeless = session.explain_job("poisson", epsilon=0.01, **AWARDS)
    assert explained.cost.epsilon <= 2.0
    assert explained.bytes_per_round == 8 * explained.plan.length
    assert "needs" in str(explained)
    assert "spend more epsilon" in hopeless.warning
    assert hopeless.noise_multiplier > 100 * explained.noise_multiplier


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"label": "math", "features": ["prog"]}, "predicts a category"),
        ({"features": ["prog", "prog"]}, "twice"),
        ({"features": ["height"]}, "no column 'height'"),
        ({"features": []}, "needs features"),
        ({"features": ["num_awards"]}, "both predicted and a predictor"),
        ({"rounds": 0}, "rounds"),
        ({"event": "prog", "features": ["math"]}, "only the cox model"),
        ({"ridge": -1.0}, "ridge"),
        ({"where": "math >"}, "line 1"),
    ],
)
def test_bad_jobs_are_refused_before_anything_is_sent(built: Consortium, asked: dict[str, object], said: str) -> None:
    model = "logistic" if asked.get("label") == "math" else "poisson"
    with built.session() as session, pytest.raises(CohortiumError, match=said):
        session.explain_job(model, epsilon=1.0, **(AWARDS | asked))


def test_stopped_by_its_analyst_and_the_rest_returns(built: Consortium) -> None:
    before = spent(built, "hospital-c")
    seen: list[str] = []

    with built.session() as session, built.session() as other:

        def stop_after_two(progress: Progress) -> None:
            if progress.rounds == 2 and not seen:
                running = [job for job in other.jobs() if job.state == "running"]
                seen.append(running[0].request_id)
                other.stop(running[0].request_id[:10])

        with pytest.raises(RoundError, match="stopped by ada"):
            session.train("poisson", rho=50.0, rounds=500, spare_rounds=0, on_progress=stop_after_two, **AWARDS)
        model = session.model(seen[0])
    assert 2 <= len(model.rounds) < 500
    assert not model.complete
    assert "ended early" in model.card()
    wait_for(lambda: spent(built, "hospital-c") - before == len(model.rounds) * 100_000_000)


def test_a_restarted_coordinator_goes_on_after_the_last_release(built: Consortium) -> None:
    ended: list[TrainedModel | Exception] = []
    two = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.rounds >= 2:
            two.set()

    def train(session: Session) -> None:
        try:
            ended.append(session.train("poisson", rho=40.0, rounds=40, spare_rounds=3, on_progress=watch, **AWARDS))
        except CohortiumError as error:
            ended.append(error)

    with built.session() as session:
        thread = threading.Thread(target=train, args=(session,))
        thread.start()
        assert two.wait(20)
        assert built.coordinator is not None
        built.coordinator.stop()
        built.start_coordinator()
        thread.join(90)
    assert len(ended) == 1
    assert isinstance(ended[0], TrainedModel), ended[0]
    assert ended[0].complete
    assert len({round_.slot for round_ in ended[0].rounds}) == 40


def test_a_policy_without_training_refuses(tmp_path: Path) -> None:
    only_counts = EVERYTHING.replace('operations = ["*"]', 'operations = ["count"]')
    files = party_files("poisson", "awards")
    with consortium(tmp_path, [POISSON], files, agent_toml=only_counts, epsilon=20.0) as built:
        with built.session() as session, pytest.raises(PolicyDenied, match="train"):
            session.train("poisson", rho=0.1, rounds=2, **AWARDS)
        assert spent(built, "hospital-a") == 0
        with built.session() as session:
            with pytest.raises(QueryError, match="before its first round"):
                session.model(session.jobs()[0].request_id)
            with pytest.raises(BudgetError):
                session.train("poisson", rho=0.1, epsilon=0.1, **AWARDS)


def test_a_job_that_the_budget_does_not_cover_is_refused_whole(tmp_path: Path) -> None:
    with consortium(tmp_path, [POISSON], party_files("poisson", "awards"), epsilon=3.0) as built:
        with built.session() as session:
            session.train("poisson", epsilon=2.5, rounds=2, spare_rounds=0, **AWARDS)
            used = spent(built, "hospital-a")
            with pytest.raises(BudgetError, match="does not cover"):
                session.train("poisson", epsilon=2.5, rounds=10, **AWARDS)
        assert spent(built, "hospital-a") == used
        assert len(jobs(built, "hospital-a")) == 1


@pytest.mark.parametrize(("model", "hidden"), [("linear", []), ("mlp", [8]), ("mlp", [550, 550])])
def test_training_by_gradients(built: Consortium, model: str, hidden: list[int]) -> None:
    more = {"hidden": hidden} if hidden else {}
    if more:
        pytest.importorskip("torch")
    asked = AWARDS | {"method": "sgd", "rate": 0.5, "clip": 1.0, "learning_rate": 0.3, "batch": 100.0, "rounds": 3}
    asked |= {"evaluate_every": 2, "split": "way", "held_out": 0.4}
    before = spent(built, "hospital-a")
    with built.session() as session:
        explained = session.explain_job(model, epsilon=50.0, **asked, **more)
        trained = session.train(model, epsilon=50.0, **asked, **more)
    assert explained.cost.epsilon <= 50.0
    assert trained.complete
    assert trained.cost.epsilon < explained.cost.epsilon  # the spare round was given back
    assert [each.round.number for each in trained.evaluations] == [2, 3]
    # A sample of half of some 80 held out, under noise of a few persons.
    assert all(abs(each.evaluation["persons"].value) < 200 for each in trained.evaluations)
    predicted = trained.predict(poisson_pooled())
    assert predicted.shape == (200,)
    wait_for(lambda: 0 < spent(built, "hospital-a") - before < explained.plan.rho_nano)


def test_what_is_held_out_is_what_is_evaluated(built: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_noise(monkeypatch)
    split = {"split": "first", "held_out": 0.3}
    with built.session() as session:
        model = session.train("poisson", rho=1.0, rounds=8, **AWARDS, **split)
        held = session.evaluate(model, rho=0.5)
        again = session.evaluate(model, rho=0.5)
        all_of_them = session.evaluate(session.train("poisson", rho=1.0, rounds=8, **AWARDS), rho=0.5)
    assert isinstance(model, TrainedModel)
    assert 30 < held["persons"].value < 90
    assert model.fit.count + held["persons"].value == pytest.approx(200, abs=0.01)
    assert held.evaluation.table.tolist() == again.evaluation.table.tolist()
    assert all_of_them["persons"].value == pytest.approx(200, abs=0.01)
    pooled = poisson_pooled()
    assert all_of_them["rmse"].value == pytest.approx(1.0, abs=0.5)
    assert all_of_them["rmse"].value > 0.1 * pooled["num_awards"].std()
    assert held.cost.rho == pytest.approx(0.5)


def test_a_job_is_evaluated_on_its_way(built: Consortium, tmp_path: Path) -> None:
    before = spent(built, "hospital-a")
    told: list[Progress] = []
    asked = AWARDS | {"rounds": 5, "spare_rounds": 1, "evaluate_every": 2, "split": "way", "held_out": 0.3}
    with built.session() as session:
        explained = session.explain_job("poisson", rho=90.0, **asked)
        model = session.train("poisson", rho=90.0, on_progress=told.append, **asked)
        early = session.model(model.request_id, rounds=4)
        listed = next(job for job in session.jobs() if job.request_id == model.request_id)
        worth = session.evaluate(model, rho=5.0)
    assert "3 times" in " ".join(str(explained).split())
    assert model.complete
    assert isinstance(model, TrainedModel)
    assert [each.round.number for each in model.evaluations] == [2, 4, 5]
    assert [each.round.slot for each in model.evaluations] == [6, 7, 8]
    assert listed.rounds == listed.rounds_asked == 5
    assert [each.round.number for each in early.evaluations] == [2, 4]
    assert len(early.rounds) == 4
    steps = [progress.step for progress in told if progress.step in ("round", "evaluated", "released")]
    assert steps == ["round", "round", "evaluated"] * 2 + ["round", "evaluated", "released"]
    measures = [progress.measure for progress in told if progress.step == "evaluated"]
    assert measures == [("rmse", pytest.approx(each.evaluation["rmse"].value)) for each in model.evaluations]
    assert [progress.rounds for progress in told if progress.step == "evaluated"] == [2, 4, 5]
    assert model.cost.rho == pytest.approx(80.0)  # eight rounds of nine
    wait_for(lambda: spent(built, "hospital-a") - before == 80_000_000_000 + 5_000_000_000)
    last = model.evaluations[-1].evaluation
    # The same rows, two noises of some persons: among 60 held out of 200 they differ by less than all of them.
    assert abs(last["persons"].value - worth["persons"].value) < 60
    assert "Evaluated on the way, on persons held out" in model.card()
    model.plot("curve").get_figure(root=True).savefig(tmp_path / "curve.png")
    assert model.to_dict()["evaluations"][1]["rounds"] == 4


def test_evaluations_out_of_turn_are_found(built: Consortium) -> None:
    asked = AWARDS | {"rounds": 4, "spare_rounds": 1, "evaluate_every": 2}
    with built.session() as session:
        model = session.train("poisson", rho=50.0, **asked)
        request_id, membership = bytes.fromhex(model.request_id), session.membership
        told = list(joined(session._stub.Rounds(analyst_pb2.RoundsRequest(request_id=request_id), timeout=30)))
    steps = [progress.step for progress in told]
    assert steps == ["round", "round", "evaluated", "round", "round", "evaluated"]

    def verified(*order: int) -> int:
        chosen = [told[number] for number in order]
        found = verify_rounds(chosen, request_id=request_id, plan=model.plan, membership=membership)
        return len(found.evaluations)

    assert verified(0, 1, 2, 3, 4, 5) == 2
    assert verified(0, 1, 3, 4, 5) == 1  # one that failed is left out
    for order in ((2,), (0, 2), (0, 1, 5), (0, 1, 2, 2), (0, 1, 3, 2), (0, 1, 2, 3, 5), (0, 1, 2, 3, 4, 2)):
        with pytest.raises(ProtocolViolation, match="out of their order"):
            verified(*order)
    # To call it a round of training changes nothing: the slot says what it is.
    told[2].step = "round"
    assert verified(0, 1, 2, 3, 4, 5) == 2
    lied = analyst_pb2.Progress()
    lied.CopyFrom(told[2])
    release = query_pb2.Release.FromString(lied.release)
    release.slot = 2
    lied.release = release.SerializeToString(deterministic=True)
    told[2] = lied
    with pytest.raises(ProtocolViolation):
        verified(0, 1, 2)


def test_the_own_rule_of_a_job_ends_it(built: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    remove_noise(monkeypatch)
    before = spent(built, "hospital-b")
    asked = AWARDS | {"rounds": 40, "spare_rounds": 0, "evaluate_every": 1, "patience": 2}
    with built.session() as session:
        model = session.train("poisson", rho=80.0, **asked)
    assert model.complete
    assert 3 <= len(model.rounds) < 40  # Newton steps do not go on getting better for forty rounds
    assert "ended by its rule of 2" in model.card()
    wait_for(lambda: spent(built, "hospital-b") - before == 2 * len(model.rounds) * 1_000_000_000)


def test_a_cnn_learns_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's digits at three institutions, at a multiplier of 0.5: guessing would reach a tenth."""
    pytest.importorskip("torch")
    pixels, labels = load_digits(return_X_y=True)
    names = [f"p{place}" for place in range(64)]
    keys = ", ".join(f'"{digit}"' for digit in range(10))
    schema = f'name = "digits"\nmax_persons = 1500\n[columns.digit]\ntype = "category"\ncategories = [{keys}]\n'
    schema += "".join(f'[columns.{name}]\ntype = "number"\nlower = 0\nupper = 16\n' for name in names)
    frame = pd.DataFrame(pixels, columns=names).assign(digit=labels)
    train, test = frame[:1400], frame[1400:]
    files = {}
    for number in range(3):
        train[number::3].to_csv(tmp_path / f"{number}.csv", index=False)
        files[f"hospital-{number}"] = {"digits": f'path = "{tmp_path}/{number}.csv"\n'}
    with consortium(tmp_path / "c", [schema], files, epsilon=1e6) as running, running.session() as session:
        trained = session.train(
            "cnn", dataset="digits", label="digit", features=names, image=[8, 8, 1], filters=[8], kernel=3, pool=2,
            hidden=[], method="sgd", optimizer="momentum", rate=0.3, clip=1.0, batch=420.0, learning_rate=0.5,
            noise_multiplier=0.5, rounds=25, spare_rounds=2, seed=1,
        )  # fmt: skip
    assert trained.complete
    right = trained.predict(test).argmax(axis=1) == test["digit"]
    assert right.mean() > 0.4


def test_a_job_that_diverges_stops_and_keeps_its_last_good_model(built: Consortium) -> None:
    """Adam's steps of 600,000 in directions that noise draws: the second or a later one leaves what a model may be."""
    how = {"method": "sgd", "optimizer": "adam", "rate": 1.0, "clip": 1.0, "batch": 100.0, "learning_rate": 6e5}
    before = spent(built, "hospital-b")
    with built.session() as session:
        with pytest.raises(QueryError, match="diverged"):
            session.train("linear", noise_multiplier=1000.0, rounds=200, spare_rounds=0, **AWARDS, **how)
        failed = next(job for job in session.jobs() if "diverged" in job.reason)
        model = session.model(failed.request_id)
    assert not model.complete
    assert 2 <= len(model.rounds) < 200
    assert 0 < abs(model.theta).max() <= 1e6
    assert "ended early" in model.card()
    cost = model.plan.round_rho_nano
    wait_for(lambda: spent(built, "hospital-b") - before == len(model.rounds) * cost)


def test_agents_without_torch_refuse_networks_before_anything_is_spent(
    built: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "analytics_client.agent.training.networks", None)
    before = spent(built, "hospital-a")
    asked = AWARDS | {"method": "sgd", "clip": 1.0, "learning_rate": 0.3, "noise_multiplier": 1.0, "rounds": 3}
    with built.session() as session, pytest.raises(QueryError, match="without PyTorch"):
        session.train("mlp", hidden=[4], **asked)
    assert spent(built, "hospital-a") == before
