"""The lines that a team's schema.ts and crons.ts gain: where they go, where they do not, and back again."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import NODE, REPOSITORY
from heartbeat_cli.adopt_edit import NO_CRONS, edit, left, survey, take_back
from heartbeat_cli.adopt_places import PLACES, Clash, all_lines, importing

OURS = frozenset({"agentHeartbeats", "agentFlips"})
HEAD = 'import { defineSchema, defineTable } from "convex/server";\nimport { v } from "convex/values";\n'
IMPORTED = HEAD + 'import { heartbeatField, heartbeatTables } from "./heartbeat/tables";\n'

# what a team wrote below its imports; what it is to gain stands between « and »
PLACED = {
    "a line each": """
export default defineSchema({
«  ...heartbeatTables,
»  agents: defineTable({
«    heartbeat: heartbeatField,
»    handle: v.string(),
  }),
});
""",
    "the brace on a line of its own, tabs": """
export default defineSchema(
{
«\t...heartbeatTables,
»\tagents: defineTable(
\t\t{« heartbeat: heartbeatField,» handle: v.string() }
\t),
}
)
""",
    "all in one line, without blanks": (
        "export default defineSchema({«...heartbeatTables, »agents:"
        "defineTable({«heartbeat: heartbeatField, »handle:v.string()})});"
    ),
    "no fields yet": (
        "export default defineSchema({« ...heartbeatTables,» agents: "
        "defineTable({« heartbeat: heartbeatField, »}) });"
    ),
    "nothing but a closing brace below": """
export default defineSchema({
«  ...heartbeatTables,
»  agents: defineTable({
«    heartbeat: heartbeatField,
»  }),
});
""",
    "options, and indexes": """
const schema = defineSchema(
  {
«    ...heartbeatTables,
»    agents: defineTable({« heartbeat: heartbeatField,» a: v.any() })
      .index('by_a', ['a'])
  },
  { schemaValidation: true },
)
export default schema
""",
    "an object validator, a quoted name": """
export default defineSchema({
«  ...heartbeatTables,
»  'agents': defineTable(v.object({« heartbeat: heartbeatField,» a: v.any() })),
});
""",
    "the table in a constant": """
export const agents = defineTable({
«  heartbeat: heartbeatField,
»  a: v.any(),
}).index('by_a', ['a']);
export default defineSchema({« ...heartbeatTables,» agents, tasks: defineTable({}) });
""",
    "the tables, and the fields, in constants of their own": """
const fields = {« heartbeat: heartbeatField,» a: v.any() };
const tables = {
«  ...heartbeatTables,
»  agents: defineTable(fields).index('by_a', ['a']),
};
export default defineSchema(tables);
""",
    "comments and texts that look like it": r"""
