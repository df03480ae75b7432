"""The local backend as a service: who starts it at boot and after a crash, and how that is put there.

Two forms, of which one is in place at a time (in between, both do no harm: see service_keep.py):

    systemd   a unit of the user's own systemd, where that runs and answers
    cron      two lines in the user's crontab, everywhere else

`down` is not undone by either: it leaves a file behind that both honour, and that the next `up` takes away.
Where the unit is in place, it is systemd that starts and stops the backend, also for `up` and `down`: a
process that it has not started itself it would not watch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heartbeat_cli import crontab, crontab_text, local, service_cron, service_keep, service_systemd
from heartbeat_cli.engine import find_node
from heartbeat_cli.errors import CrontabProblem, HeartbeatError, SettingsProblem, Unreachable
from heartbeat_cli.instance import Instance
from heartbeat_cli.service_systemd import UserSystemd

Form = Literal["systemd", "cron"]
BARE_PATH = "/usr/bin:/bin"  # what cron and systemd give
UNIT_FOLDER = "systemd/user"  # in the folder of configurations
WANTED = "default.target.wants"  # in that: where `systemctl enable` puts a link
AGAIN = "heartbeat local install"


@dataclass(frozen=True, slots=True)
class Standing:
    """How the backend is started besides by hand: `form` None means not at all.

    `in_place`: as `install` would write it now, and obeyed. `notes` says what is the matter, and what else is
    worth knowing.
    """

    form: Form | None
    in_place: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Texts:
    """What there is of both forms: the unit's file and the user's crontab; None for one that is not there."""

    unit: str | None
    crontab: bytes | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be put in place (`form` None: nothing, and what was there is taken away)."""

    form: Form | None
    why: str
    before: Texts
    after: Texts
    unit_file: Path

    @property
    def changes(self) -> bool:
        return self.before != self.after

    def lines(self) -> list[str]:
        """The difference, for people: each line that comes (+) or goes (-), under the name of its file."""
        unit = crontab_text.diff((self.before.unit or "").encode(), (self.after.unit or "").encode())
        lines = crontab_text.diff(self.before.crontab or b"", self.after.crontab or b"")
        return [
            *([f"{self.unit_file}:", *unit] if unit else []),
            *(["the crontab:", *lines] if lines else []),
        ]


