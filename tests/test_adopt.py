"""Our functions in somebody else's folder: put there, looked at, updated, taken back, and cut short."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import AS_A_USER, HEARTBEAT, REPOSITORY, Cli
from disks import MOUNTABLE, Disk
from heartbeat_cli import adopt, adopt_disk
from heartbeat_cli.adopt import Plan
from heartbeat_cli.adopt_app import App, find
from heartbeat_cli.adopt_sources import Sources
from heartbeat_cli.errors import FunctionsProblem, SettingsProblem

FIXTURE = REPOSITORY / "tests" / "adopted" / "app"
TABLES = b"export const heartbeatTables = {\n  agentFlips: 1,\n};\n"
FIRST = Sources(
    {
        "fleet.ts": b"// say what an agent is\n",
        "heartbeat/model/rules.ts": b"// the rules\n",
        "heartbeat/old.ts": b"// of the first version only\n",
        "heartbeat/tables.ts": TABLES,
        "mutations/record.ts": b"// records\n",
    },
    "0.1.0",
    "1.31.0",
)
SECOND = Sources(
    {
        "fleet.ts": b"// say what an agent is, and a task\n",
        "heartbeat/model/rules.ts": b"// better rules\n",
        "heartbeat/new.ts": b"// of the second version only\n",
        "heartbeat/tables.ts": TABLES,
        "mutations/record.ts": b"// records more\n",
    },
    "0.2.0",
    "1.31.0",
)
Snapshot = dict[str, tuple[int, bytes | None]]


def snapshot(folder: Path) -> Snapshot:
    """Everything in it: each path with its rights and what it holds."""
    return {
        place.relative_to(folder).as_posix(): (
            place.lstat().st_mode,
            place.read_bytes() if place.is_file() else None,
        )
        for place in folder.rglob("*")
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The fixture app, whose schema may be written by its group too."""
    shutil.copytree(FIXTURE, tmp_path / "app")
    (tmp_path / "app" / "convex" / "schema.ts").chmod(0o664)
    return tmp_path / "app"


@pytest.fixture
def app(project: Path) -> App:
    return find(project)


def added(app: App, sources: Sources = FIRST) -> App:
    adopt.add(app, sources, write_lines=True).carry_out()
    return app


def states(app: App, sources: Sources) -> dict[str, str]:
    return dict(adopt.look(app, sources).files)


def lacking(app: App) -> list[tuple[str, str]]:
    """The lines that are not there, each with its file."""
    return [(file, line.place.line) for file, line in adopt.look(app, FIRST).lines if not line.there]


def whole(app: App, sources: Sources) -> bool:
    found = adopt.look(app, sources)
    return (
        not found.cut_short
        and set(found.files.values()) == {"ours"}
        and all(line.there for _, line in found.lines)
    )


# --- there and back


def test_what_is_put_there_goes_without_a_trace(project: Path, app: App) -> None:
    before = snapshot(project)
    plan = adopt.add(app, FIRST, write_lines=True)
    assert snapshot(project) == before
    plan.carry_out()
    assert whole(app, FIRST)
    assert {path: (app.folder / path).read_bytes() for path in FIRST.files} == FIRST.files
    assert snapshot(project)["convex/schema.ts"][0] == before["convex/schema.ts"][0]
    assert adopt.add(app, FIRST, write_lines=True).changes == ()
    assert adopt.update(app, FIRST).changes == ()
    adopt.remove(app, FIRST, changed=False).carry_out()
    assert snapshot(project) == before


def test_without_leave_to_write_lines_the_teams_files_stay_as_they_are(project: Path, app: App) -> None:
    before = snapshot(project)
    plan = adopt.add(app, FIRST, write_lines=False)
    plan.carry_out()
    after = snapshot(project)
    assert {path: after[path] for path in before} == before
    assert "  +   ...heartbeatTables," in plan.diff
    adopt.add(app, FIRST, write_lines=True).carry_out()
    assert whole(app, FIRST)
    adopt.remove(app, FIRST, changed=False).carry_out()
    assert snapshot(project) == before


@pytest.mark.parametrize("language", ["ts", "js"])
def test_an_app_without_crons_gets_a_file_of_them_and_loses_it_again(project: Path, language: str) -> None:
    (project / "convex" / "crons.ts").unlink()
    (project / "convex" / "schema.ts").rename(project / "convex" / f"schema.{language}")
    before = snapshot(project)
    app = added(find(project))
    made = project / "convex" / f"crons.{language}"
    assert made.read_text() == (REPOSITORY / "convex" / "crons.ts").read_text()
    adopt.remove(app, FIRST, changed=False).carry_out()
    assert snapshot(project) == before


