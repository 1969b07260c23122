from __future__ import annotations

import pytest

from queries.errors import ConfigError
from trust.rpc.channel import split_address


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:7443", ("localhost", 7443)),
        ("10.0.0.1:0", ("10.0.0.1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("coordinator.example.org:1", ("coordinator.example.org", 1)),
    ],
)
def test_address_is_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    ["", "localhost", ":7443", "localhost:", "localhost:http", "::1:7443", "[]:1", "a:65536", "a:-1", "a:\u0663"],
)
def test_anything_else_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        split_address(address)
