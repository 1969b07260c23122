"""The fuzzer's targets, for a moment each: what strangers send is refused with the parser's own error, or is valid.

`make fuzz` runs the same targets under atheris, for as long as one likes.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def load() -> ModuleType:
    path = Path(__file__).parents[2] / "fuzz" / "parsers.py"
    spec = importlib.util.spec_from_file_location("fuzz_parsers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


parsers = load()
TARGETS = parsers.targets()
BRIEF = settings(max_examples=80, deadline=None)


@pytest.mark.parametrize("name", TARGETS)
def test_honest_bytes_are_taken(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
@BRIEF
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_valid(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
@BRIEF
@given(data=st.data())
def test_honest_bytes_with_a_few_bits_or_bytes_changed_are_refused_or_valid(name: str, data: st.DataObject) -> None:
    message = bytearray(data.draw(st.sampled_from(TARGETS[name].seeds)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(message) - 1, 0)))
        message[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    TARGETS[name].run(bytes(message))


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.kind is not None])
@BRIEF
@given(seed=st.integers(0, 2**32 - 1))
def test_every_field_with_other_values_is_refused_or_valid(name: str, seed: int) -> None:
    draw = random.Random(seed)
    message = draw.choice(TARGETS[name].seeds)
    for _ in range(draw.randrange(1, 5)):
        message = parsers.mutated(TARGETS[name].kind, message, draw) or message
    TARGETS[name].run(message)
