"""What `heartbeat doctor` looks at on this host: settings, files and who gets at them, disks, the log, the
spool, Node for the local backend. Reads only: what cannot be written is told from rights and free space.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from heartbeat_cli import times, tokens
from heartbeat_cli.config import Settings
from heartbeat_cli.config_address import LOCAL_WORD
from heartbeat_cli.doctor_finding import Checks, Finding, Shared, ok, problem, warning, word
from heartbeat_cli.doctor_there import There
from heartbeat_cli.engine import find_node
from heartbeat_cli.errors import SettingsProblem
from heartbeat_cli.instance import Instance
from heartbeat_cli.private_files import exposed
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Entry, Which, count
from heartbeat_cli.spool_file import BYTES_MAX

MEND = "; mend it: "  # between what is wrong with a file and the command, in what private_files says
LEAST_FREE_BYTES = (
    5_000_000  # a log's generations and some thousand heartbeats; below it is a matter of hours
)
FEW_FREE_BYTES = BYTES_MAX  # what the spool may take
WAITS_TOO_LONG_MS = times.HOUR_MS  # a back-off is no longer: by then it was tried, and did not work
LOOKED_AT = 1_000  # entries of the spool: the oldest tell what is wrong with all
MB, GB = 1_000_000, 1_000_000_000


@dataclass(frozen=True, slots=True)
class Here:
    """This host: its settings, its clock in epoch milliseconds, and what waits in its spool, oldest first."""

    settings: Settings
    now_ms: Callable[[], int]
    waiting: Shared[list[Entry]]


def waiting(settings: Settings) -> list[Entry]:
    """What waits in the spool, the oldest of it. Raises `SpoolProblem`."""
    return Spool(settings.data_dir).entries(Which(state="waiting"), LOOKED_AT)


def checks(here: Here, there: There) -> Checks:
    """Every check of this group."""
    yield "settings", partial(settings_and_sources, here)
    yield "files", partial(files, here)
    yield "disk", partial(disks, here)
    yield "log", partial(log, here)
    yield "spool", partial(spool, here)
    yield "spooled tokens", partial(spooled_tokens, here, there)
    yield "node", partial(node, here)


def settings_and_sources(here: Here) -> Iterator[Finding]:
    """Each setting and where it came from; what is wrong with address and token their own checks say."""
    settings = here.settings
    values = {
        "home": settings.home,
        "url": settings.url,
        "token": f"fingerprint {tokens.fingerprint(settings.token)}" if settings.token else None,
        "deadline": f"{settings.deadline_s:g} s",
        "transport": settings.transport,
        "log": settings.log_path,
        "host": settings.host,
    }
    for name, value in values.items():
        yield ok(f"{name}: {value} ({settings.sources[name]})" if value else f"{name}: none")
    for said in settings.warnings:
        if MEND not in said:  # those are of `files`
            yield warning(said, "heartbeat config")


def files(here: Here) -> Iterator[Finding]:
    """What only our user should get at."""
    settings = here.settings
    spool = Spool(settings.data_dir).path
    places = [
        settings.config_dir,
        tokens.path(settings.config_dir),
        spool.parent,
        spool,
        Instance(settings.data_dir).admin_key,
    ]
    found = [trouble for trouble in map(exposed, places) if trouble]
    for trouble in found:
        what, _, command = trouble.partition(MEND)
        yield problem(what, command)
    if not found:
        yield ok("tokens, spool and keys are for this user alone")


def disks(here: Here) -> Iterator[Finding]:
    """Room for the spool and the log, on each disk that they are on."""
    settings = here.settings
    seen = dict[int, Path]()
    for place in (settings.data_dir, settings.log_path.parent, settings.config_dir):
        there_is = _nearest(place)
        seen.setdefault(there_is.stat().st_dev, there_is)
    for place in seen.values():
        disk = os.statvfs(place)
        free = disk.f_bavail * disk.f_frsize
        room = f"{free / GB:,.1f} GB" if free >= GB else f"{free / MB:,.1f} MB"
        room += f" free on the disk of {place}"
        fix = f"du -xh {word(place)} | sort -h | tail"
        if disk.f_flag & os.ST_RDONLY:
            yield problem(
                f"the disk of {place} is read-only", f"sudo mount -o remount,rw {word(_mount(place))}"
            )
        elif disk.f_files and not disk.f_favail:
            yield problem(f"the disk of {place} takes no more files (no free inode)", fix)
        elif free < LEAST_FREE_BYTES:
            yield problem(room, fix)
        elif free < FEW_FREE_BYTES:
            yield warning(room, fix)
        else:
            yield ok(room)


def _nearest(place: Path) -> Path:
    """`place`, or the folder above it that there is."""
    return next(path for path in (place, *place.parents) if os.path.exists(path))  # noqa: PTH110 - raises


def _mount(place: Path) -> Path:
    return next(path for path in (place.resolve(), *place.resolve().parents) if path.is_mount())


def log(here: Here) -> Iterator[Finding]:
    """Can the log be written? A heartbeat does without it, but nobody sees then what became of it."""
    path = here.settings.log_path
    place = _nearest(path)
    if place != path:
        if not place.is_dir():
            yield problem(
                f"the log {path} cannot be made: {place} is no folder",
                f"mv {word(place)} {word(f'{place}.old')}",
            )
        elif not os.access(place, os.W_OK | os.X_OK):
            yield problem(f"the log {path} cannot be made: {place} may not be written", _give(place))
        else:
            yield ok(f"{path} can be made")
        return
    if path.is_dir():
        yield problem(f"the log {path} is a folder", "set HEARTBEAT_LOG to a file")
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
    except OSError as error:
        yield problem(f"the log {path} cannot be written: {error.strerror}", _give(path))
        return
    if not os.access(path.parent, os.W_OK | os.X_OK):
        yield warning(f"the log {path} cannot be rotated: its folder may not be written", _give(path.parent))
        return
    yield ok(f"{path} can be written")


def _give(place: Path) -> str:
    return f"sudo chown {os.geteuid()} {word(place)}; chmod u+rwX {word(place)}"


def spool(here: Here) -> Iterator[Finding]:
    """What waits on this host to be delivered, and what was refused for good."""
    found = Spool(here.settings.data_dir)
    folder = _nearest(found.path.parent)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield problem(f"the spool in {folder} cannot be written: nothing is kept", _give(folder))
        return
    counts, now = found.counts(), here.now_ms()
    if counts.aside:
        first = found.entries(Which(state="aside"), 1)[0]
        known = first.code == "unknown_agent"
        yield problem(
            f"{count(counts.aside)} set aside, the first of {first.agent}: {first.reason}",
            "heartbeat apply" if known else "heartbeat spool list; then heartbeat spool drop --aside",
        )
    if counts.oldest_sent_at is not None:
        since = times.ago(counts.oldest_sent_at, now)
        why = next((f": {entry.reason}" for entry in here.waiting.own() if entry.reason), "")
        say = f"{count(counts.waiting)} waiting, the oldest sent {since}{why}"
        late = now - counts.oldest_sent_at > WAITS_TOO_LONG_MS
        yield (problem if late else warning)(say, "heartbeat spool deliver")
    if counts.aside == counts.waiting == 0:
        yield ok("nothing waits to be delivered")


def spooled_tokens(here: Here, there: There) -> Iterator[Finding]:
    """What waits and nobody will deliver: for an address without a token, or sent with a token that is none
    of the older ones of today's.
    """
    settings = here.settings
    entries = here.waiting.needed()
    here_as = settings.spooled_as() if settings.url is not None else LOCAL_WORD
    for url in sorted({entry.deployment for entry in entries} - {here_as}):
        number = sum(entry.deployment == url for entry in entries)
        if url == LOCAL_WORD:
            say = f"{count(number)} waiting for the local backend, and this host reports to {settings.url}"
            yield problem(say, f"heartbeat connect {settings.url}")
        elif tokens.stored(settings.config_dir, url, []) is None:
            fix = f"heartbeat token save --url {word(url)} < FILE"
            yield problem(f"{count(number)} waiting for {url}, for which no token is kept here", fix)
    mine = tokens.fingerprint(settings.needed_token()) if settings.token else ""
    others = [entry for entry in entries if entry.deployment == here_as and entry.fingerprint != mine]
    if not others:
        return
    token = there.token.needed()
    older, agents = token.get("older", ()), token.get("agents")
    stuck = [
        e for e in others if e.fingerprint not in older or (agents is not None and e.agent not in agents)
    ]
    for print_ in sorted({entry.fingerprint for entry in stuck}):
        number = sum(entry.fingerprint == print_ for entry in stuck)
        yield problem(
            f"{count(number)} waiting that were sent with the token {print_}, for which {mine} may not send",
            "heartbeat token save < FILE with that token in it; then heartbeat spool deliver",
        )


def node(here: Here) -> Iterator[Finding]:
    """Node for the local backend, where that is the deployment or there is none yet."""
    settings = here.settings
    if settings.url is not None and not settings.is_local:
        return
    try:
        yield ok(f"{find_node(settings.inherited)}")
    except SettingsProblem as error:
        yield problem(str(error), error.hint)
