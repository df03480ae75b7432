"""The user's crontab: read exactly, written only as it was shown, kept before, and never without the program.

Most tests have the stand-in `crontab` of tests/standins; Debian's own program is in a world of its own.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import crond
from conftest import STANDINS, TABLE, Cli, Inside
from crond import World
from heartbeat_cli import crontab, crontab_lines, crontab_text
from heartbeat_cli.errors import CrontabProblem

NOW = 1_795_420_800_000  # 2026-11-23T08:00:00Z


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PATH": f"{STANDINS}:{os.environ['PATH']}", "HOME": str(tmp_path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def test_no_crontab_yet_is_none_and_the_first_one_keeps_nothing(
    environ: dict[str, str], folder: Path
) -> None:
    assert crontab.read(environ) is None
    assert crontab.write(b"1 2 3 4 5 x\n", None, environ, folder, NOW) is None
    assert crontab.read(environ) == b"1 2 3 4 5 x\n" and list(folder.iterdir()) == []


def test_the_one_before_is_kept_under_its_instant_for_its_user_only(
    environ: dict[str, str], folder: Path
) -> None:
    crontab.write(b"# \xff\n", None, environ, folder, NOW)
    kept = crontab.write(b"# new\n", b"# \xff\n", environ, folder, NOW)
    assert kept == folder / "crontab-20261123T080000.000Z"
    assert kept.read_bytes() == b"# \xff\n" and kept.stat().st_mode & 0o777 == 0o600


def test_so_many_are_kept_and_no_more(environ: dict[str, str], folder: Path) -> None:
    was: bytes | None = None
    for number in range(crontab.BACKUPS + 3):
        text = f"# {number}\n".encode()
        crontab.write(text, was, environ, folder, NOW + number)
        was = text
    kept = sorted(file.read_text() for file in folder.iterdir())
    assert kept == sorted(f"# {number}\n" for number in range(2, crontab.BACKUPS + 2))


def test_an_empty_text_removes_the_crontab(environ: dict[str, str], folder: Path) -> None:
    crontab.write(b"# a\n", None, environ, folder, NOW)
    assert crontab.write(b"", b"# a\n", environ, folder, NOW) is not None
    assert crontab.read(environ) is None
    assert crontab.write(b"", None, environ, folder, NOW) is None


def test_what_was_changed_meanwhile_is_left_alone(environ: dict[str, str], folder: Path) -> None:
    crontab.write(b"# theirs\n", None, environ, folder, NOW)
    for was in (None, b"# older\n"):
        with pytest.raises(CrontabProblem, match="changed by somebody else meanwhile"):
            crontab.write(b"# ours\n", was, environ, folder, NOW)
    assert crontab.read(environ) == b"# theirs\n" and list(folder.iterdir()) == []


def test_of_two_that_write_at_once_one_is_told(environ: dict[str, str], folder: Path) -> None:
    crontab.write(b"# 0\n", None, environ, folder, NOW)
    refused: list[CrontabProblem] = []

    def change(number: int) -> None:
        try:
            crontab.write(f"# {number}\n".encode(), b"# 0\n", environ, folder, NOW + number)
        except CrontabProblem as problem:
            refused.append(problem)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3 and len(list(folder.iterdir())) == 1


def test_one_that_cannot_be_kept_is_not_written(environ: dict[str, str], folder: Path) -> None:
    crontab.write(b"# a\n", None, environ, folder, NOW)
    folder.rmdir()
    folder.write_text("no folder")
    with pytest.raises(CrontabProblem, match="cannot be kept in"):
        crontab.write(b"# b\n", b"# a\n", environ, folder, NOW)
    assert crontab.read(environ) == b"# a\n"


def test_without_the_program_it_is_said_how_to_get_it(cli: Cli, inside: Inside) -> None:
    cli.write_schedule(TABLE)
    nothing = {"PATH": str(cli.folder)}
    for words in (["cron", "install", "--yes"], ["cron", "remove", "--yes"], ["cron", "check"]):
        done = inside(*words, env=nothing)
        assert done.code == 1 and "there is no program 'crontab'" in done.err and "apt install" in done.err
    assert "# heartbeat: begin" in inside("cron", "print", env=nothing).out


def test_who_may_not_use_it_is_told_in_its_words(cli: Cli, inside: Inside) -> None:
    cli.write_schedule(TABLE)
    (cli.folder / "crontab-refuses").touch()
    done = inside("cron", "install", "--yes")
    assert done.code == 1 and "You (somebody) are not allowed to use this program" in done.err
    assert "/etc/cron.allow" in done.err


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "crontab"
    program.write_text("#!/bin/sh\necho the disk is gone >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(CrontabProblem, match="crontab refuses: the disk is gone"):
        crontab.read({"PATH": f"{tmp_path}:/usr/bin:/bin"})


# --- Debian's own program ---

AWKWARD = {
    "comments at the top": b"# one\n# two\n# three\n# four\n1 2 3 4 5 x\n",
    "no UTF-8": b"# \xff\xfe \x80\n1 2 3 4 5 x\n",
    "CRLF": b"1 2 3 4 5 x\r\n# from Windows\r\n",
    "a real carriage return and its picture": b"A=1\n# \\r and \r and \\b and \b\n1 2 3 4 5 printf '\\r'\n",
    "variables": b"MAILTO=me\n SHELL = /bin/bash\nA=' b '\n1 2 3 4 5 x\n",
    "its own head in the middle": b"A=1\n# DO NOT EDIT THIS FILE - edit the master and reinstall.\n"
    b"# (- installed on Mon)\n# (Cron version -- $Id$)\n",
    "its own first line as a comment": b"# DO NOT EDIT THIS FILE - edit the master and reinstall.\n# b\n",
    "blanks": b"\n\t\n  1 2 3 4 5  x  \n\n",
}


@crond.NEEDED
@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("by_hand", [False, True])
def test_debians_crontab_is_read_exactly_and_given_back(
    cron_world: World, folder: Path, name: str, by_hand: bool
) -> None:
    text = AWKWARD[name]
    if by_hand:
        cron_world.write(text)
    else:
        cron_world.sh("crontab -", text)
    assert cron_world.stands() == text
    found = crontab.read(cron_world.environ)
    assert found == text
    longer = text_with_block(found)
    kept = crontab.write(longer, found, cron_world.environ, folder, NOW)
    assert cron_world.stands() == longer and kept is not None and kept.read_bytes() == text
    crontab.write(crontab_text.without_block(longer, "a"), longer, cron_world.environ, folder, NOW + 1)
    assert cron_world.stands() == text


def text_with_block(text: bytes) -> bytes:
    return crontab_text.with_block(text, "a", ["# made from \\r", "1 2 3 4 5 HEARTBEAT_HOME=/h run y"])


@crond.NEEDED
def test_a_comment_that_may_be_either_is_not_guessed_at(cron_world: World) -> None:
    cron_world.write(b"# by hand, from Windows\r\n1 2 3 4 5 x\n")
    with pytest.raises(CrontabProblem, match="cannot be read exactly"):
        crontab.read(cron_world.environ)


@crond.NEEDED
def test_a_crontab_without_a_newline_at_its_end_gets_one_and_the_user_is_told(
    cron_world: World, cli: Cli, inside: Inside
) -> None:
    cli.write_schedule(TABLE)
    cron_world.sees(cli)
    cron_world.write(b"1 2 3 4 5 x")
    assert "for which cron ignores all of it" in inside("cron", "install", "--yes").err
    assert inside("cron", "remove", "--yes").code == 0
    assert cron_world.stands() == b"1 2 3 4 5 x\n"


@crond.NEEDED
def test_what_debians_crontab_refuses_is_quoted_and_nothing_is_changed(
    cron_world: World, cli: Cli, inside: Inside
) -> None:
    cli.write_schedule(TABLE)
    cron_world.sees(cli)
    cron_world.write(b"99 * * * * x\n")
    done = inside("cron", "install", "--yes")
    assert done.code == 1 and "bad minute" in done.err and "can't install" in done.err
    assert cron_world.stands() == b"99 * * * * x\n"


@crond.NEEDED
def test_a_user_without_a_crontab_has_none_afterwards(cron_world: World, cli: Cli, inside: Inside) -> None:
    cli.write_schedule(TABLE)
    cron_world.sees(cli)
    assert inside("cron", "install", "--yes").code == 0
    assert b"send hint" in (cron_world.stands() or b"")
    assert "nothing is left in it" in inside("cron", "remove", "--yes").out
    assert cron_world.stands() is None


@crond.NEEDED
@pytest.mark.parametrize(
    ("size", "taken"), [(crontab_lines.COMMAND_LIMIT, True), (crontab_lines.COMMAND_LIMIT + 1, False)]
)
def test_the_longest_command_that_we_write_is_the_longest_that_cron_takes(
    cron_world: World, size: int, taken: bool
) -> None:
    done = cron_world.sh("crontab -", b"0 0,3,6,9,12,15,18,21 * * * " + b"x" * size + b"\n")
    assert (done.returncode == 0) == taken, done.stderr


@crond.NEEDED
def test_cron_deny_is_told_in_debians_words(cron_world: World, tmp_path: Path) -> None:
    cron_world.sh("echo nobody >/etc/cron.deny")
    try:
        with pytest.raises(
            CrontabProblem, match=r"You \(nobody\) are not allowed to use this program"
        ) as refused:
            crontab.read(cron_world.as_user(65534, tmp_path))
    finally:
        cron_world.sh("rm /etc/cron.deny")
    assert "/etc/cron.allow" in str(refused.value.hint)
    assert crontab.read(cron_world.as_user(65534, tmp_path)) is None
