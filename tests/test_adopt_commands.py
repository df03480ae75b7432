"""`heartbeat functions add|status|update|remove`, with the files that this program really brings."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from pathlib import Path

import pytest

from conftest import REPOSITORY, Cli, Inside
from heartbeat_cli import adopt_sources
from hostile import HOSTILE, harmless
from terminal import on_a_terminal
from test_adopt import FIXTURE, snapshot


@pytest.fixture
def app(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "app")
    return tmp_path / "app"


def test_what_is_copied_needs_nothing_that_is_not() -> None:
    files = adopt_sources.ours().files
    modules = {posixpath.splitext(path)[0] for path in files}
    assert {"fleet", "heartbeat/tables", "heartbeat/crons", "mutations/recordHeartbeat"} <= modules
    assert not modules & {"schema", "crons", "http", "mutations/addTask", "mutations/completeTask"}
    for path, content in files.items():
        for named in re.findall(r"""\bfrom ["'](\.[^"']+)["']""", content.decode()):
            module = posixpath.normpath(posixpath.join(posixpath.dirname(path), named))
            assert module in modules or module.startswith("_generated/"), f"{path} imports {named}"


def test_our_tables_are_known_by_name() -> None:
    text = (REPOSITORY / "convex" / "heartbeat" / "tables.ts").read_text()
    assert adopt_sources.ours().tables == set(re.findall(r"^  (\w+): defineTable", text, re.MULTILINE))


def test_an_app_takes_our_functions_in_and_gives_them_back(inside: Inside, app: Path) -> None:
    before = snapshot(app)
    outside = inside("functions", "status", str(app))
    assert outside.code == 1 and f"heartbeat functions add {app}" in outside.out

    looked = inside("functions", "add", "--write", "--dry-run", str(app))
    assert looked.code == 0 and looked.out.endswith("nothing was written (dry run)\n")
    assert "  +   ...heartbeatTables," in looked.out.splitlines()
    assert snapshot(app) == before

    unasked = inside("functions", "add", "--write", str(app))
    assert unasked.code == 2 and "--yes" in unasked.err
    assert snapshot(app) == before

    done = inside("functions", "add", "--write", "--yes", str(app), "--json")
    assert done.code == 0, done
    assert done.data["outcome"] == "added" and done.data["byHand"] == []
    assert sorted(done.data["added"]) == sorted(adopt_sources.ours().files)
    steps = "\n".join(done.data["next"])
    assert re.search(
        r"convex/fleet\.ts.*\n.*\.prettierignore.*\n.*npx convex deploy\n.*heartbeat connect URL", steps
    )
    assert inside("functions", "add", "--write", "--yes", str(app)).out.startswith("nothing to write\n")
    status = inside("functions", "status", str(app / "convex"), "--json")
    assert status.code == 0
    assert {entry["state"] for entry in status.data["files"]} == {"ours"}
    assert all(line["there"] for line in status.data["lines"]) and status.data["package"] is None

    looked = inside("functions", "remove", "--dry-run", str(app))
    assert looked.code == 0 and "  -   ...heartbeatTables," in looked.out.splitlines()
    assert looked.out.endswith("nothing was written (dry run)\n")
    assert inside("functions", "remove", str(app)).code == 2
    gone = inside("functions", "remove", "--yes", str(app), "--json")
    assert (gone.code, gone.data["outcome"]) == (0, "removed")
    assert snapshot(app) == before
    assert inside("functions", "remove", "--yes", str(app)).code == 1


def test_lines_that_are_not_to_be_written_are_shown_to_be_written(inside: Inside, app: Path) -> None:
    done = inside("functions", "add", str(app))
    assert done.code == 0 and "these lines are yours to write (or: --write):" in done.out
    assert f"  1. write the lines above, or: heartbeat functions add --write {app}\n  2. say in" in done.out
    status = inside("functions", "status", str(app))
    assert status.code == 1
    assert (
        "missing in schema.ts, among the fields of the table agents: heartbeat: heartbeatField," in status.out
    )
    assert f"heartbeat functions add --write {app}" in status.out


def test_what_cannot_be_written_for_them_is_told_and_the_rest_is_written(inside: Inside, app: Path) -> None:
    schema = app / "convex" / "schema.ts"
    schema.write_text(schema.read_text().replace("agents: defineTable(", "agents: ourTable("))
    done = inside("functions", "add", "--write", "--yes", str(app))
    assert done.code == 1
    why = "among the fields of the table agents (the table agents is made by ourTable(…))"
    assert f"by hand, in schema.ts, {why}:\n  heartbeat: heartbeatField,\n" in done.out
    assert "  1. write the lines above\n" in done.out
    imported = 'import { heartbeatField } from "./heartbeat/tables";\n'
    assert imported in done.out
    written = schema.read_text()
    assert (
        "  ...heartbeatTables,\n" in written and "heartbeatField" not in written
    )  # unused, it would not compile
    written = imported + written.replace("handle:", "heartbeat: heartbeatField,\n    handle:")
    schema.write_text(written)
    assert inside("functions", "status", str(app)).code == 0


def test_what_is_to_be_done_is_listed_with_the_command(inside: Inside, app: Path) -> None:
    inside("functions", "add", "--write", "--yes", str(app))
    convex = app / "convex"
    (convex / "heartbeat" / "crons.ts").unlink()
    (convex / "heartbeat" / "tables.ts").write_text("// mine\n")
    (convex / "fleet.ts").write_text("// mine\n")
    manifest = convex / "heartbeat" / "manifest.json"
    whole = json.loads(manifest.read_text())
    whole["files"]["heartbeat/tables.ts"] = "of another version"
    manifest.write_text(json.dumps(whole))
    (app / "package.json").write_text('{"dependencies": {"convex": "1.2.3"}}')
    status = inside("functions", "status", str(app))
    assert status.code == 1
    for told in (
        "1 of them changed by you",
        "files: 1 missing: heartbeat functions update",
        "changed by you, and there is a newer one: heartbeat/tables.ts",
        "the app asks for convex 1.2.3, and needs it from ",
    ):
        assert told in status.out
    looked = inside("functions", "update", "--dry-run", str(app))
    assert "shown once" in looked.out and looked.out.endswith("nothing was written (dry run)\n")
    updated = inside("functions", "update", "--yes", str(app))
    assert updated.code == 1 and "  - // mine" in updated.out
    assert (convex / "heartbeat" / "crons.ts").exists()
    assert (convex / "heartbeat" / "tables.ts").read_text() == "// mine\n"
    (app / "package.json").write_text('{"dependencies": {"convex": "^1.48.0"}}')
    merged = inside("functions", "status", str(app))
    assert merged.code == 0 and "  changed by you: heartbeat/tables.ts\n" in merged.out
    kept = inside("functions", "remove", "--yes", str(app))
    assert kept.code == 1 and f"heartbeat functions remove --changed {app}" in kept.out
    assert inside("functions", "remove", "--changed", "--yes", str(app)).code == 0
    assert not (convex / "heartbeat").exists() and not (convex / "fleet.ts").exists()


def test_somebody_at_a_terminal_is_asked(cli: Cli, app: Path) -> None:
    cli.home.mkdir()
    before = snapshot(app)
    refused = on_a_terminal(cli, "functions", "add", "--write", str(app), typed="n\n", env={})
    assert "+   ...heartbeatTables," in refused and "Write this?" in refused
    assert snapshot(app) == before
    on_a_terminal(cli, "functions", "add", "--write", str(app), typed="y\n", env={})
    assert "...heartbeatTables" in (app / "convex" / "schema.ts").read_text()


def test_a_taken_path_is_one_sentence_and_its_name_in_json(inside: Inside, app: Path) -> None:
    (app / "convex" / "fleet.ts").write_text("// mine\n")
    done = inside("functions", "add", str(app), "--json")
    error = json.loads(done.out)["error"]
    assert (done.code, error["code"], error["paths"]) == (1, "functions", ["fleet.ts"])


def test_what_stands_in_somebody_elses_folder_is_shown_as_text(inside: Inside, app: Path) -> None:
    inside("functions", "add", "--write", "--yes", str(app))
    manifest = app / "convex" / "heartbeat" / "manifest.json"
    whole = json.loads(manifest.read_text())
    whole["version"] = HOSTILE
    whole["files"]["\x1b[31m.ts"] = "0"
    manifest.write_text(json.dumps(whole))
    (app / "convex" / "\x1b[31m.ts").write_text('import "./heartbeat/tables"; // \x1b[2J\n')
    with (app / "convex" / "schema.ts").open("a") as schema:
        schema.write("// \x1b[2J\n")
    for words in (("status",), ("update", "--dry-run"), ("remove", "--dry-run")):
        done = inside("functions", *words, str(app))
        assert harmless(done.out) and harmless(done.err), done
        assert inside("functions", *words, str(app), "--json").out.isascii()


def test_a_push_of_an_adopted_app_takes_nothing_of_ours_or_theirs_away(inside: Inside, app: Path) -> None:
    inside("functions", "add", "--write", "--yes", str(app))
    names = ("heartbeat/maintenance.js:sweep", "mutations/recordHeartbeat.js:default", "tasks.js:board")
    spec = {"functions": [{"identifier": name} for name in names]}
    spec["functions"].append({"functionType": "HttpAction", "method": "GET", "path": "/digest"})
    for folder in (app, app / "convex"):
        assert inside("functions", "foreign", str(folder), stdin=json.dumps(spec)).code == 0


def test_folders_that_hold_theirs_too_are_not_to_be_left_out_by_their_formatter(
    inside: Inside, app: Path
) -> None:
    (app / "convex" / "queries").mkdir()
    (app / "convex" / "queries" / "theirs.ts").write_text("export {};\n")
    done = inside("functions", "add", "--write", "--yes", str(app))
    assert "a line each: convex/heartbeat/ convex/mutations/ and ours in convex/queries\n" in done.out
