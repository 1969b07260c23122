"""A release of hundreds of thousands of cells: larger than any message of the wire, and it arrives whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness.consortium import consortium
from harness.noiseless import remove_noise

from analytics_server.coordinator import analyst_service

GROUPS = 90
BINS = 9000
INSTITUTIONS = ("ash", "birch", "cedar")


def schema(groups: int) -> str:
    wards = ", ".join(f'"w{number}"' for number in range(groups))
    return f"""
name = "people"
privacy_unit = "id"
max_persons = 1000000
[columns.ward]
type = "category"
categories = [{wards}]
[columns.age]
type = "number"
lower = 0
upper = {BINS}
"""


def test_a_release_larger_than_a_message_arrives_whole_and_again_after_a_disconnect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_noise(monkeypatch)
    generator = np.random.default_rng(11)
    files, truth = {}, np.zeros((GROUPS, BINS), dtype=np.int64)
    for name in INSTITUTIONS:
        wards, ages = generator.integers(0, GROUPS, 5000), generator.uniform(0, BINS, 5000)
        np.add.at(truth, (wards, ages.astype(np.int64)), 1)
        path = tmp_path / f"{name}.csv"
        rows = (f"{name}{i},w{ward},{age!r}\n" for i, (ward, age) in enumerate(zip(wards, ages.tolist(), strict=True)))
        path.write_text("id,ward,age\n" + "".join(rows))
        files[name] = {"people": f'path = "{path}"'}
    monkeypatch.setattr(analyst_service, "PIECE", 1 << 18)
    with consortium(tmp_path, [schema(GROUPS)], files) as running, running.session() as session:
        steps: list[str] = []
        result = session.query(
            f"SELECT ward, HISTOGRAM(age, {BINS}) AS n FROM people GROUP BY ward",
            rho=1,
            on_progress=lambda progress: steps.append(progress.step),
        )
        again = session._resume(bytes.fromhex(result.request_id))
    (output,) = result.table.outputs
    assert (np.asarray(output.value).reshape(GROUPS, BINS) == truth).all()
    assert "release" not in steps
    assert again.step == "released"
    assert len(again.release) > 3 * (1 << 18)
