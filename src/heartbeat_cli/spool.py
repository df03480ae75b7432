"""The spool: every heartbeat that was sent on this host, until the deployment has it.

States of an entry, and who moves them:

    add (send) ──▶ waiting ──recorded or duplicate──▶ removed
                    │  ▲ └──no answer, unauthorized, slow_down, a failing function──▶ waiting, put off
                    │  └──── retry by hand; each `heartbeat apply`, once ────┐
                    └──invalid, unknown_agent, conflict──▶ aside, with the reason

    readdress (connect) makes both waiting ones for another deployment, as if sent to that one
    drop (by hand) takes out either, into a file beside the spool

What `add` returned from survives a kill and a power cut. Removing need not be: an entry that comes back is
delivered again, under its id, and the deployment answers `duplicate`.

One SQLite file, `<data dir>/spool/spool.db`, shared by all processes of this user. Whoever delivers holds
the lock on `deliver.lock` beside it, which a kill releases. This module knows nothing of the network.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heartbeat_cli import times
from heartbeat_cli.clock import Moment
from heartbeat_cli.errors import SpoolProblem
from heartbeat_cli.private_files import exposed, open_private, replace, try_lock
from heartbeat_cli.spool_entry import Counts, Entry, Trouble, Which, count
from heartbeat_cli.spool_file import BUSY_MAX_S, MAKE_ROOM, SpoolFile

LOCK_FILE = "deliver.lock"

ENTRIES_MAX = 100_000  # four agents, each 5 minutes: 87 days
AGENT_ENTRIES_MAX = 10_000  # so that a runaway loop of one agent leaves room for the others
BACKOFF_FIRST_MS = 60_000  # the next minute of a crontab
BACKOFF_MOST_MS = 3_600_000  # so that a deployment that is back has everything within the hour
AWAY_MOST_MS = 200_000  # of a deployment: asked again by each crontab line of five minutes, so that after an
# outage everything is delivered before the functions, which hold for ten minutes, call anybody degraded
BACKOFF_JITTER = 0.2  # a fleet that was put off together does not come back together
ANSWERS_KEPT_MS = 600_000  # as long as a deadline can be: then nobody waits for them any more

STILL_WAITING = 75  # exit code of who delivers, as for a deployment that cannot be reached
CHOSEN = frozenset({"heartbeat_id", "agent", "deployment", "fingerprint"})  # what `put_off` takes

# A clock that was set back must not put anything off for long: nothing is put off for twice the most
_DUE = f"(next_try_at <= :now OR next_try_at > :now + {2 * BACKOFF_MOST_MS})"
# Doubled with each try after the free ones; `tries` is here what it was before this one
_PUT_OFF = (
    f"tries = tries + 1, next_try_at = :now + max(:least, CASE WHEN tries < :free THEN 0 ELSE"
    f" CAST(min(:most, {BACKOFF_FIRST_MS} << min(tries - :free, 10)) * :jitter AS INTEGER) END)"
)
_OF_ENTRY = (
    "number, heartbeat_id, agent, deployment, fingerprint, body, sent_at, boot, boot_ms, aside, tries,"
    " next_try_at, code, coalesce(reason, (SELECT reason FROM deployments AS away"
    " WHERE away.deployment = entries.deployment))"
)


class Spool:
    """The spool in `data_dir`. Opens nothing before it is needed.

    Every method raises `SpoolProblem` where the file cannot be used: a full or read-only disk, a file that is
    damaged, another program's or a newer version's, a process that keeps it locked for longer than `busy_s`.
    """

    def __init__(self, data_dir: Path, *, busy_s: float = BUSY_MAX_S) -> None:
        self._file = SpoolFile(data_dir, busy_s)
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """The file, whether or not there is one."""
        return self._file.path

    def exists(self) -> bool:
        """Whether anything was ever spooled here."""
        return self._file.exists()

    def hurry(self) -> None:
        """The deadline is over: wait for nobody any longer."""
        self._file.hurry()

    # --- the sender ---

    def add(self, entry: Entry) -> None:
        """Keep a heartbeat; on the disk when this returns. One that is here already stays as it is.

        A full spool is a `SpoolProblem`, too.
        """
        with self._file.writing(durable=True) as database:
            agent = entry.agent
            _room(database, "the spool is full", ENTRIES_MAX)
            _room(database, f"the spool is full for {agent}", AGENT_ENTRIES_MAX, "WHERE agent = ?", agent)
            database.execute(
                "INSERT INTO entries (heartbeat_id, agent, deployment, fingerprint, body, sent_at, boot,"
                " boot_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (heartbeat_id) DO NOTHING",
                (
                    entry.heartbeat_id,
                    entry.agent,
                    entry.deployment,
                    entry.fingerprint,
                    json.dumps(entry.body),
                    entry.sent.wall_ms,
                    entry.sent.boot,
                    entry.sent.boot_ms,
                ),
            )

    def find(self, heartbeat_id: str) -> Entry | None:
        """The entry of that id, if it is still here."""
        return next(iter(self._entries("heartbeat_id = :id", {"id": heartbeat_id}, 1)), None)

    def leave(self, heartbeat_id: str) -> Entry | None:
        """Its sender waits no longer. Returns the entry as it stands, None when it has been delivered."""
        with self._file.writing() as database:
            database.execute("UPDATE entries SET awaited = 0 WHERE heartbeat_id = ?", (heartbeat_id,))
        return self.find(heartbeat_id)

    def answer(self, heartbeat_id: str) -> dict[str, Any] | None:
        """What the deployment answered when another process delivered this entry; told once."""
        with self._file.writing() as database:
            query = "SELECT answer FROM answers WHERE heartbeat_id = ?"
            row = database.execute(query, (heartbeat_id,)).fetchone()
            database.execute("DELETE FROM answers WHERE heartbeat_id = ?", (heartbeat_id,))
        return dict(json.loads(row[0])) if row else None

    # --- whoever delivers ---

    def begin(self) -> None:
        """See to it that there is a spool, so that who delivers can be told from who does not."""
        with self._file.reading():
            pass

    def alone(self) -> bool:
        """Whether this process may deliver now: until it ends, or calls `done`, no other one may.

        Where there are no locks several may; the deployment then tells some of them `duplicate`.
        """
        if self._lock is None:
            with self._file.problems():
                handle = open_private(self.path.with_name(LOCK_FILE))
                if try_lock(handle) is False:
                    os.close(handle)
                else:
                    self._lock = handle
        return self._lock is not None

    def done(self) -> None:
        """Let others deliver."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def due(
        self, deployment: str, fingerprints: Sequence[str], now: int, *, after: int = 0, limit: int
    ) -> list[Entry]:
        """The next entries for `deployment`, sent with one of these tokens; beyond the number `after`."""
        tokens = {f"token{place}": value for place, value in enumerate(fingerprints)}
        where = f"deployment = :deployment AND aside = 0 AND number > :after AND {_DUE}"
        where += f" AND fingerprint IN ({', '.join(f':{name}' for name in tokens)})"
        return self._entries(where, {"deployment": deployment, "after": after, "now": now} | tokens, limit)

    def fingerprints(self, deployment: str, now: int, *, but: str | None = None) -> list[str]:
        """Of the tokens with which the entries due for `deployment` were sent, the entry `but` left out."""
        return self._column(
            "SELECT DISTINCT fingerprint FROM entries WHERE deployment = :deployment AND aside = 0"
            f" AND heartbeat_id IS NOT :but AND {_DUE}",
            {"deployment": deployment, "now": now, "but": but},
        )

    def deployments(self, now: int, *, put_off_too: bool = False) -> list[str]:
        """Those for which an entry is due, longest waiting first; without those that could not be reached of
        late, unless `put_off_too`.
        """
        reachable = f"deployment NOT IN (SELECT deployment FROM deployments WHERE NOT {_DUE})"
        return self._column(
            f"SELECT deployment FROM entries WHERE aside = 0 AND {_DUE} AND (:all OR {reachable})"
            " GROUP BY deployment ORDER BY min(number)",
            {"now": now, "all": put_off_too},
        )

    def remove(self, answers: Mapping[str, Mapping[str, Any]], now: int) -> None:
        """The deployment has these: heartbeat id -> what it answered, which a sender that waits will find."""
        with self._file.writing() as database:
            # senders that were killed never come for theirs
            database.execute("DELETE FROM answers WHERE abs(? - at) > ?", (now, ANSWERS_KEPT_MS))
            for heartbeat_id, answer in answers.items():
                database.execute(
                    "INSERT OR REPLACE INTO answers SELECT heartbeat_id, ?, ? FROM entries"
                    " WHERE heartbeat_id = ? AND awaited",
                    (json.dumps(answer), now, heartbeat_id),
                )
                database.execute("DELETE FROM entries WHERE heartbeat_id = ?", (heartbeat_id,))
        if not self._column("SELECT 1 FROM entries LIMIT 1", {}):
            self._file.give_back()

    def forget(self, entry: Entry) -> None:
        """The deployment has it, and its sender has been told."""
        with self._file.writing() as database:
            database.execute("DELETE FROM entries WHERE heartbeat_id = ?", (entry.heartbeat_id,))

    def set_aside(self, heartbeat_id: str, trouble: Trouble) -> None:
        """The deployment refused it for good."""
        with self._file.writing() as database:
            database.execute(
                "UPDATE entries SET aside = 1, tries = tries + 1, code = ?, reason = ?"
                " WHERE heartbeat_id = ?",
                (trouble.code, trouble.reason, heartbeat_id),
            )

    def put_off(self, chosen: Mapping[str, str], trouble: Trouble, now: int) -> None:
        """A try ended badly, and so would one of all that wait with these values of `CHOSEN` columns."""
        where = _alike(chosen)
        values = {**chosen, "code": trouble.code, "reason": trouble.reason}
        with self._file.writing() as database:
            database.execute(
                f"UPDATE entries SET {_PUT_OFF}, code = :code, reason = :reason WHERE aside = 0 AND {where}",
                values | _backoff(now, trouble, BACKOFF_MOST_MS),
            )

    def explain(self, chosen: Mapping[str, str], why: Trouble) -> None:
        """Why those that wait with these values of `CHOSEN` columns are not even tried."""
        where = _alike(chosen)
        with self._file.writing() as database:
            database.execute(
                "UPDATE entries SET code = :code, reason = :reason WHERE aside = 0 AND reason IS NOT :reason"
                f" AND {where}",
                {**chosen, "code": why.code, "reason": why.reason},
            )

    def contact(self, deployment: str, now: int, away: Trouble | None) -> None:
        """Whether the deployment could be reached, or why not: then who delivers unasked leaves it alone."""
        query = "SELECT 1 FROM deployments WHERE deployment = :deployment"
        if away is None and not self._column(query, {"deployment": deployment}):
            return
        with self._file.writing() as database:
            if away is None:
                database.execute("DELETE FROM deployments WHERE deployment = ?", (deployment,))
                return
            database.execute("INSERT OR IGNORE INTO deployments VALUES (?, 0, 0, '')", (deployment,))
            values = {"deployment": deployment, "reason": away.reason} | _backoff(now, away, AWAY_MOST_MS)
            database.execute(
                f"UPDATE deployments SET {_PUT_OFF}, reason = :reason WHERE deployment = :deployment", values
            )

    # --- people ---

    def counts(self) -> Counts:
        """What the spool holds."""
        if not self.exists():
            return Counts()
        with self._file.reading() as database:
            query = (
                "SELECT coalesce(sum(NOT aside), 0), coalesce(sum(aside), 0), min(iif(aside, NULL, sent_at))"
                " FROM entries"
            )
            return Counts(*database.execute(query).fetchone())

    def number(self, deployment: str) -> int:
        """How many are here for that deployment, waiting or set aside."""
        if not self.exists():
            return 0
        [found] = self._column("SELECT count(*) FROM entries WHERE deployment = ?", (deployment,))
        return int(found)

    def entries(self, which: Which, limit: int = -1) -> list[Entry]:
        """What is in the spool, oldest first; -1 is no limit."""
        return self._entries(*_where(which), limit) if self.exists() else []

    def retry(self, which: Which) -> int:
        """Nothing of these is put off or set aside any longer. Returns how many they are."""
        if not self.exists():
            return 0
        where, values = _where(which)
        with self._file.writing() as database:
            database.execute("DELETE FROM deployments")
            query = f"UPDATE entries SET aside = 0, next_try_at = 0 WHERE {where}"
            return database.execute(query, values).rowcount

    def readdress(self, old: str, new: str, fingerprint: str) -> int:
        """All that is here for the deployment `old` is from now on for `new`, sent with that token there.

        In one step, ids and all else as they were; nothing of them is put off or set aside any longer. The
        caller holds the lock, so that nobody is delivering one of them. Returns how many they are.
        """
        if not self.exists():
            return 0
        with self._file.writing() as database:
            return database.execute(
                "UPDATE entries SET deployment = ?, fingerprint = ?, aside = 0, tries = 0, next_try_at = 0,"
                " code = NULL, reason = NULL WHERE deployment = ?",
                (new, fingerprint, old),
            ).rowcount

    def drop(self, heartbeat_ids: Sequence[str], now: int) -> Path | None:
        """Take entries out for good, into a file beside the spool: returned, None if there were none."""
        entries = self.entries(Which(ids=tuple(heartbeat_ids))) if heartbeat_ids else []
        if not entries:
            return None
        kept = self.path.with_name(f"dropped-{now}-{entries[0].number}.jsonl")
        told = [
            {
                "deployment": entry.deployment,
                "code": entry.code,
                "reason": entry.reason,
                "heartbeat": entry.body,
            }
            for entry in entries
        ]
        with self._file.problems():
            replace(kept, "".join(json.dumps(line) + "\n" for line in told).encode())
        with self._file.writing() as database:
            database.executemany(
                "DELETE FROM entries WHERE heartbeat_id = ?", [(e.heartbeat_id,) for e in entries]
            )
        return kept

    # --- the file ---

    def _entries(self, where: str, values: Mapping[str, Any], limit: int) -> list[Entry]:
        query = f"SELECT {_OF_ENTRY} FROM entries WHERE {where} ORDER BY number LIMIT :limit"
        with self._file.reading() as database:
            rows = database.execute(query, {**values, "limit": limit}).fetchall()
            return [_entry(row) for row in rows]

    def _column(self, query: str, values: Any) -> list[Any]:
        with self._file.reading() as database:
            return [row[0] for row in database.execute(query, values)]