// defineSchema({ agents: defineTable({
const a = `defineSchema({ ${'}'} agents: defineTable({`;
const b = /defineSchema\({"[/]/;
const c = a.length / 2 / 3;
export default defineSchema({ // { tables
«  ...heartbeatTables,
»  /* agents: defineTable({ */
  agents: defineTable({ // { fields }
«    heartbeat: heartbeatField,
»    a: v.literal('heartbeat: heartbeatField'),
  }),
});
""",
    "tables spread from a constant, validators under another name": """
const applicationTables = {
  agents: defineTable(values.object({« heartbeat: heartbeatField,» a: values.any() })),
};
export default defineSchema({
«  ...heartbeatTables,
»  ...authTables,
  ...applicationTables,
});
""",
    "tables of others beside them": """
export default defineSchema({
«  ...heartbeatTables,
»  ...authTables,
  agents: defineTable({« heartbeat: heartbeatField,» ...shared, a: v.any() }),
});
""",
}
SPREAD, FIELD = (place.line for place in PLACES["schema"])
IMPORT, IMPORT_TABLES, IMPORT_FIELD = (
    importing(names, "./heartbeat/tables").line
    for names in (("heartbeatField", "heartbeatTables"), ("heartbeatTables",), ("heartbeatField",))
)
BY_HAND = {  # what a team wrote, which lines nobody can place for it, and why
    "tables in another file": (
        "export default defineSchema(tables);",
        (IMPORT, SPREAD, FIELD),
        "not defined in this file",
    ),
    "a table in another file": (
        "export default defineSchema({ agents: agentsTable });",
        (IMPORT_FIELD, FIELD),
        "the table agents is agentsTable, which is not defined in this file",
    ),
    "tables spread from elsewhere": (
        "export default defineSchema({ ...all });",
        (IMPORT_FIELD, FIELD),
        "does not show a table agents",
    ),
    "no agents": (
        "export default defineSchema({ users: defineTable({}) });",
        (IMPORT_FIELD, FIELD),
        "has no table agents",
    ),
    "a union": (
        "export default defineSchema({ agents: defineTable(v.union(v.object({ a: v.any() }), b)) });",
        (IMPORT_FIELD, FIELD),
        "the table agents is made by v.union(…)",
    ),
    "fields that others use too": (
        "export const f = { a: v.any() };\nexport default defineSchema({ agents: defineTable(f) });",
        (IMPORT_FIELD, FIELD),
        "used elsewhere too",
    ),
    "fields used twice": (
        "const f = { a: v.any() };\n"
        "export default defineSchema({ agents: defineTable(f), x: defineTable(f) });",
        (IMPORT_FIELD, FIELD),
        "used elsewhere too",
    ),
    "Table() of convex-helpers": (
        "export const A = Table('agents', {});\nexport default defineSchema({ agents: A.table });",
        (IMPORT_FIELD, FIELD),
        "the table agents is made by Table(…)",
    ),
    "two schemas": (
        "defineSchema({});\nexport default defineSchema({});",
        (IMPORT, SPREAD, FIELD),
        "not exactly once",
    ),
    "a slash that may be two things": (
        "const a = f(1) / 2; const b = 3 / 1;\nexport default defineSchema({ agents: defineTable({}) });",
        tuple(place.line for place in all_lines("schema")),
        "a slash that may divide",
    ),
    "a string that does not end": (
        "const a = 'it;\nexport default defineSchema({});",
        tuple(place.line for place in all_lines("schema")),
        "a string that does not end",
    ),
    "brackets that do not match": (
        "export default defineSchema({ agents: defineTable({) });",
        tuple(place.line for place in all_lines("schema")),
        "brackets do not match",
    ),
    "a name of ours that is theirs": (
        "const heartbeatTables = {};\nexport default defineSchema({ agents: defineTable({}) });",
        (IMPORT,),
        "it has a heartbeatTables already",
    ),
}
PARSES = """
import ts from "typescript";
const texts = JSON.parse(await new Response(process.stdin).text());
console.log(JSON.stringify(texts.map((text) => {
  const file = ts.createSourceFile("schema.ts", text, ts.ScriptTarget.Latest, true);
  const found = [];
  const visit = (node) => {
    if (ts.isSpreadAssignment(node) && node.getText() === "...heartbeatTables") found.push("tables");
    if (ts.isPropertyAssignment(node) && node.getText() === "heartbeat: heartbeatField") found.push("field");
    if (ts.isImportDeclaration(node) && node.getText().includes("./heartbeat/tables")) found.push("import");
    ts.forEachChild(node, visit);
  };
  visit(file);
  return [file.parseDiagnostics.length, found.sort().join(" ")];
})));
"""


def stands(text: str) -> bool:
    """Whether every line is there."""
    lines = survey("schema", text, OURS)
    return [line.place.line for line in lines if line.there] == [IMPORT, SPREAD, FIELD]


def sides(marked: str) -> tuple[str, str]:
    """What stands there before, and after."""
    return re.sub("«[^»]*»", "", marked), re.sub("[«»]", "", marked)


@pytest.mark.parametrize("name", PLACED)
def test_a_schema_gains_its_lines_in_the_teams_own_style_and_gives_them_back(name: str) -> None:
    before, after = sides(PLACED[name])
    edited = edit("schema", HEAD + before, OURS)
    assert edited.by_hand == ()
    assert edited.text == IMPORTED + after
    assert stands(edited.text)
    assert edit("schema", edited.text, OURS).insertions == ()
    assert take_back(edited.text, edited.inserted) == HEAD + before
    crlf = edit("schema", (HEAD + before).replace("\n", "\r\n"), OURS)
    assert crlf.text == (IMPORTED + after).replace("\n", "\r\n")


def test_typescripts_own_parser_finds_the_lines_where_they_were_meant_to_be() -> None:
    texts = [IMPORTED + sides(marked)[1] for marked in PLACED.values()]
    script = ["--input-type=module", "--eval", PARSES]
    done = subprocess.run(
        [NODE, *script], input=json.dumps(texts), cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [[0, "field import tables"]] * len(texts)


@pytest.mark.parametrize("name", BY_HAND)
def test_what_cannot_be_placed_with_certainty_is_left_to_a_person(name: str) -> None:
    before, lines, why = BY_HAND[name]
    edited = edit("schema", HEAD + before, OURS)
    assert tuple(hand.line for hand in edited.by_hand) == lines
    assert why in edited.by_hand[-1].why
    assert take_back(edited.text, edited.inserted) == HEAD + before
    # only what was placed is imported: a compiler may refuse what is not used
    placed = {name for name in ("heartbeatField", "heartbeatTables") if f"{name}," in edited.text}
    brought = "".join(one.text for one in edited.insertions if "import" in one.text)
    assert {name for name in ("heartbeatField", "heartbeatTables") if name in brought} == (
        set() if IMPORT in lines else placed
    )


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("defineSchema({ agents: defineTable({ heartbeat: v.any() }) });", "a field heartbeat of its own"),
        ("defineSchema({ agents: defineTable({}), agentFlips: defineTable({}) });", "agentFlips"),
        ("const all = { agentFlips: defineTable({}) };\ndefineSchema({ ...all });", "agentFlips"),
    ],
)
def test_an_app_with_something_else_of_a_name_of_ours_is_refused(schema: str, why: str) -> None:
    with pytest.raises(Clash, match=why):
        edit("schema", HEAD + schema, OURS)


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("semicolon", [";", ""])
def test_an_import_has_the_quotes_and_the_end_of_those_above_it(quote: str, semicolon: str) -> None:
    head = f"import {{ defineSchema }} from {quote}convex/server{quote}{semicolon}"
    after = edit(
        "schema", f"{head} // ours\n\nexport default defineSchema({{agents: defineTable({{}})}});\n", OURS
    ).text
    module = f"from {quote}./heartbeat/tables{quote}{semicolon}"
    assert after.startswith(f"{head} // ours\nimport {{ heartbeatField, heartbeatTables }} {module}\n\n")


CRONS = {
    "plain": """\
import { cronJobs } from "convex/server";
«import { addHeartbeatCrons } from "./heartbeat/crons";
»const crons = cronJobs();
«addHeartbeatCrons(crons);
»export default crons;
""",
    "another name, no semicolons, no line end": """\
import { cronJobs } from 'convex/server'
«import { addHeartbeatCrons } from './heartbeat/crons'
»const all = cronJobs()

«addHeartbeatCrons(all)

»export default all""",
}


@pytest.mark.parametrize("name", CRONS)
def test_crons_gain_theirs_above_the_export(name: str) -> None:
    before, after = sides(CRONS[name])
    edited = edit("crons", before, OURS)
    assert (edited.text, edited.by_hand) == (after, ())
    assert take_back(after, edited.inserted) == before


@pytest.mark.parametrize(
    ("crons", "why"),
    [
        ("export default cronJobs();\n", "exactly one variable"),
        ("const a = cronJobs();\nconst b = cronJobs();\nexport default a;\n", "exactly one variable"),
        ("const crons = cronJobs();\nexport { crons as default };\n", "exports crons as its default"),
        ("const crons = cronJobs(); export default crons;\n", "exports crons as its default"),
    ],
)
def test_crons_that_are_exported_in_another_way_are_left_to_a_person(crons: str, why: str) -> None:
    edited = edit("crons", 'import { cronJobs } from "convex/server";\n' + crons, OURS)
    assert [hand.line for hand in edited.by_hand] == [
        'import { addHeartbeatCrons } from "./heartbeat/crons";',
        "addHeartbeatCrons(crons);",
    ]
    assert why in edited.by_hand[1].why


def test_lines_that_a_formatter_moved_are_found_again_and_those_that_are_text_are_not() -> None:
    before, _ = sides(PLACED["no fields yet"])
    edited = edit("schema", HEAD + before, OURS)
    moved = (
        IMPORTED + "// ...heartbeatTables,\nexport default defineSchema({\n    ...heartbeatTables,\n"
        "    agents: defineTable({\n        heartbeat: heartbeatField,\n    }),\n});\n"
    )
    assert take_back(moved, edited.inserted) == (
        HEAD
        + "// ...heartbeatTables,\nexport default defineSchema({\n    agents: defineTable({\n    }),\n});\n"
    )
    joined = IMPORTED.replace("{ heartbeatField,", "{ heartbeatField, more,")
    assert [place.line for place in left("schema", take_back(joined, edited.inserted))] == [IMPORT]


# --- for every schema


@dataclass(frozen=True)
class Piece:
    """Some of a file: whether it is code, and whether ours belongs right behind it."""

    text: str
    code: bool = True
    marked: bool = False


HIDDEN = [
    "{", "}", "})", "'", '"', "`", "${", "defineSchema({", "agents: defineTable({", "...heartbeatTables,",
    "export default crons;", "heartbeat: heartbeatField,", 'import { a } from "b";', "\\\\", "é", "/",
]  # fmt: skip
hidden = st.lists(st.sampled_from(HIDDEN), max_size=4).map(" ".join)
blank = st.sampled_from(["", " ", "\n", "\n\n  ", "\t"])
comments = st.one_of(
    hidden.map(lambda text: Piece(f"// {text}\n", code=False)),
    hidden.map(lambda text: Piece(f"/* {text.replace('*/', '')}\n {text} */", code=False)),
    hidden.map(lambda text: Piece(f"/* {text} */", code=False)),
    blank.map(Piece),
)
gaps = st.lists(comments, max_size=2)
strings = hidden.map(lambda text: json.dumps(text, ensure_ascii=False))
texts = st.one_of(
    strings,
    hidden.map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    strings.map(lambda text: "`a ${" + text + "} \\` {`"),
    hidden.map(lambda text: "/[/{]x" + "".join(f"\\{char}" for char in text if not char.isspace()) + "/g"),
)
names = st.sampled_from(["users", "notes", "'agents-of-old'", "agent", "xagents"])


@st.composite
def decoys(draw: st.DrawFn) -> list[Piece]:
    text = Piece(draw(texts), code=False)
    return [Piece("const x" + draw(st.sampled_from("abc")) + " = "), text, Piece(";\n"), *draw(gaps)]


@st.composite
def tables(draw: st.DrawFn, name: str) -> list[Piece]:
    fields: list[Piece] = []
    for number in range(draw(st.integers(0, 2))):
        value = [Piece("v.literal("), Piece(draw(texts), code=False), Piece(")")]
        fields += [*draw(gaps), Piece(f"f{number}:"), *draw(gaps), *value, Piece(",")]
    wrapped = draw(st.booleans())
    return [
        *(Piece(name), *draw(gaps), Piece(":"), *draw(gaps), Piece("defineTable("), *draw(gaps)),
        *((Piece("v.object("), *draw(gaps)) if wrapped else ()),
        *(Piece("{", marked=name == "agents"), *fields, *draw(gaps), Piece("}"), *draw(gaps)),
        Piece(")" if wrapped else ""),
        *(Piece(")"), *draw(gaps), Piece(draw(st.sampled_from(["", ".index('by_a', ['a'])"]))), Piece(",")),
    ]


@st.composite
def schemas(draw: st.DrawFn) -> list[Piece]:
    entries = [draw(tables(name)) for name in draw(st.lists(names, max_size=2, unique=True))]
    entries.insert(draw(st.integers(0, len(entries))), draw(tables("agents")))
    pieces = [
        *(Piece(draw(st.sampled_from(["", "\ufeff"]))), *draw(gaps)),
        *(Piece("import {\n  defineSchema,\n} from 'convex/server';\n"), *draw(gaps)),
        *(Piece('\nimport { v } from "convex/values";', marked=True), Piece("\n"), *draw(gaps)),
        *(piece for decoy in draw(st.lists(decoys(), max_size=2)) for piece in decoy),
        *(Piece("\nexport default defineSchema("), *draw(gaps), Piece("{", marked=True)),
        *(piece for entry in entries for piece in (*draw(gaps), *entry)),
        *(*draw(gaps), Piece("}"), *draw(gaps), Piece(")"), Piece(draw(st.sampled_from(["", ";", ";\n"])))),
        *draw(
            st.lists(decoys(), max_size=1).map(lambda some: [Piece("\n"), *(p for one in some for p in one)])
        ),
    ]
    crlf = draw(st.booleans())
    return [
        Piece(piece.text.replace("\n", "\r\n"), piece.code, piece.marked) if crlf else piece
        for piece in pieces
    ]


@given(schemas())
@settings(max_examples=600 if os.environ.get("HEARTBEAT_TEST_LONG") else 60, deadline=None)
def test_in_every_schema_the_lines_stand_in_code_where_they_belong_and_go_without_a_trace(
    pieces: list[Piece],
) -> None:
    text = "".join(piece.text for piece in pieces)
    edited = edit("schema", text, OURS)
    assert edited.by_hand == (), text
    assert take_back(edited.text, edited.inserted) == text
    assert stands(edited.text)
    marks, at = [], 0
    for number, piece in enumerate(pieces):
        at += len(piece.text)
        if piece.marked:
            marks.append((at, number))
    for (mark, number), insertion in zip(
        marks, sorted(edited.insertions, key=lambda one: one.at), strict=True
    ):
        between, place = text[mark : insertion.at], mark
        for piece in pieces[number + 1 :]:  # only blanks and whole comments
            if place >= insertion.at:
                break
            place += len(piece.text)
            assert not piece.code or not piece.text.strip(), (between, text)
            assert piece.code or place <= insertion.at, (between, text)


def test_a_file_of_crons_that_we_make_has_only_ours() -> None:
    edited = edit("crons", NO_CRONS, OURS)
    assert edited.text == (REPOSITORY / "convex" / "crons.ts").read_text()