@dataclass(frozen=True, slots=True)
class Service:
    """What both forms need: `program` is how this installation is called, as absolute paths."""

    instance: Instance
    program: Sequence[str]
    config_home: Path
    inherited: Mapping[str, str]

    @property
    def unit_file(self) -> Path:
        return self.config_home / UNIT_FOLDER / service_systemd.UNIT

    def unit(self) -> UserSystemd | None:
        """The user's systemd if our unit is in its hands; else None."""
        return service_systemd.find(self.inherited) if self.unit_file.exists() else None

    def last_functions(self) -> Path | None:
        """The functions that the user chose for the backend as it was last ready."""
        return service_keep.last_wish(self.instance.record()).functions

    def plan(self, wanted: Form | None) -> Plan:
        """What `install` is to do; `wanted` None: systemd if the user has one. Raises SettingsProblem."""
        systemd = service_systemd.find(self.inherited)
        if wanted == "systemd" and systemd is None:
            raise SettingsProblem(
                "there is no systemd of this user here, or it does not answer",
                hint=f"See: systemctl --user status; or take cron: {AGAIN} --with cron",
            )
        form: Form = wanted or ("cron" if systemd is None else "systemd")
        before = self._texts(needed=form == "cron")
        without = _without(before.crontab)
        if form == "systemd":
            return Plan(form, "", before, Texts(self._unit_text(), without), self.unit_file)
        why = "" if wanted else "this user has no systemd of its own that answers: cron is to start it"
        text = crontab_text.with_block(before.crontab or b"", service_cron.NAME, self._crontab_lines())
        return Plan(form, why, before, Texts(None, text), self.unit_file)

    def plan_removal(self) -> Plan:
        """What `uninstall` is to do."""
        before = self._texts(needed=False)
        return Plan(None, "", before, Texts(None, _without(before.crontab)), self.unit_file)

    def apply(self, plan: Plan, now_ms: int) -> Path | None:
        """Do it. Returns where the crontab of before is kept, if that changed. Raises HeartbeatError.

        A backend that systemd runs is stopped when the unit goes.
        """
        systemd = service_systemd.find(self.inherited)
        if plan.after.unit is not None:
            service_systemd.write(self.unit_file, plan.after.unit)
            if systemd is not None:
                systemd.enable()
        elif plan.before.unit is not None:
            self._remove_unit(systemd)
        text, was = plan.after.crontab, plan.before.crontab
        if text is None or text == was:
            return None
        backups = crontab.backups(self.instance.folder.parent)
        return crontab.write(text, was, self.inherited, backups, now_ms)

    def standing(self) -> Standing:
        """How it stands, without changing anything."""
        try:
            now = self._texts(needed=False)
            lines = crontab_text.block_of(now.crontab or b"", service_cron.NAME)
            unit = None if now.unit is None else self._unit_standing(now.unit)
            if unit is None and lines is None:
                return Standing(None, in_place=False, notes=(f"to have it start by itself: {AGAIN}",))
            if unit is not None:
                return unit
            same = lines == [line.encode() + b"\n" for line in self._crontab_lines()]
        except HeartbeatError as problem:
            return Standing(None, in_place=False, notes=(str(problem),))
        notes = () if same else (f"the crontab lines are not those of this installation: {AGAIN}",)
        return Standing("cron", in_place=same, notes=notes)

    def _unit_standing(self, text: str) -> Standing:
        systemd = service_systemd.find(self.inherited)
        if text != self._unit_text():
            return Standing("systemd", False, (f"the unit is not that of this installation: {AGAIN}",))
        if systemd is None:
            return Standing("systemd", False, (f"this user's systemd does not answer here: {AGAIN}",))
        if not systemd.enabled():
            return Standing("systemd", False, (f"the unit is not enabled: {AGAIN}",))
        if not service_systemd.lingers():
            return Standing("systemd", True, (LINGER,))
        return Standing("systemd", True, ())

    def _texts(self, *, needed: bool) -> Texts:
        try:
            unit = self.unit_file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            unit = None
        try:
            text = crontab.read(self.inherited)
        except CrontabProblem:
            if needed:
                raise
            text = None  # nobody's cron here: then nothing of ours is in it either
        return Texts(unit, text)

    def _remove_unit(self, systemd: UserSystemd | None) -> None:
        if systemd is not None:
            systemd.stop()
            systemd.disable()
        (self.unit_file.parent / WANTED / self.unit_file.name).unlink(missing_ok=True)
        self.unit_file.unlink(missing_ok=True)
        if systemd is not None:
            systemd.forget()

    def _command(self) -> list[str]:
        return [*self.program, "local", "keep"]

    def _crontab_lines(self) -> list[str]:
        return service_cron.lines(self._command(), self._variables())

    def _unit_text(self) -> str:
        return service_systemd.unit(
            self.instance, [*self._command(), service_keep.SYSTEMD], self._variables()
        )

    def _variables(self) -> dict[str, str]:
        """What has to be said to a process that has only cron's environment."""
        variables = {"XDG_DATA_HOME": str(self.instance.folder.parent.parent)}
        try:
            find_node({"PATH": BARE_PATH})
        except SettingsProblem:
            variables["PATH"] = f"{find_node(self.inherited).parent}:{BARE_PATH}"
        return variables


def _without(text: bytes | None) -> bytes | None:
    return None if text is None else crontab_text.without_block(text, service_cron.NAME)


LINGER = "it starts when you log in, and ends when you log out; from boot on: loginctl enable-linger"


def up(
    service: Service, wish: local.Wish, now_ms: Callable[[], int], greet: Callable[[local.BroughtUp], None]
) -> local.BroughtUp:
    """`local.up`, by way of systemd where our unit is in its hands."""
    instance, unit = service.instance, service.unit()
    if unit is None:
        return local.up(instance, wish, service.inherited, now_ms, greet)
    with instance.alone():
        found = local.look(instance, wish)
        instance.stay_down.unlink(missing_ok=True)
        watched = found.pid is not None and unit.process() == found.pid
        if found.well and watched and found.running is not None:
            brought = local.BroughtUp("already running", (), found.running)
            greet(brought)
            return brought
        local.planned(found, wish, service.inherited)
        if found.pid is not None and not watched:
            local.end(instance, found.pid)
        service_keep.hand_over(instance, wish)
    said_before = instance.log.size()
    started = unit.start_anew()
    with instance.alone():
        instance.wish.unlink(missing_ok=True)
        pid, record = instance.process(), instance.record()
        if not started or record is None or record.pid != pid:
            raise _not_started(instance.log.lines(1, since=said_before))
        reasons = found.reasons or (() if found.pid is None or watched else ("systemd had not started it",))
        brought = local.BroughtUp("started" if found.pid is None else "restarted", reasons, record)
        greet(brought)
        return brought


def down(service: Service) -> local.BroughtDown:
    """`local.down`, by way of systemd where our unit is in its hands."""
    unit = service.unit()
    if unit is None:
        return local.down(service.instance)
    pid = unit.process()
    unit.stop()
    done = local.down(service.instance)
    return done if done.pid is not None else local.BroughtDown(pid, killed=False)


def _not_started(said: Sequence[str]) -> HeartbeatError:
    why = said[-1] if said else f"see systemctl --user status {service_systemd.UNIT}"
    return Unreachable(
        f"systemd did not start the local backend: {why}",
        cause="server_error",
        hint="More of what it said: heartbeat local logs",
    )
