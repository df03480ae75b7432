"""What `heartbeat doctor` says of a deployment: the way to it, functions, our token, clock, sweep."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import Backend
from clocks import Clocks
from conftest import (
    BACKEND,
    NODE,
    REPOSITORY,
    TABLE,
    Inside,
    Live,
    Local,
    alive,
    wait_for,
)
from deployment import Deployment, Faults
from doctors import ONLY_LOCAL, another_token, examine, kept, typed
from heartbeat_cli import tokens
from heartbeat_cli.times import MINUTE_MS, SECOND_MS
from peers import Peer, answers, free_port
from test_dashboard import row

PREVIOUS = REPOSITORY / "tests" / "previous" / "1.zip"

# --- the deployment


def test_a_stopped_local_backend_is_started_by_what_it_says(local: Local, inside: Inside) -> None:
    cli = local.cli
    cli.write_schedule(TABLE)
    local.up()
    pid = local.status().pid
    assert pid is not None
    well = examine(inside)
    for check in ONLY_LOCAL - {"at boot"}:
        assert well.states(check) == {"ok"}, check
    message, fix = well.trouble("at boot", "warning")
    assert message == "nothing starts the local backend after a boot or a crash"
    assert typed(cli, f"{fix} --with cron --yes").code == 0
    assert examine(inside).states("at boot") == {"ok"}
    os.kill(pid, signal.SIGSTOP)
    hung = examine(inside, "--deadline", "2")
    message, fix = hung.trouble("address")
    assert "took the connection but did not answer within 2 s" in message
    assert {"functions", "token", "sweep", "agents"} <= hung.unchecked
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    dead = examine(inside)
    message, fix = dead.trouble("local backend")
    assert message.endswith("is not running") and "address" in dead.unchecked
    assert typed(cli, f"{fix} --functions {local.functions}").code == 0
    assert examine(inside).states("address") == {"ok"}


def test_nothing_listens_at_the_address(away: Inside) -> None:
    message, _ = examine(away).trouble("address")
    assert "nothing answers at http://127.0.0.1" in message and "Connection refused" in message


def test_no_address_is_set(host: Inside) -> None:
    message, fix = examine(host, env={"HEARTBEAT_URL": None}).trouble("address")
    assert message == "no deployment address is set" and "heartbeat local up" in fix


def test_something_else_answers_there(host: Inside) -> None:
    with Peer(answers("200 OK", "<html>", "text/html")) as peer:
        message, fix = examine(host, env={"HEARTBEAT_URL": peer.url}).trouble("address")
    assert "is not a Convex deployment" in message and "heartbeat config" in fix


def test_the_address_of_the_http_actions_is_told_from_that_of_the_functions(
    running: Local, owner: Inside
) -> None:
    url, site = running.status().url, running.status().site_url or ""
    message, fix = examine(owner, env={"HEARTBEAT_URL": site}).trouble("address")
    assert message == f"{site} serves a deployment's HTTP actions, not its functions"
    assert fix == f"export HEARTBEAT_URL={url}"
    # somebody else's: by Convex's custom
    env = {"XDG_DATA_HOME": str(owner.cli.folder / "other"), "CONVEX_URL": site}
    _, fix = examine(owner, env=env).trouble("address")
    assert fix == f"export CONVEX_URL=http://127.0.0.1:{int(site.rpartition(':')[2]) - 1}"


def test_no_websocket_gets_through(host: Inside) -> None:
    with Deployment({}, faults=Faults(no_upgrade="403 Forbidden")) as peer:
        env = {"HEARTBEAT_URL": peer.url, "HEARTBEAT_TRANSPORT": "auto", "HEARTBEAT_TOKEN": "a-token"}
        found = examine(host, env=env)
        message, fix = found.trouble("transport")
        assert "no WebSocket gets through" in message and found.states("address") == {"ok"}
        assert fix == "export HEARTBEAT_TRANSPORT=http"
        assert examine(host, env=env | {"HEARTBEAT_TRANSPORT": "http"}).states("transport") == {"ok"}


def test_http_actions_that_do_not_answer(running: Local, owner: Inside) -> None:
    assert examine(owner).states("http actions") == {"ok"}
    site = f"http://127.0.0.1:{free_port()}"
    with recorded(running, siteUrl=site):
        message, _ = examine(owner).trouble("http actions", "warning")
    assert site in message and "Connection refused" in message
    functions = str(running.status().url)
    message, fix = examine(owner, env={"HEARTBEAT_SITE_URL": functions}).trouble("http actions", "warning")
    assert message.endswith("not of its HTTP actions (HEARTBEAT_SITE_URL)") and "another port" in str(fix)


@contextlib.contextmanager
def recorded(running: Local, **told: object) -> Iterator[None]:
    """The record of the local backend that runs says something else meanwhile."""
    record = running.folder / "backend.json"
    written = record.read_text()
    record.write_text(json.dumps({**json.loads(written), **told}))
    try:
        yield
    finally:
        record.write_text(written)


def test_a_local_backend_that_runs_older_code_or_is_still_starting(running: Local, owner: Inside) -> None:
    with recorded(running, functionsDigest="of before"):
        message, fix = examine(owner).trouble("local backend", "warning")
        assert message.endswith("still runs the older functions") and fix == "heartbeat local up"
    with recorded(running, pid=1):
        assert "is starting" in examine(owner).trouble("local backend", "warning")[0]


# --- its functions


@pytest.fixture
def other_app(tmp_path: Path) -> Iterator[Backend]:
    """A real backend that serves an app in which there is nothing of ours."""
    app = tmp_path / "app" / "convex"
    app.mkdir(parents=True)
    (app.parent / "node_modules").symlink_to(REPOSITORY / "node_modules")
    (app / "shop.ts").write_text(
        'import { queryGeneric } from "convex/server";\n'
        "export const list = queryGeneric({ args: {}, handler: async () => [] });\n"
    )
    bundle, clock = tmp_path / "app.mjs", tmp_path / "clock"
    subprocess.run([NODE, str(BACKEND / "bundle.ts"), str(app), str(bundle)], check=True)
    clock.write_text(str(time.time_ns() // 1_000_000))
    backend = Backend(tmp_path / "other", bundle, clock)
    backend.start()
    yield backend
    backend.kill()


def test_a_deployment_without_our_functions(host: Inside, other_app: Backend) -> None:
    env = {"HEARTBEAT_URL": other_app.url, "HEARTBEAT_TOKEN": "a-token"}
    found = examine(host, env=env)
    message, fix = found.trouble("functions")
    assert message == f"{other_app.url} has no function queries/getMonitorStatus" and fix == "make deploy"
    assert "token" in found.unchecked


def test_the_functions_of_before_work_and_should_follow(local: Local, inside: Inside, tmp_path: Path) -> None:
    with zipfile.ZipFile(PREVIOUS) as archive:
        local.functions = Path(archive.extract("functions.mjs", tmp_path))
    local.up()
    local.cli.write_schedule(TABLE)
    found = examine(inside)
    message, fix = found.trouble("functions", "warning")
    assert "contract version 1, this program 2" in message and "the functions should follow" in message
    assert fix == "heartbeat local up"
    assert found.states("token") == found.states("sweep") == {"ok"}


@pytest.mark.parametrize(("version", "state"), [(3, "warning"), (4, "problem"), (0, "problem")])
def test_functions_that_are_newer_or_much_older(host: Inside, version: int, state: str) -> None:
    status = {"contractVersion": version, "sweepEveryMs": 60_000, "sweepRanAt": time.time_ns() // 1_000_000}
    with Deployment({"queries/getMonitorStatus": lambda _: status}) as peer:
        env = {"HEARTBEAT_URL": peer.url, "HEARTBEAT_TOKEN": "a-token"}
        message, fix = examine(host, env=env).trouble("functions", state)
    assert f"contract version {version}, this program 2" in message
    assert fix.startswith("update this program" if version > 2 else "make deploy")


def test_agents_that_no_row_of_the_team_shows(host: Inside) -> None:
    rows = [row(agent=f"agent{number}", linked=number == 0) for number in range(8)]
    status = {"contractVersion": 2, "sweepEveryMs": 60_000, "sweepRanAt": time.time_ns() // 1_000_000}
    functions = {
        "queries/getMonitorStatus": lambda _: status,
        "queries/getToken": lambda _: {"scope": "read"},
        "queries/getAgentDashboard": lambda _: {"agents": rows, "isDone": True, "continueCursor": ""},
    }
    with Deployment(functions) as peer:
        env = {"HEARTBEAT_URL": peer.url, "HEARTBEAT_TOKEN": "a-token"}
        message, fix = examine(host, env=env).trouble("linked", "warning")
        rows[:] = rows[:1]
        assert examine(host, env=env).states("linked") == {"ok"}
    assert message.startswith("not linked: agent1, agent2, agent3, agent4, agent5 and 2 more: no row of the")
    assert "agentName in convex/fleet.ts" in fix


# --- the token


def test_a_token_that_is_not_valid_there(host: Inside) -> None:
    found = examine(host, env={"HEARTBEAT_TOKEN": "of-somebody-else"})
    message, fix = found.trouble("token")
    assert f"fingerprint {tokens.fingerprint('of-somebody-else')}" in message and "not valid" in message
    assert fix == "unset HEARTBEAT_TOKEN" and "functions" in found.unchecked
    assert "of-somebody-else" not in found.ran.out + found.ran.err
    assert examine(host).states("token") == {"ok"}


def test_a_token_that_was_revoked(host: Inside) -> None:
    url = host.cli.env["HEARTBEAT_URL"]
    admin, text = kept(host.cli, url), another_token(host)
    tokens.save(host.cli.config_dir, url, text, "send")
    assert examine(host).states("token") == {"ok"}
    assert host("token", "revoke", tokens.fingerprint(text), env={"HEARTBEAT_TOKEN": admin}).code == 0
    message, fix = examine(host).trouble("token")
    assert "not valid" in message and f"heartbeat token save --url {url} < FILE" in fix


def test_there_is_no_token(host: Inside) -> None:
    tokens.path(host.cli.config_dir).unlink()
    message, fix = examine(host).trouble("token")
    assert message.startswith("there is no access token for http://127.0.0.1") and "token save" in fix


def test_a_token_that_may_only_read(host: Inside) -> None:
    found = examine(host, env={"HEARTBEAT_TOKEN": another_token(host, "--scope", "read")})
    message, fix = found.trouble("token")
    assert "may only read: send is refused" in message and "heartbeat token create" in fix
    (host.cli.home / "cron-schedule.md").unlink()
    reader = {"HEARTBEAT_TOKEN": another_token(host, "--scope", "read")}
    assert "may only read" in examine(host, env=reader).trouble("token", "warning")[0], "it may only look"


def test_a_token_of_another_host(host: Inside) -> None:
    found = examine(host, env={"HEARTBEAT_TOKEN": another_token(host, "--host-name", "elsewhere")})
    message, _ = found.trouble("token", "warning")
    assert "was made for the host elsewhere" in message


def test_a_token_that_may_not_send_for_an_agent_of_this_host(host: Inside) -> None:
    found = examine(host, env={"HEARTBEAT_TOKEN": another_token(host, "--agents", "hint,torv")})
    message, fix = found.trouble("token")
    assert "not for rams" in message and "heartbeat token create" in fix
    assert "agents" in found.unchecked, "a send token reads no dashboard"


# --- clocks and the sweep


@pytest.mark.parametrize(("wrong_s", "state"), [(150, "warning"), (-1200, "problem")])
def test_a_clock_that_is_wrong(host: Inside, wrong_s: int, state: str) -> None:
    clocks = Clocks(host.cli.folder / "clocks", ("host",))
    clocks.wrong_ms["host"] = wrong_s * 1000
    clocks.set(time.time_ns() // 1_000_000)
    found = examine(host.cli, env=clocks.environment("host"))
    message, fix = found.trouble("clock", state)
    assert ("2 min ahead of" if wrong_s > 0 else "min behind") in message and "set-ntp" in fix
    assert found.states("sweep") == {"ok"}, "it goes by the deployment's clock"


def test_a_sweep_that_has_stopped(live: Live) -> None:
    live.move_clock(-10 * MINUTE_MS - SECOND_MS)  # the deployment tells its clock to the second
    live.admin("heartbeat/maintenance:sweep", {})
    message, fix = examine(live.inside).trouble("sweep")
    assert "sweep late: last 10 min ago" in message and fix == "make deploy"


def test_a_sweep_that_was_stopped_by_somebody_who_left(live: Live) -> None:
    live.inside("apply", "--yes")
    kept = tokens.stored(live.cli.config_dir, live.url, [])
    live.admin("mutations/leave", {"token": kept and kept.text, "request": {"step": "stop"}})
    message, fix = examine(live.inside).trouble("sweep")
    assert "the sweep was stopped" in message and fix == "heartbeat apply"
