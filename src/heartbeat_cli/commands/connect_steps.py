"""The steps of `heartbeat connect`, each shown, asked, and told; why in this order says connect.py."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import typer

from heartbeat_cli import (
    config,
    connect,
    connect_config,
    connect_token,
    contact,
    contract,
    crontab,
    move,
    output,
    tokens,
)
from heartbeat_cli.address import normalise_site_url, site_of
from heartbeat_cli.client import run_admin
from heartbeat_cli.commands import cron, local_service
from heartbeat_cli.commands.apply import put_in_force
from heartbeat_cli.commands.connect_asking import Asking
from heartbeat_cli.commands.spool import deliver_to
from heartbeat_cli.config import TOKEN_VARIABLE
from heartbeat_cli.config_address import LOCAL_WORD
from heartbeat_cli.connect_app import App, selection
from heartbeat_cli.connect_token import Given, Held, Settling
from heartbeat_cli.deliver import MAY_SEND
from heartbeat_cli.errors import Declined, SettingsProblem, UsageProblem
from heartbeat_cli.instance import Instance
from heartbeat_cli.output import Answer
from heartbeat_cli.proxies import LOOPBACK, proxy_applies
from heartbeat_cli.service import Service
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import count

_LEFT: dict[str, Any] = {"outcome": "left alone"}


@dataclass(slots=True)
class Connecting(Asking):
    """One `connect`, step by step; `data` says what became of each."""

    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._look()
        if self.there.settings.is_local:
            raise UsageProblem(
                f"{self.url} is the local backend of this user, which needs no connecting",
                hint="heartbeat connect is for another deployment; heartbeat local up starts this one",
            )

    def run(self, given: Given, found: App | None, *, prod: bool) -> Answer:
        """All of it."""
        settings = self.there.settings
        self.there.speaks_to(self.url, None)
        version = connect.probe(self.url, self._deadline(), proxied=settings.proxied)
        self._show([f"{self.url} answers: version {version}, and our functions are there"])
        self.data |= {"url": self.url, "siteUrl": None, "version": version, "contractVersion": None}
        if self.url.startswith("http://") and contact.host_and_port(self.url)[0] not in LOOPBACK:
            output.say(f"heartbeat: {self.url} is not https: whoever is on the way can read tokens and keys")
        self._settle_site()
        held = self._token(given, found, prod=prod)
        self._contract(held)
        plan = self._agree(held)
        if self.data["config"]["outcome"] == "declined":
            done = f"{plan.addresses.file} does not name it, so this host reports to where it did"
            return Answer(self.data, [done], says_deployment=True)
        if not plan.copy:
            self.data["apply"] = self._apply(held)
        if not self.wish.dry_run:
            self._switch(plan, held)
        if plan.copy:
            self.data["apply"] = self._apply(held)
        if plan.readdress:
            self.data["spool"] |= self._deliver(plan.spool)
        done = f"this host reports to {self.url}"
        if self.wish.dry_run:
            done = "nothing was changed (dry run)"
        elif held.scope not in MAY_SEND:
            done = f"this host looks at {self.url}, and reports nothing: its token may not send"
        refused = bool(self.data["import"].get("refused"))
        return Answer(self.data, [done], exit_code=int(refused), says_deployment=True)

    # --- the two addresses

    def _settle_site(self) -> None:
        """Where its HTTP actions are: said, known, or (while config.toml names another deployment) asked for;
        and whether they are there.
        """
        settings = self.there.settings
        known = settings.sources["site_url"] != "not set"
        asks = not (self.wish.yes or self.wish.dry_run or known)
        if self.site is None and asks and connect_config.plan(settings.config_dir, self.url, None).changes:
            text = typer.prompt(
                "The address of its HTTP actions (empty: there is none)",
                default="",
                show_default=False,
                err=True,
            )
            self.site = normalise_site_url(text) if text.strip() else None
        if self.site is not None:
            connect.probe_site(self.site, self._deadline(), proxied=proxy_applies(self.site, os.environ))
            self._look()
        self.data["siteUrl"] = self.there.settings.site_url

    def _agree_addresses(self) -> tuple[bool, connect_config.Plan, dict[str, Any]]:
        site = None if self.site == site_of(self.url) else self.site
        plan = connect_config.plan(self.there.settings.config_dir, self.url, site)
        told: dict[str, Any] = {"outcome": "unchanged", "file": str(plan.file), "keptIn": None, "wins": None}
        if not plan.changes or self._agreed(plan.diff, "Write this?"):
            return True, plan, told
        return False, plan, told | {"outcome": self._not_done}

    def _write(self, plan: connect_config.Plan) -> None:
        kept = plan.write(self.there.now_ms())
        more = f"; as it was: {kept}" if kept else ""
        self._show([f"{plan.file} is written{more}"])
        self.data["config"] |= {"outcome": "written", "keptIn": kept and str(kept)}

    def _stronger(self) -> str | None:
        """What still sends the commands of this shell elsewhere."""
        now = config.load(self.edge.flags, os.environ, config.working_directory())
        if now.url == self.url:
            return None
        says = now.url or "no address that can be one"
        output.say(f"heartbeat: {now.url_source} goes before config.toml here, and says {says}: unset it")
        return now.url_source

    # --- the token

    def _token(self, given: Given, found: App | None, *, prod: bool) -> Held:
        settings = self.there.settings
        settling = Settling(
            settings.config_dir, self.url, self._ask_about, settings.host, planning=self.wish.dry_run
        )
        store = self._store(given, found, prod=prod)
        try:
            held = settling.settle(given.token, store)
        except SettingsProblem:
            if given.token or store or not self.there.can_ask:
                raise
            text = typer.prompt(
                "A deploy key, or a token made for this host (not shown)", hide_input=True, err=True
            )
            given = connect_token.judged(text, self.url)
            held = settling.settle(given.token, self._store(given, None, prod=False))
        self._look()
        file = tokens.path(settings.config_dir)
        self.data["token"] = {
            "outcome": held.outcome,
            "fingerprint": held.fingerprint,
            "scope": held.scope,
            "agents": None if held.agents is None else list(held.agents),
            "replaced": held.replaced,
        }
        what = f"{held.scope} token {held.fingerprint or ''}".rstrip()
        verb = {"unchanged": "is kept already", "planned": "would be kept"}.get(held.outcome, "is kept")
        lines = [f"{what} {verb} in {file}"]
        if held.replaced is not None:
            lines.append(
                f"  in place of {held.replaced}, which stays valid: heartbeat token revoke {held.replaced}"
            )
        self._show(lines)
        if held.host_name and held.host_name != settings.host:
            output.say(
                f"heartbeat: that token was made for the host {held.host_name}, and this one is called"
                f" {settings.host}: rows of the schedule are chosen by that;"
            )
            file = settings.config_dir / connect_config.FILE
            output.say(
                f"  if it is that one, write host = {json.dumps(held.host_name)} into {file}, and type this"
                f" again; else have one made for it: heartbeat token create … --host-name {settings.host}"
            )
        return held

    def _ask_about(self, text: str) -> Mapping[str, Any] | None:
        return connect.own_token(self.url, text, self._deadline(), proxied=self.there.settings.proxied)

    def _store(self, given: Given, found: App | None, *, prod: bool) -> tokens.RunAdmin | None:
        key = given.key
        if key is not None:
            proxied = self.there.settings.proxied
            return lambda path, args: run_admin(self.url, key, path, args, self._deadline(), proxied=proxied)
        if found is None:
            return None
        environ = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
        found.check(self.url, environ)
        return lambda path, args: found.run(path, args, selection(self.url, prod=prod), environ)

    def _contract(self, held: Held) -> None:
        if held.text is not None and held.outcome != "planned":
            status = self.there.connect().query(connect.PROBED, "request", {})
            self.data["contractVersion"] = status.get("contractVersion")
            output.say_notes(contract.notes(status.get("contractVersion"), self.url))

    # --- the schedule

    def _apply(self, held: Held) -> dict[str, Any]:
        settings = self.there.settings
        page = settings.schedule_path
        has_cron = crontab.available(settings.inherited)
        if self.wish.no_apply or not (held.is_admin or has_cron):
            return _LEFT
        if not page.is_file():
            self._show([f"there is no schedule to apply: {page}"])
            return {"outcome": "no schedule"}
        if held.scope not in MAY_SEND:
            self._show([f"no crontab lines of {page}: the token may not send"])
            return _LEFT
        if held.outcome == "planned":
            self._show([f"{page} would be applied"])
            return {"outcome": "planned"}
        how: dict[str, bool] = {"yes": self.wish.yes, "dry_run": self.wish.dry_run}
        try:
            if held.is_admin:
                answer = put_in_force(self.there, **how, agents_only=not has_cron)
            else:
                self._show([f"registering agents takes an admin token; crontab lines of {page} take none"])
                answer = cron.install_lines(self.there, **how)
        except Declined:
            return {"outcome": "declined"}
        self._show(list(map(str, answer.lines)))
        return answer.data

    # --- the local backend, and what is meant for it

    def _agree(self, held: Held) -> _Plan:
        """Everything but the schedule is shown and asked for first: nobody thinks while others wait."""
        settings = self.there.settings
        spool, mine = Spool(settings.data_dir), local_service.service_of(self.there)
        names_it, addresses, told = self._agree_addresses()
        self.data |= {"config": told, "import": _LEFT, "spool": _LEFT, "local": _LEFT, "apply": _LEFT}
        plan = _Plan(addresses, spool, mine)
        if names_it or self.wish.dry_run:
            plan.copy, self.data["import"] = self._wants_copy(mine.instance, held)
            plan.readdress, self.data["spool"] = self._wants_spool(spool, held)
            plan.stop, self.data["local"] = self._wants_stop(mine)
        return plan

    def _switch(self, plan: _Plan, held: Held) -> None:
        """From the local backend to there; connect.py says why in this order."""
        with connect.delivering(plan.spool):
            if plan.copy:
                self.data["import"] = self._copy()
            if plan.addresses.changes:
                self._write(plan.addresses)
            if plan.stop:
                self.data["local"] = self._stop(plan.mine, whole=not self.data["import"].get("refused", 1))
            if plan.readdress:
                moved = plan.spool.readdress(LOCAL_WORD, self.url, str(held.fingerprint))
                self.data["spool"] = {
                    "outcome": "readdressed" if moved else "unchanged",
                    "readdressed": moved,
                }
        self.data["config"]["wins"] = self._stronger()

    def _wants_spool(self, spool: Spool, held: Held) -> tuple[bool, dict[str, Any]]:
        waiting = spool.number(LOCAL_WORD)
        if self.wish.no_spool or (held.scope not in MAY_SEND):
            return False, _LEFT
        if not waiting:
            return not self.wish.dry_run, {"outcome": "unchanged", "readdressed": 0}
        line = f"in the spool of this host, for the local backend: {count(waiting)}"
        if self._agreed([line], f"Send them to {self.url}?"):
            return True, {}
        return False, {"outcome": self._not_done, "waiting": waiting}

    def _wants_copy(self, instance: Instance, held: Held) -> tuple[bool, dict[str, Any]]:
        if self.wish.no_import or instance.record() is None:
            return False, _LEFT
        if not held.is_admin:
            output.say("heartbeat: copying the local backend's history takes an admin token; it stays there")
            return False, _LEFT
        if connect.is_copied(instance, self.url):
            return False, {"outcome": "unchanged"}
        if not instance.alive():
            output.say("heartbeat: the local backend does not run, so its history is not copied;")
            output.say("  to have it copied: heartbeat local up, then this once more")
            return False, {"outcome": "not running"}
        if self._agreed([f"the local backend holds a history: {instance.folder}"], f"Copy it to {self.url}?"):
            return True, {}
        return False, {"outcome": self._not_done}

    def _wants_stop(self, mine: Service) -> tuple[bool, dict[str, Any]]:
        runs, form = mine.instance.alive(), mine.standing().form
        if self.wish.keep_local:
            return False, _LEFT
        if not runs and form is None:
            return False, {"outcome": "unchanged"}
        lines = ["the local backend runs; its data stays when it is stopped"] if runs else []
        if form is not None:
            lines.append(f"{form} starts it, which is taken away")
        if self._agreed(lines, "Stop the local backend?"):
            return True, {}
        return False, {"outcome": self._not_done}

    def _copy(self) -> dict[str, Any]:
        progress = move.Progress("the history", silent=self.edge.json)
        data_dir = self.there.settings.data_dir
        try:
            local = move.end_of(self.there.at(LOCAL_WORD))
            done = move.copy(local, move.end_of(self.there), data_dir, progress).imported
        finally:
            progress.clear()
            self.there.speaks_to(self.url, None)
        new = {kind: taken.recorded + taken.updated for kind, taken in done.taken.items()}
        refused = done.refused_count
        self._show([f"copied: {move.in_words(new)} that were not there yet"])
        if refused:
            why = done.refused[0].message if done.refused else "for no reason that was told"
            output.say(f"heartbeat: {refused:,} records were refused, the first: {why};")
            output.say("  they stay with the local backend: heartbeat export has them")
        return {"outcome": "copied", "recorded": new, "refused": refused}

    def _stop(self, mine: Service, *, whole: bool) -> dict[str, Any]:
        done, plan, kept = local_service.stop_for_good(self.there, mine)
        if whole:
            with suppress(OSError):  # then it is copied once more the next time
                connect.note_copied(mine.instance, self.url)
        self._show(["the local backend is stopped; heartbeat local up starts it again"])
        return {
            "outcome": "stopped",
            "pid": done.pid,
            "uninstalled": plan.changes,
            "keptIn": kept and str(kept),
        }

    def _deliver(self, spool: Spool) -> dict[str, int]:
        """What was moved, by this `connect` or one that was cut off."""
        data = {"delivered": 0, "duplicates": 0, "refused": 0}
        if not spool.number(self.url):
            return data
        with connect.delivering(spool):
            waiting = spool.number(self.url)  # another may have delivered some until it was our turn
            if waiting:
                output.say_notes(deliver_to(self.there, spool, self.url, data))
        if waiting:
            self._show([f"delivered {data['delivered']:,} of {count(waiting)} that waited in the spool"])
        return data


@dataclass(slots=True)
class _Plan:
    """What is to be done, as it was agreed."""

    addresses: connect_config.Plan
    spool: Spool
    mine: Service
    copy: bool = False
    readdress: bool = False
    stop: bool = False
