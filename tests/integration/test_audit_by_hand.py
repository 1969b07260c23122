"""The commands in docs/audit.md for verifying by hand, run as they stand there; and that they notice what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.audit import World, new_world

from analytics_client.audit import Entry, History, write_json_lines
from trust.identity import keys

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"
TOOLS = ("bash", "openssl", "sha256sum", "base64", "xxd")
SUCCESS = ["the root is theirs", "Signature Verified Successfully", "Signature Verified Successfully"]

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason=f"needs the standard tools {', '.join(TOOLS)} on the PATH"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return new_world(tmp_path_factory.mktemp("log"))


def commands() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)


def run(world: World, folder: Path) -> list[str]:
    """Run every block of the page in one shell; return what they print on standard output."""
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "LOG_KEY": keys.public_bytes(world.log_key).hex(),
        "WITNESS": "beta",
        "WITNESS_KEY": keys.public_bytes(world.identities["beta"]).hex(),
    }
    bash = shutil.which("bash")
    assert bash is not None
    script = [bash, "-c", "\n".join(commands())]
    done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def export(world: World, folder: Path) -> Path:
    path = folder / "log.jsonl"
    write_json_lines(History([Entry(*row) for row in world.entries()], world.checkpoints(), world.memberships), path)
    return path


def test_the_commands_on_the_page_verify_an_export(world: World, tmp_path: Path) -> None:
    assert len(commands()) == 4
    export(world, tmp_path)
    assert run(world, tmp_path) == SUCCESS


def test_they_notice_another_entry(world: World, tmp_path: Path) -> None:
    path = export(world, tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    leaves = [re.search(r'"leaf": "([^"]*)"', line) for line in lines]
    third, fourth = (m.group(1) for m in [m for m in leaves if m][3:5])
    path.write_text("".join(lines).replace(f'"leaf": "{third}"', f'"leaf": "{fourth}"'))
    assert run(world, tmp_path) == SUCCESS[1:]


def test_they_notice_another_head_and_another_key(world: World, tmp_path: Path) -> None:
    path = export(world, tmp_path)
    text = path.read_text()
    size = world.checkpoints()[-1].split(b"\n")[1].decode()
    at = text.rindex(f"\\n{size}\\n")
    path.write_text(text[:at] + text[at:].replace(f"\\n{size}\\n", f"\\n{int(size) - 1}\\n", 1))
    assert run(world, tmp_path) == ["Signature Verification Failure", "Signature Verification Failure"]
