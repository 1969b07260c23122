"""The participants' side of Cohortium. Analysts need two names:

    from analytics_client import connect    # a session with a consortium one has been invited to
    from analytics_client import sandbox    # a throwaway consortium on this machine, over one's own files

Both are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analytics_client.sandboxes import sandbox
    from analytics_client.session import connect

__all__ = ["connect", "sandbox"]


_HOMES = {"connect": "analytics_client.session", "sandbox": "analytics_client.sandboxes"}


def __getattr__(name: str) -> Any:
    # PEP 562: called for names that are not there yet.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
