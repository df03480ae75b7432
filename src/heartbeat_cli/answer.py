"""One call as both transports take it, and what a deployment says to it before anybody judges it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["query", "mutation"]
Args = Callable[[], Mapping[str, Any]]
"""Makes the arguments of one attempt: a repeated one must tell its own instant, not that of the first."""


@dataclass(frozen=True, slots=True)
class Value:
    """The function ran and returned this; numbers are as the transport gives them."""

    value: Any


@dataclass(frozen=True, slots=True)
class Rejection:
    """The function threw a ConvexError with this data, which production deployments do not hide."""

    data: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """Any other error of a function, or of calling it; in production the text is just "Server Error"."""

    text: str


Answer = Value | Rejection | Failure
