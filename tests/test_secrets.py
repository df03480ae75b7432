"""Secrets: what is planted in every place where one may lie is in no place where none may be."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import typer

from conftest import HEARTBEAT, TABLE, Cli, Inside, Local, Ran, wait_for
from deployment import Deployment, PlainError, Refusal
from heartbeat_cli import cli as program
from heartbeat_cli import scrub, tokens
from hostile import COMMANDS, kind_of, returned
from peers import Behaviour, HttpRequest, Peer, behind_tls, free_port, read_request, send_answer, silent

ALIKE = ("agents resume", "agents retire")  # to agents pause
CALL_NOBODY: tuple[str, ...] = (
    "token save",
    "cron print",
    "cron install --yes",
    "cron remove --yes",
    "config",
    "functions foreign convex",
    "functions add --write --yes .",
    "functions status .",
    "functions update --yes .",
    "functions remove --yes .",
    "spool path",
)
CALL_NOBODY += ("spool drop --all --yes", "local down", "local status", "local logs", "local guide")
BACKEND: tuple[str, ...] = ("local up", "local backup", "local restore")
BACKEND += ("local check", "local install", "local keep", "local uninstall")
ASKS_ITS_ARGUMENT = ("connect",)  # and not --url
PART = 16  # so much of a secret is one, too
# Where a secret may lie: what `token save` keeps, the admin key, and what a test put somewhere itself
KEEPERS = {"tokens.toml", "admin-key"}


def secret(place: str) -> str:
    """A new one with letters that JSON, addresses and terminals write in their own way."""
    return f'{place}"/+%\\{tokens.mint()}'


def forms(text: str) -> set[str]:
    """What gives a secret away: all of it, or its beginning, as it is, or as JSON or an address writes it."""
    core = text.rpartition("\\")[2]
    whole = {text, json.dumps(text)[1:-1], quote(text, safe="")}
    return {form.lower() for form in (*whole, core, core[:PART], text[:PART])}


def everywhere(folder: Path, *ran: Ran) -> Iterator[tuple[str, str]]:
    """Each place a secret could have gone to, and what is there."""
    for number, done in enumerate(ran):
        yield f"output of run {number}", done.out + done.err
    for file in folder.rglob("*"):
        if file.is_file() and file.name not in KEEPERS and "backend" not in file.parts:
            yield str(file), file.read_bytes().decode("utf-8", "replace") + file.name


def assert_hidden(planted: Mapping[str, str], folder: Path, *ran: Ran) -> None:
    for place, content in everywhere(folder, *ran):
        lowered = content.lower()
        found = [name for name, text in planted.items() if any(form in lowered for form in forms(text))]
        assert not found, f"{found} in {place}: {content[:2000]}"


@pytest.fixture
def planted(cli: Cli) -> dict[str, str]:
    """Secrets in every place from which this program, or what it uses, reads one."""
    made = {name: secret(name) for name in ("variable", "kept", "proxy", "deploy", "hosted", "url")}
    made["deploy"], made["hosted"] = tokens.mint(), tokens.mint()
    made["proxy"] = tokens.mint()
    cli.write_schedule(TABLE)
    cli.env |= {
        "HEARTBEAT_DEADLINE": "20",
        "CONVEX_DEPLOY_KEY": f"prod:happy-animal-123|{made['deploy']}",
        "CONVEX_SELF_HOSTED_ADMIN_KEY": f"happy|{made['hosted']}",
        "HTTPS_PROXY": f"http://somebody:{made['proxy']}@127.0.0.1:9",
        "HTTP_PROXY": f"http://somebody:{made['proxy']}@127.0.0.1:9",
    }
    return made


@pytest.fixture
def given_by(cli: Cli, planted: dict[str, str]) -> Callable[[str, str], None]:
    """Gives the token for an address by the variable, or keeps it in the file."""

    def give(how: str, url: str) -> None:
        cli.env["HEARTBEAT_URL"] = url
        if how == "variable":
            cli.env["HEARTBEAT_TOKEN"] = planted["variable"]
        else:
            cli.env.pop("HEARTBEAT_TOKEN", None)
            tokens.save(cli.config_dir, url, planted["kept"], "admin")

    return give


# --- in good and in bad circumstances


def echoes(status: str, wrap: Callable[[str], str], head: str = "") -> Behaviour:
    """A server that answers every request with the arguments that it was sent."""

    def serve(connection: Any) -> None:
        while True:
            request: HttpRequest = read_request(connection)
            token = json.loads(request.body or b"{}").get("args", {}).get("token", "")
            body = wrap(f"{request.body.decode()} {token} {quote(token, safe='')} {token[:PART]}")
            if head:
                line = (
                    f"HTTP/1.1 {status}\r\n{head.format(quote(token, safe=''))}\r\nContent-Length: 0\r\n\r\n"
                )
                connection.sendall(line.encode())
            else:
                send_answer(connection, status, body.encode(), "application/json")

    return serve


def quoted(args: Mapping[str, Any]) -> str:
    token = str(args.get("token"))
    return f"{json.dumps(args)} {token} {quote(token, safe='')} {token[:PART]} {token.upper()}"


def refuse(args: Mapping[str, Any]) -> Any:
    raise Refusal({"code": "invalid", "message": quoted(args), "field": quoted(args)})


def refuse_in_words(args: Mapping[str, Any]) -> Any:
    raise Refusal(quoted(args))


def unauthorized(args: Mapping[str, Any]) -> Any:
    raise Refusal({"code": "unauthorized", "message": f"not with {quoted(args)}"})


def validation(args: Mapping[str, Any]) -> Any:
    raise PlainError(f"ArgumentValidationError: extra field {quoted(args)}\n\nObject: {quoted(args)}")


def failure(args: Mapping[str, Any]) -> Any:
    raise PlainError(f"[Request ID: 0123456789abcdef] Server Error\nUncaught Error: bad {quoted(args)}")


def well(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """The function as it is, but for one that tells in every text whom it was called by."""

    def echo(value: Any, said: str, key: str = "") -> Any:
        if isinstance(value, str) and key in {
            "summary",
            "message",
            "reason",
            "title",
            "name",
            "why",
            "error",
        }:
            return said
        if isinstance(value, list):
            return [echo(item, said, key) for item in value]
        return {k: echo(v, said, k) for k, v in value.items()} if isinstance(value, dict) else value

    def function(args: Mapping[str, Any]) -> Any:
        answer = echo(returned(name), quoted(args))
        return answer | {"isDone": True} if "isDone" in answer else answer

    return function


NAMES = {name for names in COMMANDS.values() for name in names}


def deployment(function: Callable[[Mapping[str, Any]], Any] | None) -> Peer:
    return Deployment({kind_of(name): function or well(name) for name in NAMES})


CIRCUMSTANCES: dict[str, Callable[[], Peer]] = {
    "all is well, and echoed": lambda: deployment(None),
    "refused": lambda: deployment(refuse),
    "refused in words": lambda: deployment(refuse_in_words),
    "unauthorized": lambda: deployment(unauthorized),
    "ArgumentValidationError": lambda: deployment(validation),
    "a failing function": lambda: deployment(failure),
    "500 that echoes": lambda: Peer(echoes("500 Internal Server Error", lambda text: text)),
    "500 that echoes as Convex does": lambda: Peer(
        echoes("500 No", lambda text: json.dumps({"code": "BadJson", "message": text}))
    ),
    "HTML": lambda: Peer(echoes("200 OK", lambda text: f"<html>{text}</html>")),
    "a redirect that names it": lambda: Peer(
        echoes("302 Found", str, "Location: https://{0}.example/{0}?token={0}")
    ),
    "a reason that is it": lambda: Peer(echoes("500 Internal Server Error", str, "X-Echo: {0}")),
    "a certificate of nobody": lambda: Peer(behind_tls(silent), scheme="https"),
}


WAYS = ("variable", "kept")  # in which a token is given
CASES = [(name, way) for name in CIRCUMSTANCES for way in WAYS]
# Each command where all is well, and in a third of the other circumstances; what is logged in each
IN_PARTS = 3
IN_TURN = [(name, WAYS[number % len(WAYS)]) for number, name in enumerate(CIRCUMSTANCES)]


@pytest.mark.parametrize(("name", "how"), IN_TURN)
def test_no_command_shows_or_keeps_a_secret_whatever_the_deployment_answers(
    inside: Inside, planted: dict[str, str], given_by: Callable[[str, str], None], name: str, how: str
) -> None:
    number = list(CIRCUMSTANCES).index(name)
    some = [
        words
        for place, words in enumerate(COMMANDS)
        if number == 0 or (number + place) % IN_PARTS == 0 or words.startswith("send ")
    ]
    no_command_shows_or_keeps_a_secret(inside, planted, given_by, (name, how), some)


@pytest.mark.long
@pytest.mark.parametrize(("name", "how"), CASES)
def test_no_command_shows_or_keeps_a_secret_whatever_is_answered_to_whatever_token(
    inside: Inside, planted: dict[str, str], given_by: Callable[[str, str], None], name: str, how: str
) -> None:
    no_command_shows_or_keeps_a_secret(inside, planted, given_by, (name, how), list(COMMANDS))


def no_command_shows_or_keeps_a_secret(
    inside: Inside,
    planted: dict[str, str],
    given_by: Callable[[str, str], None],
    case: tuple[str, str],
    commands: Sequence[str],
) -> None:
    name, how = case
    with CIRCUMSTANCES[name]() as peer:
        given_by(how, peer.url)
        ran = [
            inside(*words.split(), *form)
            for number, words in enumerate(commands)
            for form in (("--json",) if (number % 2 == 0) == (how == "kept") else (),)
        ]
    assert {done.code for done in ran} <= {0, 1, 2, 75}
    assert (inside.cli.home / "logs" / "agent-heartbeat.log").read_text().count("\n") >= 1
    assert_hidden(planted, inside.cli.folder, *ran)


def guarded(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """The function as it tells in every text whom it was called by, if that was with a token."""
    return lambda args: (well(name) if "token" in args else unauthorized)(args)


def repeats_the_key(connection: Any) -> None:
    """Is a deployment of ours until it is called with a key or a token, which it repeats."""
    while True:
        request = read_request(connection)
        args = json.loads(request.body or b"{}").get("args", {})
        no = {"status": "error", "errorMessage": "No", "errorData": {"code": "unauthorized", "message": "No"}}
        if request.path == "/version":
            send_answer(connection, "200 OK", b"1.0")
        elif "authorization" in request.headers or "token" in args:
            said = f"{request.head.decode()} {request.body.decode()}"
            answer = json.dumps({"code": "Bad", "message": said}).encode()
            send_answer(connection, "500 No", answer, "application/json")
        else:
            send_answer(connection, "200 OK", json.dumps(no).encode(), "application/json")


CONNECTED_TO: dict[str, Callable[[], Peer]] = {
    **CIRCUMSTANCES,
    "all is well for a token, and echoed": lambda: Deployment(
        {kind_of(name): guarded(name) for name in NAMES} | {tokens.FIRST_TOKEN_FUNCTION: failure}
    ),
    "the key is repeated": lambda: Peer(repeats_the_key),
}


@pytest.mark.parametrize("name", CONNECTED_TO)
def test_connecting_shows_and_keeps_no_key_and_shows_no_token(
    inside: Inside, planted: dict[str, str], name: str
) -> None:
    planted["key"], planted["stdin"] = tokens.mint(), secret("stdin")
    inside.cli.env |= {"HEARTBEAT_TOKEN": planted["variable"], "HEARTBEAT_URL": "http://127.0.0.1:9"}
    with CONNECTED_TO[name]() as peer:
        ran = [
            inside("connect", peer.url, "--yes", *form, stdin=given)
            for form, given in (((), f"happy|{planted['key']}"), (("--json",), planted["stdin"]), ((), ""))
        ]
    assert {done.code for done in ran} <= {0, 1, 2, 75}
    assert_hidden(planted, inside.cli.folder, *ran)
    kept = tokens.path(inside.cli.config_dir)
    assert not kept.exists() or planted["key"] not in kept.read_text()


def test_no_command_that_calls_nobody_shows_a_secret(
    inside: Inside, planted: dict[str, str], given_by: Callable[[str, str], None]
) -> None:
    given_by("kept", "https://happy-animal-123.convex.cloud")
    inside.cli.env["HEARTBEAT_TOKEN"] = planted["variable"]
    planted["stdin"] = secret("stdin")
    ran = [
        inside(*words.split(), *form, stdin=planted["stdin"])
        for words in CALL_NOBODY
        for form in ((), ("--json",))
    ]
    ran += [
        inside("token", "save", "--scope", "root", stdin=planted["stdin"]),
        inside("token", "save", stdin=f"{planted['stdin']} and more"),
    ]
    assert ran[0].code == 0 and any("happy-animal-123" in done.out for done in ran)
    assert_hidden(planted, inside.cli.folder, *ran)
    kept = tokens.stored(inside.cli.config_dir, "https://happy-animal-123.convex.cloud", [])
    assert kept is not None and kept.text == planted["stdin"]


def test_an_agents_own_report_takes_no_secret_of_ours_along(
    inside: Inside, planted: dict[str, str], given_by: Callable[[str, str], None]
) -> None:
    """What a job prints when it fails is often its whole environment."""
    with Deployment({kind_of(name): well(name) for name in NAMES}) as peer:
        given_by("variable", peer.url)
        environ = " ".join(inside.cli.environment().values())
        ran = [
            inside("send", "hint", "--summary", f"failed: {environ[:100]}", "--error", environ, "--json"),
            inside("send", "hint", "--error", "-", stdin=environ),
        ]
        told = [args["heartbeat"] for path, args in peer.calls if path == "mutations/recordHeartbeat"]
    assert [done.code for done in ran] == [0, 0] and scrub.HIDDEN in told[0]["error"]
    assert_hidden(planted, inside.cli.folder, *ran, Ran(0, json.dumps(told), ""))


@pytest.mark.parametrize(
    "address",
    [
        "https://user:{}@host.example",
        "https://user:p://{}@host.example/x",
        "https://{}@host.example",
        "https://host.example/?token={}",
        "https://host.example/{}",
        "https://host.example/#{}",
        "user:{}@host.example",
        "ws://host/x?{}",
    ],
)
@pytest.mark.parametrize("where", ["flag", "variable", "file"])
def test_a_secret_in_an_address_is_not_repeated(
    inside: Inside, planted: dict[str, str], address: str, where: str
) -> None:
    planted["url"] = tokens.mint()
    given = address.format(planted["url"])
    flag = ["--url", given] if where == "flag" else []
    if where == "variable":
        inside.cli.env["HEARTBEAT_URL"] = given
    if where == "file":
        inside.cli.config_dir.mkdir(parents=True)
        file = inside.cli.config_dir / "config.toml"
        file.write_text(f"url = {json.dumps(given)}\n")
    ran = [inside(*words, *flag) for words in (["send", "hint"], ["config"], ["dashboard", "--json"])]
    if where == "file":
        file.unlink()
    assert ran[0].code == 2 and "address" in ran[0].err
    assert_hidden(planted, inside.cli.folder, *ran)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '["http://h"]\ntoken = "{}',
        '["http://h"]\ntoken = {}',
        '"http://h" = "{}"',
        '["http://h"]\ntoken = ["{}"]',
        '["http://h"]\nscope = "{}"\ntoken = ""',
    ],
)
def test_a_tokens_file_that_is_none_is_told_without_what_stands_there(
    inside: Inside, planted: dict[str, str], content: str
) -> None:
    planted["kept"] = tokens.mint()
    inside.cli.config_dir.mkdir(parents=True)
    tokens.path(inside.cli.config_dir).write_text(content.replace("{}", planted["kept"]))
    inside.cli.env["HEARTBEAT_URL"] = "http://h"
    ran = [inside(*words) for words in (["send", "hint"], ["config"], ["dashboard", "--json"])]
    assert ran[0].code == 2
    assert_hidden(planted, inside.cli.folder, *ran)


@pytest.mark.parametrize("line", ["token = {}", "url = [{}]", "deadline = {{ token = {} }}", "host = [[{}]]"])
def test_a_secret_in_the_wrong_file_is_not_repeated(
    inside: Inside, planted: dict[str, str], line: str
) -> None:
    text = tokens.mint()
    inside.cli.config_dir.mkdir(parents=True)
    file = inside.cli.config_dir / "config.toml"
    file.write_text(line.format(json.dumps(text)) + "\n")
    ran = [inside("config"), inside("dashboard", "--json", "--url", "http://127.0.0.1:9")]
    file.unlink()
    assert_hidden(planted | {"file": text}, inside.cli.folder, *ran)


def test_a_disk_that_refuses_everything_tells_no_secret(
    inside: Inside, planted: dict[str, str], given_by: Callable[[str, str], None]
) -> None:
    cli = inside.cli
    (cli.folder / "a file").write_text("where folders should be")
    nowhere = str(cli.folder / "a file" / "below")
    planted["stdin"] = secret("stdin")
    with Deployment({kind_of(name): well(name) for name in NAMES}) as peer:
        given_by("variable", peer.url)
        cli.env |= {"HEARTBEAT_LOG": nowhere, "XDG_DATA_HOME": nowhere}
        ran = [
            inside(*words, *form)
            for words in (("send", "hint"), ("dashboard",))
            for form in ((), ("--json",))
        ]
        cli.config_dir.mkdir(parents=True)
        tokens.path(cli.config_dir).mkdir()
        ran += [inside("token", "save", *form, stdin=planted["stdin"]) for form in ((), ("--json",))]
        ran += [inside("token", "create", "x", "--save", *form) for form in ((), ("--json",))]
    assert [done.code for done in ran[-4:]] == [2] * 4 and "cannot be" in ran[-2].err
    assert "the log" in ran[0].err and "cannot be written" in ran[0].err
    assert_hidden(planted, cli.folder, *ran)


def test_a_proxy_that_repeats_its_password_is_not_repeated(cli: Cli, planted: dict[str, str]) -> None:
    def serve(connection: Any) -> None:
        request = read_request(connection)
        sent = request.headers.get("proxy-authorization", "").removeprefix("Basic ")
        connection.sendall(f"HTTP/1.1 407 {planted['proxy']} {sent}\r\nContent-Length: 0\r\n\r\n".encode())

    with Peer(serve) as proxy:
        address = f"http://somebody:{planted['proxy']}@127.0.0.1:{proxy.port}"
        cli.env |= {"HTTPS_PROXY": address, "HTTP_PROXY": address, "HEARTBEAT_TOKEN": planted["variable"]}
        ran = [
            cli("dashboard", "--url", f"{scheme}://deployment.example", *form)
            for scheme, form in (("http", ()), ("https", ("--json",)))
        ]
        assert proxy.connections
    assert {done.code for done in ran} == {75}
    assert_hidden(planted, cli.folder, *ran)
    assert not any("c29tZWJvZHk6" in done.out + done.err for done in ran)  # base64 of the user's name


# --- when it is interrupted, and when it is a bug


QUOTES = """
import os
from heartbeat_cli import cli, crontab_lines, tokens
def broken(*_):
    kept = os.path.join(os.environ["XDG_CONFIG_HOME"], "convex-heartbeat", "tokens.toml")
    raise ValueError(" ".join(os.environ.values()) + (open(kept).read() if os.path.exists(kept) else ""))
