"""`heartbeat uninstall` where somebody came back or left before us, or something reports elsewhere."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from conftest import Inside, Local
from deployment import Deployment
from heartbeat_cli import leave, tokens
from heartbeat_cli.errors import FunctionsProblem
from leaving import SCHEDULE, Gate, Team, come, contents, copied


def test_that_a_deployment_was_left_is_not_believed_once_the_token_is_gone(team: Team) -> None:
    """Somebody may have come back since, and our files be in use there again."""
    here, cli = team.inside, team.cli
    come(team)
    assert here("uninstall", "--yes").code == 0
    assert contents(team.folder) != team.files
    # another host comes back
    tokens.ensure_local_token(cli.folder / "h2", team.backend.url, lambda _: False, team.backend.admin)
    kept = contents(team.folder)
    late = here("uninstall", str(team.folder), "--yes")
    assert late.code == 1 and "an admin token, and none is kept here" in late.out
    assert f"if nothing is to be: heartbeat functions remove --changed {team.folder}" in late.out
    assert contents(team.folder) == kept


def test_what_cannot_be_done_to_the_app_is_told_before_anything_is_and_ends_no_token(team: Team) -> None:
    here = team.inside
    come(team)
    schema, wrapped = team.folder / "convex" / "schema.ts", team.crontab
    with pytest.MonkeyPatch.context() as patch:  # root may write everywhere
        patch.setattr("os.access", lambda path, _: Path(path) != schema)
        refused = here("uninstall", str(team.folder), "--yes")
    assert refused.code == 1 and f"{schema} cannot be written, so nothing was" in refused.err
    assert team.crontab == wrapped and "stoppedAt" not in here("dashboard", "--json").data["monitor"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heartbeat_cli.adopt.Plan.carry_out", no_space)
        stuck = here("uninstall", str(team.folder), "--empty", "--yes", "--json")
    assert (stuck.code, stuck.data["outcome"]) == (1, "partly"), stuck
    assert stuck.data["deployment"]["outcome"] == "left" and "no space is left" in stuck.data["left"]
    # meanwhile another host comes back: what it has there goes too, as the plan shows
    other = here("token", "create", "h2", "--scope", "admin").out.strip()
    assert here("apply", "--agents-only", "--yes", env={"HEARTBEAT_TOKEN": other}).code == 0
    assert here("send", "hint", env={"HEARTBEAT_TOKEN": other}).code == 0
    assert "tokens that are revoked: 1 (h2)" in here("uninstall", str(team.folder), "--dry-run").out
    assert here("uninstall", str(team.folder), "--empty", "--yes").code == 0
    team.assert_as_before()


def no_space(_: object) -> None:
    raise FunctionsProblem("no space is left")


def test_with_another_address_than_this_host_reports_to_only_that_one_is_left(team: Team) -> None:
    here, cli = team.inside, team.cli
    come(team)
    wrapped, prod = team.crontab, cli.env.pop("HEARTBEAT_URL")
    with Deployment({}) as dev:
        tokens.save(cli.config_dir, dev.url, "a-token", "admin")
        # cron's lines say where they report to
        planned = here("uninstall", "--url", dev.url, "--dry-run")
        stays = f"the jobs of {cli.home} stay as they are: to leave there too,\n  heartbeat uninstall"
        assert f"{stays} --home {cli.home} --url {prod}" in planned.out
        assert "unwrapped" not in planned.out
        done = here("uninstall", "--url", dev.url, "--yes")
        assert done.code == 0 and team.crontab == wrapped
        assert tokens.stored(cli.config_dir, dev.url, []) is None
        # what this host reports to without --url goes on, and so does the app
        cli.env["HEARTBEAT_URL"] = prod
        kept = contents(team.folder)
        elsewhere = here("uninstall", str(team.folder), "--url", dev.url, "--yes")
        assert elsewhere.code == 2 and f"first (heartbeat uninstall --url {prod}); if not:" in elsewhere.err
        assert f"heartbeat uninstall --url {dev.url}, then heartbeat functions remove" in elsewhere.err
        # however the other address is given
        (cli.config_dir / "config.toml").write_text(f'url = "{prod}"\n')
        named = here("uninstall", str(team.folder), "--yes", env={"HEARTBEAT_URL": dev.url})
        assert named.code == 2 and "nothing was done" in named.err
        assert contents(team.folder) == kept
        assert "stoppedAt" not in here("dashboard", "--json").data["monitor"]
    assert "unwrapped" in here("uninstall", "--url", prod, "--dry-run").out


def test_where_our_functions_are_not_nothing_is_to_be_done(inside: Inside) -> None:
    cli = inside.cli
    app = copied(cli.folder / "app")
    assert inside("functions", "add", str(app), "--write", "--yes").code == 0
    adopted = contents(app)
    with Deployment({}) as deployment:
        cli.env["HEARTBEAT_URL"] = deployment.url
        tokens.save(cli.config_dir, deployment.url, "a-token", "send")
        done = inside("uninstall", "--yes")
        assert done.code == 0 and f"our functions are not at {deployment.url}" in done.out, done
        assert "make deploy" not in done.out
        assert tokens.stored(cli.config_dir, deployment.url, []) is None
        tokens.save(cli.config_dir, deployment.url, "a-token", "send")
        # it may be the wrong one
        asked_for = inside("uninstall", str(app), "--yes")
    assert asked_for.code == 1 and "for Convex's own dashboard to delete" in asked_for.out
    assert f"heartbeat functions remove --changed {app}" in asked_for.out and contents(app) == adopted


def test_two_that_leave_at_once_both_end_well(team: Team) -> None:
    here, cli = team.inside, team.cli
    come(team)
    other = here("token", "create", "admin2", "--scope", "admin").out.strip()
    gate = Gate(team)
    with gate.listens() as url:
        gate.before["mutations/leave"] = lambda: team.backend.admin(
            "mutations/leave", {"token": other, "request": {"step": "stop"}}
        )
        second = here("uninstall", "--yes")
    assert second.code == 0 and "it was revoked, or the deployment has been left" in second.out
    assert tokens.stored(cli.config_dir, url, []) is None


def test_of_a_folder_without_anything_of_ours_that_is_told_and_what_still_uses_it_each_time(
    team: Team,
) -> None:
    here = team.inside
    come(team)
    wrong = copied(team.cli.folder / "wrong")
    planned = here("uninstall", str(wrong), "--dry-run")
    assert f"nothing of ours is in {wrong / 'convex'}" in planned.out
    using = team.folder / "convex" / "uses.ts"
    using.write_text('import { mirrorTask } from "./heartbeat/mirror";\nexport const x = mirrorTask;\n')
    for _ in range(2):
        done = here("uninstall", str(team.folder), "--yes")
        assert done.code == 1 and "by hand, in uses.ts, line 1" in done.out, done.out
    using.unlink()
    assert here("uninstall", str(team.folder), "--yes").code == 0


def test_what_waits_for_other_deployments_is_told(away: Inside) -> None:
    assert "is spooled" in away("send", "hint").err
    with Deployment({}) as deployment:
        tokens.save(away.cli.config_dir, deployment.url, "a-token", "send")
        done = away("uninstall", "--url", deployment.url, "--yes")
    assert f"kept in {away.cli.data_dir / 'spool' / 'spool.db'}: 1 heartbeat for others" in done.out


def test_only_the_token_that_was_judged_is_taken_out(host: Inside) -> None:
    cli = host.cli
    url = cli.env["HEARTBEAT_URL"]
    kept = tokens.stored(cli.config_dir, url, [])
    for given in (host("token", "create", "box2").out.strip(), "one-that-is-none"):
        assert host("uninstall", "--yes", env={"HEARTBEAT_TOKEN": given}).code == 0
        assert tokens.stored(cli.config_dir, url, []) == kept


def test_every_home_that_reports_there_goes_and_any_other_stays_with_its_backend(
    local: Local, inside: Inside
) -> None:
    cli = local.cli
    local.up()
    homes = [cli.folder / name for name in ("a home", "another")]
    with Deployment({}) as deployment:
        tokens.save(cli.config_dir, deployment.url, "a-token", "send")
        for home, url in zip(homes, (deployment.url, "local"), strict=True):
            home.mkdir()
            (home / "cron-schedule.md").write_text(SCHEDULE)
            installed = inside("cron", "install", "--yes", "--home", str(home), "--url", url)
            assert installed.code == 0, installed
        both = (cli.folder / "crontab-of-this-home").read_text()
        # it reports to the local backend, which so goes on
        done = inside("uninstall", "--yes", env={"HEARTBEAT_URL": deployment.url})
        assert done.code == 0 and local.instance.alive(), done
        now = (cli.folder / "crontab-of-this-home").read_text()
        assert now != both and str(homes[0]) not in now and str(homes[1]) in now
        (command,) = [line for line in done.out.splitlines() if "--home" in line]
    typed = shlex.split(command.partition("heartbeat ")[2])
    assert inside(*typed, "--yes").code == 0 and not local.instance.alive()
    assert not (cli.folder / "crontab-of-this-home").exists()


def test_an_app_with_another_deployment_is_told_so(team: Team) -> None:
    come(team)
    (team.folder / ".env.local").write_text("CONVEX_URL=https://dev.example\n")
    planned = team.inside("uninstall", str(team.folder), "--dry-run").out
    assert "the app has another deployment (CONVEX_URL in" in planned
    assert "heartbeat uninstall --url https://dev.example" in planned


def test_what_the_jobs_of_a_home_report_to_is_what_cron_gives_them(inside: Inside) -> None:
    """By the line, by what is set above it, by the settings that they find."""
    cli = inside.cli
    others = {name: cli.folder / name for name in ("it's a home", "profile")}
    with Deployment({}) as here, Deployment({}) as there:
        # the same machine by another name
        ours = here.url.replace("127.0.0.1", "localhost")
        cli.write_schedule(SCHEDULE)
        assert inside("cron", "install", "--yes", "--url", ours).code == 0
        other = cli.folder / "config2" / "convex-heartbeat"
        other.mkdir(parents=True)
        (other / "config.toml").write_text(f'url = "{there.url}"\n')
        for home in others.values():
            home.mkdir()
            (home / "cron-schedule.md").write_text(SCHEDULE)
        quoted, profile = others.values()
        env = {"XDG_CONFIG_HOME": str(other.parent)}
        assert inside("cron", "install", "--yes", "--home", str(profile), env=env).code == 0
        assert inside("cron", "install", "--yes", "--home", str(quoted), "--url", there.url).code == 0
        crontab = cli.folder / "crontab-of-this-home"
        # a comment of somebody's where it says nothing, and a block of nobody's
        text = crontab.read_text().replace("delivered\n", "delivered\n# mine\n")
        crontab.write_text(text + "# heartbeat: begin it's\n# heartbeat: end it's\n")
        planned = inside("uninstall", "--dry-run", "--url", here.url)
        assert planned.code == 0, planned
        taken = [line for line in planned.out.splitlines() if line.strip().startswith("- ")]
        assert taken and all(str(home) not in line for home in others.values() for line in taken)
        assert f"  - # heartbeat: begin {cli.home}" in planned.out
        for home in others.values():
            assert f"heartbeat uninstall --home {shlex.quote(str(home))} --url {there.url}" in planned.out
        # what is set above a block counts for it
        crontab.write_text(
            f"CONVEX_URL={there.url}\n" + crontab.read_text().replace(f"HEARTBEAT_URL={ours} ", "")
        )
        assert "unwrapped" not in inside("uninstall", "--dry-run", "--url", here.url).out


def test_a_crontab_whose_markers_are_damaged_is_told_before_anything_is_done(
    local: Local, inside: Inside
) -> None:
    local.up()
    (inside.cli.folder / "crontab-of-this-home").write_text("# heartbeat: begin a\n")
    refused = inside("uninstall", "--yes")
    assert refused.code == 1 and "nobody knows which lines are ours" in refused.err
    assert local.instance.alive()


def test_the_backend_that_this_host_reports_to_by_itself_goes_on(local: Local, inside: Inside) -> None:
    url = local.up()["url"]
    with Deployment({}) as deployment:
        tokens.save(inside.cli.config_dir, deployment.url, "a-token", "send")
        done = inside("uninstall", "--yes", env={"HEARTBEAT_URL": deployment.url})
    assert done.code == 0 and local.instance.alive()
    assert tokens.stored(inside.cli.config_dir, url, []) is not None


def test_the_local_backend_keeps_its_token_for_what_still_waits(local: Local, inside: Inside) -> None:
    url = inside("local", "up", "--port", "0", "--json").data["url"]
    local.cli("local", "down")
    assert "is spooled" in inside("send", "hint", env={"HEARTBEAT_DEADLINE": "1"}).err
    done = inside("uninstall", "--yes")
    assert done.code == 75 and "heartbeat local up, then type the same again" in done.out
    assert tokens.stored(inside.cli.config_dir, url, []) is not None


def test_with_a_token_that_only_reads_nothing_is_delivered_or_waited_for(host: Inside) -> None:
    url = host.cli.env["HEARTBEAT_URL"]
    assert "is spooled" in host("send", "hint", "--url", url, env={"HEARTBEAT_TOKEN": "none"}).err
    reads = host("token", "create", "box2", "--scope", "read").out.strip()
    tokens.save(host.cli.config_dir, url, reads, "read")
    assert "delivered" not in host("uninstall", "--dry-run").out
    done = host("uninstall", "--yes")
    assert done.code == 0 and "1 heartbeat for this deployment" in done.out


def test_what_a_kill_left_of_our_folder_goes(team: Team) -> None:
    (team.folder / "convex" / "heartbeat").mkdir()
    assert team.inside("uninstall", str(team.folder), "--yes").code == 0
    assert contents(team.folder) == team.files


def test_copies_that_cannot_be_kept_are_told_before_anything_is_done(team: Team) -> None:
    here, cli = team.inside, team.cli
    come(team)
    (cli.data_dir / "left-files").write_text("in the way")
    wrapped = team.crontab
    refused = here("uninstall", str(team.folder), "--empty", "--yes")
    assert refused.code == 1 and "cannot be written, so nothing was" in refused.err
    assert team.crontab == wrapped and len(team.tables()["agentHeartbeats"]) == 2


def test_functions_that_went_with_the_folder_are_told(team: Team) -> None:
    """Somebody pushes the folder on each change."""
    here = team.inside
    come(team)
    gate = Gate(team)
    with gate.listens():
        gate.gone = lambda: not (team.folder / "convex" / "heartbeat").exists()
        done = here("uninstall", str(team.folder), "--empty", "--yes")
    assert done.code == 0 and "our own token, which only they accept," in done.out
    assert contents(team.folder) == team.files


def test_a_block_of_which_nobody_can_tell_is_left_to_a_person(local: Local, inside: Inside) -> None:
    cli = inside.cli
    local.up()
    cli.write_schedule(SCHEDULE)
    assert inside("cron", "install", "--yes", "--url", "local").code == 0
    crontab = cli.folder / "crontab-of-this-home"
    block = crontab.read_text()
    with Deployment({}) as deployment:
        env = {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "a-token"}
        for said in ('HEARTBEAT_URL="ftp://x"', "HEARTBEAT_DEADLINE=soon"):
            crontab.write_text(block.replace("HEARTBEAT_URL=local", said))
            done = inside("uninstall", "--yes", env=env)
            assert done.code == 1 and f"heartbeat cron remove --home {cli.home}" in done.out, done
            assert local.instance.alive()  # it may be what they report to
        # a home that somebody wrote in another way
        crontab.write_text(block.replace(f"HEARTBEAT_HOME={cli.home}", "HEARTBEAT_HOME=/a\\ b"))
        assert inside("uninstall", "--dry-run", env=env).code == 0
        # and one in quotes is read
        crontab.write_text(block.replace("HEARTBEAT_URL=local", f'HEARTBEAT_URL="{deployment.url}"'))
        assert "unwrapped" in inside("uninstall", "--dry-run", env=env).out
    # without anybody's leave to look, it goes on too
    crontab.write_text(block)
    (cli.folder / "crontab-refuses").touch()
    assert inside("uninstall", "--yes", env=env).code == 75 and local.instance.alive()


def test_the_jobs_of_another_profile_are_left_by_that_one(inside: Inside) -> None:
    cli = inside.cli
    cli.write_schedule(SCHEDULE)
    other = cli.folder / "data2"
    with Deployment({}) as deployment:
        env = {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_TOKEN": "a-token"}
        assert inside("cron", "install", "--yes", env={**env, "XDG_DATA_HOME": str(other)}).code == 0
        stays = inside("uninstall", "--dry-run", env=env).out
        assert "unwrapped" not in stays
        typed = f"XDG_DATA_HOME={other} heartbeat uninstall --home {cli.home} --url {deployment.url}"
        assert typed in stays
        assert "unwrapped" in inside("uninstall", "--dry-run", env={**env, "XDG_DATA_HOME": str(other)}).out


def test_the_note_that_tables_were_emptied_says_nothing_of_another_token(host: Inside) -> None:
    url = host.cli.env["HEARTBEAT_URL"]
    leave.note_emptied(host.cli.data_dir, url, 0)
    done = host("uninstall", "--empty", "--yes", env={"HEARTBEAT_TOKEN": "wrong"})
    assert done.code == 1 and "our tables there were emptied" not in done.out


def test_a_local_backend_that_has_an_apps_functions_is_a_deployment_of_its_own(
    team: Team, local: Local
) -> None:
    """Its documents have our cards as well: it does not stop with another, nor alone."""
    here, cli = team.inside, team.cli
    url = Local(cli, team.bundles.adopted).up()["url"]
    assert here("apply", "--agents-only", "--yes", "--url", "local").code == 0
    (cli.config_dir / "config.toml").write_text(f'url = "{team.backend.url}"\n')
    with_app = here("uninstall", str(team.folder), "--empty", "--yes", "--url", "local")
    assert with_app.code == 0 and "nothing of ours is in" in with_app.out
    assert here("functions", "add", str(team.folder), "--write", "--yes").code == 0
    Local(cli, team.bundles.adopted).up()
    refused = here("uninstall", str(team.folder), "--empty", "--yes", "--url", "local")
    assert refused.code == 2
    assert f"heartbeat uninstall --url {url} --empty, then heartbeat functions remove" in refused.err
    planned = here("uninstall", "--dry-run").out
    assert (
        "the local backend goes on, with an app's functions" in planned
        and "is stopped; its data" not in planned
    )
    # down, it is to be started with what it had
    here("local", "down")
    away = here("uninstall", "--yes", "--url", "local")
    assert away.code == 75 and f"heartbeat local up --functions {team.bundles.adopted}" in away.out
    Local(cli, team.bundles.adopted).up()
    done = here("uninstall", "--url", "local", "--empty", "--yes")
    assert done.code == 0 and "rows of ours deleted" in done.out and not local.instance.alive()


def test_a_home_that_nobody_may_look_at_is_no_folder(inside: Inside) -> None:
    crontab = inside.cli.folder / "crontab-of-this-home"
    block = "# heartbeat: begin {0}\n1 2 3 4 5 HEARTBEAT_HOME={0} hb send a\n# heartbeat: end {0}\n"
    crontab.write_text(block.format("/" + "x" * 300))
    assert inside("uninstall", "--dry-run").code == 0
