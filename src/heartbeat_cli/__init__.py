"""Heartbeats of scheduled agents, reported to Convex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heartbeat_cli.in_python import running

__version__ = "0.1.0"
__all__ = ["__version__", "running"]


def __getattr__(name: str) -> Any:
    """`running`, loaded when it is first wanted: the command line does without."""
    if name != "running":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heartbeat_cli.in_python import running  # noqa: PLC0415 - as above

    return running
