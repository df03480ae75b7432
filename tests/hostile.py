"""A deployment whose every text is hostile, and how to tell that none of it got through."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployment import Deployment, Function
from heartbeat_cli import shapes
from heartbeat_cli.output import MARKS_LIMIT

CONTRACT = Path(__file__).parent / "contract"
EXPORT = Path(__file__).parent / "data" / "export.jsonl"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
HOSTILE = (
    "\x1b[2J\x1b[31m\x1b]0;owned\x07\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\\x1b]52;c;ZXZpbA==\x07"
    "\x9b31m\x9d0;owned\x9c\x90\x84\x00\x08\x7f[bold red]bold[/] [link=http://evil]x[/link] :smile:"
    "\r\nat=2026-01-01T00:00:00.000Z agent=forged outcome=recorded\n\u2028\u2029\x85\x0b\x0c"
    f"{BIDI}\u200b\u200c\u2060\ufeff\u00ad\udcff\ud83d日本👩\u200d🚀" + "e" + "\u0301" * 40
)


def harmless(text: str) -> bool:
    """Whether a terminal shows all of it and obeys none of it."""
    safe = all(char in {"\n", "\u200d"} or char.isprintable() for char in text)
    marks = re.search(rf"[\u0300-\u036f\u200d]{{{MARKS_LIMIT + 1}}}", text)
    return safe and not set(BIDI) & set(text) and marks is None


def returned(function: str) -> Any:
    """What this function answered when its contract was recorded: the example that tells most."""
    examples = json.loads((CONTRACT / f"{function}.json").read_text(encoding="utf-8"))
    told = [entry["returns"] for entry in examples if "returns" in entry]
    return max((one for one in told if one.get("outcome") != "refused"), key=lambda one: len(str(one)))


COMMANDS = {
    "dashboard": ("getAgentDashboard", "getMonitorStatus"),
    "agents list": ("getAgentDashboard", "getMonitorStatus"),
    "agents show hint": ("getAgent", "getAgentHistory", "getAgentRuns", "listAgentTasks"),
    "agents pause hint": ("getAgent", "setAgentControl"),
    "tasks list hint": ("listAgentTasks",),
    "tasks add hint title": ("addTask",),
    "tasks done k1": ("completeTask",),
    "token list": ("listTokens",),
    "token create name": ("createToken",),
    "token rotate 8f80e37bb827": ("listTokens", "createToken"),
    "token revoke 8f80e37bb827": ("revokeToken",),
    "apply --yes": ("applySchedule",),
    "cron check": ("getAgentDashboard", "getMonitorStatus"),
    "send hint": ("getAgentTaskCounts", "recordHeartbeat"),
    "spool deliver": (),
    "spool retry": ("getMonitorStatus", "getToken", "recordHeartbeats"),
    "spool list": (),
    "export export.jsonl --force": ("exportRecords",),
    f"import {EXPORT}": ("importRecords",),
    "doctor": ("getMonitorStatus", "getToken", "getAgentDashboard"),
    # the last: it takes the token out of the file
    "uninstall --yes --empty": ("getToken", "listTokens", "leave"),
}
KEPT_WORDS = {"outcome", "change", "agent", "fingerprint"}  # without which there is nothing to show


def kind_of(function: str) -> str:
    known = (f"queries/{function}", f"mutations/{function}")
    return next(path for path in known if path in shapes.ANSWERS)


def with_hostile_texts(value: Any, name: str = "") -> Any:
    match value:
        case str() if name not in KEPT_WORDS:
            return HOSTILE
        case list():
            return [with_hostile_texts(item, name) for item in value]
        case dict():
            return {key: with_hostile_texts(item, key) for key, item in value.items()}
    return value


def speaks(answer: Callable[[str], Any]) -> Deployment:
    """A deployment whose every function answers what `answer` makes for its name."""
    names = {name for names in COMMANDS.values() for name in names}

    def function(name: str) -> Function:
        return lambda args: answer(name)

    return Deployment({kind_of(name): function(name) for name in names})


def hostile(name: str) -> Any:
    answer = with_hostile_texts(returned(name))
    return answer | {"isDone": True} if "isDone" in answer else answer
