"""`npx convex run` of an app that exists: what it is given, and what becomes of its failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import HEARTBEAT, REPOSITORY, Cli, Inside, Local, alive, wait_for
from heartbeat_cli import tokens
from heartbeat_cli.connect_app import App, selection
from heartbeat_cli.errors import Refused, SettingsProblem, Unreachable

# What stands where an app has its own tool: tells what it was given, then does as the test says
STANDIN = """#!/bin/sh
printf '%s\\n' "$PWD" "$@" >"{told}"
env >>"{told}"
{then}
"""
CLOUD = "https://happy-animal-123.convex.cloud"


@pytest.fixture
def folder(cli: Cli) -> Path:
    """An app with a convex/ folder and no packages yet."""
    folder = cli.folder / "app"
    (folder / "convex").mkdir(parents=True)
    (folder / "package.json").write_text('{"dependencies": {"convex": "*"}}')
    return folder


def standin(folder: Path, then: str) -> Path:
    told = folder / "told"
    program = folder / "node_modules" / ".bin" / "convex"
    program.parent.mkdir(parents=True)
    program.write_text(STANDIN.format(told=told, then=then))
    program.chmod(0o755)
    return told


def test_the_official_tool_makes_the_first_token_and_is_given_its_hash_alone(
    inside: Inside, folder: Path, running: Local
) -> None:
    url = str(running.status().url)
    (folder / "node_modules").symlink_to(REPOSITORY / "node_modules")
    key = (running.folder / "admin-key").read_text().strip()
    env_local = f"CONVEX_SELF_HOSTED_URL={url}\nCONVEX_SELF_HOSTED_ADMIN_KEY=instance|{key}\n"
    (folder / ".env.local").write_text(env_local)
    # CI: the official CLI then reports no errors to its makers
    inside.cli.env |= {"CI": "1", "HEARTBEAT_DEADLINE": "20"}
    made = inside("connect", url, "--app", str(folder / "convex"), "--yes", "--json")
    assert made.code == 0, made
    kept = tokens.stored(inside.cli.config_dir, url, [])
    assert kept is not None and made.data["token"] == {
        "outcome": "made",
        "fingerprint": tokens.fingerprint(kept.text),
        "scope": "admin",
        "agents": None,
        "replaced": None,
    }
    # revoked: the official tool tells the conflict, and another one is made
    assert inside("token", "revoke", tokens.fingerprint(kept.text)).code == 0
    again = inside("connect", url, "--app", str(folder), "--yes", "--json").data["token"]
    assert again["outcome"] == "made" and again["fingerprint"] != tokens.fingerprint(kept.text)


def test_an_app_that_deploys_elsewhere_and_one_without_a_login_are_told(
    inside: Inside, folder: Path, running: Local
) -> None:
    url = str(running.status().url)
    inside.cli.env["HEARTBEAT_TOKEN"] = "not-for-npx-convex"  # noqa: S105 - opens nothing
    told = standin(folder, "exit 0")
    elsewhere = inside("connect", url, "--app", str(folder), "--yes")
    assert elsewhere.code == 2
    place, *words = told.read_text().splitlines()
    assert place == str(folder) and words[:2] == ["run", "heartbeat/setup:storeFirstToken"]
    name = json.loads(words[2])["request"]["tokenHash"][: tokens.FINGERPRINT_CHARS]
    assert f"the token {name} was stored, but by another deployment than that at {url}" in elsewhere.err
    assert f"end it there: heartbeat token revoke {name}" in elsewhere.err
    # kept, it would be stored here as well by the next attempt, and be valid at both
    assert tokens.stored(inside.cli.config_dir, url, []) is None
    assert "not-for-npx-convex" not in told.read_text()

    told.with_name("node_modules").joinpath(".bin", "convex").write_text(
        "#!/bin/sh\necho '✖ No CONVEX_DEPLOYMENT set, run `npx convex dev`' >&2\nexit 1\n"
    )
    without = inside("connect", url, "--app", str(folder), "--yes")
    assert without.code == 1
    assert "heartbeat: npx convex: ✖ No CONVEX_DEPLOYMENT set, run `npx convex dev`" in without.err
    assert f"npx convex run failed in {folder} (exit 1)" in without.err and "npx convex login" in without.err


@pytest.mark.parametrize("where", [".env.local", ".env", "environment"])
def test_an_app_that_deploys_to_another_self_hosted_one_is_refused_before_anything_is_stored(
    inside: Inside, folder: Path, running: Local, where: str
) -> None:
    url, other = str(running.status().url), "https://other.example"
    told = standin(folder, "exit 0")
    (folder / ".env").write_text(f"CONVEX_SELF_HOSTED_URL={url}\n")
    if where == "environment":
        (folder / ".env.local").write_text(f"CONVEX_SELF_HOSTED_URL={url}\n")
        inside.cli.env["CONVEX_SELF_HOSTED_URL"] = f"{other}/"
    else:
        (folder / where).write_text(f"export CONVEX_SELF_HOSTED_URL='{other}'  # theirs\n")
    done = inside("connect", url, "--app", str(folder), "--yes")
    assert done.code == 2 and f"the app deploys to {other} (CONVEX_SELF_HOSTED_URL" in done.err
    assert f"and {url} is another address" in done.err
    assert not told.exists() and not inside.cli.config_dir.exists()


def test_which_deployment_is_meant_is_said_to_the_official_tool() -> None:
    assert selection(CLOUD, prod=False) == ["--deployment-name", "happy-animal-123"]
    assert selection("https://happy-animal-123.eu-west-1.convex.cloud", prod=False)[1] == "happy-animal-123"
    assert selection("https://api.example", prod=True) == ["--prod"]
    assert selection("http://127.0.0.1:3210", prod=False) == []


def test_a_folder_that_is_no_app_and_an_app_without_packages_are_told(folder: Path) -> None:
    with pytest.raises(SettingsProblem, match="there is no app in"):
        App.at(folder / "gone")
    with pytest.raises(SettingsProblem, match="npx convex cannot run in") as caught:
        App.at(folder)
    assert "npm install" in str(caught.value.hint)


def test_what_the_tool_says_is_sorted(folder: Path) -> None:
    then = (
        'case "$2" in missing) echo "Could not find function for x" >&2;; *) echo "no: $2" >&2;; esac; exit 3'
    )
    standin(folder, then)
    app = App.at(folder)
    with pytest.raises(Unreachable) as missing:
        app.run("missing", {}, [], dict(os.environ))
    assert missing.value.cause == "function_missing" and "npx convex deploy" in str(missing.value.hint)
    with pytest.raises(Refused, match=r"exit 3") as failed:
        app.run("other", {}, [], dict(os.environ))
    assert failed.value.notes == ["npx convex: no: other"]


def test_one_that_does_not_end_is_ended_with_what_it_started(folder: Path) -> None:
    told = standin(folder, f'sleep 100 & echo $! >"{folder}/child"; wait')
    app = App.at(folder)
    with pytest.raises(Unreachable, match="did not end within 1 s"):
        App(app.folder, app.program, 1.0).run("x", {}, [], dict(os.environ))
    assert told.exists()
    wait_for(lambda: not alive(int((folder / "child").read_text())))


def test_ctrl_c_ends_it_too(inside: Inside, folder: Path, running: Local) -> None:
    standin(folder, f'sleep 100 & echo $! >"{folder}/child"; wait')
    process = subprocess.Popen(
        [HEARTBEAT, "connect", str(running.status().url), "--app", str(folder), "--yes"],
        env=inside.cli.environment(),
        stderr=subprocess.DEVNULL,
    )
    child = folder / "child"
    wait_for(lambda: child.exists() and child.read_text().endswith("\n"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    wait_for(lambda: not alive(int(child.read_text())))
