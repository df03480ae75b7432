"""The lines of the team's own files: where their tables stand elsewhere, or are missing, or a checkout gave
the files other line ends; and which of their lines use ours.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from conftest import Inside
from heartbeat_cli import adopt
from heartbeat_cli.adopt_app import App, find
from heartbeat_cli.adopt_sources import Sources, ours
from test_adopt import FIRST, FIXTURE, snapshot

HEAD = 'import { defineSchema, defineTable } from "convex/server";\nimport { v } from "convex/values";\n'
TASKS = "tasks: defineTable({ title: v.string() }),"
FIELD = "heartbeat: heartbeatField,"
Told = list[tuple[str, str]]

# how a schema comes by its table agents, the files that it has it from, and which of them gains the field
SPLIT = {
    "the table is imported": (
        f'import {{ agentsTable }} from "./tables/agents";\n'
        f"export default defineSchema({{ agents: agentsTable.index('by_a', ['a']), {TASKS} }});\n",
        {"tables/agents.ts": "export const agentsTable = defineTable({ a: v.any() });\n"},
        "tables/agents.ts",
        "../heartbeat/tables",
    ),
    "some tables are spread from each of several files": (
        'import { agentTables } from "./a.js";\nimport { taskTables } from "./b";\n'
        "export default defineSchema({ ...agentTables, ...taskTables });\n",
        {
            "a.ts": "export const agentTables = { agents: defineTable({ a: v.any() }) };\n",
            "b.ts": 'export const taskTables = { tasks: defineTable({ a: v.id("agents") }) };\n',
        },
        "a.ts",
        "./heartbeat/tables",
    ),
    "Table() of convex-helpers": (
        'import { Agents } from "./people";\n'
        f"export default defineSchema({{ agents: Agents.table, {TASKS} }});\n",
        {"people/index.ts": 'export const Agents = Table("agents", { a: v.any() });\n'},
        "people/index.ts",
        "../heartbeat/tables",
    ),
    "Table() of convex-helpers in the schema": (
        'import { Table } from "convex-helpers/server";\n'
        'export const Agents = Table("agents", { a: v.any() });\n'
        f"export default defineSchema({{ agents: Agents.table, {TASKS} }});\n",
        {},
        "schema.ts",
        "./heartbeat/tables",
    ),
    "all tables are imported": (
        'import { tables } from "./tables";\nexport default defineSchema(tables);\n',
        {"tables.ts": f"export const tables = {{ agents: defineTable({{ a: v.any() }}), {TASKS} }};\n"},
        "tables.ts",
        "./heartbeat/tables",
    ),
}


@pytest.fixture
def app(tmp_path: Path) -> App:
    shutil.copytree(FIXTURE, tmp_path / "app")
    return find(tmp_path / "app")


def lacking(app: App) -> Told:
    return [(file, line.place.line) for file, line in adopt.look(app, FIRST).lines if not line.there]


@pytest.mark.parametrize("name", SPLIT)
def test_a_table_that_stands_elsewhere_gains_the_field_there_by_hand(
    inside: Inside, app: App, name: str
) -> None:
    schema, files, holder, module = SPLIT[name]
    for path, text in {"schema.ts": schema, **files}.items():
        (app.folder / path).parent.mkdir(exist_ok=True)
        (app.folder / path).write_text(HEAD + text)
    plan = adopt.add(app, ours(), write_lines=True)
    told = [(file, hand.line) for file, hand in plan.by_hand]
    assert (holder, FIELD) in told and {file for file, _ in told} == {holder}
    imported = [line for _, line in told if line.startswith("import")]
    assert all(line.endswith(f'from "{module}";') for line in imported) and "heartbeatField" in str(imported)
    plan.carry_out()
    assert "heartbeatField" not in (app.folder / "schema.ts").read_text()  # unused, it would not compile
    assert lacking(app) == told
    status = inside("functions", "status", str(app.project))
    assert status.code == 1 and "add --write" not in status.out  # which could not mend it
    text = (app.folder / holder).read_text()
    for place, line in (("(?=a: v.any)", FIELD), ("(?=agents: defineTable)", "...heartbeatTables,")):
        if (holder, line) in told:
            text = re.sub(place, f"{line} ", text)
    (app.folder / holder).write_text("\n".join([*dict.fromkeys(imported), text]))
    assert lacking(app) == []
    assert inside("functions", "status", str(app.project)).code == 0
    assert inside("functions", "update", "--yes", str(app.project)).code == 0
    assert adopt.add(app, ours(), write_lines=True).changes == ()
    left = adopt.remove(app, ours(), changed=True).by_hand
    assert any(file == holder and FIELD in hand.line for file, hand in left)


@pytest.mark.parametrize("path", ["old.test.ts", "_generated/old.ts", "heartbeat/tables.ts"])
def test_a_field_in_what_is_no_code_of_the_teams_does_not_count(app: App, path: str) -> None:
    sources = ours()
    adopt.add(app, sources, write_lines=False).carry_out()
    with (app.folder / path).open("a") as file:
        file.write(f"\nexport const x = {{ {FIELD} ...heartbeatTables }};\n")
    assert ("schema.ts", FIELD) in lacking(app) and ("schema.ts", "...heartbeatTables,") in lacking(app)


@pytest.mark.parametrize("missing", [("tasks",), ("agents",), ("agents", "tasks")])
def test_a_table_that_the_app_lacks_is_named_with_what_to_paste(
    inside: Inside, app: App, missing: tuple[str, ...]
) -> None:
    have = {"agents": "agents: defineTable({ a: v.any() }),", "tasks": TASKS}
    kept = " ".join(text for name, text in have.items() if name not in missing)
    schema = app.folder / "schema.ts"
    schema.write_text(f"{HEAD}export default defineSchema({{ ...authTables, {kept} }});\n")
    done = inside("functions", "add", "--write", "--yes", str(app.project))
    status = inside("functions", "status", str(app.project), "--json")
    pasted = [
        line["line"] for line in status.data["lines"] if "defineTable" in line["line"] and not line["there"]
    ]
    assert [line.split(":")[0] for line in pasted] == [*missing]
    assert (done.code, status.code) == (1, 1)
    assert all(f"(it has no table {name}):\n  {name}: defineTable(" in done.out for name in missing)
    schema.write_text(schema.read_text().replace("...authTables,", f"...authTables, {' '.join(pasted)}"))
    assert inside("functions", "add", "--write", "--yes", str(app.project)).code == 0
    assert inside("functions", "status", str(app.project)).code == 0


def test_tables_that_may_be_in_what_is_spread_are_not_asked_for(app: App) -> None:
    (app.folder / "schema.ts").write_text(f"{HEAD}export default defineSchema({{ ...others }});\n")
    assert not any("defineTable" in hand.line for _, hand in adopt.add(app, FIRST, write_lines=True).by_hand)


def test_what_uses_ours_is_named_each_time_and_fleet_ts_is_theirs_and_not_shown(
    inside: Inside, app: App
) -> None:
    inside("functions", "add", "--write", "--yes", str(app.project))
    (app.folder / "fleet.ts").write_text("// an agent is a bot\n")
    tasks = app.folder / "tasks.ts"
    imported = 'import { mirrorTask as mirror } from "./heartbeat/mirror";'
    call = "await mirror(ctx, id);"
    text = tasks.read_text().replace("    return id;", f"    {call}\n    return id;")
    tasks.write_text(f"{imported}\n{text}// mirror(ctx)\n")
    looked = inside("functions", "remove", "--dry-run", "--changed", str(app.project))
    first = inside("functions", "remove", "--yes", str(app.project))
    second = inside("functions", "remove", "--yes", str(app.project))
    for ran in (looked, first, second):
        assert re.findall(r"by hand, in tasks\.ts, line \d+ .*\n  (.*)", ran.out) == [imported, call]
        assert "an agent is a bot" not in ran.out and "you changed these" not in ran.out
    for ran in (first, second):
        assert ran.code == 1 and "kept, as you changed it: fleet.ts" in ran.out
        assert f"heartbeat functions remove --changed {app.project}" in ran.out


def test_a_checkout_with_other_line_ends_changes_nothing(app: App) -> None:
    before = snapshot(app.folder)
    adopt.add(app, ours(), write_lines=True).carry_out()
    code = [file for file in app.folder.rglob("*.ts") if "_generated" not in file.parts]
    for file in code:
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    found = adopt.look(app, ours())
    assert set(found.files.values()) == {"ours"} and all(line.there for _, line in found.lines)
    plan = adopt.remove(app, ours(), changed=False)
    assert (plan.kept, plan.by_hand) == ((), ())
    plan.carry_out()
    for file in app.folder.rglob("*.ts"):
        file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    assert snapshot(app.folder) == before


def test_an_outdated_file_with_other_line_ends_is_still_brought_up_to_date(app: App) -> None:
    adopt.add(app, FIRST, write_lines=True).carry_out()
    file = app.folder / "mutations" / "record.ts"
    file.write_bytes(b"// records\r\n")
    newer = Sources({**FIRST.files, "mutations/record.ts": b"// records more\n"}, "0.2.0", "1.31.0")
    adopt.update(app, newer).carry_out()
    assert file.read_bytes() == b"// records more\n"
