"""What the pages for analysts name exists: files, commands, options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from analytics_client.agent.cli import app as agent_app
from analytics_client.cli import app as client_app
from analytics_server.cli import app as server_app

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / page for page in ("identity.md", "sandbox.md", "schema.md", "training.md")),
]
APPS = {"cohortium": client_app, "cohortium-agent": agent_app, "cohortium-server": server_app}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def _lines(page: Path) -> Iterator[list[str]]:
    """Every command line on a page, in words."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"(?:^\$? ?|`)(cohortium(?:-agent|-server)? [^`\n]+)", text, re.MULTILINE):
        yield re.sub(r'"[^"]*"', "TEXT", line).split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_can_be_typed(page: Path) -> None:
    for program, *words in _lines(page):
        command: Any = get_command(APPS[program])
        while hasattr(command, "commands"):
            assert words[0] in command.commands, f"{program} {words}"
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word in options, f"{program} {command.name} {word}"


def test_every_command_of_the_analyst_is_on_a_page() -> None:
    text = "".join(page.read_text() for page in (*PAGES, ROOT / "docs" / "audit.md"))
    command: Any = get_command(client_app)
    for name in command.commands:
        assert f"cohortium {name}" in text