def test_crons_that_the_team_added_to_a_file_that_we_made_stay(project: Path) -> None:
    (project / "convex" / "crons.ts").unlink()
    app = added(find(project))
    file = project / "convex" / "crons.ts"
    theirs = 'crons.daily("digest", { hourUTC: 6, minuteUTC: 1 }, internal.digests.write);\n'
    file.write_text(file.read_text().replace("export default", f"{theirs}\nexport default"))
    adopt.remove(app, FIRST, changed=False).carry_out()
    left = file.read_text()
    assert theirs in left and "eartbeat" not in left


def test_a_line_that_somebody_took_out_is_put_in_again_and_still_known(project: Path, app: App) -> None:
    before = snapshot(project)
    added(app)
    schema = project / "convex" / "schema.ts"
    schema.write_text(schema.read_text().replace("  ...heartbeatTables,\n", ""))
    assert lacking(app) == [("schema.ts", "...heartbeatTables,")]
    added(app)
    assert whole(app, FIRST)
    adopt.remove(app, FIRST, changed=False).carry_out()
    assert snapshot(project) == before


def test_lines_that_were_written_by_hand_are_taken_out_by_hand(project: Path, app: App) -> None:
    adopt.add(app, FIRST, write_lines=False).carry_out()
    schema = project / "convex" / "schema.ts"
    schema.write_text(schema.read_text().replace("defineSchema({", "defineSchema({ ...heartbeatTables,"))
    plan = adopt.remove(app, FIRST, changed=False)
    assert [(file, hand.line) for file, hand in plan.by_hand] == [("schema.ts", "...heartbeatTables,")]


def test_an_app_without_a_schema_is_told_what_to_write(project: Path) -> None:
    (project / "convex" / "schema.ts").unlink()
    plan = adopt.add(find(project), FIRST, write_lines=True)
    assert [file for file, _ in plan.by_hand] == ["schema.ts"] * 3
    assert "there is no schema.ts" in plan.by_hand[0][1].why
    plan.carry_out()
    assert not (project / "convex" / "schema.ts").exists()
    assert "import { addHeartbeatCrons }" in (project / "convex" / "crons.ts").read_text()


@pytest.mark.parametrize("kind", ["link", "latin-1"])
def test_a_file_that_is_a_link_or_no_utf_8_is_left_to_a_person(
    project: Path, tmp_path: Path, kind: str
) -> None:
    schema = project / "convex" / "schema.ts"
    if kind == "link":
        schema.rename(tmp_path / "elsewhere.ts")
        schema.symlink_to(tmp_path / "elsewhere.ts")
    else:
        schema.write_bytes(schema.read_bytes() + b"// caf\xe9\n")
    before = schema.read_bytes()
    app = find(project)
    plan = adopt.add(app, FIRST, write_lines=True)
    assert {hand.why for _, hand in plan.by_hand} & {"it is a link to another file", "it is not in UTF-8"}
    plan.carry_out()
    assert schema.read_bytes() == before
    assert [file for file, _ in lacking(app)] == ["schema.ts"] * 3


# --- what is in the way


def block_file(folder: Path) -> None:
    (folder / "heartbeat").mkdir()
    (folder / "heartbeat" / "tables.ts").write_text("// theirs\n")


def block_module(folder: Path) -> None:
    (folder / "fleet.js").write_text("// theirs\n")


def block_folder(folder: Path) -> None:
    (folder / "mutations").write_text("no folder")


def block_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "mutations").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("blocks", "named"),
    [
        ((block_file,), ["heartbeat/tables.ts"]),
        ((block_module, block_file), ["fleet.js", "heartbeat/tables.ts"]),
        ((block_folder,), ["mutations"]),
        ((block_link,), ["mutations"]),
    ],
)
def test_paths_that_are_taken_are_all_named_and_nothing_is_written(
    project: Path, app: App, blocks: tuple[Callable[[Path], None], ...], named: list[str]
) -> None:
    for block in blocks:
        block(app.folder)
    before = snapshot(project)
    with pytest.raises(FunctionsProblem) as refusal:
        adopt.add(app, FIRST, write_lines=True)
    assert list(refusal.value.paths) == named
    assert all(path in str(refusal.value) for path in named)
    assert snapshot(project) == before


def test_an_app_with_a_table_of_our_name_is_refused(project: Path, app: App) -> None:
    schema = project / "convex" / "schema.ts"
    schema.write_text(schema.read_text().replace("  digests:", "  agentFlips:"))
    with pytest.raises(FunctionsProblem, match="agentFlips; nothing was written"):
        adopt.add(app, FIRST, write_lines=False)


