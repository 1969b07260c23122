"""One live consortium for every end-to-end test that only asks it: four agents, processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.live import BUDGET, SCHEMA, Live, write_patients

from analytics_client.sandboxes import sandbox


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A live consortium of four institutions."""
    folder = tmp_path_factory.mktemp("live")
    schema = folder / "patients.toml"
    schema.write_text(SCHEMA)
    files = write_patients(folder, ("alpha", "beta", "gamma", "delta"))
    box = sandbox(schema, files, epsilon=BUDGET)
    with box as session:
        yield Live(box, session, schema, files)