def _room(database: sqlite3.Connection, what: str, most: int, where: str = "", *values: str) -> None:
    [number] = database.execute(f"SELECT count(*) FROM entries {where}", values).fetchone()
    if number >= most:
        raise SpoolProblem(f"{what}: {count(number)} wait in it", hint=MAKE_ROOM)


def _alike(chosen: Mapping[str, str]) -> str:
    if not chosen or not chosen.keys() <= CHOSEN:
        raise ValueError(f"{sorted(chosen)} is not of {sorted(CHOSEN)}")
    return " AND ".join(f"{column} = :{column}" for column in chosen)


def _backoff(now: int, trouble: Trouble, most_ms: int) -> dict[str, float]:
    jitter = 1 + BACKOFF_JITTER * random.random()  # noqa: S311 - no secret
    return {"now": now, "least": trouble.least_ms, "free": trouble.free, "most": most_ms, "jitter": jitter}


def _where(which: Which) -> tuple[str, dict[str, Any]]:
    where, values = ["1"], dict[str, Any]()
    if which.ids:
        # as JSON: a statement takes only so many values of its own
        where.append("heartbeat_id IN (SELECT value FROM json_each(:ids))")
        values["ids"] = json.dumps(which.ids)
    for column in ("agent", "deployment"):
        if (value := getattr(which, column)) is not None:
            where.append(f"{column} = :{column}")
            values[column] = value
    if which.state is not None:
        where.append("aside = :aside")
        values["aside"] = int(which.state == "aside")
    return " AND ".join(where), values