def test_what_is_changed_between_the_look_and_the_writing_is_not_overwritten(project: Path, app: App) -> None:
    plan = adopt.add(app, FIRST, write_lines=True)
    schema = project / "convex" / "schema.ts"
    schema.write_text(schema.read_text() + "// one more line\n")
    before = snapshot(project)
    with pytest.raises(FunctionsProblem, match="changed meanwhile, so nothing was written"):
        plan.carry_out()
    assert snapshot(project) == before


def test_a_folder_or_file_that_may_not_be_written_is_named_before_anything_is(
    cli: Cli, project: Path
) -> None:
    schema = project / "convex" / "schema.ts"
    for place, rights in ((project / "convex", 0o555), (schema, 0o444)):
        was = place.stat().st_mode
        place.chmod(rights)
        before = snapshot(project)
        words = ("functions", "add", "--write", "--yes", str(project))
        ran = cli(*words, program=(*AS_A_USER, str(HEARTBEAT)))
        assert ran.code == 1 and f"{place} cannot be written, so nothing was" in ran.err, ran
        assert snapshot(project) == before
        place.chmod(was)


# --- versions


def test_an_update_replaces_adds_and_deletes_what_the_team_left_alone(project: Path, app: App) -> None:
    before = snapshot(project)
    added(app)
    assert states(app, SECOND) == {
        "fleet.ts": "outdated",
        "heartbeat/model/rules.ts": "outdated",
        "heartbeat/new.ts": "missing",
        "heartbeat/old.ts": "dropped",
        "heartbeat/tables.ts": "ours",
        "mutations/record.ts": "outdated",
    }
    assert "functions update" in adopt.add(app, SECOND, write_lines=True).notes[0]
    adopt.update(app, SECOND).carry_out()
    assert whole(app, SECOND)
    assert not (app.folder / "heartbeat" / "old.ts").exists()
    adopt.remove(app, SECOND, changed=False).carry_out()
    assert snapshot(project) == before


def test_what_the_team_changed_is_left_and_each_newer_one_is_shown_once(app: App) -> None:
    added(app)
    rules, record = app.folder / "heartbeat" / "model" / "rules.ts", app.folder / "mutations" / "record.ts"
    rules.write_text("// our own rules\n")
    (app.folder / "fleet.ts").write_text("// an agent is a bot\n")
    assert adopt.look(app, FIRST).news == ()
    plan = adopt.update(app, SECOND)
    assert plan.kept == ("fleet.ts", "heartbeat/model/rules.ts")
    assert {"  - // our own rules", "  + // better rules", "  - // an agent is a bot"} < set(plan.differs)
    plan.carry_out()
    assert (
        rules.read_text() == "// our own rules\n"
        and record.read_bytes() == SECOND.files["mutations/record.ts"]
    )
    assert adopt.look(app, SECOND).news == ()  # theirs with ours in it, perhaps: only they can tell
    assert states(app, SECOND)["heartbeat/model/rules.ts"] == "changed"
    third = replace(
        SECOND, version="0.3.0", files={**SECOND.files, "heartbeat/model/rules.ts": b"// third\n"}
    )
    assert adopt.look(app, third).news == ("heartbeat/model/rules.ts",)
    assert "  + // third" in adopt.update(app, third).differs


def test_an_older_program_does_not_update_backwards(app: App) -> None:
    added(app, SECOND)
    with pytest.raises(FunctionsProblem, match=r"of version 0\.2\.0, and this program's are older"):
        adopt.update(app, FIRST)


def test_a_new_file_of_ours_never_takes_the_place_of_one_of_theirs(project: Path, app: App) -> None:
    added(app)
    (app.folder / "heartbeat" / "new.ts").write_text("// theirs\n")
    before = snapshot(project)
    with pytest.raises(FunctionsProblem, match=r"heartbeat/new\.ts"):
        adopt.update(app, SECOND)
    assert snapshot(project) == before


# --- taken back


def test_files_that_the_team_changed_stay_unless_they_say_otherwise(project: Path, app: App) -> None:
    before = snapshot(project)
    added(app)
    (app.folder / "fleet.ts").write_text("// an agent is a bot\n")
    plan = adopt.remove(app, FIRST, changed=False)
    assert plan.kept == ("fleet.ts",)
    plan.carry_out()
    assert set(snapshot(project)) - set(before) == {
        *("convex/fleet.ts", "convex/heartbeat", "convex/heartbeat/manifest.json"),
    }
    adopt.remove(app, FIRST, changed=True).carry_out()
    assert snapshot(project) == before


