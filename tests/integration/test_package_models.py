"""A model of a package, trained over real gRPC at institutions that installed it, and refused where they did not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from harness.consortium import EVERYTHING, consortium
from harness.packages import install, make_wheel

from analytics_client.agent.ledger import Ledger
from analytics_client.training import GradientModel
from queries.errors import PolicyDenied, QueryError

SCHEMA = (
    'name = "d"\nmax_persons = 2000\n[columns.x]\ntype = "number"\nlower = -1\nupper = 1\n'
    '[columns.z]\ntype = "number"\nlower = -1\nupper = 1\n'
    '[columns.y]\ntype = "category"\ncategories = ["no", "yes"]\n'
)
SOURCE = """
from torch import nn
from analytics_client.models.pytorch import TorchModel

def model(inputs, outputs):
    return TorchModel(nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs)))
"""
NAME = "cohortium-live-net"


def test_a_package_is_trained_where_it_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    site = tmp_path / "site"
    wheel, sha256 = make_wheel(tmp_path, "cohortium_live_net", SOURCE)
    install(wheel, site)
    monkeypatch.syspath_prepend(site)
    random, files = np.random.default_rng(3), {}
    for number in range(3):
        x, z = random.uniform(-1, 1, (2, 400))
        lines = [f"{a:.4f},{b:.4f},{'yes' if a * b > 0 else 'no'}" for a, b in zip(x, z, strict=True)]
        (tmp_path / f"{number}.csv").write_text("\n".join(["x,z,y", *lines, ""]))
        files[f"hospital-{number}"] = {"d": f'path = "{tmp_path}/{number}.csv"\n'}
    pinned = f'\n[[models]]\nname = "{NAME}"\nwheel = "{wheel}"\nsha256 = "{sha256}"\n'
    asked = {
        "dataset": "d", "label": "y", "features": ["x", "z"], "package": NAME, "package_sha256": sha256,
        "method": "sgd", "optimizer": "adam", "rate": 0.1, "clip": 1.0, "batch": 120.0, "learning_rate": 0.2,
        "noise_multiplier": 0.2, "rounds": 48, "spare_rounds": 0, "seed": 2,
        "blocks": [[16, 2**-0.5], [8, 0.0], [16, 8**-0.5], [2, 0.0]],
    }  # fmt: skip
    with consortium(tmp_path / "c", [SCHEMA], files, agent_toml=EVERYTHING, epsilon=1e6) as running:
        with running.session() as session, pytest.raises(PolicyDenied, match="no model"):
            session.train("package", **asked)
        for institution in files:
            policy = running.folder / institution / "agent.toml"
            policy.write_text(policy.read_text() + pinned)
        with running.session() as session:
            with pytest.raises(PolicyDenied, match="package hash differs"):
                session.train("package", **(asked | {"package_sha256": hashlib.sha256(b"another").hexdigest()}))
            with pytest.raises(QueryError, match="other blocks"):
                session.train("package", **(asked | {"blocks": [[42, 0.1]]}))
            for institution in files:  # what was refused cost nothing
                with Ledger.read(running.folder / institution / "ledger.sqlite") as ledger:
                    assert not any(account.rho_nano for account in ledger.accounts())
            model = session.train("package", **asked)
    assert isinstance(model, GradientModel)
    assert model.complete
    assert "cohortium-live-net" in model.job.shape
    assert sha256 in model.card()
    x, z = np.random.default_rng(9).uniform(-1, 1, (2, 500))
    frame = {"x": x, "z": z}
    with pytest.raises(QueryError, match="only the package"):
        model.predict(frame)
    from analytics_client.models.pytorch import TorchModel

    namespace: dict[str, object] = {}
    exec(SOURCE, namespace)  # noqa: S102 - the package's own source, as its author has it
    own = namespace["model"](2, 2)  # type: ignore[operator]
    assert isinstance(own, TorchModel)
    scores = own.predict(model.theta.astype(np.float32), model.inputs(frame))
    assert ((scores[:, 1] > scores[:, 0]) == (x * z > 0)).mean() > 0.65
