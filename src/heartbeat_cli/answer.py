"""What a deployment says to one call, before anybody judges it: the shape that both transports give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["query", "mutation"]


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