def test_lines_of_their_own_that_use_ours_are_named(project: Path, app: App) -> None:
    added(app)
    tasks = project / "convex" / "tasks.ts"
    line = 'import { rule } from "./heartbeat/model/rules";'
    tasks.write_text(f"// './heartbeat/tables'\n{line}\n{tasks.read_text()}")
    schema = project / "convex" / "schema.ts"
    schema.write_text(schema.read_text().replace("{ heartbeatField,", "{ more, heartbeatField,"))
    told = [(file, hand.line, hand.where) for file, hand in adopt.remove(app, FIRST, changed=False).by_hand]
    imported = 'import { heartbeatField, heartbeatTables } from "./heartbeat/tables";'
    assert told == [("schema.ts", imported, "below the other imports"), ("tasks.ts", line, "line 2")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 1}',
        '{"format": 1, "version": "1", "files": {"../x.ts": "0"}, "edits": [], "folders": []}',
        '{"format": 1, "version": "1", "files": {"/etc/x": "0"}, "edits": [], "folders": []}',
        '{"format": 1, "version": "1", "files": {}, "edits": [], "folders": ["."]}',
        '{"format": 1, "version": "1", "files": {}, "edits": [{"path": "schema.ts"}], "folders": []}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:70],
)
def test_a_manifest_that_cannot_be_meant_is_damage(app: App, text: str) -> None:
    added(app)
    (app.folder / "heartbeat" / "manifest.json").write_text(text)
    with pytest.raises(FunctionsProblem, match="damaged"):
        adopt.look(app, FIRST)


