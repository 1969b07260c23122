"""agent.toml while the agent runs: an edit counts from the next request on; one that is not understood stops all.

Policy and budgets are taken up at once; where the data lie, and the engine, at the next start. Must not know: requests,
the ledger, the network.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import structlog

from analytics_client.agent import config as configuration
from analytics_client.agent.config import FILE, AgentConfig

logger = structlog.get_logger("cohortium.agent")


class PolicyFile:
    """The agent.toml of a folder. `digest` is the SHA-256 of the text that is in force."""

    def __init__(self, folder: Path) -> None:
        """Read and check it. Raise ConfigError as `config.load`."""
        self._folder = folder
        self._stamp = self._look()
        self._config, self.digest = self._read()
        self._started = self._config

    def current(self) -> AgentConfig:
        """Return what holds now, read again where the file has changed.

        Raise ConfigError while it cannot be understood: an older policy is no longer what the steward wants.
        """
        stamp = self._look()
        if stamp != self._stamp or stamp is None:
            self._config, self.digest = self._read()
            self._stamp = stamp  # only now: a file that was refused is looked at again
            self._say_what_waits()
        return self._config

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = (self._folder / FILE).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[AgentConfig, bytes]:
        text = configuration.read(self._folder)
        return configuration.parse(text, self._folder), hashlib.sha256(text.encode()).digest()

    def _say_what_waits(self) -> None:
        logger.info("policy taken up", sha256=self.digest.hex())
        if (self._config.datasets, self._config.engine) != (self._started.datasets, self._started.engine):
            logger.warning("datasets and engine change at the next start", file=FILE)
