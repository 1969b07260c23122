"""Packages that offer a model: real wheels, made and installed in a test's own folder."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path


def make_wheel(folder: Path, name: str, source: str) -> tuple[Path, str]:
    """Write the wheel of a distribution of one module `name` whose `model` is its entry point; return its SHA-256."""
    info = f"{name}-1.0.dist-info"
    members = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[cohortium.models]\n{name.replace('_', '-')} = {name}:model\n",
    }
    lines = []
    for path, text in members.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={hashed},{len(text.encode())}")
    members[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in members.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return wheel, hashlib.sha256(wheel.read_bytes()).hexdigest()


def install(wheel: Path, target: Path) -> None:
    """Install a wheel as a steward would, into a folder of its own."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, timeout=120)
