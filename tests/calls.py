"""Calls as a process makes them, and the functions that scripted deployments run for them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployment import PlainError, Refusal
from drive import work

HERE = Path(__file__).parent
TOKEN = "hbt_do-not-show-this-token"  # noqa: S105 - that it is never shown is what is tested
DEADLINE_S = 3.0
TRANSPORTS = ("ws", "http")
REQUEST = "[Request ID: 0123456789abcdef] Server Error"


def refuse(_args: Mapping[str, Any]) -> Any:
    raise Refusal({"code": "unknown_agent", "message": "there is no agent hint", "retryAfterMs": 5.0})


def slowly(_args: Mapping[str, Any]) -> Any:
    time.sleep(1.5)
    return {}


def refuse_in_words(_args: Mapping[str, Any]) -> Any:
    raise Refusal("closed on Sundays")


def fail(text: str) -> Callable[[Mapping[str, Any]], Any]:
    def function(args: Mapping[str, Any]) -> Any:
        raise PlainError(text.replace("ARGS", json.dumps(args)))

    return function


FUNCTIONS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "record": lambda args: {"outcome": "recorded", "given": args},
    "count": lambda _args: {"open": 12.0, "half": 0.5, "list": [3.0, {"deep": 1e15}]},
    "slow": slowly,
    "refuse": refuse,
    "refuseInWords": refuse_in_words,
    "throw": fail(
        f"{REQUEST}\nUncaught Error: the tasks table is on fire\n    at handler (../convex/x.ts:3:1)"
    ),
    "hidden": fail(REQUEST),
    "invalid": fail(
        f"{REQUEST}\nArgumentValidationError: extra field `runs`.\n\nObject: ARGS\nValidator: v.object()"
    ),
    "quote": fail(f"{REQUEST}\nUncaught Error: bad ARGS"),
    "nothing": lambda _args: None,
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the calls. `seconds` go from the start of its deadline to its end.

    (How long a loaded machine takes to start Python is not what is tested.)
    """

    seconds: float
    code: int
    told: dict[str, Any]
    stderr: str

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.told["error"]
        return error


Call = tuple[str, str, dict[str, Any]]
RECORD: Call = ("mutation", "record", {"n": 1})


def _spec(url: str, transport: str, calls: Sequence[Call], deadline: float) -> dict[str, Any]:
    return {"url": url, "token": TOKEN, "transport": transport, "deadline": deadline, "calls": calls}


def command(
    url: str, transport: str, *calls: Call, deadline: float = DEADLINE_S, fails: bool = False
) -> list[str]:
    """`fails`: naming the cause will be needed, so what it takes is imported before the deadline begins."""
    spec = _spec(url, transport, calls, deadline) | {"fails": fails}
    return [sys.executable, str(HERE / "drive.py"), json.dumps(spec)]


def run(argv: list[str], env: Mapping[str, str] | None = None) -> Outcome:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.environ["PATH"], **(env or {})},
    )
    return _outcome(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)


def _outcome(code: int, told: dict[str, Any], stderr: str) -> Outcome:
    ended = time.monotonic()
    return Outcome(ended - told.pop("began", ended), code, told, stderr)


def drive(
    url: str, transport: str, *calls: Call, env: Mapping[str, str] | None = None, fails: bool = False
) -> Outcome:
    """What becomes of these calls: in a process of their own where `ws` or `env` need one, else in this."""
    calls = calls or (RECORD,)
    if transport != "http" or env is not None:
        return run(command(url, transport, *calls, fails=fails), env)
    return _outcome(*work(_spec(url, transport, calls, DEADLINE_S), {}), "")
