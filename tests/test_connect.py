"""`heartbeat connect`: from nothing, or from the local backend, to another deployment."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import HEARTBEAT, Cli, Inside, Local, Ran, alive, wait_for
from deployment import Deployment, Refusal
from doctors import examine
from heartbeat_cli import tokens
from heartbeat_cli.client import Connection, Deadline, run_admin
from heartbeat_cli.command import Edge, Invocation
from heartbeat_cli.commands.connect_asking import Wish
from heartbeat_cli.commands.connect_steps import Connecting
from heartbeat_cli.config import Flags, load
from heartbeat_cli.heartbeat import heartbeat_id
from heartbeat_cli.spool import Spool
from heartbeat_cli.spool_entry import Entry, Which
from peers import SELF_SIGNED, Behaviour, Peer, answers, free_port, relays, silent, too_late
from terminal import Dialogue

HEAD = "| agent | schedule | command |\n|---|---|---|\n"
ADMIN_S = 20.0


@dataclass(frozen=True)
class There:
    """Another team's deployment (a local backend with a key of its own), and how its owner looks at it."""

    local: Local

    @property
    def url(self) -> str:
        return str(self.local.status().url)

    @property
    def site(self) -> str:
        return str(self.local.status().site_url)

    @property
    def key(self) -> str:
        return "self-hosted|" + (self.local.folder / "admin-key").read_text().strip()

    def ask(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        token = tokens.stored(self.local.cli.config_dir, self.url, [])
        assert token is not None
        with Connection(self.url, token.text, deadline=Deadline(ADMIN_S), transport="http") as connection:
            return connection.query(f"queries/{name}", "request", request)

    def heartbeats(self, agent: str) -> list[str]:
        found = self.ask("getAgentHistory", {"agent": agent, "limit": 200})["heartbeats"]
        return [each["heartbeatId"] for each in found]

    def tokens(self) -> int:
        return len(self.ask("listTokens", {})["tokens"])


@pytest.fixture
def there(running: Local) -> There:
    return There(running)


@pytest.fixture
def schedule(cli: Cli) -> Callable[..., None]:
    """Writes the schedule of a host: agents that no other test has."""
    cli.env["HEARTBEAT_DEADLINE"] = "30"

    def write(*agents: str) -> None:
        cli.write_schedule(HEAD + "".join(f"| {agent} | every 6h | true |\n" for agent in agents))

    return write


def kept(cli: Cli, url: str) -> tokens.Token | None:
    return tokens.stored(cli.config_dir, url, [])


def config(cli: Cli) -> str:
    return (cli.config_dir / "config.toml").read_text()


def begun(cli: Cli, *words: str, stdin: str = "") -> subprocess.Popen[str]:
    """The command as a process that a test kills, with all of its standard input."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [HEARTBEAT, *words],
        env=cli.environment(),
        cwd=cli.home,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    return process


def nowhere(secret: str, folder: Path, *ran: Ran) -> None:
    """A secret is in no output and in no file but those that keep tokens."""
    for done in ran:
        assert secret not in done.out + done.err
    for file in folder.rglob("*"):
        if file.is_file() and file.name not in {"tokens.toml", "admin-key"}:
            assert secret not in file.read_bytes().decode("utf-8", "replace"), file


# --- the first host, the second, and again


def test_a_deploy_key_makes_one_token_and_the_host_reports_there_from_then_on(
    inside: Inside, there: There, schedule: Callable[..., None]
) -> None:
    schedule("lead-1")
    cli, before = inside.cli, there.tokens()
    planned = inside("connect", there.url, "--dry-run", "--json", stdin=there.key)
    outcomes = {step: planned.data[step]["outcome"] for step in ("token", "apply", "config")}
    assert outcomes == {"token": "planned", "apply": "planned", "config": "planned"}
    assert there.tokens() == before and not cli.config_dir.exists()

    made = inside("connect", there.url, "--yes", "--json", stdin=f"{there.key}\n")
    assert made.code == 0, made
    token = kept(cli, there.url)
    assert token is not None and token.scope == "admin" and there.tokens() == before + 1
    assert made.data["token"]["fingerprint"] == tokens.fingerprint(token.text)
    assert (made.data["apply"]["outcome"], made.data["config"]["outcome"]) == ("applied", "written")
    assert made.data["contractVersion"] == 2 and made.data["config"]["wins"] is None
    assert config(cli) == f'url = "{there.url}"\n'
    assert tokens.path(cli.config_dir).stat().st_mode & 0o777 == 0o600
    written = cli("-l", program=("crontab",)).out
    # the address stands in one place: a crontab that repeats it would keep it when that changes
    assert "run lead-1" in written and "HEARTBEAT_URL" not in written
    assert inside("send", "lead-1", "--json").data["outcome"] == "recorded"

    for given in (there.key, ""):
        again = inside("connect", there.url, "--yes", "--json", stdin=given)
        told = {step: again.data[step]["outcome"] for step in ("token", "apply", "config", "spool", "local")}
        assert set(told.values()) == {"unchanged"}, told
    assert there.tokens() == before + 1 and config(cli) == f'url = "{there.url}"\n'
    nowhere(there.key.partition("|")[2], cli.folder, planned, made, again)
    nowhere(token.text, cli.folder, made, again)


def test_a_second_host_needs_the_token_that_was_made_for_it_and_nothing_else(
    inside: Inside, owner: Inside, there: There, schedule: Callable[..., None]
) -> None:
    owner.cli.write_schedule(HEAD + "| second-1 | every 6h | |\n| second-2 | every 6h | |\n")
    assert owner("apply", "--agents-only", "--yes").code == 0
    made = owner("token", "create", "box2", "--agents", "second-1", "--host-name", "box2")
    done = inside("connect", there.url, "--yes", "--json", stdin=made.out)
    assert done.code == 0, done
    text = made.out.strip()
    assert kept(inside.cli, there.url) == tokens.Token(text, "send", ("second-1",))
    assert done.data["token"]["agents"] == ["second-1"] and done.data["apply"]["outcome"] == "no schedule"
    assert inside("send", "second-1").code == 0
    assert "unauthorized" in inside("send", "second-2", "--json").out
    nowhere(text, inside.cli.folder, done)
    # with a schedule: its crontab lines are for this host, its agents for whoever may register them
    schedule("second-1")
    lines = inside("connect", there.url, "--yes", stdin="")
    assert "registering agents takes an admin token" in lines.out and "run second-1" in lines.out
    # and an admin's token does not give way to it
    refused = owner("connect", "http://127.0.0.1:1", "--yes", stdin=made.out)
    assert refused.code == 75 and owner("connect", there.url, "--yes", stdin="").code == 2


def test_crontab_lines_are_of_agents_only_that_the_token_may_report_for(
    inside: Inside, owner: Inside, there: There, schedule: Callable[..., None]
) -> None:
    owner.cli.write_schedule(HEAD + "".join(f"| part-{n} | every 6h | true |\n" for n in (1, 2, 3)))
    assert owner("apply", "--agents-only", "--yes").code == 0
    made = owner("token", "create", "box2", "--agents", "part-1", "--host-name", "box2")
    # part-3 runs on this host already, and is not stopped by what a token may not
    schedule("part-3")
    assert inside("cron", "install", "--yes", "--url", there.url).code == 0
    schedule("part-1", "part-2", "part-3")
    done = inside("connect", there.url, "--yes", stdin=made.out)
    written = inside.cli("-l", program=("crontab",)).out
    assert done.code == 0 and {n: f"run part-{n}" in written for n in (1, 2, 3)} == {
        1: True,
        2: False,
        3: True,
    }
    why = "for which the token that is kept here may not report"
    assert f"no lines for part-2, {why}" in done.err and f"goes on running part-3, {why}" in done.err
    assert "made for the host box2, and this one is called" in done.err and 'host = "box2"' in done.err

    same = inside("cron", "install", "--yes")
    assert "nothing to change in the crontab" in same.out and f"no lines for part-2, {why}" in same.err
    assert inside("cron", "check", "--crontab-only").code == 0
    assert "part-2" not in inside("cron", "print").out
    found = examine(inside)
    assert [each["message"] for each in found.of("crontab")] == ["the crontab has the lines of 2 agents"]
    assert found.states("token") == {"warning", "problem"}
    told = " ".join(each["message"] for each in found.of("token"))
    assert "was made for the host box2" in told and "not for part-2, part-3" in told


def test_a_host_whose_token_may_only_read_gets_no_crontab_lines(
    inside: Inside, owner: Inside, there: There, schedule: Callable[..., None]
) -> None:
    made = owner("token", "create", "looker", "--scope", "read")
    schedule("looked-at-1")
    done = inside("connect", there.url, "--yes", stdin=made.out)
    assert done.code == 0 and "no crontab lines of" in done.out
    assert f"this host looks at {there.url}, and reports nothing" in done.out
    install = inside("cron", "install", "--yes")
    assert install.code == 0 and "no lines for looked-at-1, for which the token" in install.err
    assert "looked-at-1" not in inside.cli("-l", program=("crontab",)).out


def test_a_token_or_key_that_is_not_accepted_changes_nothing(inside: Inside, there: There) -> None:
    wrong = inside("connect", there.url, "--yes", stdin="self-hosted|" + "0" * 64)
    assert wrong.code == 1 and "does not accept the admin key" in wrong.err
    unknown = inside("connect", there.url, "--yes", stdin=tokens.mint())
    assert unknown.code == 1 and "does not accept that token" in unknown.err
    nothing = inside("connect", there.url, "--yes", stdin="")
    assert nothing.code == 2 and "printenv CONVEX_DEPLOY_KEY | heartbeat connect" in nothing.err
    unasked = inside("connect", there.url, stdin=there.key)
    assert unasked.code == 2 and "nobody can be asked here" in unasked.err
    assert not (inside.cli.config_dir / "config.toml").exists()


def test_what_goes_before_the_file_is_told_and_not_written_into_the_crontab(
    inside: Inside, there: There, schedule: Callable[..., None]
) -> None:
    schedule("winner-1")
    inside.cli.env |= {"HEARTBEAT_URL": "http://127.0.0.1:9", "HEARTBEAT_TOKEN": "for-another"}
    done = inside("connect", there.url, "--yes", "--json", stdin=there.key)
    assert done.data["config"]["wins"] == "HEARTBEAT_URL"
    assert "HEARTBEAT_URL goes before config.toml here, and says http://127.0.0.1:9: unset it" in done.err
    assert "HEARTBEAT_URL" not in inside.cli("-l", program=("crontab",)).out


def test_a_schedule_that_is_refused_stops_it_before_anything_is_switched(
    inside: Inside, there: There
) -> None:
    inside.cli.write_schedule(HEAD + "| refused-1 | every 6h | |\n| refused-1 | every 6h | |\n")
    done = inside("connect", there.url, "--yes", stdin=there.key)
    assert done.code == 2 and "refused-1" in done.err
    assert not (inside.cli.config_dir / "config.toml").exists()


# --- the address of the HTTP actions


def test_the_address_of_the_http_actions_is_asked_about_before_it_is_believed(
    inside: Inside, there: There
) -> None:
    def connect(site: str) -> Ran:
        return inside("connect", there.url, "--yes", "--site-url", site, stdin=there.key)

    functions = connect(there.url)
    assert (
        functions.code == 2 and "is the address of a deployment's functions, not of its HTTP" in functions.err
    )
    assert connect(f"http://127.0.0.1:{free_port()}").code == 75
    with Peer(answers("200 OK", "<html>hello</html>")) as page:
        assert connect(page.url).code == 75
    assert connect("https://happy-animal-123.convex.cloud").code == 2
    assert not (inside.cli.config_dir / "config.toml").exists()
    assert connect(there.site).code == 0
    assert config(inside.cli) == f'url = "{there.url}"\nsite_url = "{there.site}"\n'
    shown = inside("config", "--json").data["settings"]["site_url"]
    assert shown == {"value": there.site, "from": str(inside.cli.config_dir / "config.toml")}
    # of another deployment it says nothing
    elsewhere = inside("config", "--json", "--url", "http://127.0.0.1:9").data["settings"]["site_url"]
    assert elsewhere == {"value": None, "from": "not set"}


# --- who answers there


def closed(_: Any) -> Any:
    raise Refusal("closed on Sundays")


@pytest.mark.parametrize(
    ("peer", "says", "then"),
    [
        (
            lambda: Deployment({}),
            "has no function queries/getMonitorStatus",
            "heartbeat functions add APP_DIR",
        ),
        (
            lambda: Deployment({"queries/getMonitorStatus": lambda _: {"mine": True}}),
            "has another function queries/getMonitorStatus than ours",
            "make deploy",
        ),
        (lambda: Deployment({"queries/getMonitorStatus": closed}), "has another function", "make deploy"),
        (lambda: Peer(answers("404 Not Found", "No matching routes found")), "HTTP actions", ".convex.cloud"),
        (lambda: Peer(answers("200 OK", "<html>")), "is not a Convex deployment", "heartbeat config"),
    ],
)
def test_who_else_may_answer_is_told_with_what_to_do_and_sent_no_secret(
    inside: Inside, peer: Callable[[], Peer], says: str, then: str
) -> None:
    with peer() as wrong:
        done = inside("connect", wrong.url, "--yes", stdin="self-hosted|abcdefghijkl")
        sent = getattr(wrong, "requests", [])
    assert done.code == 75 and says in done.err and then in done.err, done
    assert not any("abcdefghijkl" in f"{request.head!r}{request.body!r}" for request in sent)
    assert not inside.cli.config_dir.exists()


def test_the_local_backend_itself_is_nothing_to_connect_to(owner: Inside, there: There) -> None:
    for address in (there.url, "local"):
        done = owner("connect", address, "--yes", stdin=there.key)
        assert done.code == 2 and "needs no connecting" in done.err


def test_everything_goes_through_the_proxy_and_what_is_not_encrypted_is_told(
    inside: Inside,
) -> None:
    def status(args: Any) -> Any:
        if "token" not in args:
            raise Refusal({"code": "unauthorized", "message": "No valid token for this call."})
        return {"contractVersion": 2}

    functions = {
        "queries/getMonitorStatus": status,
        "queries/getToken": lambda _: {"scope": "admin", "fingerprint": "f", "older": []},
        "heartbeat/setup:storeFirstToken": lambda _: {"fingerprint": "f"},
    }
    with Deployment(functions) as proxy:
        inside.cli.env |= {"HTTP_PROXY": proxy.url, "HEARTBEAT_DEADLINE": "20"}
        done = inside("connect", "http://deployment.example", "--yes", stdin="instance|abcdefghijkl")
        paths = [request.path for request in proxy.requests]
        keys = [request.headers.get("authorization") for request in proxy.requests]
    assert done.code == 0, done
    assert "http://deployment.example is not https: whoever is on the way can read" in done.err
    assert all(path.startswith("http://deployment.example/") for path in paths)
    assert [key for key in keys if key] == ["Convex instance|abcdefghijkl"]
    assert config(inside.cli) == 'url = "http://deployment.example"\n'


def test_a_key_goes_through_tls_and_through_the_proxy_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    functions = {"heartbeat/setup:storeFirstToken": lambda args: args["request"]}
    with Deployment(functions, tls=True) as secure, Deployment(functions) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(SELF_SIGNED))
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        args = {"request": {"tokenHash": "0", "name": "n", "scope": "admin"}}
        for url, proxied in ((secure.url, False), ("http://deployment.example", True)):
            answer = run_admin(
                url, "k|abcdefgh", "heartbeat/setup:storeFirstToken", args, Deadline(ADMIN_S), proxied=proxied
            )
            assert answer == args["request"]
        keys = [request.headers["authorization"] for request in (*secure.requests, *proxy.requests)]
    assert keys == ["Convex k|abcdefgh"] * 2
    assert proxy.requests[0].path == "http://deployment.example/api/function"


# --- on a terminal


def test_on_a_terminal_everything_is_asked_and_the_key_is_not_shown(
    cli: Cli, there: There, schedule: Callable[..., None]
) -> None:
    schedule("asked-1")
    dialogue = Dialogue(cli, "connect", there.url)
    dialogue.answer("HTTP actions (empty: there is none): ", there.site)
    dialogue.answer("(not shown): ", there.key)
    dialogue.answer("Write this? [y/N]: ", "n")
    shown = dialogue.end()
    assert dialogue.process.returncode == 0 and there.key.partition("|")[2] not in shown
    assert "does not name it, so this host reports to where it did" in shown
    assert not (cli.config_dir / "config.toml").exists() and kept(cli, there.url) is not None

    again = Dialogue(cli, "connect", there.url)
    again.answer("HTTP actions (empty: there is none): ", "")
    again.answer("Write this? [y/N]: ", "y")
    again.answer("Apply? [y/N]: ", "n")
    shown = again.end()
    assert f"this host reports to {there.url}" in shown and "asked-1" in shown
    assert config(cli) == f'url = "{there.url}"\n'
    assert "asked-1" not in cli("-l", program=("crontab",)).out

    third = Dialogue(cli, "connect", there.url)
    third.answer("Apply? [y/N]: ", "n")
    assert "HTTP actions" not in third.end()


def test_a_key_that_is_piped_in_leaves_the_questions_to_the_terminal(
    cli: Cli, there: There, schedule: Callable[..., None]
) -> None:
    schedule("piped-1")
    dialogue = Dialogue(cli, "connect", there.url, "--site-url", there.site, piped=there.key)
    dialogue.answer("Write this? [y/N]: ", "y")
    dialogue.answer("Apply? [y/N]: ", "y")
    shown = dialogue.end()
    assert dialogue.process.returncode == 0 and "applied: 1 agent registered" in shown, shown
    assert config(cli) == f'url = "{there.url}"\nsite_url = "{there.site}"\n'


# --- from the local backend


@dataclass(frozen=True)
class Moving:
    """A host whose agents report to its own local backend, and are to report elsewhere."""

    local: Local
    inside: Inside

    def send(self, agent: str, *words: str) -> str:
        return str(self.inside("send", agent, *words, "--json").data["heartbeatId"])


@pytest.fixture
def moving(local: Local, inside: Inside, schedule: Callable[..., None]) -> Moving:
    local.up()
    return Moving(local, inside)


def another(entry: Entry) -> Entry:
    """A heartbeat like that one, under an id of its own."""
    own = heartbeat_id(entry.sent.wall_ms, os.urandom(10))
    return replace(entry, heartbeat_id=own, body={**entry.body, "heartbeatId": own})


def test_the_whole_local_backend_moves_and_each_heartbeat_is_there_once(
    moving: Moving, there: There, schedule: Callable[..., None]
) -> None:
    schedule("moved-1", "moved-2")
    inside, spool = moving.inside, Spool(moving.inside.cli.data_dir)
    assert inside("local", "install", "--with", "cron", "--yes").code == 0
    assert inside("apply", "--agents-only", "--yes").code == 0
    sent = [moving.send("moved-1"), moving.send("moved-1", "--error", "bad")]
    assert inside("agents", "pause", "moved-2").code == 0
    inside("local", "down")
    sent.append(moving.send("moved-1"))
    [entry] = spool.entries(Which())
    inside("local", "up")
    assert inside("spool", "retry").code == 0
    # one that the local backend has and that waits all the same: its answer was lost; and one that it has not
    spool.add(entry)
    spool.add(unheard := another(entry))

    done = inside("connect", there.url, "--yes", "--json", stdin=there.key)
    assert done.code == 0, done
    told = {step: done.data[step]["outcome"] for step in ("import", "spool", "local", "config")}
    assert told == {"import": "copied", "spool": "readdressed", "local": "stopped", "config": "written"}
    counts = {"readdressed": 2, "delivered": 2, "duplicates": 1, "refused": 0}
    assert done.data["spool"] == {"outcome": "readdressed", **counts}
    assert sorted(there.heartbeats("moved-1")) == sorted([*sent, unheard.heartbeat_id])
    # as it was, and the schedule that was applied after it has changed nothing of that
    assert there.ask("getAgent", {"agent": "moved-2", "at": 1})["row"]["control"] == "paused"
    assert moving.local.status().state == "stopped" and spool.entries(Which()) == []
    assert "local keep" not in inside.cli("-l", program=("crontab",)).out
    again = inside("connect", there.url, "--yes", "--json", stdin="")
    told = {step: again.data[step]["outcome"] for step in ("import", "spool", "local", "config", "apply")}
    assert set(told.values()) == {"unchanged"}, told


def test_what_is_declined_stays_as_it_is(moving: Moving, there: There, schedule: Callable[..., None]) -> None:
    schedule("stays-1")
    inside = moving.inside
    assert inside("apply", "--agents-only", "--yes").code == 0
    moving.send("stays-1")
    leaving = ("--no-apply", "--no-import", "--no-spool", "--keep-local")
    done = inside("connect", there.url, "--yes", "--json", *leaving, stdin=there.key)
    told = {step: done.data[step]["outcome"] for step in ("apply", "import", "spool", "local", "config")}
    assert told.pop("config") == "written" and set(told.values()) == {"left alone"}
    assert moving.local.status().state == "running"
    # stopped, and nobody copied its history: what to do about it is told each time
    inside("local", "down")
    inside("send", "stays-1", "--url", "local")
    waits = inside("spool", "retry")
    assert waits.code == 75 and f"to have it go there as well: heartbeat connect {there.url}" in waits.err
    later = inside("connect", there.url, "--yes", "--json", "--no-apply", stdin="")
    assert later.data["import"]["outcome"] == "not running" and "heartbeat local up, then this" in later.err


def test_a_sender_whose_heartbeat_was_readdressed_leaves_it_to_the_new_address(
    away: Inside,
) -> None:
    """It waits for its turn, with the settings from before."""
    new = "https://new.example"
    with Deployment({"mutations/recordHeartbeat": lambda _: {"outcome": "recorded"}}) as deployment:
        away.cli.env["HEARTBEAT_URL"] = deployment.url
        tokens.save(away.cli.config_dir, deployment.url, "a-token", "send")
        spool = Spool(away.cli.data_dir)
        spool.begin()
        assert spool.alone()
        process = begun(away.cli, "send", "hint", "--json")
        wait_for(lambda: spool.entries(Which()))
        assert spool.readdress(deployment.url, new, "f00dfacef00d") == 1
        spool.done()
        out, _ = process.communicate(timeout=60)
    assert (
        json.loads(out)["data"]["outcome"] == "spooled"
        and new in json.loads(out)["data"]["reason"]["message"]
    )
    [entry] = spool.entries(Which())
    assert (entry.deployment, entry.fingerprint, entry.tries) == (new, "f00dfacef00d", 0)
    assert deployment.calls == []


def test_what_another_delivers_while_it_waits_for_its_turn_is_not_counted(
    away: Inside, capsys: pytest.CaptureFixture[str]
) -> None:
    class Taken(Spool):
        """Empty by the time it is our turn."""

        def alone(self) -> bool:
            self.drop([entry.heartbeat_id for entry in self.entries(Which())], 0)
            return super().alone()

    away("send", "hint")
    url, spool = away.cli.env["HEARTBEAT_URL"], Taken(away.cli.data_dir)
    settings = load(Flags(), away.cli.environment(), away.cli.home)
    edge = Edge(settings, json=False, invocation=Invocation("connect", json=False), flags=Flags())
    connecting = Connecting(edge, url, Wish(*[False] * 6), None)
    assert spool.number(url) == 1
    assert connecting._deliver(spool) == {"delivered": 0, "duplicates": 0, "refused": 0}
    assert capsys.readouterr().out == ""


# --- killed, and typed again


def held_up(port: int, word: bytes, seen: threading.Event) -> Behaviour:
    """Passes on what comes, but for the first request with that word: the server gets it once its sender is
    gone, as one does that had been stopped.
    """

    def late(side: socket.socket, other: socket.socket, part: bytes) -> None:
        seen.set()
        too_late(side, other, part)

    return relays(port, until=word, then=late, times=1)


def stopping(port: int, word: bytes, pid: int) -> Behaviour:
    """Passes on everything, and stops a process for good when the first request with that word comes."""

    def stop(side: socket.socket, other: socket.socket, part: bytes) -> None:
        os.kill(pid, signal.SIGSTOP)
        other.sendall(part)
        side.sendall(other.recv(65536))

    return relays(port, until=word, then=stop, times=1)


@dataclass
class Killing:
    """Types the command for a deployment that is reached over `way`, and kills it when something is so."""

    moving: Moving
    there: There
    way: Peer
    may_deliver: bool = True  # anybody else, when it was killed

    @property
    def port(self) -> int:
        return int(self.there.url.rpartition(":")[2])

    @property
    def words(self) -> tuple[str, ...]:
        return ("connect", self.way.url, "--yes", "--json")

    def when(self, condition: Callable[[], object]) -> None:
        process = begun(self.moving.inside.cli, *self.words, stdin=self.there.key)
        wait_for(lambda: condition() or process.poll() is not None)
        spool = Spool(self.moving.inside.cli.data_dir)
        self.may_deliver = spool.alone()
        spool.done()
        process.kill()
        process.communicate(timeout=60)

    def in_call(self, word: bytes) -> None:
        """While it waits for the answer to a call with that word, which is done all the same."""
        seen = threading.Event()
        self.way.becomes(held_up(self.port, word, seen))
        self.when(seen.is_set)
        assert seen.is_set(), word

    def before_the_stop(self) -> None:
        """When the address is written, and the local backend is not stopped."""
        pid = self.moving.local.id_under_lock()
        assert pid is not None
        self.way.becomes(stopping(self.port, b'"agents"', pid))
        self.when((self.moving.inside.cli.config_dir / "config.toml").exists)
        os.kill(pid, signal.SIGCONT)
        self.moving.inside("local", "down")  # it may have been told to end by then, or not

    def before_the_readdressing(self) -> None:
        """When the local backend is stopped, and the spool still as it was."""
        self.way.becomes(relays(self.port))
        pid = self.moving.local.id_under_lock()
        assert pid is not None
        with sqlite3.connect(Spool(self.moving.inside.cli.data_dir).path, isolation_level=None) as spool:
            spool.execute("BEGIN IMMEDIATE")
            self.when(lambda: not alive(pid))
            spool.execute("ROLLBACK")


def test_it_may_be_killed_at_any_step_and_typed_again(
    moving: Moving, there: There, schedule: Callable[..., None]
) -> None:
    schedule("killed-1")
    moving.inside.cli.env["HEARTBEAT_TRANSPORT"] = "http"  # a WebSocket's frames cannot be looked into
    inside, cli, spool = moving.inside, moving.inside.cli, Spool(moving.inside.cli.data_dir)
    assert inside("apply", "--agents-only", "--yes").code == 0
    sent = [moving.send("killed-1")]
    inside("local", "down")
    sent += [moving.send("killed-1"), moving.send("killed-1")]
    inside("local", "up")
    before = there.tokens()
    with Peer(silent) as way:
        killing = Killing(moving, there, way)
        killing.in_call(b"heartbeat/setup:storeFirstToken")
        assert killing.may_deliver
        killing.in_call(b'"flips"')
        assert not killing.may_deliver and not (cli.config_dir / "config.toml").exists()
        killing.before_the_stop()
        assert {entry.deployment for entry in spool.entries(Which())} == {"local"}
        inside("local", "up")
        killing.before_the_readdressing()
        assert {entry.deployment for entry in spool.entries(Which())} == {"local"}
        killing.in_call(b"mutations/applySchedule")
        killing.in_call(b"recordHeartbeats")
        assert {entry.deployment for entry in spool.entries(Which())} == {way.url}
        way.becomes(relays(killing.port))
        done = inside(*killing.words, stdin=there.key)
        assert done.code == 0, done
    assert sorted(there.heartbeats("killed-1")) == sorted(sent)
    assert there.tokens() == before + 1 and spool.entries(Which()) == []
    assert config(cli) == f'url = "{way.url}"\n' and moving.local.status().state == "stopped"
    nowhere(there.key.partition("|")[2], cli.folder, done)
