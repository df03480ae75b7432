"""`heartbeat cron install|remove|check`: the crontab made to agree with the table, each difference found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import Cli, Inside, Live
from terminal import on_a_terminal

TABLE = """| agent | schedule    | time zone  | command       |
|-------|-------------|------------|---------------|
| hint  | 0 */6 * * * | UTC        |               |
| torv  | 15 8 * * *  | Asia/Tokyo | /opt/torv.sh  |
| rams  | every 6h    |            |               |
"""
THEIRS = "MAILTO=me\n20 8 * * * /opt/torv.sh\n0 0 * * * /opt/backup\n"


@pytest.fixture
def file(cli: Cli) -> Path:
    cli.write_schedule(TABLE)
    file = cli.folder / "crontab-of-this-home"
    file.write_text(THEIRS)
    return file


def kinds(inside: Inside) -> list[tuple[str, str | None]]:
    done = inside("cron", "check", "--crontab-only", "--json")
    found = done.data["differences"]
    assert done.code == (1 if found else 0)
    assert all(each["what"] and each["command"] for each in found)
    return [(each["kind"], each["agent"]) for each in found]


def test_install_shows_asks_writes_and_then_has_nothing_to_do(cli: Cli, file: Path, inside: Inside) -> None:
    cli.env["HEARTBEAT_TRANSPORT"] = "http"  # which the lines repeat, whoever writes them
    refused = inside("cron", "install")
    assert refused.code == 2 and "nobody can be asked here" in refused.err and "--yes" in refused.err
    assert re.search(r"^the crontab of \S+ on \S+:$", refused.out, re.M)
    assert "  - 20 8 * * * /opt/torv.sh\n" in refused.out
    assert "  + # hint: proves that cron runs, not that the agent works\n" in refused.out
    planned = inside("cron", "install", "--dry-run", "--json").data
    assert planned["outcome"] == "planned" and planned["changed"] and planned["diff"]
    assert "not confirmed" in on_a_terminal(cli, "cron", "install", typed="n\n", env={})
    assert file.read_text() == THEIRS
    shown = on_a_terminal(cli, "cron", "install", typed="y\n", env={})
    assert "Write this crontab? [y/N]" in shown and "the last 10 are kept" in " ".join(shown.split())
    text = file.read_text()
    assert text.startswith(THEIRS.replace("20 8", f"# heartbeat: wrapped torv {cli.home}: 20 8"))
    assert text.endswith(inside("cron", "print").out)
    again = inside("cron", "install", "--json").data
    assert (again["outcome"], again["changed"], again["diff"]) == ("unchanged", False, [])


def test_remove_shows_asks_and_gives_back_what_was_there(cli: Cli, file: Path, inside: Inside) -> None:
    inside("cron", "install", "--yes")
    installed = file.read_text()
    assert inside("cron", "remove").code == 2 and file.read_text() == installed
    done = inside("cron", "remove", "--yes")
    assert done.code == 0 and "  + 20 8 * * * /opt/torv.sh\n" in done.out
    assert file.read_text() == THEIRS
    assert inside("cron", "remove", "--yes").out == "nothing to change in the crontab\n"


def test_remove_tells_whose_command_nothing_runs_any_more(file: Path, inside: Inside) -> None:
    file.write_text("0 0 * * * /opt/backup\n")
    inside("cron", "install", "--yes")
    assert "nothing runs torv any more" in inside("cron", "remove", "--yes").err
    assert file.read_text() == "0 0 * * * /opt/backup\n"


def test_a_crontab_changed_while_it_was_asked_about_is_left_alone(
    cli: Cli, file: Path, inside: Inside
) -> None:
    program = cli.folder / "bin" / "crontab"
    program.parent.mkdir()
    # somebody saves another one right after it was read
    program.write_text(
        f'#!/bin/sh\nPATH=/usr/bin:/bin\nif [ "$1" = -l ]; then cat "{file}"; echo "# new" >>"{file}"; fi\n'
    )
    program.chmod(0o755)
    done = inside("cron", "install", "--yes", env={"PATH": f"{program.parent}:/usr/bin:/bin"})
    assert done.code == 1 and "changed by somebody else meanwhile" in done.err
    assert "# heartbeat: begin" not in file.read_text()


CHANGES = {
    "missing": (r"\n.* send hint .*", ""),
    "schedule": (r"\n0 \*/6(.* send hint )", r"\n0 */4\1"),
    "zone": (r"\n15 23 \* \* \* set --", "\n15 23 * * * --only-at '1 1 * * *' --tz UTC set --"),
    "command": (r"/opt/torv\.sh(; if)", r"/opt/torv.sh -x\1"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_line_that_was_changed_by_hand_is_found(file: Path, inside: Inside, kind: str) -> None:
    inside("cron", "install", "--yes")
    pattern, replacement = CHANGES[kind]
    text, count = re.subn(pattern, replacement, file.read_text())
    assert count == 1
    file.write_text(text)
    assert kinds(inside) == [(kind, "torv" if kind in {"zone", "command"} else "hint")]
    told = inside("cron", "check", "--crontab-only")
    assert told.code == 1 and "  mend it: heartbeat cron install\n" in told.out
    inside("cron", "install", "--yes")
    assert kinds(inside) == []


def test_what_the_table_no_longer_says_is_found(cli: Cli, file: Path, inside: Inside) -> None:
    inside("cron", "install", "--yes")
    cli.write_schedule(TABLE.replace("15 8", "30 9").replace("| rams ", "| kami "))
    assert kinds(inside) == [("zone", "torv"), ("missing", "kami"), ("extra", "rams")]


def test_a_block_that_is_not_as_we_write_it_is_found(file: Path, inside: Inside) -> None:
    inside("cron", "install", "--yes")
    file.write_text(re.sub(r"# made from.*\n", "", file.read_text()))
    assert kinds(inside) == [("block", None)]
    file.write_text(re.sub(r".*spool deliver.*\n", "", file.read_text()))
    assert kinds(inside) == [("missing", None)]


def test_lines_beside_the_block_that_do_the_same_are_found(cli: Cli, file: Path, inside: Inside) -> None:
    inside("cron", "install", "--yes")
    installed = file.read_text()
    for line, agent, command in (
        ("1 1 * * * /opt/torv.sh", "torv", "heartbeat cron install"),
        ("1 1 * * * cd /opt && /opt/torv.sh >/dev/null", "torv", "crontab -e"),
        ("1 1 * * * /opt/x && /usr/bin/heartbeat send hint", "hint", "crontab -e"),
        ("1 1 * * * heartbeat run hint -- /opt/x", "hint", "crontab -e"),
    ):
        file.write_text(f"{line}\n{installed}")
        [found] = inside("cron", "check", "--crontab-only", "--json").data["differences"]
        assert (found["kind"], found["agent"], found["command"]) == ("extra", agent, command)
        assert found["what"].startswith("line 1 of the crontab")
    for line in ("1 1 * * * heartbeat send hint-two", "# heartbeat send hint", "1 1 * * * /opt/torv2.sh"):
        file.write_text(f"{line}\n{installed}")
        assert kinds(inside) == []


def test_the_same_command_in_the_block_of_another_home_is_found(cli: Cli, file: Path, inside: Inside) -> None:
    inside("cron", "install", "--yes")
    moved = file.read_text().replace("/fleet", "/moved")
    cli.write_schedule(TABLE)
    file.write_text(moved)
    assert "in the block of" in inside("cron", "install", "--yes").err
    assert kinds(inside) == [("extra", "torv")]


def test_a_line_held_for_a_block_that_is_gone_is_found(file: Path, inside: Inside) -> None:
    inside("cron", "install", "--yes")
    file.write_text(re.sub(r"(?s)# heartbeat: begin.*", "", file.read_text()))
    found = kinds(inside)
    assert found.count(("missing", "torv")) == 2
    inside("cron", "remove", "--yes")
    assert file.read_text() == THEIRS


def test_without_a_crontab_every_line_is_missing(file: Path, inside: Inside) -> None:
    file.unlink()
    assert [kind for kind, _ in kinds(inside)] == ["missing"] * 4


def test_rows_of_other_hosts_need_no_crontab(cli: Cli, inside: Inside) -> None:
    cli.write_schedule("| agent | schedule | host |\n|---|---|---|\n| hint | every 7m | elsewhere |\n")
    assert kinds(inside) == []
    assert inside("cron", "install", "--yes").out == "nothing to change in the crontab\n"


def test_what_the_deployment_expects_is_compared_too(live: Live) -> None:
    cli, here = live.cli, live.inside
    cli.write_schedule(TABLE)
    assert here("apply", "--yes").code == 0
    good = here("cron", "check")
    assert (good.code, good.out) == (
        0,
        "the crontab and the deployment have what the table says (3 agents)\n",
    )
    cli.write_schedule(TABLE.replace("15 8", "30 8") + "| kami | every 2h | | |\n")
    here("cron", "install", "--yes")
    done = here("cron", "check")
    assert done.code == 1
    assert "expects torv at 15 8 * * * Asia/Tokyo; the table says 30 8 * * * Asia/Tokyo" in done.out
    assert "the deployment does not watch kami\n  mend it: heartbeat apply --agents-only\n" in done.out
    here("apply", "--agents-only", "--yes")
    assert here("cron", "check").code == 0


def test_a_deployment_that_cannot_be_asked_does_not_hide_what_the_crontab_lacks(
    file: Path, inside: Inside
) -> None:
    done = inside("cron", "check", "--url", "http://127.0.0.1:9", env={"HEARTBEAT_TOKEN": "t"})
    assert done.code == 75 and "no line of the crontab runs hint" in done.out