def _entry(row: Sequence[Any]) -> Entry:
    number, heartbeat_id, agent, deployment, fingerprint, body, sent_at, boot, boot_ms, *rest = row
    aside, tries, next_try_at, code, reason = rest
    return Entry(
        number,
        heartbeat_id,
        agent,
        deployment,
        fingerprint,
        json.loads(body),
        Moment(sent_at, boot, boot_ms),
        "aside" if aside else "waiting",
        tries,
        next_try_at,
        code,
        reason,
    )


def told(spool: Spool, now: int, *, but: int = 0) -> list[str]:
    """What people should know of a spool at `now` (epoch ms), in sentences; `but` so many that wait."""
    try:
        counts = spool.counts()
    except SpoolProblem as problem:
        return [str(problem)]
    lines = [trouble for trouble in map(exposed, (spool.path.parent, spool.path)) if trouble]
    if counts.waiting > but and counts.oldest_sent_at is not None:
        oldest = times.ago(counts.oldest_sent_at, now)
        lines.append(f"{count(counts.waiting - but)} in the spool of this host, the oldest sent {oldest}")
    if counts.aside:
        lines.append(
            f"{count(counts.aside)} in the spool of this host set aside: heartbeat spool list says why"
        )
    return lines


def idle(data_dir: Path, now: int) -> int | None:
    """How many wait when none of them is due, told before anything else of this program is loaded.

    None when there is something to do, or the spool cannot be read, so that whoever looks closer says why.
    """
    spool = Spool(data_dir)
    try:
        return None if spool.exists() and spool.deployments(now) else spool.counts().waiting
    except SpoolProblem:
        return None
