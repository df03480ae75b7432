"""The payload of a heartbeat: its checks (the server's own, made early), its wire form.

Pure: no clock, no I/O.

`compose` is the way in. It never refuses a heartbeat for text that is too long or badly encoded (a life sign
would be lost for the sake of a comment): it cuts, repairs and says so in notes. Everything else that is wrong
is a `UsageProblem`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from heartbeat_cli.errors import UsageProblem

# The server's limits (convex/heartbeat/model/checks.ts); texts are measured in code points there, too.
AGENT_NAME_MAX = 64
SUMMARY_MAX = 500
ERROR_MAX = 4_000
HOST_MAX = 255
CLIENT_VERSION_MAX = 64
OUTPUT_MAX = 10_000
COUNT_MAX = 1_000_000  # no agent has more tasks; a larger number is a broken sender's
INSTANT_MAX_MS = 220_000_000_000_000  # the year 8941
EXIT_CODE_MIN, EXIT_CODE_MAX = -(2**31), 2**32 - 1  # Windows uses all 32 bits, with a sign or without

STATUSES: Final = ("ok", "idle", "working", "blocked", "waiting", "error")
RESULTS: Final = ("acted", "noop", "error")
_WORDS_FOR: Final = {
    "ok": "online up healthy success done completed finished",
    "idle": "inactive standby sleeping",
    "working": "active busy running in_progress starting",
    "blocked": "stuck",
    "waiting": "awaiting_input pending queued",
    "error": "failed failure crashed",
}
ALIASES: Final = {word: status for status, words in _WORDS_FOR.items() for word in words.split()}

AGENT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ELLIPSIS = "…"
_UUID7 = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_RANDOM_BYTES = 10  # of the 16: the first six are the instant

Instant = Annotated[int, Field(gt=0, le=INSTANT_MAX_MS)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
_CONFIG = ConfigDict(
    frozen=True,
    extra="forbid",
    strict=True,
    alias_generator=to_camel,
    validate_by_name=True,
    validate_by_alias=True,
)


class Run(BaseModel):
    """One end of a run: its start or its finish. `durationMs` is measured by a clock that cannot be set."""

    model_config = _CONFIG

    run_id: Annotated[str, Field(pattern=_UUID)]
    phase: Literal["start", "finish"]
    started_at: Instant | None = None
    finished_at: Instant | None = None
    duration_ms: Annotated[int, Field(ge=0, le=INSTANT_MAX_MS)] | None = None
    exit_code: Annotated[int, Field(ge=EXIT_CODE_MIN, le=EXIT_CODE_MAX)] | None = None
    output: Annotated[str, Field(max_length=OUTPUT_MAX)] | None = None
    output_cut: bool | None = None


class Heartbeat(BaseModel):
    """One immutable report by an agent. `status` is the agent's own word, not yet what it means.

    Instants are epoch milliseconds of this host's clock. Optional fields that are None are left out on the
    wire. Counts are the sender's own; without them the server counts.
    """

    model_config = _CONFIG

    heartbeat_id: Annotated[str, Field(pattern=_UUID7)]
    agent: Annotated[str, Field(pattern=rf"^{AGENT_NAME.pattern}$", max_length=AGENT_NAME_MAX)]
    sent_at: Instant
    status: str
    summary: Annotated[str, Field(max_length=SUMMARY_MAX)] | None = None
    error: Annotated[str, Field(max_length=ERROR_MAX)] | None = None
    result: Literal["acted", "noop", "error"] | None = None
    open_tasks: Count | None = None
    stale_tasks: Count | None = None
    host: Annotated[str, Field(max_length=HOST_MAX)] | None = None
    client_version: Annotated[str, Field(max_length=CLIENT_VERSION_MAX)] | None = None
    run: Run | None = None

    def body(self) -> dict[str, Any]:
        """What `mutations/recordHeartbeat` takes, but for `deliveredAt`, which each attempt adds."""
        return self.model_dump(by_alias=True, exclude_none=True)


def compose(  # noqa: PLR0913 - one argument for each field
    *,
    heartbeat_id: str,
    agent: str,
    sent_at: int,
    status: str,
    summary: str | None = None,
    error: str | None = None,
    result: str | None = None,
    open_tasks: int | None = None,
    stale_tasks: int | None = None,
    host: str | None = None,
    client_version: str | None = None,
    run: Run | None = None,
) -> tuple[Heartbeat, list[str]]:
    """A heartbeat of what was given, and a note for people about everything that was changed to make it fit.

    A summary keeps its beginning, an error its end (where the cause stands); blank text counts as none.
    Raises `UsageProblem` for a bad agent name, an unknown status or result, a count out of bounds, or one
    count without the other.
    """
    normalise_status(status)
    if (open_tasks is None) != (stale_tasks is None):
        raise UsageProblem(
            "one task count was given without the other",
            hint="give both --open-tasks and --stale-tasks, or neither: then the deployment counts",
        )
    notes: list[str] = []
    fields = {
        "heartbeat_id": heartbeat_id,
        "agent": agent_name(agent),
        "sent_at": sent_at,
        "status": status.strip(),
        "summary": _fitted("summary", summary, SUMMARY_MAX, notes),
        "error": _fitted("error", error, ERROR_MAX, notes, keep="end"),
        "result": result,
        "open_tasks": open_tasks,
        "stale_tasks": stale_tasks,
        "host": _fitted("host", host, HOST_MAX, notes),
        "client_version": client_version,
        "run": run,
    }
    try:
        heartbeat = Heartbeat.model_validate(fields)
    except ValidationError as problem:
        raise _usage(problem) from None
    if open_tasks is not None and stale_tasks is not None and stale_tasks > open_tasks:
        raise UsageProblem(
            f"{stale_tasks} stale tasks of {open_tasks} open ones cannot be",
            hint="a stale task is an open one",
        )
    return heartbeat, notes


def _usage(problem: ValidationError) -> UsageProblem:
    first = problem.errors(include_url=False)[0]
    name = str(first["loc"][0])
    if name == "result":
        return UsageProblem(f"unknown result {first['input']!r}", hint=f"use one of: {', '.join(RESULTS)}")
    flag = name.replace("_", "-")
    return UsageProblem(f"{flag} cannot be {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}")


def agent_name(text: str) -> str:
    """The agent that `text` names: the one way to write and read names.

    Capital letters and outer blanks do not count. Raises `UsageProblem` for anything that is not a letter or
    digit followed by letters, digits, - or _, at most 64 in all.
    """
    name = text.strip()
    lowered = name.lower() if name.isascii() else name
    if len(lowered) > AGENT_NAME_MAX or not AGENT_NAME.fullmatch(lowered):
        raise UsageProblem(
            f"{_shortened(name)!r} cannot be the name of an agent",
            hint=f"use letters, digits, - and _, beginning with a letter or digit, at most {AGENT_NAME_MAX}",
        )
    return lowered


def normalise_status(word: str) -> str:
    """What a status word means: one of `STATUSES`. Raises `UsageProblem` for an unknown word.

    Case does not count, and neither does the difference of `-`, `_` and blank.
    """
    key = word.strip().lower().replace("-", "_").replace(" ", "_")
    meaning = key if key in STATUSES else ALIASES.get(key)
    if meaning is None:
        raise UsageProblem(
            f"unknown status {_shortened(word)!r}",
            hint=f"use one of: {', '.join(STATUSES)} (active, done, failed and the like are understood too)",
        )
    return meaning


def heartbeat_id(now_ms: int, random: bytes) -> str:
    """A UUIDv7 (RFC 9562, 5.7), lower-case. Ids of one sender sort by when they were made.

    It holds `now_ms` (epoch milliseconds), then 74 bits of `random` (10 bytes or more).
    """
    if len(random) < _RANDOM_BYTES:
        raise ValueError(f"{_RANDOM_BYTES} random bytes are needed, not {len(random)}")
    tail = int.from_bytes(random[:_RANDOM_BYTES], "big")
    instant = (now_ms & 0xFFFF_FFFF_FFFF) << 80
    version, variant = 0x7 << 76, 0b10 << 62
    high, low = (tail >> 62 & 0xFFF) << 64, tail & 0x3FFF_FFFF_FFFF_FFFF
    return str(UUID(int=instant | version | high | variant | low))


def _fitted(
    name: str, text: str | None, limit: int, notes: list[str], keep: Literal["beginning", "end"] = "beginning"
) -> str | None:
    if text is None or not text.strip():
        return None
    clean = text.strip()
    # Bytes of an argument that are no UTF-8 arrive as lone surrogates, which no wire form can hold.
    repaired = clean.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if repaired != clean:
        notes.append(f"the {name} is not valid text: what could not be read was replaced")
    if len(repaired) <= limit:
        return repaired
    room = limit - len(_ELLIPSIS)
    notes.append(f"the {name} is longer than {limit:,} characters: its {keep} was kept")
    return _ELLIPSIS + repaired[-room:] if keep == "end" else repaired[:room] + _ELLIPSIS


def _shortened(text: str) -> str:
    return text if len(text) <= AGENT_NAME_MAX else text[:AGENT_NAME_MAX] + _ELLIPSIS
