"""Several commands of another program in one process: their output, their errors, their end."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics_client.batch import Batch
from queries.errors import ConfigError


def test_commands_share_a_process_and_give_what_they_print(tmp_path: Path) -> None:
    server = tmp_path / "server"
    with Batch("analytics_server.cli:app") as batch:
        founded = batch.run("init", str(server), "--name", "liver")
        assert "Consortium liver is founded" in founded
        token = batch.run("invite", str(server), "--role", "analyst", "--id", "ada")
        assert token.startswith("cohortium-invite-v1.")
        process = batch._process
    assert process.poll() == 0


def test_an_error_of_a_command_is_raised_in_its_words_and_the_next_still_runs(tmp_path: Path) -> None:
    with Batch("analytics_server.cli:app") as batch:
        with pytest.raises(ConfigError, match="is no coordinator's folder") as caught:
            batch.run("invite", str(tmp_path), "--role", "analyst", "--id", "ada")
        assert "cohortium-server init" in caught.value.hint
        with pytest.raises(ConfigError, match="No such option"):
            batch.run("init", "--nothing")
        assert "is founded" in batch.run("init", str(tmp_path / "server"), "--name", "liver")


@pytest.mark.parametrize("gone", [True, False], ids=["before the command is written", "while it runs"])
def test_a_process_that_died_is_no_silence(gone: bool) -> None:
    with Batch("analytics_server.cli:app") as batch:
        batch._process.kill()
        if gone:
            batch._process.wait()
        with pytest.raises(ConfigError, match="ended while it ran 'init'"):
            batch.run("init")