crontab_lines.entries = broken
cli.main()
"""


@pytest.mark.parametrize("how", ["variable", "kept"])
def test_the_traceback_of_a_bug_hides_what_its_message_quotes(
    cli: Cli, planted: dict[str, str], given_by: Callable[[str, str], None], how: str
) -> None:
    given_by(how, "http://127.0.0.1:9")
    done = cli("cron", "print", program=(sys.executable, "-c", QUOTES))
    assert done.code == 70 and "ValueError" in done.err and scrub.HIDDEN in done.err
    assert_hidden(planted, cli.folder, done)


@pytest.mark.parametrize("transport", ["ws", "http"])
def test_a_process_that_waits_shows_no_secret_to_others_and_none_when_it_is_ended(
    cli: Cli, planted: dict[str, str], given_by: Callable[[str, str], None], transport: str
) -> None:
    with Peer(silent) as peer:
        given_by("kept", peer.url)
        process = subprocess.Popen(
            [HEARTBEAT, "dashboard", "--transport", transport],
            env=cli.environment(),
            cwd=cli.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: peer.connections > 1)
        seen = "".join(
            Path("/proc", str(pid), "cmdline").read_text() for pid in (process.pid, *children(process.pid))
        )
        process.send_signal(signal.SIGINT)
        done = Ran(process.wait(timeout=30), *process.communicate())
    assert done.code == 130
    assert_hidden(planted, cli.folder, done, Ran(0, seen, ""))


def children(pid: int) -> list[int]:
    tasks = Path("/proc", str(pid), "task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]


def test_the_local_backend_is_given_no_secret(local: Local, inside: Inside, planted: dict[str, str]) -> None:
    local.cli.env["HEARTBEAT_TOKEN"] = planted["variable"]
    up = local.up()
    key = (local.folder / "admin-key").read_text().strip()
    kept = tokens.stored(local.cli.config_dir, up["url"], [])
    assert kept is not None
    known = planted | {"key": key.rpartition("|")[2], "local token": kept.text}
    seen = [Path("/proc", str(up["pid"]), name).read_bytes().decode() for name in ("cmdline", "environ")]
    (local.folder / "admin-key").chmod(0o644)
    again = local.try_up()
    assert f"other users can read {local.folder / 'admin-key'}; mend it: chmod 600" in again.err
    copy = str(local.cli.folder / "copy")
    ran = [again, inside("local", "backup", copy), inside("local", "down")]
    ran += [inside("local", "restore", copy, "--yes"), local.try_up(), inside("local", "check")]
    ran += [inside("local", "install", "--yes", "--json"), local.cli("local", "keep")]
    ran += [inside("local", "uninstall", "--yes", "--json")]
    assert {done.code for done in ran} == {0}, ran
    assert_hidden(known, local.cli.folder, *ran, Ran(0, *seen))


# --- never as an argument


def commands() -> Iterator[tuple[str, Any]]:
    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, f"{path} {name}".strip())
        if not hasattr(command, "commands"):
            yield path, command

    return walk(typer.main.get_command(program.build([])), "")


WRAPPED = ("run hint -- env",)


@pytest.mark.parametrize("how", ["variable", "kept"])
def test_what_a_wrapped_command_prints_of_our_secrets_is_neither_kept_nor_logged(
    cli: Cli, planted: dict[str, str], given_by: Callable[[str, str], None], how: str
) -> None:
    given_by(how, "http://127.0.0.1:9")
    for words in WRAPPED:
        done = cli(*words.split())
        assert done.code == 0
        assert_hidden(planted, cli.folder, Ran(0, "", done.err))  # standard output is the command's own


def test_every_command_is_run_with_secrets_all_around() -> None:
    run = [*COMMANDS, *ALIKE, *CALL_NOBODY, *BACKEND, *WRAPPED, *ASKS_ITS_ARGUMENT]
    missing = [path for path, _ in commands() if not any(f"{words} ".startswith(f"{path} ") for words in run)]
    assert missing == []


def test_no_command_takes_a_secret_as_an_argument() -> None:
    words = ("token", "secret", "password", "passwd", "key", "auth", "credential", "bearer")
    seen = 0
    for path, command in commands():
        for parameter in command.params:
            seen += 1
            spellings = [parameter.name or "", *parameter.opts, parameter.metavar or ""]
            assert not any(word in spelling.lower() for word in words for spelling in spellings), path
    assert seen > 50


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_token_typed_in_place_of_its_fingerprint_is_neither_sent_nor_repeated(
    inside: Inside, planted: dict[str, str], command: str
) -> None:
    with Deployment({}) as peer:
        done = inside("token", command, planted["variable"], "--url", peer.url)
        assert peer.connections == 0
    assert done.code == 2 and "heartbeat token list shows them" in done.err
    assert_hidden(planted, inside.cli.folder, done)


def test_a_folder_that_others_can_change_is_told_with_its_cure(inside: Inside) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    file = tokens.save(inside.cli.config_dir, url, tokens.mint(), "send")
    assert "mend it" not in inside("config", "--url", url).err
    inside.cli.config_dir.chmod(0o777)
    file.chmod(0o644)
    err = inside("config", "--url", url).err
    assert f"other users can change what is in {file.parent}; mend it: chmod go-w {file.parent}" in err
    assert f"other users can read {file}; mend it: chmod 600 {file}" in err


def test_a_spool_that_others_can_read_is_told_with_its_cure(inside: Inside, planted: dict[str, str]) -> None:
    inside.cli.env |= {"HEARTBEAT_URL": f"http://127.0.0.1:{free_port()}", "HEARTBEAT_TOKEN": "a-token"}
    assert "mend it" not in inside("send", "hint").err
    file = inside.cli.data_dir / "spool" / "spool.db"
    file.chmod(0o644)
    file.parent.chmod(0o777)
    err = inside("send", "hint").err
    assert f"other users can read {file}; mend it: chmod 600 {file}" in err
    assert f"other users can change what is in {file.parent}; mend it: chmod go-w {file.parent}" in err


# --- what hides them


def test_a_secret_is_hidden_in_every_form_and_what_is_none_stays() -> None:
    text = secret("x")
    scrub.remember(text)
    core = text.rpartition("\\")[2]
    for form in (text, json.dumps(text), quote(text, safe=""), core.upper(), core[:PART], f"İ{core}İ"):
        told = scrub.scrubbed(f"before {form} after {form}")
        assert not any(part in told.lower() for part in forms(text)), form
        assert told.startswith("before ") and scrub.HIDDEN in told and " after " in told
    assert scrub.scrubbed(core[:11]) == core[:11]
    assert scrub.scrubbed(f"İİ {core} İ") == f"İİ {scrub.HIDDEN} İ"
    assert scrub.scrubbed("nothing of it") == "nothing of it"
    assert len(scrub.scrubbed(core * 1_000)) == len(scrub.HIDDEN)


def test_what_is_too_short_to_be_a_secret_blots_out_nothing() -> None:
    for word in ("ok", "", "working"):
        scrub.remember(word)
    scrub.remember_key("happy-animal-123|")
    said = "hint ok (working) at happy-animal-123"
    assert scrub.scrubbed(said) == said
