"""The agent.toml of a sandbox: serve these files, let one analyst ask anything, within a real budget.

Nothing like it should be written for real patients: a steward decides there, rule by rule (docs/agent.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analytics_client.sandboxes import Data

_RULE = """
[[policy.rules]]
name = {name}
dataset = {dataset}
analysts = [{analyst}]
purposes = ["*"]
operations = ["*"]
columns = ["*"]
max_epsilon_per_query = {epsilon}

[[budgets]]
dataset = {dataset}
total_epsilon = {epsilon}
per_analyst_epsilon = {epsilon}
"""


def render_agent_file(data: Mapping[str, Data], *, analyst: str, epsilon: float) -> str:
    """Return the text. `epsilon` is the budget of each dataset, and so the most that one query may cost."""
    parts = []
    for dataset, local in data.items():
        parts.append(f"[datasets.{dataset}]\npath = {_toml(str(local.path.resolve()))}\n")
        parts += [f"columns.{name} = {_toml(mapping)}\n" for name, mapping in local.columns.items()]
        parts.append("\n")
    parts += [
        _RULE.format(
            dataset=_toml(dataset),
            analyst=_toml(analyst),
            name=_toml(f"sandbox {dataset}"),
            epsilon=float(epsilon),
        )
        for dataset in data
    ]
    return "".join(parts)


def _toml(value: Any) -> str:
    """Return text or a (nested) table of text as TOML; a JSON string of printable text is a TOML basic string."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
