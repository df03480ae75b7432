"""What installing or removing our lines makes of this user's crontab: planned, shown, and only then done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heartbeat_cli import crontab, crontab_agents, crontab_check, crontab_lines, crontab_text
from heartbeat_cli.config import Settings
from heartbeat_cli.crontab_lines import Host
from heartbeat_cli.errors import CrontabProblem
from heartbeat_cli.schedule import Row


@dataclass(frozen=True, slots=True)
class Plan:
    """The crontab as it is (`was`, None where there is none) and as it is to be, for this host.

    `notes` are what a person should know before it is done.
    """

    settings: Settings
    host: Host
    was: bytes | None
    text: bytes
    notes: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.text != (self.was or b"")

    @property
    def diff(self) -> list[str]:
        """What changes, for people, under a line that says whose crontab it is."""
        if not self.changes:
            return []
        where = f"the crontab of {crontab.user()} on {self.host.name}"
        return [f"{where}:", *crontab_text.diff(self.was or b"", self.text)]

    def carry_out(self, now_ms: int) -> list[str]:
        """Write it, if the crontab is still as it was shown. Returns what to tell.

        Raises `CrontabProblem`.
        """
        if not self.changes:
            return []
        folder = crontab.backups(self.settings.data_dir)
        kept = crontab.write(self.text, self.was, self.settings.inherited, folder, now_ms)
        told = "the crontab is written" if self.text else "the crontab is removed, as nothing is left in it"
        more = f"; as it was: {kept} (the last {crontab.BACKUPS} are kept)" if kept else ""
        return [told + more]


def install(settings: Settings, rows: Sequence[Row], now_ms: int) -> Plan:
    """The lines of the rows that are to have some here in the place of those that are there.

    Raises `ScheduleProblem` for rows that no crontab can keep, `CrontabProblem`.
    """
    if not crontab_lines.concerned(rows, settings.host) and not crontab.available(settings.inherited):
        return Plan(settings, crontab_lines.host_of(settings, None), None, b"", ())
    if not crontab_lines.concerned(rows, settings.host):
        return remove(settings)
    was = crontab.read(settings.inherited)
    host = crontab_lines.host_of(settings, was)
    entries = crontab_lines.entries(rows, host, str(settings.schedule_path), now_ms)
    others = crontab_lines.unreported(rows, host)
    if not entries:
        plan = remove(settings)
        return replace(plan, notes=(*others, *plan.notes))
    commands = {entry.row.agent: entry.row.command for entry in entries if entry.row.command}
    text = crontab_text.installed(was or b"", host.block, crontab_lines.block(entries, host), commands)
    notes = [*others, *crontab_lines.warnings(was, host), *crontab_lines.moved(was, text, host)]
    doubles = crontab_check.doubles(text, [entry.row for entry in entries], host.block)
    notes += [double.what for double in doubles]
    return Plan(settings, host, was, text, tuple(notes))


def remove(settings: Settings, blocks: Sequence[str] | None = None) -> Plan:
    """The crontab without these blocks, or the one of this home, and the lines that they held as they stood.

    Raises `CrontabProblem`.
    """
    was = crontab.read(settings.inherited)
    host = crontab_lines.host_of(settings, was)
    text, notes = was or b"", []
    for block in [host.block] if blocks is None else blocks:
        held = {agent for agent, _ in crontab_text.held(text, block)}
        notes += [
            f"nothing runs {agent} any more: its command stood in the block only"
            for agent in crontab_agents.running(text, block)
            if agent not in held
        ]
        text = crontab_text.removed(text, block)
    return Plan(settings, host, was, text, tuple(notes))


def log_folder(host: Host) -> None:
    """Make the folder of the log: cron's shell opens it before it runs anything. Raises `CrontabProblem`."""
    try:
        host.log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CrontabProblem(f"the log folder {host.log_dir} cannot be made: {error.strerror}") from None
