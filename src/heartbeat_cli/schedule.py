"""cron-schedule.md: the page people read and the table the machine obeys.

One markdown table counts: the one whose header has the columns `agent` and `schedule`. Prose, other tables,
code blocks and comments around it are free. Only the table's form is judged here; whether a cron expression
or a time zone means anything is for the backend to say, which computes the fires.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from heartbeat_cli import markdown, times
from heartbeat_cli.durations import duration_ms, duration_text
from heartbeat_cli.errors import ScheduleProblem, UsageProblem
from heartbeat_cli.heartbeat import agent_name, normalise_status
from heartbeat_cli.markdown import Line

FILE_LIMIT_BYTES = 1_000_000  # some 5,000 agents; what is larger is not a page for people
PURPOSE_LIMIT = 500  # characters; the backend's limits, told with a line number here
HOST_LIMIT = 255
FAIL_AFTER_MOST = 100  # reports in a row, the backend's limit
DELAY_MOST_MS = 10 * times.MINUTE_MS  # more would move a run out of its expected instant's window
CRON_FIELDS = 5
THE_SCHEDULE = "the schedule"  # how errors call a text whose file is not known

# Column of the table: the names it may have in the header, compared without case, blanks and punctuation.
COLUMNS = {
    "agent": ("agent",),
    "schedule": ("schedule",),
    "zone": ("timezone", "zone", "tz"),
    "status": ("status",),
    "summary": ("summary", "purpose"),
    "command": ("command",),
    "grace": ("grace",),
    "misses": ("misses",),
    "max run": ("maxrun",),
    "fail after": ("failafter",),
    "delay": ("delay",),
    "act within": ("actwithin",),
    "host": ("host",),
}
_BLANK_CELLS = {"", "-", "–", "—"}  # noqa: RUF001 - people write dashes for "nothing"

LOST = "this row belongs to no table; expected it directly below the others, with nothing in between"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Interval:
    """`every 6h`: expected this long after the last heartbeat."""

    every_ms: int

    def wire(self) -> dict[str, Any]:
        """This schedule as mutations/applySchedule takes it."""
        return {"kind": "interval", "everyMs": self.every_ms}


@dataclass(frozen=True, slots=True)
class Cron:
    """Five fields of cron(5), read in an IANA time zone."""

    expression: str
    zone: str

    def wire(self) -> dict[str, Any]:
        """This schedule as mutations/applySchedule takes it."""
        return {"kind": "cron", "expression": self.expression, "timeZone": self.zone}


def schedule_text(schedule: Interval | Cron) -> str:
    """A schedule as the dashboard has it: `every 6 h`, `15 8 * * * UTC`."""
    if isinstance(schedule, Interval):
        return f"every {times.every(schedule.every_ms)}"
    return f"{schedule.expression} {schedule.zone}"


@dataclass(frozen=True, slots=True)
class Row:
    """One agent of the table; `line` is its line in the file, from 1. What a row leaves open is None."""

    line: int
    agent: str
    schedule: Interval | Cron
    status: str | None = None
    purpose: str | None = None
    command: str | None = None
    grace_ms: int | None = None
    misses: int | None = None
    max_run_ms: int | None = None
    act_within_ms: int | None = None
    host: str | None = None
    fail_after: int | None = None
    delay_ms: int | None = None

    def wire(self) -> dict[str, Any]:
        """This row as mutations/applySchedule takes it; what is None is left out."""
        optional = {
            "purpose": self.purpose,
            "status": self.status,
            "graceMs": self.grace_ms,
            "misses": self.misses,
            "maxRunMs": self.max_run_ms,
            "actWithinMs": self.act_within_ms,
            "host": self.host,
            "failAfter": self.fail_after,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {"agent": self.agent, "schedule": self.schedule.wire(), **given}


@dataclass(frozen=True, slots=True)
class Schedule:
    """The rows in the order of the file, and what is worth a warning (columns that nobody reads)."""

    rows: tuple[Row, ...]
    warnings: tuple[str, ...]


def load(page: Path) -> Schedule:
    """Every row of the page. Raises as `read` and `parse` do, naming the page."""
    with _naming(page):
        return parse(read(page))


def load_own_row(page: Path, agent: str) -> Row | None:
    """The row of `agent` alone, or None. Raises as `read` and `own_row` do, naming the page."""
    with _naming(page):
        return own_row(read(page), agent)


@contextmanager
def _naming(page: Path) -> Iterator[None]:
    try:
        yield
    except ScheduleProblem as problem:
        raise ScheduleProblem(str(page), problem.problems, hint=problem.hint) from None


def read(path: Path) -> str:
    """The page's text. Raises `UsageProblem` when there is none, `ScheduleProblem` when it is not text."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise UsageProblem(
            f"there is no {path}", hint="name the folder that has one: --home, or HEARTBEAT_HOME"
        ) from None
    except OSError as error:
        raise UsageProblem(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_LIMIT_BYTES:
        raise UsageProblem(f"{path} is larger than {FILE_LIMIT_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _problem([(line, "expected UTF-8 text")]) from None


def parse(text: str) -> Schedule:
    """Every row of the schedule table. Raises `ScheduleProblem` listing every line that cannot be read."""
    table = _find_table(text)
    rows: list[Row] = []
    problems: list[tuple[int, str]] = []
    first_line: dict[str, int] = {}
    for line, cells in table.body:
        try:
            row = _row(line, table.named(line, cells))
        except ScheduleProblem as error:
            problems += error.problems
            continue
        earlier = first_line.setdefault(row.agent, line)
        if earlier != line:
            problems.append(
                (line, f"agent '{row.agent}' stands in line {earlier} already; expected one row each")
            )
        rows.append(row)
    if not table.body:
        problems.append((table.header_line, "expected at least one agent below this header"))
    problems += [(line, LOST) for line, _ in table.lost]
    if problems:
        raise _problem(sorted(problems, key=lambda problem: problem[0]))
    return Schedule(tuple(rows), table.warnings)


def own_row(text: str, agent: str) -> Row | None:
    """The row of `agent` alone, or None when it has none; no other agent's row is read, whatever is in it.

    Raises `ScheduleProblem` when the table cannot be found or this agent's row cannot be read.
    """
    table = _find_table(text)
    column = table.columns.index("agent")

    def of_agent(rows: Sequence[Line]) -> list[Line]:
        return [(line, cells) for line, cells in rows if _same_agent(cells[column : column + 1], agent)]

    mine = of_agent(table.body)
    if not mine:
        lost = of_agent(table.lost)
        if lost:
            raise _problem([(lost[0][0], LOST)])
        return None
    if len(mine) > 1:
        raise _problem(
            [(mine[1][0], f"agent '{agent}' stands in line {mine[0][0]} already; expected one row each")]
        )
    line, cells = mine[0]
    return _row(line, table.named(line, cells))


def _same_agent(cell: Sequence[str], agent: str) -> bool:
    try:
        return bool(cell) and agent_name(cell[0]) == agent
    except UsageProblem:
        return False


@dataclass(frozen=True, slots=True)
class _Table:
    header_line: int
    columns: tuple[str | None, ...]  # the key of COLUMNS for each column; None for one that nobody reads
    body: tuple[Line, ...]
    lost: tuple[Line, ...]  # lines of the page that look like rows and belong to no table
    warnings: tuple[str, ...]

    def named(self, line: int, cells: list[str]) -> dict[str, str]:
        if len(cells) != len(self.columns):
            more = r" (write \| for a | inside a cell)" if len(cells) > len(self.columns) else ""
            raise _problem([(line, f"expected {len(self.columns)} cells, found {len(cells)}{more}")])
        return {
            name: "" if cell in _BLANK_CELLS else cell
            for name, cell in zip(self.columns, cells, strict=True)
            if name is not None
        }


def _find_table(text: str) -> _Table:
    found, lost = markdown.tables(text)
    tables = [table for table in (_as_schedule(rows, lost) for rows in found) if table is not None]
    if not tables:
        raise ScheduleProblem(
            THE_SCHEDULE,
            [(1, "expected a table that begins:  | agent | schedule |")],
            hint="its second line is  |---|---|  and each further line one agent",
        )
    if len(tables) > 1:
        lines = [(table.header_line, "expected only one table with these columns") for table in tables[1:]]
        raise _problem([(tables[0].header_line, "a first table with 'agent' and 'schedule'"), *lines])
    return tables[0]


def _as_schedule(rows: list[Line], lost: list[Line]) -> _Table | None:
    line, header = rows[0]
    columns = tuple(_column(cell) for cell in header)
    if "agent" not in columns or "schedule" not in columns:
        return None
    named = [name for name in columns if name]
    twice = {name for name, count in Counter(named).items() if count > 1}
    if twice:
        raise _problem([(line, f"expected one column '{sorted(twice)[0]}', found several")])
    unread = [cell for cell, name in zip(header, columns, strict=True) if name is None and cell]
    warnings = [f"line {line}: column '{cell}' is not one that heartbeat reads" for cell in unread]
    return _Table(line, columns, tuple(rows[1:]), tuple(lost), tuple(warnings))


def _column(cell: str) -> str | None:
    plain = re.sub(r"[\W_]+", "", cell.lower())
    return next((name for name, spellings in COLUMNS.items() if plain in spellings), None)


def _row(line: int, cells: dict[str, str]) -> Row:
    problems: list[tuple[int, str]] = []

    def value(column: str, read_cell: Callable[[str], T]) -> T | None:
        text = cells.get(column, "")
        if not text:
            return None
        try:
            return read_cell(text)
        except UsageProblem as problem:
            problems.append((line, f"{column} '{text[:80]}': {problem}"))
            return None

    zone = value("zone", _zone) or "UTC"
    agent = value("agent", agent_name)
    schedule = value("schedule", lambda text: _schedule(text, zone))
    for column in ("agent", "schedule"):
        if not cells[column]:
            problems.append((line, f"expected something in the column '{column}'"))
    row = Row(
        line=line,
        agent=agent or "",
        schedule=schedule or Interval(0),
        status=value("status", normalise_status),
        purpose=value("summary", lambda text: _text(text, PURPOSE_LIMIT)),
        command=value("command", lambda text: text),
        grace_ms=value("grace", _duration),
        misses=value("misses", _count),
        max_run_ms=value("max run", _duration),
        act_within_ms=value("act within", _duration),
        host=value("host", lambda text: _text(text, HOST_LIMIT)),
        fail_after=value("fail after", _fail_after),
        delay_ms=value("delay", _delay),
    )
    if problems:
        raise _problem(problems)
    return row


def _schedule(text: str, zone: str) -> Interval | Cron:
    first, _, rest = text.strip().partition(" ")
    if first.lower() == "every":
        every = duration_ms(rest)
        if every is None:
            raise UsageProblem("expected a duration after 'every', such as 6h, 90m, 1d or 2h30m")
        return Interval(every)
    fields = text.split()
    if len(fields) != CRON_FIELDS:
        raise UsageProblem(
            f"expected 'every 6h' or the five fields of a cron expression, found {len(fields)}"
            f" {'field' if len(fields) == 1 else 'fields'}"
        )
    return Cron(" ".join(fields), zone)


def _zone(text: str) -> str:
    if len(text.split()) != 1:
        raise UsageProblem("expected an IANA time zone, such as UTC or Europe/Berlin")
    return text


def _duration(text: str) -> int:
    found = duration_ms(text)
    if found is None:
        raise UsageProblem("expected a duration such as 30m, 6h, 1d or 2h30m")
    return found


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise UsageProblem("expected a whole number from 1")
    return int(text)


def _fail_after(text: str) -> int:
    found = _count(text)
    if found > FAIL_AFTER_MOST:
        raise UsageProblem(f"expected a whole number from 1 to {FAIL_AFTER_MOST}")
    return found


def _delay(text: str) -> int:
    found = _duration(text)
    if found > DELAY_MOST_MS:
        raise UsageProblem(f"expected at most {duration_text(DELAY_MOST_MS)}")
    return found


def _text(text: str, limit: int) -> str:
    if len(text) > limit:
        raise UsageProblem(f"expected at most {limit} characters, found {len(text)}")
    return text


def _problem(problems: Sequence[tuple[int, str]]) -> ScheduleProblem:
    return ScheduleProblem(THE_SCHEDULE, problems)