def test_a_manifest_of_a_later_form_asks_for_a_later_program(app: App) -> None:
    added(app)
    (app.folder / "heartbeat" / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(FunctionsProblem, match="of form 2") as refusal:
        adopt.remove(app, FIRST, changed=True)
    assert "update this program" in str(refusal.value.hint)


def test_a_folder_of_ours_that_became_a_link_leads_nowhere(project: Path, app: App) -> None:
    added(app)
    shutil.move(app.folder / "mutations", project.parent / "elsewhere")
    (app.folder / "mutations").symlink_to(project.parent / "elsewhere")
    with pytest.raises(FunctionsProblem, match="leads out of"):
        adopt.remove(app, FIRST, changed=False).carry_out()
    assert (project.parent / "elsewhere" / "record.ts").exists()


# --- cut short


def cut(plan: Plan, after: int) -> None:
    """Do the first so many changes of it: what a crash leaves."""
    adopt_disk.carry_out(plan.app.folder, plan.changes[:after], plan.emptied, "")


def copies(project: Path, plan: Callable[[App], Plan]) -> list[App]:
    """An app for each place at which the plan can be cut short."""
    made = []
    for after in range(len(plan(find(project)).changes) + 1):
        folder = project.with_name(f"cut-{after}")
        shutil.copytree(project, folder)
        cut(plan(find(folder)), after)
        if (folder / "convex" / "heartbeat").exists():  # and half of what comes next
            (folder / "convex" / "heartbeat" / ".writing").write_bytes(b"// half")
        made.append(find(folder))
    return made


def test_an_add_that_is_cut_short_anywhere_is_completed_or_taken_back(project: Path, app: App) -> None:
    before = snapshot(project)
    cuts = copies(project, lambda app: adopt.add(app, FIRST, write_lines=True))
    wanted = snapshot(added(app).folder)
    assert len(cuts) == len(FIRST.files) + 5
    (cuts[0].folder / "heartbeat").mkdir()  # before it announced itself
    (cuts[0].folder / "heartbeat" / ".writing").write_bytes(b"{")
    for number, one in enumerate(cuts):
        assert adopt.look(one, FIRST).cut_short == (0 < number < len(cuts) - 1)
        undone = one.project.with_name("undone")
        shutil.copytree(one.project, undone)
        if number:
            adopt.remove(find(undone), FIRST, changed=False).carry_out()
            assert snapshot(undone) == before
        shutil.rmtree(undone)
        assert snapshot(added(one).folder) == wanted
        adopt.remove(one, FIRST, changed=False).carry_out()
        assert snapshot(one.project) == before


def test_an_update_that_is_cut_short_anywhere_is_completed_or_taken_back(project: Path, app: App) -> None:
    before = snapshot(project)
    added(app)
    third = replace(SECOND, version="0.3.0", files=dict.fromkeys(SECOND.files, b"// third\n"))
    third.files["heartbeat/tables.ts"] = TABLES
    for one in copies(project, lambda app: adopt.update(app, SECOND)):
        later = one.project.with_name("later")
        shutil.copytree(one.project, later)
        adopt.update(find(later), third).carry_out()
        assert whole(find(later), third)
        adopt.remove(find(later), third, changed=False).carry_out()
        assert snapshot(later) == before
        shutil.rmtree(later)
        adopt.update(one, SECOND).carry_out()
        assert whole(one, SECOND)


def test_a_removal_that_is_cut_short_anywhere_is_completed_or_taken_back(project: Path, app: App) -> None:
    before = snapshot(project)
    added(app)
    for one in copies(project, lambda app: adopt.remove(app, FIRST, changed=False)):
        if not (one.folder / "heartbeat" / "manifest.json").exists():
            assert snapshot(one.project) == before
            continue
        again = one.project.with_name("again")
        shutil.copytree(one.project, again)
        assert whole(added(find(again)), FIRST)
        shutil.rmtree(again)
        adopt.remove(one, FIRST, changed=False).carry_out()
        assert snapshot(one.project) == before


@pytest.mark.skipif(not MOUNTABLE, reason="mounts a disk of its own, which needs root")
def test_a_disk_that_is_full_halfway_is_told_and_can_be_gone_on_from(tmp_path: Path) -> None:
    with Disk(tmp_path / "disk") as disk:
        project = disk.folder / "app"
        shutil.copytree(FIXTURE, project)
        app, before = find(project), snapshot(project)
        big = replace(FIRST, files={**FIRST.files, "mutations/record.ts": b"// large\n" * 10_000})
        plan = adopt.add(app, big, write_lines=True)
        disk.fill()
        with pytest.raises(FunctionsProblem, match="No space left"):
            plan.carry_out()
        with (disk.folder / "filler").open("r+b") as filler:  # room for the small ones
            filler.truncate((disk.folder / "filler").stat().st_size - 64 * 1024)
        with pytest.raises(FunctionsProblem, match=r"record\.ts cannot be written: No space left") as refusal:
            adopt.add(app, big, write_lines=True).carry_out()
        assert "heartbeat functions add completes it" in str(refusal.value.hint)
        assert (project / "convex" / "schema.ts").read_bytes() == before["convex/schema.ts"][1]
        disk.free()
        assert whole(added(app, big), big)
        adopt.remove(app, big, changed=False).carry_out()
        assert snapshot(project) == before


# --- which app


def test_an_app_is_found_by_its_project_or_its_functions_folder(project: Path) -> None:
    assert find(project) == find(project / "convex") == App(project, project / "convex")
    (project / "convex").rename(project / "backend")
    (project / "convex.json").write_text('{"functions": "backend/"}')
    assert find(project) == find(project / "backend") == App(project, project / "backend")


@pytest.mark.parametrize(
    ("place", "told"),
    [("missing", "there is no folder"), ("convex", "is no Convex app"), (".", "is no Convex app")],
)
def test_what_is_no_app_is_a_mistake(tmp_path: Path, place: str, told: str) -> None:
    (tmp_path / "convex").mkdir()
    with pytest.raises(SettingsProblem, match=told):
        find(tmp_path / place)


@pytest.mark.parametrize("text", ["{", '{"functions": 5}'])
def test_a_convex_json_that_cannot_be_meant_is_named(project: Path, text: str) -> None:
    (project / "convex.json").write_text(text)
    with pytest.raises(SettingsProblem, match=r"convex\.json"):
        find(project)


@pytest.mark.parametrize(
    ("package", "installed", "told"),
    [
        ({"dependencies": {"convex": "^1.48.0"}}, None, None),
        ({"dependencies": {"convex": "^1.31"}}, None, None),
        ({"dependencies": {"convex": "workspace:*"}}, None, None),
        (
            {"devDependencies": {"convex": "~1.30.9"}},
            None,
            "asks for convex ~1.30.9, and needs it from 1.31.0 on",
        ),
        ({"dependencies": {"convex": "^1.9.0"}}, "1.40.2", None),
        ({"dependencies": {"convex": "^1.9.0"}}, "1.9.4", "has convex 1.9.4 installed"),
        ({}, None, "does not name the npm package convex"),
    ],
)
def test_an_npm_package_that_is_too_old_is_named(
    project: Path, package: dict[str, object], installed: str | None, told: str | None
) -> None:
    (project / "package.json").write_text(json.dumps(package))
    if installed:
        (project / "node_modules" / "convex").mkdir(parents=True)
        (project / "node_modules" / "convex" / "package.json").write_text(json.dumps({"version": installed}))
    found = find(project).outdated_package("1.31.0")
    assert (found is None) == (told is None) and (told or "") in (found or "")
